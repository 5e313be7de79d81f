"""A map leaves as a COG that GDAL reads with names and colours, and as pictures: exact counts."""

import string
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from odc.geo.geobox import GeoBox
from rasterio.env import get_gdal_config
from rio_cogeo import cog_validate

from cube.errors import InputError, WorkFailedError
from cube.export import class_areas, map_geobox, write_map_cog, write_quality_cog
from cube.mapstore import LAYERS, QUALITY_SCALE, MapClass, create_map, write_map_region
from cube.palette import _appearance, default_colours
from cube.pictures import _round_length, write_legend, write_quicklook
from cube.sidecar import class_names_xml, one_line, rgb
from cube.spec import tile_regions

NAMES = ["larch", 'a <b>&"c"', "two\nlines", "very " * 200, "$\\frac{x$", "落叶松", "\x00\x1b[31m"]
CLASSES = tuple(
    MapClass(value=n + 1, name=name, colour=colour)
    for n, (name, colour) in enumerate(zip(NAMES, default_colours(len(NAMES)), strict=True))
)


def make_map(
    path: Path,
    species: np.ndarray,
    *,
    classes: tuple[MapClass, ...] = CLASSES,
    tile: int = 256,
    chunk: int = 64,
) -> dict[str, np.ndarray]:
    height, width = species.shape
    grid = GeoBox((height, width), Affine(10, 0, 560_000, 0, -10, 3_740_000), "EPSG:32648")
    create_map(path, geobox=grid, classes=classes, tile=tile, chunk=chunk)
    rng = np.random.default_rng(1)
    layers = {"species": species.astype(np.uint8)}
    layers |= {name: rng.integers(0, 101, species.shape).astype(np.uint8) for name in LAYERS}
    for name in LAYERS:
        layers[name][species == 0] = 255
    for region in tile_regions((height, width), tile):
        write_map_region(
            path,
            region,
            {name: values[region.rows, region.columns] for name, values in layers.items()},
        )
    return layers


@pytest.mark.parametrize("shape", [(1, 1), (513, 700), (700, 3)])
def test_the_cog_holds_the_map_exactly(tmp_path: Path, shape: tuple[int, int]) -> None:
    species = np.random.default_rng(0).integers(0, 8, shape)
    layers = make_map(tmp_path / "map.zarr", species)
    target = tmp_path / "out" / "map.tif"
    write_map_cog(tmp_path / "map.zarr", target, CLASSES)
    valid, errors, warnings = cog_validate(target, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(target) as cog:
        np.testing.assert_array_equal(cog.read(1), layers["species"])
        assert (cog.nodata, cog.dtypes, cog.descriptions) == (0, ("uint8",), ("species",))
        assert (cog.crs.to_epsg(), cog.transform) == (
            32648,
            Affine(10, 0, 560_000, 0, -10, 3_740_000),
        )
        assert cog.compression.name == "deflate"
        assert cog.block_shapes == [(512, 512)]
        colours = cog.colormap(1)
        assert [colours[item.value][:3] for item in CLASSES] == [
            rgb(item.colour) for item in CLASSES
        ]
    # nothing is left of the drafts
    assert sorted(entry.name for entry in target.parent.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_overviews_show_the_majority(tmp_path: Path) -> None:
    species = np.ones((1024, 1024), dtype=np.uint8)
    species[::4, ::4] = 2
    make_map(tmp_path / "map.zarr", species)
    write_map_cog(tmp_path / "map.zarr", tmp_path / "map.tif", CLASSES)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as overview:
        assert overview.shape == (512, 512)
        assert np.unique(overview.read(1)).tolist() == [1]


def test_streaming_in_small_parts_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    species = np.random.default_rng(0).integers(0, 8, (700, 900))
    layers = make_map(tmp_path / "map.zarr", species)
    whole = class_areas(tmp_path / "map.zarr", CLASSES)
    monkeypatch.setattr("cube.export._STREAM", 200)
    write_map_cog(tmp_path / "map.zarr", tmp_path / "map.tif", CLASSES)
    with rasterio.open(tmp_path / "map.tif") as cog:
        np.testing.assert_array_equal(cog.read(1), layers["species"])
    assert class_areas(tmp_path / "map.zarr", CLASSES) == whole


def test_gdal_reads_names_and_counts_from_the_sidecar(tmp_path: Path) -> None:
    species = np.random.default_rng(0).integers(0, 8, (60, 50))
    make_map(tmp_path / "map.zarr", species)
    write_map_cog(tmp_path / "map.zarr", tmp_path / "map.tif", CLASSES)
    # GDAL copies the names it understood into a virtual raster
    rasterio.shutil.copy(tmp_path / "map.tif", tmp_path / "map.vrt", driver="VRT")
    understood = ElementTree.parse(tmp_path / "map.vrt").findall(".//CategoryNames/Category")
    expected = ["unclassified", "larch", 'a <b>&"c"', "two lines", ("very " * 200).strip(), "$\\frac{x$", "落叶松", "\ufffd\ufffd[31m"]  # fmt: skip
    assert [category.text for category in understood] == expected
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").find(".//GDALRasterAttributeTable")
    assert table is not None
    fields = [field.findtext("Name") for field in table.findall("FieldDefn")]
    assert fields == ["Value", "Class", "Count", "Red", "Green", "Blue", "Alpha"]
    rows = [[cell.text for cell in row.findall("F")] for row in table.findall("Row")]
    assert [(int(row[0]), row[1], int(row[2])) for row in rows] == [
        (value, expected[value], int((species == value).sum())) for value in range(8)
    ]
    assert [tuple(map(int, row[3:])) for row in rows[1:]] == [
        (*rgb(item.colour), 255) for item in CLASSES
    ]


@given(st.text(st.characters(exclude_categories=()), max_size=60))
@settings(max_examples=300)
def test_any_text_makes_readable_xml(name: str) -> None:
    item = MapClass(value=3, name=name, colour="#010203")
    root = ElementTree.fromstring(class_names_xml([item], {3: 5}))
    names = [category.text or "" for category in root.findall(".//Category")]
    assert names == ["unclassified", "", "", one_line(name)]
    assert "\n" not in one_line(name)
    if set(name) <= set(string.ascii_letters + string.digits):
        assert one_line(name) == name


def test_254_classes_fit(tmp_path: Path) -> None:
    classes = tuple(
        MapClass(value=n + 1, name=f"c{n}", colour=colour)
        for n, colour in enumerate(default_colours(254))
    )
    species = np.arange(255).reshape(15, 17)
    make_map(tmp_path / "map.zarr", species, classes=classes)
    write_map_cog(tmp_path / "map.zarr", tmp_path / "map.tif", classes)
    with rasterio.open(tmp_path / "map.tif") as cog:
        np.testing.assert_array_equal(cog.read(1), species)
        assert cog.colormap(1)[254][:3] == rgb(classes[-1].colour)
    assert set(class_areas(tmp_path / "map.zarr", classes).values()) == {0.01}
    with pytest.raises(InputError, match=r"has map value 255; expected 1\.\.254"):
        MapClass(value=255, name="one too many", colour="#000000")
    write_quicklook(tmp_path / "map.png", tmp_path / "map.zarr", classes, title="many")
    assert imread(tmp_path / "map.png").ndim == 3


def test_quality_layers_keep_values_scale_and_nodata(tmp_path: Path) -> None:
    species = np.random.default_rng(0).integers(0, 8, (600, 520))
    layers = make_map(tmp_path / "map.zarr", species)
    write_quality_cog(tmp_path / "map.zarr", tmp_path / "map_quality.tif")
    assert cog_validate(tmp_path / "map_quality.tif", strict=True) == (True, [], [])
    with rasterio.open(tmp_path / "map_quality.tif") as cog:
        assert cog.descriptions == ("confidence", "margin", "months_observed")
        assert cog.nodatavals == (255, 255, 255)
        assert cog.scales == (QUALITY_SCALE, QUALITY_SCALE, 1)
        for band, name in enumerate(cog.descriptions, start=1):
            np.testing.assert_array_equal(cog.read(band), layers[name])


def test_areas_are_counted_pixels(tmp_path: Path) -> None:
    species = np.zeros((30, 40), dtype=np.uint8)
    species[:10] = 1
    species[10, :3] = 6
    make_map(tmp_path / "map.zarr", species, tile=16, chunk=16)
    areas = class_areas(tmp_path / "map.zarr", CLASSES)
    assert areas == pytest.approx(dict.fromkeys(NAMES, 0.0) | {"larch": 4.0, "落叶松": 0.03})
    assert map_geobox(tmp_path / "map.zarr").shape == (30, 40)


def test_a_failed_export_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_map(tmp_path / "map.zarr", np.ones((20, 20), dtype=np.uint8))
    target = tmp_path / "out" / "map.tif"
    write_map_cog(tmp_path / "map.zarr", target, CLASSES)
    before = {entry.name: entry.read_bytes() for entry in target.parent.iterdir()}
    array = zarr.open_group(tmp_path / "map.zarr", mode="r+")["species"]
    array[0, :2] = 9
    with pytest.raises(
        WorkFailedError, match="holds value 9 in 2 pixels, which its legend does not name"
    ):
        write_map_cog(tmp_path / "map.zarr", target, CLASSES)
    with pytest.raises(WorkFailedError, match="holds value 9"):
        class_areas(tmp_path / "map.zarr", CLASSES)

    def full(*_: object, **__: object) -> None:
        raise rasterio.errors.RasterioIOError("no space left on device")

    monkeypatch.setattr("cube.export.rasterio.shutil.copy", full)
    with pytest.raises(WorkFailedError, match=r"map.tif' could not be written: no space left"):
        write_quality_cog(tmp_path / "map.zarr", target)
    assert {entry.name: entry.read_bytes() for entry in target.parent.iterdir()} == before


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no map at"):
        write_map_cog(tmp_path / "none.zarr", tmp_path / "map.tif", CLASSES)
    make_map(tmp_path / "map.zarr", np.ones((5, 5), dtype=np.uint8))
    for target, classes, match in (
        ("map.png", CLASSES, "give it a name that ends in .tif"),
        ("map.tif", (), "the legend of the map is empty"),
        ("map.tif", (CLASSES[0], CLASSES[0]), "two classes of the legend have the map value 1"),
        (
            "map.tif",
            (CLASSES[0], MapClass(value=2, name="larch", colour="#000000")),
            "have the name 'larch'",
        ),
    ):
        with pytest.raises(InputError, match=match):
            write_map_cog(tmp_path / "map.zarr", tmp_path / target, classes)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.zarr"]


# --- pictures ---


def test_the_quicklook_shows_every_colour_where_it_is(tmp_path: Path) -> None:
    species = np.zeros((200, 300), dtype=np.uint8)
    species[:100, :150], species[:100, 150:], species[100:, :150] = 1, 2, 3
    make_map(tmp_path / "map.zarr", species)
    write_quicklook(
        tmp_path / "map.png", tmp_path / "map.zarr", CLASSES, title="A $title$ <of> all"
    )
    image = (imread(tmp_path / "map.png")[..., :3] * 255).round().astype(int)
    found = {
        value: np.argwhere((image == colour).all(axis=-1))
        for value, colour in (
            (1, rgb(CLASSES[0].colour)),
            (2, rgb(CLASSES[1].colour)),
            (0, (0xD9,) * 3),
        )
    }
    assert all(len(places) > 50_000 for places in found.values())
    middle = {value: np.median(places, axis=0) for value, places in found.items()}
    assert middle[1][1] < middle[2][1]  # class 1 left of class 2
    assert middle[0][0] > middle[2][0]  # unclassified below


@pytest.mark.parametrize("shape", [(1, 1), (5, 900), (900, 5), (3300, 20)])
def test_maps_of_any_shape_make_a_picture(tmp_path: Path, shape: tuple[int, int]) -> None:
    make_map(tmp_path / "map.zarr", np.ones(shape, dtype=np.uint8), tile=1024, chunk=512)
    write_quicklook(tmp_path / "map.png", tmp_path / "map.zarr", CLASSES, title="t" * 200)
    image = (imread(tmp_path / "map.png")[..., :3] * 255).round().astype(int)
    assert max(image.shape) < 4000
    assert (image == rgb(CLASSES[0].colour)).all(axis=-1).sum() > 5000


def test_the_legend_shows_every_class_and_the_largest_of_many(tmp_path: Path) -> None:
    write_legend(tmp_path / "legend.png", CLASSES)
    image = (imread(tmp_path / "legend.png")[..., :3] * 255).round().astype(int)
    for item in CLASSES:
        assert (image == rgb(item.colour)).all(axis=-1).sum() > 300
    many = tuple(
        MapClass(value=n + 1, name=f"c{n}", colour=colour)
        for n, colour in enumerate(default_colours(60))
    )
    write_legend(tmp_path / "many.png", many, {"c59": 3.0, "c0": 1.0})
    image = (imread(tmp_path / "many.png")[..., :3] * 255).round().astype(int)
    assert (image == rgb(many[59].colour)).all(axis=-1).any()
    assert not (image == rgb(many[45].colour)).all(axis=-1).any()


@given(st.floats(0.01, 1e7))
def test_the_scale_bar_is_round_and_fits(metres: float) -> None:
    length = _round_length(metres)
    assert metres / 2.5 - 1e-9 <= length <= metres * (1 + 1e-6)
    assert f"{length:e}"[0] in "125"


def test_default_colours_are_distinct_also_for_colour_blind_readers() -> None:
    for count in (0, 1, 9, 10, 254):
        colours = default_colours(count)
        assert len(set(colours)) == count
        assert colours == default_colours(254)[:count]
    assert not {"#ffffff", "#000000", "#d9d9d9"} & set(default_colours(254))
    seen = _appearance(np.array([rgb(colour) for colour in default_colours(12)]))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1).min(axis=-1)
    # five units of CIE 1976 difference are told apart side by side
    assert apart[~np.eye(12, dtype=bool)].min() > 10
    with pytest.raises(InputError, match="255 classes asked for"):
        default_colours(255)


def test_appearance_is_cie_lab() -> None:
    # white, and the Lab values of pure sRGB red and blue, published at D65
    lab = _appearance(np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]]))[:, 0]
    np.testing.assert_allclose(
        lab, [[100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]], atol=0.05
    )


def test_gdal_keeps_little_while_it_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, seen = rasterio.shutil.copy, []

    def watched(*words: object, **named: object) -> None:
        seen.append(get_gdal_config("GDAL_CACHEMAX"))
        copy(*words, **named)

    make_map(tmp_path / "map.zarr", np.ones((9, 9), np.uint8))
    monkeypatch.setattr("cube.export.rasterio.shutil.copy", watched)
    with rasterio.Env():
        before = get_gdal_config("GDAL_CACHEMAX")
        write_map_cog(tmp_path / "map.zarr", tmp_path / "map.tif", CLASSES)
        assert get_gdal_config("GDAL_CACHEMAX") == before
    assert seen == [64 * 2**20]
