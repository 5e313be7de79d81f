"""Labels land in the cell that contains them: against plain loops, rasterio and geopandas."""

import json
import re
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.features import rasterize
from rasterio.warp import Resampling, reproject
from scipy import ndimage

from cube.cells import cell_centres, cells_of_points, cells_of_polygon, pixel_coordinates
from cube.errors import InputError
from cube.labelraster import PATCH_BLOCK, connected_patches, patch_edges
from cube.labels import label_text
from cube.reference import Reference, ReferenceOptions, read_reference

CRS = "EPSG:32633"
GRID = GeoBox((40, 60), Affine(10, 0, 500_000, 0, -10, 5_200_000), CRS)
TO_LON_LAT = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)


def write_csv(
    path: Path, rows: list[tuple[float, float, str]], header: str = "lon,lat,class"
) -> Path:
    lines = []
    for x, y, label in rows:
        lon, lat = TO_LON_LAT.transform(x, y)
        lines.append(f"{lon:.12f},{lat:.12f},{label}")
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def cells(reference: Reference) -> list[tuple[int, int, str]]:
    return list(
        zip(
            reference.row.tolist(), reference.column.tolist(), reference.label.tolist(), strict=True
        )
    )


# --- the arithmetic of cells ---


@given(
    left=st.integers(-60_000, 60_000),
    top=st.integers(0, 900_000),
    resolution=st.sampled_from([1, 5, 10, 20, 60, 2.5]),
    across=st.integers(-3, 30),
    down=st.integers(-3, 30),
)
def test_a_place_on_a_grid_line_is_a_whole_number(
    left: int, top: int, resolution: float, across: int, down: int
) -> None:
    transform = Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution)
    x = np.array([(left + across) * resolution], dtype=np.float64)
    y = np.array([(top - down) * resolution], dtype=np.float64)
    column, row = pixel_coordinates(transform, x, y)
    assert (column[0], row[0]) == (across, down)


@given(
    st.floats(-3, 63, allow_nan=False),
    st.floats(-3, 43, allow_nan=False),
    st.integers(1, 4),
)
def test_a_patch_is_the_cells_whose_centres_are_nearest(u: float, v: float, patch: int) -> None:
    x, y = np.array([500_000 + 10 * u]), np.array([5_200_000 - 10 * v])
    column, row = pixel_coordinates(GRID.transform, x, y)
    cell, _, is_on_grid, lost = cells_of_points(GRID, x, y, patch=patch)
    if not (0 <= column[0] < 60 and 0 <= row[0] < 40):
        assert not is_on_grid[0]
        assert cell.size == lost == 0
        return
    assert cell.size + lost == patch * patch
    if lost:
        return
    # no other square of cells is nearer along either axis
    for place, found in ((column[0], cell % 60), (row[0], cell // 60)):
        reach = max(abs(place - found.min() - 0.5), abs(place - found.max() - 0.5))
        for shift in (-1, 1):
            other = max(
                abs(place - found.min() - shift - 0.5), abs(place - found.max() - shift - 0.5)
            )
            assert reach <= other + 1e-9
    if patch == 1:
        assert cell[0] == int(row[0]) * 60 + int(column[0])


def test_a_rotated_grid_is_inverted_exactly() -> None:
    grid = GeoBox((9, 7), Affine(8, 3, 500_000, 2, -9, 5_200_000), CRS)
    row, column = np.meshgrid(np.arange(9), np.arange(7), indexing="ij")
    across, down = pixel_coordinates(grid.transform, *cell_centres(grid, row, column))
    np.testing.assert_allclose(across, column + 0.5)
    np.testing.assert_allclose(down, row + 0.5)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-5, 65), st.floats(-5, 45)), min_size=3, max_size=9))
def test_cells_of_a_polygon_are_those_whose_centre_it_contains(
    corners: list[tuple[float, float]],
) -> None:
    polygon = shapely.Polygon([(500_000 + 10 * u, 5_200_000 - 10 * v) for u, v in corners])
    polygon = shapely.make_valid(polygon).buffer(0)
    expected = [
        row * 60 + column
        for row in range(40)
        for column in range(60)
        if polygon.contains(shapely.Point(500_005 + 10 * column, 5_199_995 - 10 * row))
    ]
    found = cells_of_polygon(GRID, polygon) if not polygon.is_empty else np.empty(0)
    # a centre within a rounding error of the edge may fall on either side
    odd = set(expected) ^ set(found.tolist())
    for cell in odd:
        centre = shapely.Point(500_005 + 10 * (cell % 60), 5_199_995 - 10 * (cell // 60))
        assert polygon.boundary.distance(centre) < 1e-6


def test_polygons_agree_with_rasterio_and_geopandas() -> None:
    rng = np.random.default_rng(5)
    polygons = [
        shapely.Point(500_000 + x, 5_200_000 - y).buffer(r, quad_segs=5)
        for x, y, r in zip(
            *rng.uniform([[0], [0], [3]], [[600], [400], [90]], (3, 40)), strict=True
        )
    ]
    row, column = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    x, y = cell_centres(GRID, row, column)
    centres = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(x.ravel(), y.ravel(), crs=CRS)
    )
    joined = geopandas.sjoin(
        centres, geopandas.GeoDataFrame(geometry=polygons, crs=CRS), predicate="within"
    )
    for number, polygon in enumerate(polygons):
        found = cells_of_polygon(GRID, polygon)
        burnt = rasterize([polygon], out_shape=(40, 60), transform=GRID.transform)
        np.testing.assert_array_equal(found, np.flatnonzero(burnt))
        np.testing.assert_array_equal(found, np.sort(joined.index[joined["index_right"] == number]))


def test_polygons_that_share_an_edge_through_centres_share_no_cell() -> None:
    left = shapely.box(500_000, 5_199_900, 500_045, 5_200_000)
    right = shapely.box(500_045, 5_199_900, 500_100, 5_200_000)
    assert not set(cells_of_polygon(GRID, left)) & set(cells_of_polygon(GRID, right))


def test_a_polygon_read_in_strips_equals_one_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    polygon = shapely.Point(500_300, 5_199_800).buffer(170)
    whole = cells_of_polygon(GRID, polygon)
    monkeypatch.setattr("cube.cells._STRIP_CENTRES", 70)
    np.testing.assert_array_equal(cells_of_polygon(GRID, polygon), whole)


# --- points ---


def test_points_label_the_cell_that_contains_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        (float(x), float(y), ["oak", "beech"][int(k)])
        for x, y, k in zip(
            rng.uniform(499_900, 500_700, 900),
            rng.uniform(5_199_500, 5_200_100, 900),
            rng.integers(0, 2, 900),
            strict=True,
        )
    ]
    reference = read_reference(ReferenceOptions(file=write_csv(tmp_path / "p.csv", rows)), GRID)
    claims: dict[tuple[int, int], list[str]] = {}
    outside = 0
    for x, y, label in rows:
        row, column = rasterio.transform.rowcol(GRID.transform, x, y)
        if 0 <= row < 40 and 0 <= column < 60:
            claims.setdefault((int(row), int(column)), []).append(label)
        else:
            outside += 1
    expected = [
        (r, c, names[0]) for (r, c), names in sorted(claims.items()) if len(set(names)) == 1
    ]
    assert cells(reference) == expected
    conflicts = sum(len(set(names)) > 1 for names in claims.values())
    repeats = sum(len(names) - 1 for names in claims.values() if len(set(names)) == 1)
    assert conflicts > 0
    assert reference.dropped == {
        "points outside the cube": outside,
        "cells claimed by different classes": conflicts,
        "repeated claims of one cell by one class": repeats,
    }
    np.testing.assert_allclose(reference.x, 500_005 + 10 * reference.column)
    np.testing.assert_allclose(reference.y, 5_199_995 - 10 * reference.row)


def test_a_patch_is_one_group_and_points_keep_their_number(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [(500_003, 5_199_997, "oak"), (500_108, 5_199_892, "fir")])
    reference = read_reference(ReferenceOptions(file=file, patch=2), GRID)
    # the first point lies in the upper left quarter of the corner cell: three cells are off the grid
    assert cells(reference)[0] == (0, 0, "oak")
    assert [cell[:2] for cell in cells(reference)[1:]] == [(10, 10), (10, 11), (11, 10), (11, 11)]
    assert reference.group.tolist() == ["#1"] + ["#2"] * 4
    assert reference.dropped == {"patch cells outside the cube": 3}


def test_the_first_shape_of_the_file_keeps_a_cell_claimed_twice(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [(500_003, 5_199_997, "oak"), (500_004, 5_199_996, "oak")])
    reference = read_reference(ReferenceOptions(file=file), GRID)
    assert (reference.group.tolist(), len(reference)) == (["#1"], 1)


def test_blank_odd_and_unwanted_labels_are_dropped_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(
        "x;y;species;stand\n"
        "500005;5199995;oak;7\n"
        "500015;5199995;  ;7\n"
        "500025;5199995;larch_CN; \n"
        "500035;5199995;larch_JP;8\n"
        "500045;5199995;water;9\n"
        ";5199995;oak;9\n"
        "nan;5199995;oak;9\n"
        "inf;5199995;oak;9\n"
        "\n",
        encoding="utf-8-sig",
    )
    options = ReferenceOptions(
        file=file,
        class_column="species",
        group_column="stand",
        crs=CRS,
        classes={"larch_CN": "larch", "larch_JP": "larch", "oak": "oak"},
    )
    reference = read_reference(options, GRID)
    assert cells(reference) == [(0, 0, "oak"), (0, 2, "larch"), (0, 3, "larch")]
    assert reference.group.tolist() == ["7", "#3", "8"]
    assert reference.counts == {"larch": 2, "oak": 1}
    assert reference.dropped == {
        "blank labels": 1,
        "labels not asked for": 1,
        "shapes without coordinates": 3,
    }
    dropping = ReferenceOptions(
        file=file, class_column="species", crs=CRS, drop=frozenset({"water"})
    )
    assert read_reference(dropping, GRID).counts == {"larch_CN": 1, "larch_JP": 1, "oak": 1}


def test_label_text_is_one_spelling() -> None:
    assert label_text("La\u0308rche ") == "L\u00e4rche"
    assert [label_text(value) for value in (3.0, np.int64(3), np.float32("nan"), None, 2.5)] == [
        "3", "3", "", "", "2.5",
    ]  # fmt: skip


# --- vector files ---


@pytest.mark.parametrize("name", ["r.gpkg", "r.geojson", "r.shp"])
def test_vector_files_in_another_crs_equal_the_table(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    rows = [
        (float(x), float(y), f"c{int(k)}")
        for x, y, k in zip(
            rng.uniform(500_000, 500_600, 80),
            rng.uniform(5_199_600, 5_200_000, 80),
            rng.integers(0, 3, 80),
            strict=True,
        )
    ]
    table = read_reference(
        ReferenceOptions(file=write_csv(tmp_path / "p.csv", rows), patch=3), GRID
    )
    frame = geopandas.GeoDataFrame(
        {"class": [label for *_, label in rows]},
        geometry=geopandas.points_from_xy([r[0] for r in rows], [r[1] for r in rows], crs=CRS),
    )
    frame.to_crs("EPSG:4326" if name.endswith("geojson") else "EPSG:32634").to_file(tmp_path / name)
    found = read_reference(ReferenceOptions(file=tmp_path / name, patch=3), GRID)
    assert cells(found) == cells(table)
    assert found.group.tolist() == table.group.tolist()


def test_polygons_erosion_and_mixed_shapes(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon(
        [(500_300, 5_199_700), (500_400, 5_199_600), (500_400, 5_199_700), (500_300, 5_199_600)]
    )
    frame = geopandas.GeoDataFrame(
        {"class": ["oak", "oak", "fir", "fir", "fir", "fir"], "stand": [5, 6, 7, 8, 9, 10]},
        geometry=[
            shapely.box(500_000, 5_199_900, 500_100, 5_200_000),
            shapely.box(500_201, 5_199_901, 500_204, 5_199_904),
            bow_tie,
            shapely.LineString([(500_000, 5_199_800), (500_100, 5_199_800)]),
            shapely.box(600_000, 5_199_900, 600_100, 5_200_000),
            shapely.MultiPoint([(500_555, 5_199_995), (500_575, 5_199_995)]),
        ],
        crs=CRS,
    )
    frame.to_file(tmp_path / "m.gpkg")
    options = ReferenceOptions(file=tmp_path / "m.gpkg", group_column="stand")
    reference = read_reference(options, GRID)
    assert reference.dropped == {
        "shapes that are neither points nor polygons": 1,
        "polygons outside the cube": 1,
        "polygons without a cell centre inside": 1,
    }
    by_group = pd.Series(reference.group).value_counts().to_dict()
    assert by_group["5"] == 100
    assert by_group["10"] == 2
    valid = shapely.make_valid(bow_tie)
    assert by_group["7"] == cells_of_polygon(GRID, valid).size > 30
    eroded = read_reference(
        ReferenceOptions(file=tmp_path / "m.gpkg", group_column="stand", erode=10), GRID
    )
    assert pd.Series(eroded.group).value_counts()["5"] == 64


def test_polygons_of_two_classes_that_overlap_lose_the_overlap(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["oak", "fir"]},
        geometry=[
            shapely.box(500_000, 5_199_900, 500_100, 5_200_000),
            shapely.box(500_060, 5_199_900, 500_160, 5_200_000),
        ],
        crs=CRS,
    )
    frame.to_file(tmp_path / "o.gpkg")
    reference = read_reference(ReferenceOptions(file=tmp_path / "o.gpkg"), GRID)
    assert reference.counts == {"fir": 60, "oak": 60}
    assert reference.dropped == {"cells claimed by different classes": 40}


# --- label rasters ---


def write_raster(
    path: Path, values: np.ndarray, transform: Affine, crs: str | None = CRS, **options: object
) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
        dtype=values.dtype, crs=crs, transform=transform, **options,
    ) as target:  # fmt: skip
        target.write(values, 1)
    return path


def test_a_label_raster_on_another_grid_is_the_nearest_pixel(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 4, (30, 34)).astype(np.uint8)
    transform = Affine(13.7, 0, 500_071.3, 0, -13.7, 5_199_951.9)
    file = write_raster(tmp_path / "l.tif", values, transform, nodata=0)
    reference = read_reference(ReferenceOptions(file=file, class_names={1: "oak"}), GRID)
    expected = np.zeros((40, 60), dtype=np.uint8)
    reproject(
        values, expected, src_transform=transform, src_crs=CRS, src_nodata=0, dst_nodata=0,
        dst_transform=GRID.transform, dst_crs=CRS, resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    rows, columns = np.nonzero(expected)
    names = {1: "oak", 2: "2", 3: "3"}
    assert cells(reference) == [
        (r, c, names[int(expected[r, c])])
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]


def test_a_label_raster_in_another_crs_equals_rasterio_sample(tmp_path: Path) -> None:
    values = np.random.default_rng(4).integers(1, 4, (60, 80)).astype(np.int16)
    lon, lat = TO_LON_LAT.transform(499_950, 5_200_020)
    file = write_raster(
        tmp_path / "l.tif", values, Affine(1.1e-4, 0, lon, 0, -1.1e-4, lat), "EPSG:4326"
    )
    reference = read_reference(ReferenceOptions(file=file, every=3, nodata=2), GRID)
    expected = []
    with rasterio.open(file) as source:
        for row in range(0, 40, 3):
            for column in range(0, 60, 3):
                place = TO_LON_LAT.transform(500_005 + 10 * column, 5_199_995 - 10 * row)
                value = int(next(source.sample([place]))[0])
                if value not in (0, 2):  # sample gives 0 outside
                    expected.append((row, column, str(value)))
    assert cells(reference) == expected


def test_windows_of_a_fine_raster_are_halved_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(4).integers(0, 3, (400, 600)).astype(np.uint8)
    file = write_raster(
        tmp_path / "l.tif", values, Affine(1, 0, 500_000, 0, -1, 5_200_000), nodata=0
    )
    whole = read_reference(ReferenceOptions(file=file), GRID)
    assert [name for *_, name in cells(whole)] == [
        str(v) for v in values[5::10, 5::10].ravel().tolist() if v
    ]
    monkeypatch.setattr("cube.labelraster._SOURCE_PIXELS", 500)
    halved = read_reference(ReferenceOptions(file=file), GRID)
    assert cells(halved) == cells(whole)
    assert halved.group.tolist() == whole.group.tolist()


def test_patches_are_connected_by_edges_and_cut_at_kilometres() -> None:
    values = np.array([[1, 1, 2], [2, 1, 2], [2, 2, 1]])
    is_labelled = np.ones((3, 3), dtype=bool)
    is_labelled[0, 2] = False
    found = connected_patches(values, is_labelled, np.arange(9).reshape(3, 3))
    assert found.tolist() == [[0, 0, -1], [3, 0, 5], [3, 3, 8]]
    grid = GeoBox((150, 210), Affine(10, 0, 499_500, 0, -10, 5_200_300), CRS)
    rows, columns = patch_edges(grid)
    assert rows.tolist() == [0, 30, 130, 150]
    assert columns.tolist() == [0, 50, 150, 210]
    assert PATCH_BLOCK == 1000


def test_patches_do_not_depend_on_how_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 3, (20, 450)).astype(np.uint8)
    grid = GeoBox((20, 450), Affine(10, 0, 499_500, 0, -10, 5_200_100), CRS)
    file = write_raster(tmp_path / "l.tif", values, grid.transform, nodata=0)
    whole = read_reference(ReferenceOptions(file=file), grid)
    monkeypatch.setattr("cube.labelraster._WINDOW_BLOCKS", 1)
    parts = read_reference(ReferenceOptions(file=file), grid)
    assert cells(parts) == cells(whole)
    assert parts.group.tolist() == whole.group.tolist()


def test_the_worldcereal_labels_are_read_as_they_are(shared_data: Path) -> None:
    file = next((shared_data / "worldcereal-site1").glob("OUTPUT_POLY-110_*.nc"))
    with xr.open_dataset(file, engine="netcdf4", mask_and_scale=False) as dataset:
        expected = dataset["CT"].values
    grid = GeoBox((64, 64), Affine(10, 0, 501_360, 0, -10, 5_629_680), "EPSG:32631")
    reference = read_reference(
        ReferenceOptions(file=file, variable="CT", class_names={1200: "maize", 9120: "grass"}), grid
    )
    assert reference.counts == {"2130": 31, "5100": 25, "7900": 96, "grass": 835, "maize": 1249}
    names = {1200: "maize", 9120: "grass"}
    found = np.full((64, 64), "", dtype=object)
    found[reference.row, reference.column] = reference.label
    assert (
        found
        == np.vectorize(lambda v: "" if v == 0 else names.get(v, str(v)), otypes=[object])(expected)
    ).all()
    patches = sum(
        ndimage.label(expected == value)[1] for value in np.unique(expected[expected > 0])
    )
    assert len(set(reference.group.tolist())) == patches
    shifted = grid.translate_pix(32, 0)
    assert (
        len(read_reference(ReferenceOptions(file=file, variable="CT"), shifted))
        == (expected[:, 32:] > 0).sum()
    )
    with pytest.raises(
        InputError, match="3 rasters and none is chosen; set variable to one of LC, CT, IRR"
    ):
        read_reference(ReferenceOptions(file=file), grid)


# --- what goes wrong ---


def refuse(match: str, grid: GeoBox = GRID, **options: object) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_reference(ReferenceOptions(**options), grid)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) <= 2


def test_bad_tables_are_refused_by_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    refuse(r"p.csv' does not exist", file=file)
    for text, match in (
        (b"", "is empty"),
        (b"lon,lat,class\n", "is empty"),
        (b"lon,lat,class\n1,2,oak\n1,2\n", "line 3: 2 fields where the header has 3"),
        (b"lon,lat,class\n1,2,L\xe4rche\n", "is not UTF-8 text .byte 0xe4."),
        (b"lon,lat,class\n1,abc,oak\n", "line 2: lat 'abc' is no number"),
        (b"lon,lat,kind\n1,2,oak\n", "has no column 'class'; it has 'lon', 'lat', 'kind'"),
        (b"lon,lat,class,class\n1,2,oak,oak\n", "has column 'class' twice"),
        (b"a,b,class\n1,2,oak\n", "no columns lon and lat"),
        (b"x,y,class\n500005,5199995,oak\n", "is no longitude, latitude; set crs"),
        (b"lon,lat,class\n1,2,\n1,2,\n", "leaves no label: 2 blank labels"),
        (b"lon,lat,class\n,,oak\n", "leaves no label: 1 shapes without coordinates"),
        (b"lon,lat,class\n1,2,oak\n", r"wholly outside the cube: labels at lon 1.0000..1.0000, lat 2.0000.*cube at lon 15.0"),
        (b"lon,lat,class\n1,2,o\x00ak\n", "wholly outside|no CSV table"),
    ):  # fmt: skip
        file.write_bytes(text)
        refuse(match, file=file)
    file.write_bytes(b"lon,lat,class\n1,2,oak\n")
    refuse("no column 'stand'", file=file, group_column="stand")
    refuse("name 'aok', a label that .* it has 'oak'", file=file, classes={"aok": "oak"})
    refuse("name 'fir', a label", file=file, drop=frozenset({"fir"}))
    refuse("crs 'EPSG:1' is not known", file=file, crs="EPSG:1")


def test_bad_vector_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.gpkg"
    file.write_bytes(b"not a database")
    refuse("cannot be read as a table or vector file", file=file)
    file.unlink()
    frame = geopandas.GeoDataFrame({"class": ["oak"]}, geometry=[shapely.Point(500_005, 5_199_995)])
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        frame.to_file(tmp_path / "p.shp")
    refuse("has no CRS; save it with one or set crs", file=tmp_path / "p.shp")
    assert len(read_reference(ReferenceOptions(file=tmp_path / "p.shp", crs=CRS), GRID)) == 1
    frame.set_crs(CRS).to_file(file, layer="a")
    refuse(r"has no column 'species'; it has 'class'", file=file, class_column="species")
    refuse("no layer 'c' with shapes; it has 'a'", file=file, layer="c")
    refuse("says its CRS is 'EPSG:32633', asked was 'EPSG:32634'", file=file, crs="EPSG:32634")
    frame.set_crs(CRS).to_file(file, layer="b")
    refuse("has 2 layers with shapes .'a', 'b'.; choose one", file=file)
    assert len(read_reference(ReferenceOptions(file=file, layer="b"), GRID)) == 1
    empty = tmp_path / "e.geojson"
    empty.write_text(json.dumps({"type": "FeatureCollection", "features": []}), encoding="utf-8")
    refuse("no column 'class'|is empty", file=empty)


def test_bad_label_rasters_are_refused(tmp_path: Path) -> None:
    values = np.ones((40, 60), dtype=np.uint8)
    bare = write_raster(tmp_path / "bare.tif", values, GRID.transform, None)
    refuse("has no CRS; save it with one or set crs", file=bare)
    assert len(read_reference(ReferenceOptions(file=bare, crs=CRS), GRID)) == 2400
    refuse("has 1 bands; asked was band 2", file=bare, band=2, crs=CRS)
    refuse("leaves no label: it labels no cell", file=bare, nodata=1, crs=CRS)
    refuse(
        "leaves no label: 2,400 cells with labels not asked for",
        file=bare,
        crs=CRS,
        classes={"2": "oak"},
    )
    refuse("wholly outside the cube", GRID.translate_pix(500, 0), file=bare, crs=CRS)
    half = write_raster(tmp_path / "half.tif", values / np.float32(2), GRID.transform)
    refuse("holds 0.5; classes must be whole numbers", file=half)
    many = np.arange(2400, dtype=np.int32).reshape(40, 60)
    refuse(
        "more than 1000 different values",
        file=write_raster(tmp_path / "many.tif", many, GRID.transform),
    )
    noise = np.random.default_rng(0).integers(0, 255, (400, 600), dtype=np.uint8)
    cut = write_raster(tmp_path / "cut.tif", noise, GRID.transform)
    cut.write_bytes(cut.read_bytes()[:20_000])
    refuse("cannot be read", file=cut)
    (tmp_path / "no.nc").write_bytes(b"no")
    refuse("cannot be read as NetCDF", file=tmp_path / "no.nc")


def test_float_rasters_of_whole_numbers_are_classes(tmp_path: Path) -> None:
    values = np.full((40, 60), np.nan, dtype=np.float32)
    values[3, 4] = 7
    file = write_raster(tmp_path / "f.tif", values, GRID.transform)
    assert cells(read_reference(ReferenceOptions(file=file), GRID)) == [(3, 4, "7")]


def test_bad_options_are_refused(tmp_path: Path) -> None:
    refuse("patch = 0; expected 1 or more", file=tmp_path, patch=0)
    refuse("erode = -1; expected 0 or more", file=tmp_path, erode=-1)
    refuse("gives 'oak' a blank name", file=tmp_path, classes={"oak": " "})
    refuse("x_column and y_column go together", file=tmp_path, x_column="e")
    refuse("does not exist", file=tmp_path)


def test_a_reference_off_its_grid_cannot_be_built() -> None:
    one = np.array([0], dtype=np.int32)
    with pytest.raises(ValueError, match="outside the grid"):
        Reference(
            geobox=GRID,
            row=one,
            column=one + 60,
            label=np.array(["a"]),
            group=np.array(["b"]),
            dropped={},
        )
    with pytest.raises((ValueError, TypeError), match=r"differ in length|Type-check error"):
        Reference(
            geobox=GRID,
            row=one,
            column=one,
            label=np.array([], dtype=str),
            group=np.array(["b"]),
            dropped={},
        )


def test_every_takes_a_systematic_sample_of_polygons(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"class": ["oak"]}, geometry=[GRID.extent.geom], crs=CRS)
    frame.to_file(tmp_path / "all.gpkg")
    reference = read_reference(ReferenceOptions(file=tmp_path / "all.gpkg", every=7), GRID)
    assert [cell[:2] for cell in cells(reference)] == [
        (row, column) for row in range(0, 40, 7) for column in range(0, 60, 7)
    ]


def test_more_cells_than_fit_in_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cube.claims._MOST_CELLS", 2000)
    frame = geopandas.GeoDataFrame({"class": ["oak"]}, geometry=[GRID.extent.geom], crs=CRS)
    frame.to_file(tmp_path / "all.gpkg")
    raster = write_raster(tmp_path / "all.tif", np.ones((40, 60), dtype=np.uint8), GRID.transform)
    for file in (tmp_path / "all.gpkg", raster):
        refuse(r"more than 2,000 cells of the cube; .* every = 10 \(now 1\)", file=file)
        assert len(read_reference(ReferenceOptions(file=file, every=2), GRID)) == 600


def test_the_first_shape_keeps_a_cell_also_among_mixed_shapes(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["oak", "oak"]},
        geometry=[
            shapely.box(500_000, 5_199_980, 500_020, 5_200_000),
            shapely.Point(500_005, 5_199_995),
        ],
        crs=CRS,
    )
    frame.to_file(tmp_path / "m.gpkg")
    reference = read_reference(ReferenceOptions(file=tmp_path / "m.gpkg"), GRID)
    assert reference.group.tolist() == ["#1"] * 4


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (("larch", "Larch"), "the classes 'Larch' and 'larch', which differ in blanks or case"),
        (("larch", "7"), "mixes numbers such as '7' with words such as 'larch'"),
        (("7", "7.0"), "the classes '7' and '7.0', which are the same number"),
    ],
)
def test_labels_that_mean_one_class_are_told_unless_the_recipe_joins_them(
    tmp_path: Path, labels: tuple[str, str], text: str
) -> None:
    rows = [(500_005.0 + 20 * at, 5_199_995.0, label) for at, label in enumerate((*labels, ""))]
    file = write_csv(tmp_path / "t.csv", rows)
    refuse(re.escape(text), file=file)
    joined = dict.fromkeys(labels, "larch")
    found = read_reference(ReferenceOptions(file=file, classes=joined), GRID)
    assert (found.counts, found.dropped) == ({"larch": 2}, {"blank labels": 1})


def test_polygons_that_a_systematic_sample_passes_by_are_counted(tmp_path: Path) -> None:
    shapes = [shapely.box(500_001, 5_199_601, 500_399, 5_199_999),
              shapely.box(500_011, 5_199_951, 500_029, 5_199_989)]  # fmt: skip
    frame = geopandas.GeoDataFrame({"class": ["a", "b"]}, geometry=shapes, crs=CRS)
    frame.to_file(tmp_path / "p.gpkg")
    found = read_reference(ReferenceOptions(file=tmp_path / "p.gpkg", every=5), GRID)
    reason = "polygons between the cells that every = 5 takes"
    assert found.dropped[reason] == 1
    assert found.dropped_names[reason] == ("#2",)
