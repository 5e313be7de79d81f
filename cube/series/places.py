"""Columns of a place in, longitude and latitude out; and who lies near whom."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely
from jaxtyping import Float64, Int64, Shaped
from pyproj import CRS, Transformer

from cube.blocks import spatial_blocks
from cube.errors import InputError
from cube.grid import parse_crs
from cube.series.linked import linked
from cube.series.table import Table

GROUP_DISTANCE = 1000.0
"""Metres within which places share a group: longer than most stands and fields."""

BLOCK_DEGREES = 1.0
"""Edge of the blocks."""

_FEWEST_BLOCKS = 5
"""Blocks there should be, so that one may be held out and the others still be a country."""

_SMALLEST_BLOCK = 1 / 128
_LARGEST_SHARE, _LONGEST_CHAIN = 0.2, 5000.0
"""Share of all series, and metres from end to end, up to which a chain of places is one site."""

_SAME_PLACE = 1e-4
"""Degrees (10 m) that rows of one series may differ by: the same place, written by two programs."""

_FAR = 2_000_000.0
"""Metres from the middle beyond which distances across the projection are percents too long."""


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
        x, y = Transformer.from_crs(_flat(crs), "EPSG:4326", always_xy=True).transform(x, y)
    is_lost = ~(np.isfinite(x) & np.isfinite(y)) | (np.abs(x) > 180) | (np.abs(y) > 90)
    if is_lost.any():
        row = int(rows[np.flatnonzero(is_lost)[0]])
        found = ", ".join(str(table.data[name][row].as_py())[:60] for name in columns)
        raise InputError(
            f"{table.name!r}, {table.at(row)}: {' and '.join(columns)} hold {found!r}, no longitude "
            f"and latitude ({int(is_lost.sum()):,} series); with other coordinates say --crs"
        )
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _flat(crs: str) -> CRS:
    """Return a CRS of two axes on the ground; raises `InputError` for any other."""
    found: CRS = parse_crs(crs).proj
    if len(found.axis_info) != 2 or not (found.is_geographic or found.is_projected):
        raise InputError(
            f"--crs {crs!r} is {found.name[:60]!r}, which has no x and y on the ground; expected "
            "e.g. EPSG:32633"
        )
    return found


def same_place(crs: str | None) -> float:
    """Return how far rows of one place may differ, in units of the CRS (None: degrees).

    Raises `InputError` for a CRS that has no x and y on the ground.
    """
    if crs is None:
        return _SAME_PLACE
    found = _flat(crs)
    if found.is_geographic:
        return _SAME_PLACE
    return _SAME_PLACE * 1e5 / found.axis_info[0].unit_conversion_factor


def _middles(
    table: Table, column: str, rows: Int64[np.ndarray, " series"]
) -> tuple[np.ndarray, np.ndarray]:
    values = table.data[column].take(pa.array(rows))
    is_bytes = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    texts = values.to_pylist()
    if not is_bytes and any(not isinstance(text, str | None) for text in texts):
        raise InputError(
            f"{table.name!r}: column {column!r} holds {values.type}, no shapes; expected WKT, WKB "
            "or GeoJSON"
        )
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


def far_note(place: Float64[np.ndarray, "series 2"]) -> str | None:
    """Return what is said of places too far from the middle for `local_metres`; None if none is."""
    away = float(np.hypot(*place.T).max())
    if away <= _FAR:
        return None
    angle = away / 6_371_000
    longer = angle / max(np.sin(angle), 1e-9) - 1
    return (
        f"WARNING: places lie up to {away / 1000:,.0f} km from their middle, where distances are "
        f"taken up to {min(longer, 10):.0%} too long; train on the continents one by one, or name "
        "the fields or stands with --group"
    )


def groups_of(
    place: Float64[np.ndarray, "series 2"], distance: float | None
) -> tuple[Int64[np.ndarray, " series"], float, str | None]:
    """Return a number for each series, equal where a chain of places links two, its distance, and
    what was cut.

    A link is `distance` metres or shorter. None takes `GROUP_DISTANCE`, and cuts a chain that holds
    more than a fifth of all series and is longer than 5 km into squares of that edge: places as
    dense as a carpet would else be one group, and a site must stay one.
    """
    if distance is not None:
        return linked(place, distance), distance, None
    found = linked(place, GROUP_DISTANCE)
    sizes = np.bincount(found)
    cut = [
        int(number)
        for number in np.flatnonzero(sizes > max(_LARGEST_SHARE * len(place), 1))
        if np.hypot(*np.ptp(place[found == number], axis=0)) > _LONGEST_CHAIN
    ]
    if not cut:
        return found, GROUP_DISTANCE, None
    is_cut = np.isin(found, cut)
    square = np.floor(place / GROUP_DISTANCE).astype(np.int64)
    square[~is_cut] = 0
    keys = np.column_stack([found, square])  # (series, number east north)
    number = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    note = (
        f"WARNING: {int(is_cut.sum()):,} series are one chain of places, each within "
        f"{GROUP_DISTANCE:g} m of the next; it was cut into squares of {GROUP_DISTANCE:g} m, so "
        "neighbours across an edge may be on both sides of a split. Name the fields or stands with "
        "--group, or say --group-distance"
    )
    return np.asarray(number, np.int64), GROUP_DISTANCE, note


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
