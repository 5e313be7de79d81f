"""Columns of a place in, longitude and latitude out; and who lies near whom."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely
from jaxtyping import Float64, Int64, Shaped
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cube.errors import InputError
from cube.sample import spatial_blocks
from cube.series.table import Table

GROUP_DISTANCE = 1000.0
"""Metres within which places share a group: longer than most stands and fields."""

BLOCK_DEGREES = 1.0
"""Edge of the blocks."""

_FEWEST_BLOCKS = 5
"""Blocks there should be, so that one may be held out and the others still be a country."""

_SMALLEST_BLOCK = 1 / 128
_LARGEST_SHARE = 0.2
"""Share of all series that one group may hold before the distance is taken for too long."""


def places_of(
    table: Table, columns: Sequence[str], rows: Int64[np.ndarray, " series"], crs: str | None
) -> tuple[Float64[np.ndarray, " series"], Float64[np.ndarray, " series"]]:
    """Return longitude and latitude of the places in `rows`: of points, or the middle of shapes.

    `columns` are longitude and latitude (x and y in `crs`), or one of WKT, WKB or GeoJSON. Raises
    `InputError` for a row that has no place on Earth, and for a CRS that does not exist.
    """
    if len(columns) == 2:
        x, y = (table.numbers(name)[rows] for name in columns)
    else:
        x, y = _middles(table, columns[0], rows)
    if crs is not None:
        try:
            transformer = Transformer.from_crs(
                CRS.from_user_input(crs), "EPSG:4326", always_xy=True
            )
        except CRSError as error:
            raise InputError(f"--crs {crs!r} does not exist; expected e.g. EPSG:32633") from error
        x, y = transformer.transform(x, y)
    is_lost = ~(np.isfinite(x) & np.isfinite(y)) | (np.abs(x) > 180) | (np.abs(y) > 90)
    if is_lost.any():
        row = int(rows[np.flatnonzero(is_lost)[0]])
        found = ", ".join(str(table.data[name][row].as_py())[:60] for name in columns)
        raise InputError(
            f"{table.name!r}, {table.at(row)}: {' and '.join(columns)} hold {found!r}, no longitude "
            f"and latitude ({int(is_lost.sum()):,} series); with other coordinates say --crs"
        )
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _middles(
    table: Table, column: str, rows: Int64[np.ndarray, " series"]
) -> tuple[np.ndarray, np.ndarray]:
    values = table.data[column].take(pa.array(rows))
    is_bytes = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    texts = values.to_pylist()
    if is_bytes:
        shapes = shapely.from_wkb(texts, on_invalid="ignore")
    elif any(text and text.lstrip().startswith("{") for text in texts):
        shapes = shapely.from_geojson(texts, on_invalid="ignore")
    else:
        shapes = shapely.from_wkt(texts, on_invalid="ignore")
    middle = shapely.centroid(shapes)
    return shapely.get_x(middle), shapely.get_y(middle)  # NaN where there is no shape


def local_metres(
    lon: Float64[np.ndarray, " series"], lat: Float64[np.ndarray, " series"]
) -> tuple[Float64[np.ndarray, "series 2"], str]:
    """Return east and north in metres of an equidistant projection round the middle, and its CRS.

    Distances from the middle are true; between places of one country they are true to a percent.
    """
    angle, height = np.radians(lon), np.radians(lat)
    towards = [np.cos(angle) * np.cos(height), np.sin(angle) * np.cos(height), np.sin(height)]
    x, y, z = (float(part.mean()) for part in towards)
    middle_lon, middle_lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    crs = f"+proj=aeqd +lat_0={middle_lat:.6f} +lon_0={middle_lon:.6f} +datum=WGS84 +units=m"
    transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return np.column_stack(transformer.transform(lon, lat)), crs  # (series, east north)


def groups_of(
    place: Float64[np.ndarray, "series 2"], distance: float | None
) -> tuple[Int64[np.ndarray, " series"], float]:
    """Return a number for each series, equal where a chain of places links two, and its distance.

    A link is `distance` metres or shorter. None takes `GROUP_DISTANCE`, and halves it while one
    chain would hold more than a fifth of all series, down to 1 m: dense samples would else be one
    group.
    """
    if distance is not None:
        return _linked(place, distance), distance
    distance = GROUP_DISTANCE
    while True:
        found = _linked(place, distance)
        if distance <= 1 or np.bincount(found).max() <= max(_LARGEST_SHARE * len(place), 1):
            return found, distance
        distance /= 2


def _linked(
    place: Float64[np.ndarray, "series 2"], distance: float
) -> Int64[np.ndarray, " series"]:
    # places written twice may differ in the last digit of a degree
    places, which = np.unique(np.rint(place * 10), axis=0, return_inverse=True)
    pairs = cKDTree(places).query_pairs(distance * 10, output_type="ndarray")
    graph = coo_array(
        (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(places),) * 2
    )
    number = connected_components(graph, directed=False)[1]
    return np.asarray(number[which.ravel()], np.int64)


def blocks_of(
    lon: Float64[np.ndarray, " series"], lat: Float64[np.ndarray, " series"], degrees: float | None
) -> tuple[Shaped[np.ndarray, " series"], float]:
    """Return the square of longitude and latitude that each series lies in, and the edge.

    None takes squares of 1 degree, and halves them while there are fewer than five.
    """
    edge = BLOCK_DEGREES if degrees is None else degrees
    while True:
        found = spatial_blocks(lon, lat, edge)
        is_enough = len(set(found.tolist())) >= _FEWEST_BLOCKS
        if degrees is not None or is_enough or edge <= _SMALLEST_BLOCK:
            return found, edge
        edge /= 2
