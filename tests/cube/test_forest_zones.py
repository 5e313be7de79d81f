"""Scenes of the neighbouring UTM zone on the native grid, against what both zones truly hold.

The oracle takes the centres of the cube's pixels to the other zone with pyproj and interpolates
what the sensor measured there, in float64 and by hand.
"""

import json
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.bands import BANDS, NODATA, REFLECTANCE_BANDS
from cube.composite import SceneComposites
from cube.forest import Forest, ForestSpec, TrueScene, true_scene
from cube.forest.raster import write_cog
from cube.periods import Period
from cube.source import Composite
from cube.stac import (
    SceneList,
    SceneQuery,
    StacSource,
    find_scenes,
    lock_scenes,
    search_area,
    write_scenes,
)

SPEC = ForestSpec(seed=7, scale=0.5, lying_share=0.3)
GRID = SPEC.geobox
MONTHS = tuple(Period.of_month(2022, number) for number in range(1, 13))
COLLECTION = "sentinel-2-l2a"
TEN = ("B02", "B03", "B04", "B08")

PAIRS = {
    "April": ("S2B_48SYC_20220413_0_L2A", "S2B_49SAT_20220413_0_L2A"),
    "June": ("S2B_48SYC_20220622_0_L2A", "S2B_49SAT_20220622_0_L2A"),
    "October": ("S2B_48SYC_20221020_0_L2A", "S2B_49SAT_20221020_0_L2A"),
}
"""(native, neighbouring) granule of each pass that has both."""

NATIVE, NEIGHBOUR = PAIRS["June"]


@pytest.fixture(scope="module")
def forest(written: Callable[[ForestSpec], Forest]) -> Forest:
    return written(SPEC)


@pytest.fixture(scope="module")
def truths() -> dict[str, TrueScene]:
    return {name: true_scene(SPEC, name) for pair in PAIRS.values() for name in pair}


@pytest.fixture(scope="module")
def scenes(forest: Forest) -> SceneList:
    """Scenes of both zones, checked against their files."""
    return lock_scenes(find(forest.catalogue), bands=REFLECTANCE_BANDS, offset="verify")


def find(catalogue: Path) -> SceneList:
    return find_scenes(
        SceneQuery(
            catalogue=str(catalogue),
            collection=COLLECTION,
            periods=MONTHS,
            geometry=search_area(GRID),
        )
    )


def kept(scenes: SceneList, path: Path, *ids: str) -> Path:
    """Write a lock file of some scenes only."""
    write_scenes(path, SceneList(scenes=tuple(one for one in scenes.scenes if one.id in ids)))
    return path


def composite(
    scenes: Path,
    truth: TrueScene,
    bands: tuple[str, ...] = TEN,
    grid: GeoBox = GRID,
    **settings: Any,
) -> Composite:
    """Return the composite of one pass alone."""
    period = Period.of_acquisition(truth.scene.overpass_time.replace(tzinfo=UTC))
    source = SceneComposites(catalogue=StacSource(scenes=scenes, **settings))
    return source.composite(period, grid, bands)


# --- the oracle -----------------------------------------------------------------------------------


def places(truth: TrueScene, metres: int, grid: GeoBox = GRID) -> np.ndarray:
    """Return the (row, column) of each pixel centre of `grid`, in pixels of the scene's layer."""
    height, width = grid.shape
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    there = Transformer.from_crs(grid.crs.to_epsg(), truth.scene.epsg, always_xy=True)
    east, north = there.transform(
        grid.affine.c + column * grid.affine.a, grid.affine.f + row * grid.affine.e
    )
    left, top = truth.geobox.affine.c, truth.geobox.affine.f
    return np.stack([(top - north) / metres, (east - left) / metres])  # (row|column, y, x)


def at_own_pixel(layer: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the pixel that holds each place, NaN outside."""
    row, column = np.floor(place).astype(int)
    is_inside = (row >= 0) & (row < layer.shape[0]) & (column >= 0) & (column < layer.shape[1])
    out = np.full(row.shape, np.nan)
    out[is_inside] = layer[row[is_inside], column[is_inside]]
    return out


def between_four(layer: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the bilinear mean of the pixels with data round each place; NaN where its own has none."""
    top, left = np.floor(place - 0.5).astype(int)
    down, right = place[0] - 0.5 - top, place[1] - 0.5 - left
    total, weights = np.zeros((2, *top.shape))
    for row, along in ((top, 1 - down), (top + 1, down)):
        for column, across in ((left, 1 - right), (left + 1, right)):
            value = at_own_pixel(layer, np.stack([row, column]) + 0.5)
            weight = np.where(np.isnan(value), 0, along * across)
            total += weight * np.nan_to_num(value)
            weights += weight
    has_own = np.isfinite(at_own_pixel(layer, place))
    return np.where(has_own, total / np.where(has_own, weights, 1), np.nan)


def units(truth: TrueScene, band: str) -> np.ndarray:
    """Return what the sensor measured in stored units; without offset nothing is below one count."""
    least = -np.inf if truth.scene.offset_in_pixels else 1.0
    return np.maximum(truth.measured[band].astype(float) * 1e4, least)


def is_clear_at(truth: TrueScene, place: np.ndarray) -> np.ndarray:
    return np.isin(at_own_pixel(truth.scl.astype(float), place), (4, 5, 6, 7))


def near_an_edge(place: np.ndarray) -> np.ndarray:
    """Where the nearest pixel is a matter of rounding: places are kept to 1/1024 pixel."""
    return (np.abs(place - np.rint(place)) < 2 / 1024).any(axis=0)


# --- a cube of the neighbouring zone's granule alone ----------------------------------------------


def errors(found: np.ndarray, truth: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(found - truth)[where & (found != NODATA)])


@pytest.mark.parametrize("month", PAIRS)
def test_bilinear_is_the_exact_interpolation_of_what_the_other_zone_holds(
    scenes: SceneList, truths: dict[str, TrueScene], tmp_path: Path, month: str
) -> None:
    """Every clear pixel of every band is within 2 units of it.

    Measured, nearly the same for every pass and band: mean 0.29, RMS 0.35, 95 % below 0.68 units;
    at most 1.89 (B01), 1.22 in the other coarse bands and 0.99 in those of 10 m: two roundings, and
    positions kept to 1/1024 pixel.

    Against what the native granule measured (interpolated to 10 m where it is coarser) the warp
    costs more, for two bilinear steps smooth detail and noise away. In units, over the passes:

    =====  =========  =========  ==========
    band   mean       RMS        95 %
    =====  =========  =========  ==========
    B01    11 .. 18   25 .. 45   25 .. 46
    B02    12 .. 14   16 .. 20   31 .. 38
    B03    16 .. 18   21 .. 24   41 .. 48
    B04    12 .. 18   16 .. 25   31 .. 50
    B05    12 .. 16   17 .. 21   32 .. 44
    B06    19 .. 23   25 .. 30   51 .. 61
    B07    22 .. 30   30 .. 40   62 .. 80
    B08    37 .. 48   49 .. 64   100 .. 130
    B8A    25 .. 31   34 .. 42   69 .. 86
    B09    41 .. 50   60 .. 68   122 .. 140
    B11    17         23 .. 24   46 .. 48
    B12    11 .. 15   15 .. 21   29 .. 42
    =====  =========  =========  ==========

    The nearest pixel would be off by 45, 56 and 44 in B08, where bilinear is by 37, 48 and 37.
    """
    native, other = (truths[name] for name in PAIRS[month])
    lock = kept(scenes, tmp_path / "scenes.json", other.scene.id)
    found = composite(lock, other, REFLECTANCE_BANDS)
    at = {metres: places(other, metres) for metres in (10, 20, 60)}
    is_seen = np.isfinite(at_own_pixel(units(other, "B02"), at[10]))
    is_doubtful = near_an_edge(at[10]) | near_an_edge(at[20])
    assert is_doubtful.mean() < 0.02
    assert (((found.seen_count > 0) == is_seen) | is_doubtful).all()
    assert is_seen.mean() > 0.55
    is_clear = is_seen & is_clear_at(other, at[20])
    assert (((found.clear_count > 0) == is_clear) | is_doubtful).all()
    assert is_clear.mean() > 0.4
    for index, band in enumerate(REFLECTANCE_BANDS):
        metres = BANDS[band].resolution
        exact = between_four(units(other, band), at[metres])
        error = errors(found.reflectance[index], exact, is_clear)
        assert error.max() <= 2
        assert np.sqrt((error**2).mean()) < 0.5
        shifted = between_four(units(other, band), at[metres] + 0.5)
        assert np.nanmean(errors(found.reflectance[index], shifted, is_clear)) > 2  # it would show
        sharp = between_four(units(native, band), places(native, metres))
        assert np.nanmean(errors(found.reflectance[index], sharp, is_clear)) < 55


def test_nearest_takes_the_pixel_that_holds_the_centre(
    scenes: SceneList, truths: dict[str, TrueScene], tmp_path: Path
) -> None:
    other = truths[NEIGHBOUR]
    lock = kept(scenes, tmp_path / "scenes.json", NEIGHBOUR)
    found = composite(lock, other, ("B04", "B11", "B01"), resampling="nearest")
    is_clear = (found.clear_count > 0) & is_clear_at(other, places(other, 20))
    for index, band in enumerate(("B04", "B11", "B01")):
        place = places(other, BANDS[band].resolution)
        is_sure = is_clear & ~near_an_edge(place)
        own = at_own_pixel(units(other, band), place)
        assert errors(found.reflectance[index], own, is_sure).max() <= 0.51
        smooth = between_four(units(other, band), place)
        assert errors(found.reflectance[index], smooth, is_sure).max() > 2


def test_masks_are_nearest_whatever_the_reflectance_is(
    scenes: SceneList, truths: dict[str, TrueScene], tmp_path: Path
) -> None:
    """No class is a mean of two: cloud (9) beside ground (4) makes no snow or water between them."""
    lock = kept(scenes, tmp_path / "scenes.json", NEIGHBOUR)
    smooth, nearest = (
        composite(lock, truths[NEIGHBOUR], resampling=how) for how in ("bilinear", "nearest")
    )
    np.testing.assert_array_equal(smooth.clear_count, nearest.clear_count)
    np.testing.assert_array_equal(smooth.seen_count, nearest.seen_count)
    assert (smooth.reflectance != nearest.reflectance).mean() > 0.2


@pytest.mark.parametrize("step", [3, 4])
def test_coarser_pixels_are_means_of_what_they_cover(
    scenes: SceneList, truths: dict[str, TrueScene], tmp_path: Path, step: int
) -> None:
    """Exactly so in one zone; between two, by as many places in a pixel as it has source pixels.

    Measured against the mean over the whole area, in B08, where the ground is roughest: mean 25 and
    RMS 35 units at 30 m (20 and 28 at 40 m), where the pixel at the centre is off by 73 and 95.
    """
    native, other = truths[NATIVE], truths[NEIGHBOUR]
    grid = GRID.zoom_out(step)
    size = grid.shape[0]
    own = composite(kept(scenes, tmp_path / "native.json", NATIVE), native, grid=grid)
    assert (own.clear_count > 0).mean() > 0.5
    for index, band in enumerate(TEN):
        blocks = units(native, band).reshape(size, step, size, step).mean(axis=(1, 3))
        assert errors(own.reflectance[index], blocks, own.clear_count > 0).max() <= 1
    found = composite(kept(scenes, tmp_path / "other.json", NEIGHBOUR), other, grid=grid)
    dense = places(other, 10, grid.zoom_to((size * 12, size * 12)))
    for index, band in enumerate(TEN):
        layer = units(other, band)
        area = at_own_pixel(layer, dense).reshape(size, 12, size, 12).mean(axis=(1, 3))
        is_whole = np.isfinite(area) & (found.clear_count > 0)
        assert is_whole.mean() > 0.4
        centre = at_own_pixel(layer, places(other, 10, grid))
        error = errors(found.reflectance[index], area, is_whole)
        of_centre = np.abs(centre - area)[is_whole]
        assert np.sqrt((error**2).mean()) < 0.5 * np.sqrt((of_centre**2).mean())


# --- both zones together --------------------------------------------------------------------------


def test_months_with_both_zones_are_those_of_the_native_scenes(
    scenes: SceneList, tmp_path: Path
) -> None:
    every = kept(scenes, tmp_path / "both.json", *(scene.id for scene in scenes.scenes))
    own = [scene.id for scene in scenes.scenes if scene.epsg == 32648]
    native = kept(scenes, tmp_path / "native.json", *own)
    for period in (MONTHS[3], MONTHS[5], MONTHS[9]):
        both, alone = (
            SceneComposites(catalogue=StacSource(scenes=lock)).composite(period, GRID, TEN)
            for lock in (every, native)
        )
        np.testing.assert_array_equal(both.reflectance, alone.reflectance)
        np.testing.assert_array_equal(both.clear_count, alone.clear_count)
        np.testing.assert_array_equal(both.seen_count, alone.seen_count)
        assert both.scenes == alone.scenes


def test_the_other_zone_fills_only_what_the_own_one_has_not_seen(
    forest: Forest, truths: dict[str, TrueScene], tmp_path: Path
) -> None:
    """Native granules come first though the neighbour's product is newer, on either zone's grid."""
    native, other = truths[NATIVE], truths[NEIGHBOUR]
    hole = np.s_[60:180, 120:216]  # on pixels of 20 m
    catalogue = with_hole(forest, tmp_path / "hole", hole)
    both = lock_scenes(find(catalogue), bands=TEN, offset="verify")
    assert [scene.id for scene in both.scenes] == [NATIVE, NEIGHBOUR]
    assert both.scenes[1].version > both.scenes[0].version
    lock = kept(both, tmp_path / "both.json", NATIVE, NEIGHBOUR)
    own = composite(kept(both, tmp_path / "native.json", NATIVE), native)
    filled = composite(kept(both, tmp_path / "other.json", NEIGHBOUR), other)
    is_own = np.ones(GRID.shape, bool)
    is_own[hole] = False
    np.testing.assert_array_equal(own.seen_count > 0, is_own)
    found = composite(lock, native)
    assert found.scenes == (f"{NATIVE}+{NEIGHBOUR}",)
    np.testing.assert_array_equal(
        found.reflectance, np.where(is_own, own.reflectance, filled.reflectance)
    )
    np.testing.assert_array_equal(
        found.clear_count, np.where(is_own, own.clear_count, filled.clear_count)
    )
    assert (found.seen_count == 1).all()
    assert (own.reflectance != filled.reflectance)[
        :, is_own & (filled.clear_count > 0)
    ].mean() > 0.9
    there = composite(lock, other, grid=other.geobox)
    is_clear = np.isin(other.scl.repeat(2, axis=0).repeat(2, axis=1), (4, 5, 6, 7))
    for index, band in enumerate(TEN):
        assert errors(there.reflectance[index], units(other, band), is_clear).max() <= 0.51
    assert there.scenes[0].startswith(NEIGHBOUR)


def with_hole(forest: Forest, folder: Path, hole: tuple[slice, slice]) -> Path:
    """Write a catalogue of June's pass, whose native granule has seen nothing in `hole`."""
    folder.mkdir()
    links = []
    for name in (NATIVE, NEIGHBOUR):
        home = forest.folder / COLLECTION / name
        item = json.loads((home / f"{name}.json").read_text())
        for asset in item["assets"].values():
            asset["href"] = str(home / asset["href"])
        if name == NATIVE:
            for key in (*TEN, "SCL"):
                step = 2 if key == "SCL" else 1
                layer = forest_layer(home / f"{key}.tif")
                layer[tuple(slice(s.start // step, s.stop // step) for s in hole)] = 0
                write_cog(
                    folder / f"{key}.tif",
                    layer,
                    epsg=32648,
                    transform=GRID.affine @ Affine.scale(step),
                    is_categorical=step == 2,
                )
                asset_key = "scl" if key == "SCL" else BANDS[key].earth_search
                item["assets"][asset_key]["href"] = str(folder / f"{key}.tif")
        (folder / f"{name}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{name}.json"})
    root = {"type": "Catalog", "id": "pass", "stac_version": "1.0.0", "description": "one pass"}
    (folder / "catalog.json").write_text(json.dumps(root | {"links": links}))
    return folder / "catalog.json"


def forest_layer(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))
