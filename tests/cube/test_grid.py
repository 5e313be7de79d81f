"""Grids over areas, against pyproj, shapely and the published zones of UTM."""

import json
import math
import re

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geom import Geometry

from cube.errors import InputError
from cube.grid import area_from_bbox as exact_area_from_bbox
from cube.grid import (
    area_from_file,
    geojson_of_area,
    parse_crs,
    utm_crs,
)
from cube.grid import grid_of_area as exact_grid_of_area

CHANGQING = (107.57481, 33.62953, 107.67266, 33.78604)


def area_from_bbox(bbox, crs="EPSG:4326"):
    return exact_area_from_bbox(tuple(map(float, bbox)), crs)


def grid_of_area(area, *, crs="utm", resolution=10, anchor=(0, 0)):
    anchor = (float(anchor[0]), float(anchor[1]))
    return exact_grid_of_area(area, crs=crs, resolution=float(resolution), anchor=anchor)


def around(longitude, latitude, size=0.01):
    return area_from_bbox((longitude - size, latitude - size, longitude + size, latitude + size))


# --- zones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("longitude", "latitude", "zone"),
    [
        (107.62, 33.7, 32648),  # Changqing
        (14.99, 50, 32633),
        (11.99, 50, 32632),
        (-179.5, 10, 32601),
        (179.5, 10, 32660),
        (179.5, -17, 32760),  # Fiji
        (-58, -34, 32721),
        (20, -0.5, 32734),
        (20, 0.5, 32634),
        (5, 60, 32632),  # Bergen: zone 32 is widened to the west
        (2.5, 60, 32631),
        (5, 55, 32631),
        (5, 64.5, 32631),
        (15, 78, 32633),  # Svalbard: zones 32, 34 and 36 are not there
        (8, 78, 32631),
        (9.5, 78, 32633),
        (20.5, 78, 32633),
        (21.5, 78, 32635),
        (33.5, 78, 32637),
        (41.5, 78, 32637),
        (45, 78, 32638),
        (15, 71, 32633),
    ],
)
def test_zones(longitude, latitude, zone):
    assert utm_crs(around(longitude, latitude)).epsg == zone


@settings(deadline=None, max_examples=40)
@given(st.floats(-179, 179), st.floats(-79, 55))
def test_zones_are_those_of_the_epsg_registry(longitude, latitude):
    if abs(latitude) < 0.1 or abs(longitude / 6 - round(longitude / 6)) < 0.01:
        return
    crs = utm_crs(around(longitude, latitude))
    west, south, east, north = pyproj.CRS.from_epsg(crs.epsg).area_of_use.bounds
    assert west <= longitude <= east
    assert south <= latitude <= north


@pytest.mark.parametrize("latitude", [-85, 86])
def test_no_zone_at_the_poles(latitude):
    with pytest.raises(InputError, match="where UTM is undefined"):
        utm_crs(around(0, latitude))


def test_the_antimeridian_is_no_border():
    crossing = area_from_bbox((179.9, -17.1, -179.8, -17.0))
    assert utm_crs(crossing).epsg == 32701  # its centre lies at -179.95
    grid = grid_of_area(crossing, resolution=100)
    assert grid.shape[1] == pytest.approx(
        0.3 * 111_320 * math.cos(math.radians(17)) / 100, rel=0.02
    )
    with pytest.raises(InputError, match="has left > right and would span 350 degrees"):
        area_from_bbox((20, 0, 10, 1))


# --- snapping ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    left=st.floats(200_000, 700_000),
    bottom=st.floats(100_000, 9_000_000),
    width=st.floats(0.1, 40_000),
    height=st.floats(0.1, 40_000),
    resolution=st.sampled_from([0.3, 1, 10, 20, 60, 120.5]),
    anchor=st.sampled_from([(0, 0), (3.25, 1.5), (-1e6, 5e6)]),
)
def test_edges_snap_outward_and_no_further(left, bottom, width, height, resolution, anchor):
    right, top = left + width, bottom + height
    area = area_from_bbox((left, bottom, right, top), "EPSG:32633")
    grid = grid_of_area(area, crs="EPSG:32633", resolution=resolution, anchor=anchor)
    box = grid.boundingbox
    hair = resolution * 2e-6
    assert box.left <= left + hair
    assert box.right >= right - hair
    assert box.bottom <= bottom + hair
    assert box.top >= top - hair
    assert left - box.left < resolution + hair
    assert box.right - right < resolution + hair
    assert bottom - box.bottom < resolution + hair
    assert box.top - top < resolution + hair
    for edge, origin in ((box.left, anchor[0]), (box.top, anchor[1])):
        steps = (edge - origin) / resolution
        assert steps == pytest.approx(round(steps), abs=1e-5)


def test_a_box_on_the_grid_is_the_grid():
    grid = grid_of_area(area_from_bbox((500_000, 5_300_000, 500_700, 5_300_500), "EPSG:32633"))
    assert grid.shape == (50, 70)
    assert grid.transform[:6] == (10, 0, 500_000, 0, -10, 5_300_500)


def test_every_point_of_a_lon_lat_box_is_on_the_grid():
    grid = grid_of_area(area_from_bbox(CHANGQING))
    assert grid.crs.epsg == 32648
    edge = np.linspace(0, 1, 101)
    ends = np.array([0.0, 1.0])
    across = [*zip(np.tile(edge, 2), np.repeat(ends, 101), strict=True)]
    along = across + [(y, x) for x, y in across]
    to_utm = pyproj.Transformer.from_crs(4326, 32648, always_xy=True)
    box = grid.boundingbox
    for x, y in along:
        east, north = to_utm.transform(
            CHANGQING[0] + x * (CHANGQING[2] - CHANGQING[0]),
            CHANGQING[1] + y * (CHANGQING[3] - CHANGQING[1]),
        )
        assert box.left <= east <= box.right
        assert box.bottom <= north <= box.top


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263", "EPSG:4978"])
def test_a_grid_needs_metres(crs):
    with pytest.raises(
        InputError, match="is not in metres; use 'utm', 'equal-area' or a projected CRS"
    ):
        grid_of_area(area_from_bbox(CHANGQING), crs=crs)


@pytest.mark.parametrize("resolution", [0, -10, math.nan, math.inf])
def test_a_grid_needs_a_resolution(resolution):
    with pytest.raises(InputError, match="is not a positive number of metres"):
        grid_of_area(area_from_bbox(CHANGQING), resolution=resolution)


def test_an_area_beyond_its_projection():
    far = area_from_bbox((-179, -80, 179, 80))
    with pytest.raises(InputError, match="has no coordinates in grid crs '\\+proj=gnom"):
        grid_of_area(far, crs="+proj=gnom +lat_0=90 +datum=WGS84")


@pytest.mark.parametrize(
    ("bbox", "text"),
    [
        ((10, 50, 10, 51), "is empty; expected"),
        ((10, 51, 11, 50), "is empty; expected"),
        ((10, math.nan, 11, 51), "is empty; expected"),
        ((10, 50, math.inf, 51), "is empty; expected"),
        ((10, 50, 181, 51), "lies outside lon -180..180"),
        ((500_000, 5_300_000, 500_700, 5_300_500), "lies outside lon -180..180"),
        ((10, -91, 11, 51), "lies outside lon -180..180"),
    ],
)
def test_what_is_no_box(bbox, text):
    with pytest.raises(InputError, match=re.escape(text)):
        area_from_bbox(bbox)


def test_a_projected_box_must_not_be_turned():
    with pytest.raises(InputError, match="is empty"):
        area_from_bbox((500_700, 5_300_000, 500_000, 5_300_500), "EPSG:32633")


# --- CRS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsg", [32631, 32733, 3035, 25832, 2154, 4326, 3857, 28992])
@pytest.mark.parametrize("version", ["WKT1_GDAL", "WKT2_2019", "WKT1_ESRI"])
def test_long_definitions_are_their_code(epsg, version):
    try:
        text = pyproj.CRS.from_epsg(epsg).to_wkt(version)
    except pyproj.exceptions.CRSError:
        pytest.skip("PROJ cannot write this CRS in this dialect")
    assert parse_crs(text).epsg == epsg


def test_the_real_file_with_towgs84_is_laea_europe(shared_data):
    path = shared_data / "nrt-romania" / "sentinel2_cube_subset_romania_10m.nc"
    with xr.open_dataset(path) as dataset:
        text = dataset["spatial_ref"].attrs["spatial_ref"]
    assert "TOWGS84[0,0,0,0,0,0,0]" in text
    assert parse_crs(text) == CRS("EPSG:3035")
    assert parse_crs(text.replace("TOWGS84[0,0,0,0,0,0,0],", "")) == CRS("EPSG:3035")
    for other in (
        text.replace("TOWGS84[0,", "TOWGS84[5,"),
        text.replace("4321000", "4321010"),
        text.replace('"longitude_of_center",10', '"longitude_of_center",11'),
        text.replace("6378137,298.257222101", "6377397.155,299.1528128"),
    ):
        assert other != text
        assert parse_crs(other).epsg is None


def test_a_shifted_zone_is_not_its_neighbour():
    text = pyproj.CRS.from_epsg(32631).to_wkt("WKT1_GDAL")
    changed = text.replace('"false_easting",500000', '"false_easting",500010')
    assert changed != text
    assert parse_crs(changed).epsg is None


@pytest.mark.parametrize("text", ["", "nonsense", "EPSG:99999", "PROJCS[", "+proj=nothing", "\n"])
def test_what_is_no_crs(text):
    with pytest.raises(InputError, match=r"is not known; expected e.g. 'EPSG:32633'"):
        parse_crs(text)


# --- files ---------------------------------------------------------------------------------------

SQUARE = shapely.box(14.0, 50.0, 14.1, 50.1)
HOLE = shapely.box(14.0, 50.0, 14.1, 50.1).difference(shapely.box(14.04, 50.04, 14.06, 50.06))


def vector(path, shapes, crs="EPSG:4326", **options):
    geopandas.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=crs).to_file(
        path, **options
    )
    return path


@pytest.mark.parametrize("name", ["area.geojson", "area.gpkg", "area.shp"])
def test_formats(tmp_path, name):
    other = shapely.box(14.1, 50.05, 14.2, 50.2)
    area = area_from_file(vector(tmp_path / name, [HOLE, other]))
    assert area.crs.epsg == 4326
    assert area.geom.equals(shapely.union(HOLE, other))


def test_a_name_with_a_line_break(tmp_path):
    path = vector(tmp_path / "area.geojson", [SQUARE]).rename(tmp_path / "a\nb.geojson")
    with pytest.raises(InputError, match="cannot be read as a vector file") as error:
        area_from_file(path)  # GDAL's own reader drops the line break
    assert "\n" not in str(error.value)


def test_polygons_in_metres_keep_their_crs(tmp_path):
    square = shapely.box(500_000, 5_300_000, 500_700, 5_300_500)
    area = area_from_file(vector(tmp_path / "area.gpkg", [square], crs="EPSG:32633"))
    assert area.crs.epsg == 32633
    assert grid_of_area(area).shape == (50, 70)


def test_points_beside_polygons_are_left_out(tmp_path):
    path = vector(tmp_path / "area.geojson", [shapely.Point(0, 0), SQUARE])
    assert area_from_file(path).geom.equals(SQUARE)
    bag = shapely.GeometryCollection([shapely.Point(0, 0), shapely.MultiPolygon([SQUARE])])
    path = vector(tmp_path / "bag.geojson", [bag])
    assert area_from_file(path).geom.equals(SQUARE)


def test_a_polygon_that_crosses_itself(tmp_path):
    bowtie = shapely.Polygon([(14, 50), (14.1, 50.1), (14.1, 50), (14, 50.1)])
    assert not bowtie.is_valid
    area = area_from_file(vector(tmp_path / "area.geojson", [bowtie, SQUARE])).geom
    assert area.is_valid
    assert area.equals(SQUARE)


def test_heights_are_ignored(tmp_path):
    area = area_from_file(vector(tmp_path / "a.geojson", [shapely.force_3d(SQUARE, 700)]))
    assert area.geom.equals(SQUARE)
    assert not area.geom.has_z


def test_a_country_on_both_sides_of_the_antimeridian(tmp_path):
    islands = [shapely.box(177, -18, 180, -17), shapely.box(-180, -18, -179, -17)]
    area = area_from_file(vector(tmp_path / "fiji.geojson", islands))
    assert area.boundingbox[:] == (177, -18, 181, -17)
    assert utm_crs(area).epsg == 32760
    assert grid_of_area(area, resolution=1000).shape[1] < 450


def test_a_shapefile_without_prj(tmp_path):
    path = vector(tmp_path / "area.shp", [SQUARE])
    path.with_suffix(".prj").unlink()
    with pytest.raises(InputError, match="has no CRS; save it with one"):
        area_from_file(path)


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([shapely.Point(14, 50)], "found Point"),
        ([shapely.LineString([(0, 0), (1, 1)]), shapely.Point(14, 50)], "found LineString, Point"),
        ([shapely.Polygon()], "found "),
    ],
)
def test_no_polygon(tmp_path, shapes, found):
    with pytest.raises(InputError, match=rf"has no polygon \({found}"):
        area_from_file(vector(tmp_path / "area.geojson", shapes))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "cannot be read as a vector file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "cannot be read as a vector file"),
        (b'{"type": "FeatureCollection", "features": [', "cannot be read as a vector file"),
        (b'{"type": "FeatureCollection", "features": []}', "has no polygon (found nothing)"),
        (b"\x00" * 200, "cannot be read as a vector file"),
    ],
)
def test_what_is_no_vector_file(tmp_path, content, text):
    path = tmp_path / "area.geojson"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(text)) as error:
        area_from_file(path)
    assert repr(str(path)) in str(error.value)


def test_a_table_without_geometry(tmp_path):
    path = tmp_path / "area.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no polygon"):
        area_from_file(path)


def test_two_layers_are_not_guessed_between(tmp_path):
    path = tmp_path / "area.gpkg"
    vector(path, [SQUARE], layer="stands")
    vector(path, [HOLE], layer="district")
    with pytest.raises(InputError, match="has the layers stands, district; save the one you mean"):
        area_from_file(path)


@pytest.mark.parametrize("name", ["missing.gpkg", "a\nb.gpkg", "x" * 5000, "folder/none.shp"])
def test_no_file(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        area_from_file(tmp_path / name)


def test_geojson_is_lon_lat():
    area = Geometry(shapely.box(500_000, 5_300_000, 500_700, 5_300_500), CRS("EPSG:32633"))
    stated = shapely.geometry.shape(json.loads(geojson_of_area(area)))
    to_degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    assert stated.bounds[:2] == pytest.approx(to_degrees.transform(500_000, 5_300_000), abs=1e-6)
