"""Maps on disk, as xarray, rioxarray and rasterio see them."""

import warnings

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.mapstore import (
    EXTRA_LAYERS,
    LAYERS,
    QUALITY_NODATA,
    QUALITY_SCALE,
    UNCLASSIFIED,
    MapClass,
    create_map,
    flag_attributes,
    map_classes,
    map_engine,
    note_engine,
    open_map,
    quality_layers,
    read_map_region,
    write_map_region,
)
from cube.spec import tile_regions

SHAPE = (50, 70)
GRID = GeoBox(SHAPE, Affine(10, 0, 500000, 0, -10, 5300000), "EPSG:32633")
CLASSES = (
    MapClass(value=1, name="Larix kaempferi", colour="#aa5500"),
    MapClass(value=7, name="落叶松", colour="#00FF7f"),
)


def make(path, **changes):
    given = {"geobox": GRID, "classes": CLASSES, "tile": 32, "chunk": 16}
    create_map(path, **(given | changes))
    return path


def layers(shape, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "species": rng.choice([UNCLASSIFIED, 1, 7], shape).astype(np.uint8),
        **{name: rng.integers(0, 101, shape).astype(np.uint8) for name in LAYERS},
    }


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_was_written_is_read(tmp_path, zarr_format):
    path = make(tmp_path / "map.zarr", zarr_format=zarr_format)
    whole = layers(SHAPE)
    *written, hole = tile_regions(SHAPE, 32)
    for region in written:
        part = {name: layer[region.rows, region.columns] for name, layer in whole.items()}
        write_map_region(path, region, part)
        write_map_region(path, region, part)
    whole["species"][hole.rows, hole.columns] = UNCLASSIFIED
    for name in LAYERS:
        whole[name][hole.rows, hole.columns] = QUALITY_NODATA
    found = open_map(path)
    for name, layer in whole.items():
        if name == "species":
            physical = layer
        else:
            scale = np.float32(1 if name == "months_observed" else 0.01)
            physical = np.where(layer == QUALITY_NODATA, np.float32(np.nan), layer * scale)
        assert found[name].dtype == physical.dtype
        np.testing.assert_array_equal(found[name].values, physical)
        assert found[name].chunks == ((32, 18), (32, 32, 6))
        assert found[name].dims == ("y", "x")
        assert found[name].rio.crs.to_epsg() == 32633
        assert found[name].rio.transform() == GRID.transform
        if zarr_format == 2:
            with rasterio.open(f'ZARR:"{path}":/{name}') as file:
                np.testing.assert_array_equal(file.read(1), layer)
                assert file.crs.to_epsg() == 32633
                assert file.transform == GRID.transform
                assert file.nodata == (UNCLASSIFIED if name == "species" else QUALITY_NODATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = xr.open_zarr(path, chunks=None, decode_coords="all")
    expected = np.where(whole["margin"] == 255, np.nan, whole["margin"] * QUALITY_SCALE)
    np.testing.assert_allclose(decoded["margin"].values, expected, rtol=1e-6)


def test_the_legend_comes_back(tmp_path):
    path = make(tmp_path / "map.zarr")
    assert map_classes(path) == CLASSES
    flags = open_map(path)["species"].attrs
    assert list(flags["flag_values"]) == [1, 7]
    assert flags["flag_meanings"].split(" ") == ["Larix_kaempferi", "落叶松"]


def test_flags_are_cfs():
    odd = MapClass(value=9, name=" black \t alder ", colour="#000000")
    assert flag_attributes((*CLASSES, odd)) == {
        "flag_values": [1, 7, 9],
        "flag_meanings": "Larix_kaempferi 落叶松 _black_alder_",
        "flag_colours": "#aa5500 #00FF7f #000000",
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"value": 0}, "expected 1..254"),
        ({"value": 255}, "expected 1..254"),
        ({"colour": "red"}, "expected '#rrggbb'"),
        ({"colour": "#00ff00\n"}, "expected '#rrggbb'"),
    ],
)
def test_what_is_no_class(changes, text):
    with pytest.raises(InputError, match=text):
        MapClass(**({"value": 1, "name": "oak", "colour": "#00ff00"} | changes))


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((), "legend of the map is empty"),
        (
            (CLASSES[0], MapClass(value=1, name="x", colour="#000000")),
            "two classes of the legend have the map value 1",
        ),
        (
            (CLASSES[0], MapClass(value=2, name=CLASSES[0].name, colour="#000000")),
            "two classes of the legend have the name 'Larix",
        ),
    ],
)
def test_a_legend_that_cannot_be_read(tmp_path, classes, text):
    with pytest.raises(InputError, match=text):
        make(tmp_path / "map.zarr", classes=classes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_computed_a_map_is_kept_with_it(tmp_path, zarr_format):
    path = make(tmp_path / "map.zarr", zarr_format=zarr_format)
    assert map_engine(path) == {}
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    opened = open_map(path).load()
    for details in ({"name": "exact"}, {"name": "fast", "classes_equal": 0.9991}):
        note_engine(path, details)
        assert map_engine(path) == details
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == ({".zattrs", ".zmetadata"} if zarr_format == 2 else {"zarr.json"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = open_map(path).load()
    assert again.attrs["canopycube"].pop("engine") == details
    xr.testing.assert_identical(again, opened)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_extra_layers_are_there_if_asked_for(tmp_path, zarr_format):
    path = make(
        tmp_path / "map.zarr", layers=("applicable", "likely_classes"), zarr_format=zarr_format
    )
    assert quality_layers(path) == (*LAYERS, "likely_classes", "applicable")
    region = next(tile_regions(SHAPE, 32))
    written = layers((32, 32)) | {name: np.eye(32, dtype=np.uint8) for name in EXTRA_LAYERS}
    write_map_region(path, region, written)
    np.testing.assert_array_equal(read_map_region(path, region), np.stack([*written.values()]))
    opened = open_map(path)
    for name in EXTRA_LAYERS:
        np.testing.assert_array_equal(opened[name].values[:32, :32], np.eye(32))
        assert np.isnan(opened[name].values[32:]).all()
    assert quality_layers(make(tmp_path / "plain.zarr")) == tuple(LAYERS)


def test_a_map_is_not_overwritten(tmp_path):
    path = make(tmp_path / "map.zarr")
    region = next(tile_regions(SHAPE, 32))
    write_map_region(path, region, layers((32, 32)))
    with pytest.raises(InputError, match="cannot be made"):
        make(path)
    assert open_map(path)["species"].values[:32, :32].any()
    assert [item.name for item in tmp_path.iterdir()] == ["map.zarr"]


def test_a_block_of_another_shape(tmp_path):
    path = make(tmp_path / "map.zarr")
    region = next(tile_regions(SHAPE, 32))
    with pytest.raises(ValueError, match="the store expects"):
        write_map_region(path, region, {"species": np.ones((1, 32), np.uint8)})
    cut = next(tile_regions(SHAPE, 16))
    with pytest.raises(ValueError, match="would cut the stored objects"):
        write_map_region(path, cut, {"species": np.ones((16, 16), np.uint8)})


@pytest.mark.parametrize("damage", [{}, {"classes": [], "tile": 0}, {"classes": [{"name": "x"}]},
                                    {"classes": [1], "tile": "32"}, {"classes": "oak"}])  # fmt: skip
def test_a_damaged_map(tmp_path, damage):
    path = tmp_path / "map.zarr"
    zarr.create_group(path, attributes={"canopycube": {"kind": "map", "schema": 2, **damage}})
    with pytest.raises(InputError, match="is damaged: its legend is"):
        map_classes(path)
    with pytest.raises(InputError, match="is damaged: its tile is"):
        open_map(path)
