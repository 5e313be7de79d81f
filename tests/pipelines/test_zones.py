"""A run over two UTM zones, against the ground that its scenes were painted from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr

from cube.errors import InputError
from cube.mapstore import open_map
from cube.samplestore import open_samples
from pipelines.progress import Reporter
from pipelines.recipe import read_recipe
from pipelines.run import open_run
from pipelines.sole_user import mark_of, sole_user
from pipelines.zones import ZonedRun

RECIPE = """
name = "Two zones"
bands = ["B03", "B04", "B08"]
[area]
bbox = [17.97, 49.001, 18.03, 49.017]
[grid]
crs = "utm-each"
resolution = 20
[months]
first = "2022-01"
last = "2022-03"
[source]
kind = "stack"
files = ["scenes.zarr"]
mask = "SCL"
[composite]
tile = 64
chunk = 32
[reference]
file = "labels.csv"
class_column = "species"
group_column = "stand"
x_column = "lon"
y_column = "lat"
[sampling]
block_size = 400
[training]
hidden = 16
epochs = 4
baselines = []
importance = false
audit = "off"
folds = 2
[cluster]
kind = "threads"
workers = 2
[outputs]
folder = "out"
"""

LEFT, TOP, STRIPE = 716_000.0, 5_434_000.0, 400.0
"""Corner of the scenes in EPSG:32633, and how wide each kind of forest is, in metres."""


def species(x: np.ndarray) -> np.ndarray:
    """Return the class, 0 or 1, at eastings of EPSG:32633."""
    return (np.floor((x - LEFT) / STRIPE) % 2).astype(int)


def write_ground(folder: Path) -> None:
    """Write three scenes of stripes of two forests, and labels in them."""
    height, width = 150, 330
    x, y = LEFT + 20 * (np.arange(width) + 0.5), TOP - 20 * (np.arange(height) + 0.5)
    kind = np.broadcast_to(species(x), (height, width))
    random = np.random.default_rng(0)
    dims = ("time", "y", "x")

    def band(first: int, second: int) -> tuple[tuple[str, ...], np.ndarray]:
        noise = random.integers(-40, 40, (3, height, width))
        return dims, (np.where(kind, second, first) + noise).astype(np.uint16)

    scenes = xr.Dataset(
        {
            "B03": band(400, 700),
            "B04": band(300, 900),
            "B08": band(4000, 2000),
            "SCL": (dims, np.full((3, height, width), 4, np.uint8)),
        },
        coords={
            "time": np.array(["2022-01-10", "2022-02-10", "2022-03-10"], "datetime64[ns]"),
            "y": y,
            "x": x,
        },
        attrs={"crs": "EPSG:32633"},
    )
    scenes.to_zarr(folder / "scenes.zarr", zarr_format=2, consolidated=True)
    to_degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    lines = ["lon,lat,species,stand"]
    for _ in range(300):
        east, north = random.uniform(0, 20 * width), random.uniform(0, 20 * height)
        if 60 < east % STRIPE < STRIPE - 60:
            lon, lat = to_degrees.transform(LEFT + east, TOP - north)
            name = ("beech", "spruce")[species(np.array(LEFT + east))]
            lines.append(f"{lon},{lat},{name},s{int(east // STRIPE)}n{int(north // 700)}")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def zoned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("zoned")
    write_ground(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    with open_run(folder / "recipe.toml") as run:
        assert isinstance(run, ZonedRun)
        return folder, json.loads(json.dumps(run.all()))


def test_each_zone_has_a_cube_and_all_have_one_classifier(
    zoned: tuple[Path, dict[str, Any]],
) -> None:
    folder, report = zoned
    out = folder / "out"
    for epsg in (32633, 32634):
        found = open_map(out / f"zone-{epsg}" / "map.zarr")
        assert found.rio.crs.to_epsg() == epsg
        assert not (out / f"zone-{epsg}" / "classifier").exists()
    assert (out / "classifier").exists()
    done, total = report["cube"]["tiles"].split(" of ")
    assert done == total
    assert report["cube"]["shape"]["zone"] == 2
    samples = open_samples(out / "samples.zarr")
    zone = samples["zone"].values.astype(str)
    assert set(zone) == {"zone-32633", "zone-32634"}
    assert ((samples["lon"].values < 18) == (zone == "zone-32633")).all()
    places = np.column_stack([samples["lon"].values, samples["lat"].values]).round(7)
    assert len(np.unique(places, axis=0)) == len(places)
    # one CRS for all, or distances between zones would be nonsense
    to_xy = pyproj.Transformer.from_crs(4326, samples.attrs["crs"], always_xy=True)
    x, y = to_xy.transform(samples["lon"].values, samples["lat"].values)
    np.testing.assert_allclose(samples["x"].values, x, atol=1e-3)
    np.testing.assert_allclose(samples["y"].values, y, atol=1e-3)


def test_the_mosaic_is_the_ground(zoned: tuple[Path, dict[str, Any]]) -> None:
    folder, report = zoned
    with rasterio.open(folder / "out" / "map.tif") as tiff:
        assert "Lambert" in tiff.crs.to_wkt()
        values = tiff.read(1)
        rows, columns = np.nonzero(values)
        x, y = tiff.xy(rows, columns)
        moved = pyproj.Transformer.from_crs(tiff.crs.to_wkt(), 32633, always_xy=True)
    east, _ = moved.transform(np.asarray(x), np.asarray(y))
    names = [
        one["name"]
        for one in json.loads((folder / "out" / "map.zarr" / "zarr.json").read_text())[
            "attributes"
        ]["canopycube"]["classes"]
    ]
    expected = species(east)
    inside = (east - LEFT) % STRIPE
    is_clear = (inside > 45) & (inside < STRIPE - 45)
    found = np.array([names.index(("beech", "spruce")[kind]) + 1 for kind in (0, 1)])[expected]
    agreement = (values[rows, columns] == found)[is_clear].mean()
    assert agreement > 0.98
    # no seam: the ground of the area is classified as a whole
    assert values[5:-5, 5:-5].astype(bool).mean() > 0.99
    total = sum(report["published"]["hectares"].values())
    assert total == pytest.approx((values > 0).sum() * 0.04, rel=1e-3)


def test_running_again_does_nothing_anew(zoned: tuple[Path, dict[str, Any]]) -> None:
    folder, report = zoned
    with open_run(folder / "recipe.toml") as run:
        again = run.all()
        said = run.describe()
    assert again["cube"]["built_now"] == 0
    assert again["map"]["mapped_now"] == 0
    assert again["map"]["digest"] == report["map"]["digest"]
    assert again["samples"] == report["samples"]
    assert list(said["zones"]) == ["zone-32633", "zone-32634"]
    assert all(one["is_calibrated"] for one in said["zones"].values())


def test_every_zone_and_the_mosaic_are_verified(
    zoned: tuple[Path, dict[str, Any]], command: Callable[..., Any]
) -> None:
    folder, _ = zoned
    for given in (folder / "recipe.toml", folder / "out"):
        code, out, err = command("verify", given, "--json")
        assert code == 0, err
        assert len(json.loads(out)["stores"]) == 5


def test_maps_that_are_there_are_laid_together_by_a_command(
    zoned: tuple[Path, dict[str, Any]], command: Callable[..., Any], tmp_path: Path
) -> None:
    zones = [zoned[0] / "out" / f"zone-{epsg}" for epsg in (32633, 32634)]
    words = ("mosaic", *zones, "--to", tmp_path / "all", "--crs", "EPSG:3035")
    code, out, err = command(*words, "--resolution", "40")
    assert code == 0, err
    assert "hectares mapped" in out
    with rasterio.open(tmp_path / "all" / "map.tif") as tiff:
        assert tiff.crs.to_epsg() == 3035
        assert tiff.res == (40, 40)
        classified = (tiff.read(1) > 0).sum() * 1600
    hectares = sum(zoned[1]["published"]["hectares"].values())
    assert classified == pytest.approx(hectares * 10_000, rel=0.15)  # tiles reach beyond the area
    code, out, _ = command(*words, "--resolution", "40", "--json")
    assert json.loads(out)["mapped_now"] == 0
    code, _, err = command("mosaic", *zones, "--to", zones[0])
    assert code == 2
    assert "the mosaic would replace one of its maps" in err
    link = tmp_path / "link"
    link.symlink_to(zones[1])
    code, _, err = command("mosaic", *zones, "--to", link)
    assert code == 2
    assert "the mosaic would replace one of its maps" in err
    code, _, err = command("mosaic", zones[0], "--to", zones[1])
    assert code == 2
    assert "is a map of its own, which a mosaic would replace" in err
    assert open_map(zones[1] / "map.zarr").rio.crs.to_epsg() == 32634
    code, _, err = command("mosaic", *zones, "--to", tmp_path / "fine", "--resolution", "0")
    assert code == 2
    assert "grid resolution 0.0 is not a positive number" in err
    code, _, err = command("mosaic", tmp_path, "--to", tmp_path / "more")
    assert code == 2
    assert "there is no map at" in err


def test_zones_are_written_under_the_lease_of_their_run(tmp_path: Path) -> None:
    with sole_user(tmp_path / "out"):
        mark = mark_of(tmp_path / "out" / "zone-32633" / "cube.zarr")
        assert mark is not None
        assert mark.folder == tmp_path / "out"
        assert mark_of(tmp_path / "out" / "cube.zarr") == mark
        assert mark_of(tmp_path / "other" / "cube.zarr") is None


def test_labels_elsewhere_are_refused_before_the_build(tmp_path: Path) -> None:
    write_ground(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "labels.csv").write_text("lon,lat,species,stand\n10,50,beech,a\n10,51,spruce,b\n")
    with (
        pytest.raises(InputError, match=r"no label .* none of its zones zone-32633, zone-32634"),
        open_run(tmp_path / "recipe.toml", Reporter(is_quiet=True)) as run,
    ):
        run.check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("grid.crs=utm", "mosaic_crs goes with crs = 'utm-each'"),
        ("grid.anchor=[5.0, 5.0]", "anchor goes with one grid"),
    ],
)
def test_settings_of_another_grid_are_refused(tmp_path: Path, change: str, words: str) -> None:
    write = tmp_path / "recipe.toml"
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "scenes.zarr").mkdir()
    write.write_text(RECIPE)
    with pytest.raises(InputError, match=words):
        read_recipe(write, (change, "grid.mosaic_crs=EPSG:3035") if "utm" in change else (change,))
