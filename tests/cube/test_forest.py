"""The written forest against the truth, against rasterio, and against what it promises to hold."""

import csv
import datetime
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
import shapely
import shapely.geometry
from pyproj import Transformer
from rio_cogeo.cogeo import cog_validate

from cube.bands import BANDS, REFLECTANCE_BANDS
from cube.errors import InputError
from cube.forest import (
    FOREST_CLASSES,
    Forest,
    ForestScene,
    ForestSpec,
    TrueScene,
    forest_points,
    scenes_of,
    true_scene,
    true_surface,
    write_forest,
)
from cube.forest.raster import write_cog
from cube.forest.sky import sky_of
from cube.forest.stands import ground
from cube.forest.sun import sun_position

SMALL = ForestSpec(seed=7, scale=0.25)


@pytest.fixture(scope="module")
def forest(written: Callable[[ForestSpec], Forest]) -> Forest:
    return written(SMALL)


@pytest.fixture(scope="module")
def truths() -> dict[str, TrueScene]:
    return {scene.id: true_scene(SMALL, scene.id) for scene in scenes_of(SMALL)}


def read(forest: Forest, scene: ForestScene, name: str) -> np.ndarray:
    with rasterio.open(scene_folder(forest, scene) / f"{name}.tif") as raster:
        return raster.read(1)


def scene_folder(forest: Forest, scene: ForestScene) -> Path:
    return forest.folder / "sentinel-2-l2a" / scene.id


def item(forest: Forest, scene: ForestScene) -> dict:
    return json.loads((scene_folder(forest, scene) / f"{scene.id}.json").read_text())


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_one_seed_gives_the_same_bytes_and_reports_each_scene(
    forest: Forest, tmp_path: Path
) -> None:
    ground.cache_clear()
    calls: list[tuple[int, int]] = []
    again = write_forest(tmp_path / "again", SMALL, on_scene=lambda *call: calls.append(call))
    assert digests(again.folder) == digests(forest.folder)
    total = len(forest.scenes)
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert len(digests(forest.folder)) == 2 + total * 16 + 6


def test_another_seed_gives_another_forest() -> None:
    scene_id = scenes_of(SMALL)[0].id
    other = true_scene(ForestSpec(seed=8, scale=0.25), scene_id)
    here = true_scene(SMALL, scene_id)
    assert np.nanmean(np.abs(other.reflectance - here.reflectance)) > 0.01


def test_every_count_is_the_measured_value_under_the_rule_of_the_offset(
    forest: Forest, truths: dict[str, TrueScene]
) -> None:
    for scene in forest.scenes:
        truth = truths[scene.id]
        for name in BANDS:
            is_reflectance = name in REFLECTANCE_BANDS
            expected = truth.measured[name].astype(float) * (10_000 if is_reflectance else 1000)
            # The item's word counts, but for the scenes that are known to lie.
            has_offset = not scene.boa_offset_applied and not scene.is_lying
            if is_reflectance and float(scene.baseline) >= 4 and has_offset:
                expected += 1000
            counts = read(forest, scene, name)
            nodata = np.isnan(expected)
            assert np.array_equal(counts == 0, nodata), (scene.id, name)
            expected[~nodata] = np.clip(np.round(expected[~nodata]), 1, 32767)
            assert np.array_equal(counts[~nodata], expected[~nodata]), (scene.id, name)
        assert np.array_equal(read(forest, scene, "SCL"), truth.scl)


def test_nodata_is_the_same_ground_in_every_layer(forest: Forest) -> None:
    shares = {}
    for scene in forest.scenes:
        scl = read(forest, scene, "SCL")
        assert scl.max() <= 11
        for name, band in BANDS.items():
            empty = read(forest, scene, name) == 0
            step = band.resolution // 10
            at_10 = empty.repeat(step, axis=0).repeat(step, axis=1)
            assert np.array_equal(at_10, (scl == 0).repeat(2, axis=0).repeat(2, axis=1))
        shares[scene.id] = np.mean(scl == 0)
        claimed = item(forest, scene)["properties"]["s2:nodata_pixel_percentage"]
        assert claimed == pytest.approx(100 * shares[scene.id], abs=1e-4)
    wedges = [s for s in forest.scenes if s.has_swath_edge]
    assert len(wedges) == 8
    assert all(0.05 < shares[s.id] < 0.45 for s in wedges)
    whole = [s for s in forest.scenes if not s.has_swath_edge and s.part == "whole"]
    assert all(shares[s.id] == 0 for s in whole if s.epsg == 32648)


def test_clear_ground_is_measured_as_it_is_and_cloud_and_shadow_are_not(
    forest: Forest, truths: dict[str, TrueScene]
) -> None:
    worst, bright, dark = [], [], []
    for scene in forest.scenes:
        truth = truths[scene.id]
        clear = truth.is_seen & (truth.cloud < 0.01) & (truth.shadow < 0.01)
        for band, name in [(1, "B02"), (3, "B04"), (7, "B08")]:
            error = truth.measured[name] - truth.reflectance[band]
            if clear.any():
                worst.append(np.quantile(np.abs(error[clear]), 0.99))
            thick = truth.is_seen & (truth.cloud > 0.95)
            bright += truth.measured[name][thick].tolist()
            shaded = truth.is_seen & (truth.shadow > 0.95) & (truth.cloud < 0.01)
            dark += (truth.measured[name] / truth.reflectance[band])[shaded].tolist()
    assert max(worst) < 0.04
    assert np.quantile(bright, 0.01) > 0.45
    assert len(dark) > 1000
    assert np.median(dark) < 0.75


def test_shadow_lies_on_the_side_away_from_the_sun() -> None:
    spec = ForestSpec(scale=0.5)
    found = 0
    for scene in scenes_of(spec):
        if not 0.1 < scene.cloud_cover < 0.4 or scene.epsg != 32648 or scene.part != "whole":
            continue
        sky = sky_of(spec, scene)
        cloud, shadow = sky.cloud[::4, ::4] > 0.5, sky.shadow[::4, ::4] > 0.5
        size, best, north, west = cloud.shape[0], 0.0, 0, 0
        for up in range(1, size // 2):  # the sun stands in the south: shadows fall to the north
            for left in range(-size // 4, size // 2):
                rows = cloud[up:, max(0, left) : size + min(0, left)]
                moved = shadow[: size - up, max(0, -left) : size - max(0, left)]
                score = np.sum(rows & moved) / max(np.sum(rows | moved), 100)
                if score > best:
                    best, north, west = score, up, left
        if best > 0.85:
            found += 1
            # Shadows fall to the north-west by (north, west): the sun is opposite.
            azimuth = np.degrees(np.arctan2(west, -north)) % 360
            assert azimuth == pytest.approx(sun_position(scene.time)[1], abs=8)
    assert found >= 3


def test_the_classification_makes_mistakes_but_not_many(
    forest: Forest, truths: dict[str, TrueScene]
) -> None:
    missed = caught = alarms = clear_pixels = missed_shadow = caught_shadow = 0
    for scene in forest.scenes:
        truth = truths[scene.id]
        rows, columns = truth.scl.shape

        def at_20(layer: np.ndarray, rows: int = rows, columns: int = columns) -> np.ndarray:
            return layer.reshape(rows, 2, columns, 2).mean(axis=(1, 3))

        cloud, shadow, seen = at_20(truth.cloud), at_20(truth.shadow), truth.scl > 0
        is_flagged = np.isin(truth.scl, (8, 9, 10))
        missed += np.sum(seen & (cloud > 0.2) & ~is_flagged)
        caught += np.sum(seen & (cloud > 0.2) & is_flagged)
        alarms += np.sum(seen & (cloud < 0.02) & is_flagged)
        clear_pixels += np.sum(seen & (cloud < 0.02))
        shaded = seen & (shadow > 0.5) & (cloud < 0.05)
        missed_shadow += np.sum(shaded & (truth.scl != 3))
        caught_shadow += np.sum(shaded & (truth.scl == 3))
    assert 0.002 < missed / (missed + caught) < 0.15
    assert 0.0005 < alarms / clear_pixels < 0.02
    assert 0.05 < missed_shadow / (missed_shadow + caught_shadow) < 0.5


def test_winter_brings_snow_to_the_heights_and_summer_none(truths: dict[str, TrueScene]) -> None:
    elevation = ground(SMALL).elevation
    by_month: dict[int, list[np.ndarray]] = {}
    for scene in scenes_of(SMALL):
        if scene.epsg == 32648 and scene.time.month in (2, 6, 12):
            by_month.setdefault(scene.time.month, []).append(truths[scene.id].snow)
    assert all(not snow.any() for snow in by_month[6])
    high, low = elevation > np.quantile(elevation, 0.9), elevation < np.quantile(elevation, 0.1)
    for month in (2, 12):
        assert max(snow[high].mean() for snow in by_month[month]) > 0.2
        assert max(snow[low].mean() for snow in by_month[month]) < 0.05


def test_january_has_no_scene_and_july_no_clear_ground(forest: Forest) -> None:
    months = {scene.time.month for scene in forest.scenes}
    assert months == set(range(2, 13))
    july = [scene for scene in forest.scenes if scene.time.month == 7]
    assert len(july) == 2
    clear = np.zeros((60, 60), bool)
    for scene in july:
        clear |= np.isin(read(forest, scene, "SCL"), (4, 5, 6, 7))
    assert clear.mean() < 0.25
    may = np.zeros((60, 60), bool)
    for scene in forest.scenes:
        if scene.time.month == 5 and scene.epsg == 32648:
            may |= np.isin(read(forest, scene, "SCL"), (4, 5, 6, 7))
    assert may.mean() > 0.9


def test_dark_pixels_tell_the_offset_whatever_the_item_says(forest: Forest) -> None:
    for scene in forest.scenes:
        if scene.cloud_cover > 0.6:
            continue
        blue = read(forest, scene, "B02")
        darkest = np.percentile(blue[blue > 0], 1)
        assert (darkest > 900) == scene.offset_in_pixels, scene.id
        assert darkest < 800 or darkest > 1000, scene.id


def test_every_kind_of_offset_flag_is_there(forest: Forest) -> None:
    kinds = {"old": 0, "in": 0, "out": 0, "lie": 0}
    for scene in forest.scenes:
        document = item(forest, scene)
        properties = document["properties"]
        says_applied = properties["earthsearch:boa_offset_applied"]
        offset = document["assets"]["red"]["raster:bands"][0]["offset"]
        assert document["assets"]["aot"]["raster:bands"][0]["offset"] == 0
        if properties["s2:processing_baseline"] < "04.00":
            assert (offset, says_applied, scene.offset_in_pixels) == (0, False, False)
            kinds["old"] += 1
            continue
        assert offset == -0.1
        if says_applied:
            assert not scene.offset_in_pixels
            kinds["out"] += 1
        else:
            kinds["in" if scene.offset_in_pixels else "lie"] += 1
    modern = len(forest.scenes) - kinds["old"]
    assert kinds["lie"] == round(0.1 * modern) == sum(s.is_lying for s in forest.scenes)
    assert min(kinds.values()) >= 3
    old, new = (
        [s.time for s in forest.scenes if (s.baseline >= "04.00") == is_new] for is_new in (0, 1)
    )
    assert max(old) > min(new), "the date must not tell the baseline"


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_share_of_liars_is_obeyed(share: float, expected: float) -> None:
    modern = [s for s in scenes_of(ForestSpec(lying_share=share)) if s.baseline >= "04.00"]
    assert sum(s.is_lying for s in modern) == round(expected * len(modern))


def test_one_granule_is_doubled_and_one_is_split(forest: Forest) -> None:
    seconds = [s for s in forest.scenes if s.sequence == 1]
    assert {s.part for s in seconds} == {"whole", "south"}
    for second in seconds:
        (first,) = [s for s in forest.scenes if s.id == second.id.replace("_1_L2A", "_0_L2A")]
        one, two = item(forest, first)["properties"], item(forest, second)["properties"]
        # A reprocessed datatake keeps its start and orbit; its id ends in the new baseline.
        assert one["s2:datatake_id"][:-6] == two["s2:datatake_id"][:-6]
        assert one["grid:code"] == two["grid:code"] == "MGRS-48SYC"
        a, b = read(forest, first, "SCL") > 0, read(forest, second, "SCL") > 0
        if second.part == "whole":
            assert two["created"] > one["created"]
            assert two["s2:processing_baseline"] > one["s2:processing_baseline"]
            assert one["datetime"] == two["datetime"]
            assert a.all()
            assert b.all()
        else:
            assert one["s2:datatake_id"] == two["s2:datatake_id"]
            assert (a | b).all()
            assert 0 < (a & b).mean() < 0.1
            assert 0.3 < a.mean() < 0.7


def test_the_neighbouring_zone_shows_the_same_ground(truths: dict[str, TrueScene]) -> None:
    for scene in scenes_of(SMALL):
        if scene.epsg == 32648:
            continue
        assert scene.tile == "49SAT"
        there = truths[scene.id]
        here = truths[scene.id.replace("49SAT", "48SYC")]
        assert here.scene.overpass_time == scene.overpass_time
        for band in (1, 7, 11):
            warped = np.full(there.geobox.shape, np.nan, np.float32)
            rasterio.warp.reproject(
                here.reflectance[band],
                warped,
                src_transform=here.geobox.affine,
                src_crs="EPSG:32648",
                dst_transform=there.geobox.affine,
                dst_crs="EPSG:32649",
                src_nodata=np.nan,
                dst_nodata=np.nan,
                resampling=rasterio.warp.Resampling.bilinear,
                tolerance=0,
            )
            both = there.is_seen & np.isfinite(warped)
            assert both.sum() > 0.5 * 120 * 120 * 0.6 * 0.9
            assert np.max(np.abs(warped - there.reflectance[band])[both]) < 2e-4
        assert there.is_seen.mean() < 1, "what lies beyond the forest is nodata"


def test_two_sensors_see_the_same_ground_a_little_differently() -> None:
    time = datetime.datetime(2022, 6, 15, 3, 48)
    a = true_surface(SMALL, time=time, platform="S2A")
    b = true_surface(SMALL, time=time, platform="S2B")
    difference = np.abs(a - b).mean(axis=(1, 2)) / a.mean(axis=(1, 2))
    assert difference.max() < 0.12
    assert difference[REFLECTANCE_BANDS.index("B12")] > 0.005
    assert difference[REFLECTANCE_BANDS.index("B07")] > 0.002


def test_the_footprint_holds_what_was_seen_and_little_more(forest: Forest) -> None:
    for scene in forest.scenes:
        scl = read(forest, scene, "SCL")
        with rasterio.open(scene_folder(forest, scene) / "SCL.tif") as raster:
            row, column = np.nonzero(scl)
            x, y = raster.xy(row, column)
        to_degrees = Transformer.from_crs(scene.epsg, 4326, always_xy=True)
        outline = shapely.geometry.shape(item(forest, scene)["geometry"])
        assert shapely.contains_xy(outline, *to_degrees.transform(x, y)).all(), scene.id
        to_grid = Transformer.from_crs(4326, scene.epsg, always_xy=True)
        corners = np.column_stack(to_grid.transform(*shapely.get_coordinates(outline).T))
        assert shapely.Polygon(corners).area < 1.06 * row.size * 400


def test_pystac_opens_the_catalogue_without_a_network(forest: Forest) -> None:
    catalogue = pystac.Catalog.from_file(str(forest.catalogue))
    items = list(catalogue.get_items(recursive=True))
    assert [found.id for found in items] == [scene.id for scene in forest.scenes]
    for found, scene in zip(items, forest.scenes, strict=True):
        assert set(found.assets) == {"scl", *(band.earth_search for band in BANDS.values())}
        assert found.datetime is not None
        assert found.datetime.replace(tzinfo=None) == scene.time
        for key, asset in found.assets.items():
            href = asset.get_absolute_href()
            assert href is not None
            with rasterio.open(href) as raster:
                assert list(raster.shape) == asset.extra_fields["proj:shape"], key
                assert list(raster.transform)[:6] == asset.extra_fields["proj:transform"]
                assert raster.crs.to_epsg() == scene.epsg
                assert raster.nodata == 0
        assert found.bbox is not None
        west, south, east, north = found.bbox
        assert 107.5 < west < east < 107.7
        assert 33.6 < south < north < 33.8


def test_hrefs_are_relative_and_no_path_of_this_machine_is_stored(forest: Forest) -> None:
    for path in forest.folder.rglob("*.json"):
        document = json.loads(path.read_text())
        links = [link["href"] for link in document.get("links", [])]
        links += [asset["href"] for asset in document.get("assets", {}).values()]
        assert all(href.startswith(("./", "../")) for href in links)
        assert str(forest.folder) not in path.read_text()


def test_rasters_are_valid_cogs(forest: Forest) -> None:
    paths = [forest.classes, forest.stands]
    paths += sorted(scene_folder(forest, forest.scenes[0]).glob("*.tif"))
    assert len(paths) == 17
    for path in paths:
        is_valid, errors, _ = cog_validate(str(path), strict=True)
        assert is_valid, (path.name, errors)


def test_overviews_are_there_where_a_raster_is_larger_than_a_tile(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(1, 9, (480, 480)).astype(np.uint16)
    grid = ForestSpec().geobox.affine
    write_cog(tmp_path / "x.tif", array, epsg=32648, transform=grid, is_categorical=False)
    with rasterio.open(tmp_path / "x.tif") as raster:
        assert raster.overviews(1) == [2]
        assert np.array_equal(raster.read(1), array)
    assert cog_validate(str(tmp_path / "x.tif"), strict=True)[0]


def test_labels_lie_in_their_class_and_stand(forest: Forest) -> None:
    frame = geopandas.read_file(forest.labels)
    assert frame.crs.to_epsg() == 4326
    assert list(frame.columns) == ["class", "stand", "point", "geometry"]
    with forest.labels_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["lon", "lat", "class", "stand", "point"]
    names = json.loads((forest.classes.parent / "classes.json").read_text())
    with rasterio.open(forest.classes) as classes, rasterio.open(forest.stands) as stands:
        to_grid = Transformer.from_crs(4326, classes.crs, always_xy=True)
        taken = set()
        for row, (_, point) in zip(rows, frame.iterrows(), strict=True):
            assert (float(row["lon"]), float(row["lat"])) == (point.geometry.x, point.geometry.y)
            assert (row["class"], int(row["stand"])) == (point["class"], point["stand"])
            x, y = to_grid.transform(point.geometry.x, point.geometry.y)
            # The 2 x 2 patch: the pixels whose centres are nearest along both axes.
            patch = [(x + dx, y + dy) for dx in (-5, 5) for dy in (-5, 5)]
            assert {names[str(v[0])] for v in classes.sample(patch)} == {row["class"]}
            assert {v[0] for v in stands.sample(patch)} == {int(row["stand"])}
            assert classes.index(x, y) in {classes.index(*place) for place in patch}
            pixels = {classes.index(*place) for place in patch}
            assert len(pixels) == 4
            assert not pixels & taken, "patches of two points overlap"
            taken |= pixels
    counts = frame["class"].value_counts()
    assert {name: counts[name] for name in counts.index} == {
        c.name: SMALL.points_of(c) for c in FOREST_CLASSES
    }


def test_the_demo_has_the_points_of_the_reference_workflow() -> None:
    points = forest_points(ForestSpec())
    counts = np.bincount(points.class_number)[1:].tolist()
    assert counts == [1340, 1212, 819, 789, 229, 199, 39]
    for number in range(1, 8):
        stands = np.unique(points.stand[points.class_number == number])
        assert stands.size >= 5, "five folds by stand need five stands of every class"
    assert ForestSpec(scale=2).points_of(FOREST_CLASSES[0]) == 1340


def test_stands_are_stands_not_salt_and_pepper() -> None:
    stand = ground(ForestSpec()).stand
    same = (stand[:, 1:] == stand[:, :-1]).mean()
    assert same > 0.9
    sizes = np.bincount(stand.ravel())
    assert np.quantile(sizes, 0.9) > 4 * np.quantile(sizes, 0.25), "stands of many sizes"


def test_the_area_snaps_to_the_native_grid(forest: Forest) -> None:
    frame = geopandas.read_file(forest.area).to_crs(32648)
    left, bottom, right, top = frame.total_bounds
    with rasterio.open(forest.classes) as raster:
        snapped = (np.floor(left / 10) * 10, np.floor(bottom / 10) * 10)
        assert snapped == (raster.bounds.left, raster.bounds.bottom)
        snapped = (np.ceil(right / 10) * 10, np.ceil(top / 10) * 10)
        assert snapped == (raster.bounds.right, raster.bounds.top)


def test_the_true_map_carries_names_and_colours(forest: Forest) -> None:
    with rasterio.open(forest.classes) as raster:
        assert raster.dtypes == ("uint8",)
        colours = raster.colormap(1)
        for forest_class in FOREST_CLASSES:
            assert raster.tags()[f"CLASS_{forest_class.number}"] == forest_class.name
            red, green, blue, _ = colours[forest_class.number]
            assert f"#{red:02x}{green:02x}{blue:02x}" == forest_class.colour
        assert set(np.unique(raster.read(1))) == set(range(1, 8))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": -1}, "forest seed -1 is negative"),
        ({"scale": 0.1}, r"forest scale 0.1 is outside 0.25\.\.40"),
        ({"year": 1999}, "forest year 1999 has no Sentinel-2"),
        ({"lying_share": 1.5}, "forest lying_share 1.5 is no share"),
    ],
)
def test_a_bad_spec_is_refused(change: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        ForestSpec(**change)


def test_an_unknown_scene_is_refused() -> None:
    with pytest.raises(InputError, match="the forest has no scene 'S2C_nowhere'; it has 38"):
        true_scene(SMALL, "S2C_nowhere")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="it exists and is not an empty folder"):
        write_forest(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_forest(tmp_path / "forest", SMALL, on_scene=stop)
    assert list(tmp_path.iterdir()) == []


def test_other_years_keep_the_months(tmp_path: Path) -> None:
    for year in (2020, 2023):
        months = {scene.time.month for scene in scenes_of(ForestSpec(year=year))}
        assert months == set(range(2, 13))
        assert len({scene.id for scene in scenes_of(ForestSpec(year=year))}) == 38


def _patches(spec: ForestSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column, class and stand of the four pixels nearest to every point."""
    points = forest_points(spec)
    to_grid = Transformer.from_crs(4326, 32648, always_xy=True)
    x, y = to_grid.transform(points.longitude, points.latitude)
    left, top = spec.corner
    row, column = np.rint((top - y) / 10).astype(int), np.rint((x - left) / 10).astype(int)
    rows = np.concatenate([row - 1, row - 1, row, row])
    columns = np.concatenate([column - 1, column, column - 1, column])
    return rows, columns, np.tile(points.class_number, 4), np.tile(points.stand, 4)


def _random_and_grouped(features: np.ndarray, label: np.ndarray, stand: np.ndarray) -> tuple:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import confusion_matrix
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict, train_test_split

    learner = RandomForestClassifier(200, n_jobs=2, random_state=0)
    train, test = train_test_split(
        np.arange(label.size), test_size=0.2, random_state=0, stratify=label
    )
    random = learner.fit(features[train], label[train]).score(features[test], label[test])
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    found = cross_val_predict(learner, features, label, groups=stand, cv=folds)
    return random, np.mean(found == label), confusion_matrix(label, found, normalize="true")


@pytest.mark.slow
def test_a_random_forest_is_flattered_by_a_random_split_and_not_by_a_grouped_one() -> None:
    spec = ForestSpec()
    rows, columns, label, stand = _patches(spec)
    series = [
        true_surface(spec, time=datetime.datetime(spec.year, month, 15, 3, 48))[:, rows, columns].T
        for month in range(1, 13)
    ]
    random, grouped, confusion = _random_and_grouped(np.concatenate(series, axis=1), label, stand)
    assert 0.92 < random < 0.975
    assert 0.76 < grouped < 0.88
    names = [c.name for c in FOREST_CLASSES]
    larch = confusion[names.index("larch_CN")]
    assert larch[names.index("larch_JP")] > 0.15, "the two larches look alike"
    mixed = confusion[names.index("mix_coni_broad")]
    parts = mixed[names.index("deci_broad")] + mixed[names.index("ever_coni")]
    assert parts > 0.6 * (1 - mixed[names.index("mix_coni_broad")])


@pytest.mark.slow
def test_clear_medians_of_the_scenes_score_like_the_truth(tmp_path: Path) -> None:
    spec = ForestSpec()
    forest = write_forest(tmp_path / "forest", spec)
    size = sum(path.stat().st_size for path in forest.folder.rglob("*") if path.is_file())
    assert size < 100e6
    rows, columns, label, stand = _patches(spec)
    series = []
    for month in range(2, 13):
        looks = []
        for scene in forest.scenes:
            if scene.time.month != month or scene.epsg != 32648:
                continue
            is_clear = np.isin(read(forest, scene, "SCL")[rows // 2, columns // 2], (2, 4, 5, 7))
            look = np.stack(
                [
                    read(forest, scene, name)[rows // (step // 10), columns // (step // 10)]
                    for name, step in ((n, BANDS[n].resolution) for n in REFLECTANCE_BANDS)
                ],
                axis=1,
            ).astype(float)
            looks.append(np.where(is_clear[:, None], look - 1000 * scene.offset_in_pixels, np.nan))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            series.append(np.nanmedian(looks, axis=0))
    features = np.nan_to_num(np.concatenate(series, axis=1), nan=-1000)
    random, grouped, _ = _random_and_grouped(features, label, stand)
    assert 0.92 < random < 0.98
    assert 0.72 < grouped < 0.88
