"""Maps of two zones on one grid, against a plain loop that asks pyproj and rasterio's own rule."""

from pathlib import Path

import numpy as np
import pyproj
import pytest
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.grid import area_from_bbox, grid_of_area, utm_crs, utm_epsg
from cube.ledger import Ledger, digest
from cube.mapstore import (
    LAYERS,
    QUALITY_NODATA,
    MapClass,
    create_map,
    quality_layers,
    read_map_region,
    write_map_region,
)
from cube.mosaic import mosaic_block, plan_mosaic
from cube.periods import Period
from cube.spec import CubeSpec

CLASSES = (
    MapClass(value=1, name="beech", colour="#118811"),
    MapClass(value=2, name="spruce", colour="#0000ff"),
)
NAMES = ("species", *LAYERS)


def spec_of(geobox, touched=None):
    months = (Period.parse("2022-01"),)
    return CubeSpec(
        geobox=geobox, periods=months, bands=("B02",), tile=32, chunk=32, touched=touched
    )


def write_map(path, spec, *, classes=CLASSES, layers=(), holes=0.2, seed=0, leaves_out=0):
    """Write a map of random classes, `holes` of it unclassified; return its layers."""
    random = np.random.default_rng(seed)
    shape = (4 + len(layers), *spec.shape[2:])
    pixels = random.integers(0, 101, shape, dtype=np.uint8)
    pixels[0] = random.integers(1, 3, shape[1:])
    pixels[:, random.random(shape[1:]) < holes] = QUALITY_NODATA
    pixels[0][pixels[0] == QUALITY_NODATA] = 0
    create_map(
        path,
        geobox=spec.geobox,
        classes=classes,
        tile=32,
        chunk=32,
        layers=layers,
        notes={"spec": spec.to_json()},
    )
    ledger = Ledger(store=path, inputs="made")
    ledger.prepare()
    outside = np.ones(shape[1:], bool)
    regions = spec.regions()
    for region in regions[: len(regions) - leaves_out]:
        block = np.ascontiguousarray(pixels[:, region.rows, region.columns])
        names = ("species", *quality_layers(path))
        write_map_region(path, region, dict(zip(names, block, strict=True)))
        ledger.record(region, {"digest": digest(block)})
        outside[region.rows, region.columns] = False
    pixels[1:, outside], pixels[0, outside] = QUALITY_NODATA, 0
    return pixels


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return maps of both sides of 18° east, which overlap, and their layers."""
    folder = tmp_path_factory.mktemp("zones")
    west = grid_of_area(area_from_bbox((17.95, 49.0, 18.01, 49.04)), resolution=60.0)
    east = grid_of_area(
        area_from_bbox((17.99, 49.0, 18.05, 49.04)), crs="EPSG:32634", resolution=60.0
    )
    specs = [spec_of(west), spec_of(east)]
    assert [spec.crs.epsg for spec in specs] == [32633, 32634]
    paths = [folder / "west.zarr", folder / "east.zarr"]
    layers = [
        write_map(path, spec, seed=seed)
        for seed, (path, spec) in enumerate(zip(paths, specs, strict=True))
    ]
    return paths, specs, layers


def slowly(geobox, specs, layers, *, row, column):
    """Return one pixel of the mosaic, by the rule as it is told."""
    x, y = geobox.transform * (column + 0.5, row + 0.5)
    to_degrees = pyproj.Transformer.from_crs(geobox.crs.to_wkt(), 4326, always_xy=True)
    zone = 32633 if to_degrees.transform(x, y)[0] < 18 else 32634
    order = sorted(range(len(specs)), key=lambda n: specs[n].crs.epsg != zone)
    for n in order:
        moved = pyproj.Transformer.from_crs(geobox.crs.to_wkt(), specs[n].crs.epsg, always_xy=True)
        across, down = ~specs[n].geobox.transform * moved.transform(x, y)
        # rounded as `cube.warp` rounds
        place = int(np.floor(down)), int(np.floor(across))
        near_edge = min(abs(part - round(part)) for part in (across, down)) < 2e-3
        if near_edge:
            return None
        height, width = layers[n].shape[1:]
        if 0 <= place[0] < height and 0 <= place[1] < width and layers[n][0][place]:
            return layers[n][(slice(None), *place)]
    return np.array([0] + [QUALITY_NODATA] * 3)


@pytest.mark.parametrize("crs", ["equal-area", "EPSG:3035", "EPSG:32633"])
def test_each_pixel_is_the_nearest_of_its_own_zone(two, crs):
    paths, specs, layers = two
    mosaic = plan_mosaic(paths, crs=crs)
    geobox = mosaic.spec.geobox
    assert abs(geobox.resolution.x) == 60
    made = np.zeros((4, *geobox.shape), np.uint8)
    made[1:] = QUALITY_NODATA
    for region in mosaic.spec.regions():
        made[:, region.rows, region.columns] = mosaic_block(mosaic, region)
    random = np.random.default_rng(3)
    asked = 0
    for row, column in zip(
        random.integers(0, geobox.shape[0], 400),
        random.integers(0, geobox.shape[1], 400),
        strict=True,
    ):
        expected = slowly(geobox, specs, layers, row=row, column=column)
        if expected is not None:
            np.testing.assert_array_equal(made[:, row, column], expected)
            asked += expected[0] > 0
    assert asked > 200
    # nothing of the ground is lost: as much is classified as both maps together have
    longitude = [to_degrees(spec) for spec in specs]
    own = [
        (layer[0] > 0) & ((lon < 18) == (n == 0))
        for n, (layer, lon) in enumerate(zip(layers, longitude, strict=True))
    ]
    assert (made[0] > 0).sum() > 0.98 * sum(one.sum() for one in own)


def to_degrees(spec):
    x, y = (spec.geobox.coordinates[name].values for name in ("x", "y"))
    moved = pyproj.Transformer.from_crs(spec.crs.epsg, 4326, always_xy=True)
    return moved.transform(*np.meshgrid(x, y))[0]


def test_a_mosaic_of_one_map_on_its_own_grid_is_that_map(two):
    paths, specs, layers = two
    mosaic = plan_mosaic(paths[:1], crs="EPSG:32633")
    left, top = ~mosaic.spec.geobox.transform * (specs[0].geobox.transform * (0, 0))
    down, across = round(top), round(left)
    height, width = layers[0].shape[1:]
    for region in mosaic.spec.regions():
        rows = slice(max(region.top - down, 0), region.top + region.height - down)
        columns = slice(max(region.left - across, 0), region.left + region.width - across)
        part = layers[0][:, rows, columns]
        block = mosaic_block(mosaic, region)
        first = max(down - region.top, 0), max(across - region.left, 0)
        np.testing.assert_array_equal(
            block[:, first[0] : first[0] + part.shape[1], first[1] : first[1] + part.shape[2]], part
        )
        assert (block[0] > 0).sum() == (part[0] > 0).sum()
    assert height
    assert width


def test_tiles_without_a_map_are_none_of_the_mosaic(tmp_path):
    geobox = GeoBox((320, 320), Affine(60, 0, 500_000, 0, -60, 5_400_000), "EPSG:32633")
    runs = (0, 3, 94, 3)  # of 10 x 10 tiles, those of two corners
    write_map(tmp_path / "map.zarr", spec_of(geobox, runs))
    mosaic = plan_mosaic([tmp_path / "map.zarr"], crs="EPSG:3035")
    assert 6 <= mosaic.spec.tile_count < 30
    assert mosaic.spec.grid_tiles >= 100
    found = sum((mosaic_block(mosaic, one)[0] > 0).sum() for one in mosaic.spec.regions())
    stored = zarr.open_group(tmp_path / "map.zarr", mode="r")["species"][...]
    assert found == pytest.approx((stored > 0).sum(), rel=0.02)


def test_maps_across_the_antimeridian_lie_beside_each_other(tmp_path):
    for number, (left, right) in enumerate([(179.9, 179.99), (-179.99, -179.9)]):
        geobox = grid_of_area(area_from_bbox((left, -17.0, right, -16.95)), resolution=100.0)
        write_map(tmp_path / f"{number}.zarr", spec_of(geobox), seed=number)
    mosaic = plan_mosaic([tmp_path / "0.zarr", tmp_path / "1.zarr"])
    assert mosaic.spec.geobox.shape[1] < 300
    block = np.concatenate([mosaic_block(mosaic, one)[0].ravel() for one in mosaic.spec.regions()])
    assert (block > 0).sum() > 8500


def test_extra_layers_are_those_that_all_maps_have(tmp_path):
    geobox = GeoBox((40, 40), Affine(60, 0, 500_000, 0, -60, 5_400_000), "EPSG:32633")
    extra = ("likely_classes", "applicable")
    write_map(tmp_path / "a.zarr", spec_of(geobox), layers=extra)
    write_map(tmp_path / "b.zarr", spec_of(geobox), layers=("applicable",))
    one = plan_mosaic([tmp_path / "a.zarr"], crs="EPSG:32633")
    both = plan_mosaic([tmp_path / "a.zarr", tmp_path / "b.zarr"], crs="EPSG:32633")
    assert one.layers == extra
    assert both.names == (*NAMES, "applicable")
    region = both.spec.regions()[0]
    stored = read_map_region(tmp_path / "a.zarr", spec_of(geobox).regions()[0])
    np.testing.assert_array_equal(mosaic_block(one, region), stored)
    assert one.inputs != both.inputs


def test_maps_that_do_not_fit_together_are_refused(tmp_path):
    geobox = GeoBox((40, 40), Affine(60, 0, 500_000, 0, -60, 5_400_000), "EPSG:32633")
    good, other, begun = (tmp_path / f"{name}.zarr" for name in ("good", "other", "begun"))
    write_map(good, spec_of(geobox))
    write_map(other, spec_of(geobox), classes=CLASSES[:1])
    write_map(begun, spec_of(geobox), leaves_out=1)
    with pytest.raises(InputError, match=r"'.*good.zarr' and '.*other.zarr' have other classes"):
        plan_mosaic([good, other])
    with pytest.raises(InputError, match=r"begun\.zarr' has 3 of 4 tiles; finish it first"):
        plan_mosaic([begun])
    with pytest.raises(InputError, match="there is no map at"):
        plan_mosaic([tmp_path / "none.zarr"])
    with pytest.raises(InputError, match="no map is given"):
        plan_mosaic([])
    with pytest.raises(InputError, match="is not in metres"):
        plan_mosaic([good], crs="EPSG:4326")


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-79.9, 83.9)), min_size=1, max_size=20))
def test_zones_of_many_places_are_those_of_each(places):
    longitude, latitude = np.array(places).T
    found = utm_epsg(longitude, latitude)
    for number, (x, y) in enumerate(places):
        tiny = area_from_bbox((max(x - 1e-7, -180.0), y - 1e-7, min(x + 1e-7, 180.0), y + 1e-7))
        if abs(x % 3) > 1e-6 and abs(x % 3 - 3) > 1e-6 and abs(y - round(y)) > 1e-6:
            assert found[number] == utm_crs(tiny).epsg


def test_nothing_is_written_while_a_mosaic_is_planned(two, tmp_path: Path):
    before = sorted(path.name for path in two[0][0].parent.iterdir())
    plan_mosaic(two[0])
    assert sorted(path.name for path in two[0][0].parent.iterdir()) == before
