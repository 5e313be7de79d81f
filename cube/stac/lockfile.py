"""`SceneList` in, the lock file on disk out, and back: stac-geoparquet, a row for every item.

Any reader of stac-geoparquet or GeoParquet opens it. Our own facts stand in columns under
`canopycube:`; a row of a dropped scene has its id and its reason there, and else nothing.
"""

import io
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS
from shapely.geometry import MultiPolygon, Polygon, shape

from cube.bands import BANDS
from cube.durable import replace_bytes
from cube.errors import InputError
from cube.stac.footprint import geojson, on_globe
from cube.stac.scene import SCL, DroppedScene, Scene, SceneList

_FORMAT = "canopycube scenes 3"
"""Kept in the file's metadata; a reader refuses any other. 3: stac-geoparquet instead of JSON."""

_KEY = b"canopycube"
_OWN = "canopycube:"

_BATCH = 512
"""Rows that are Python objects at once; a row is far larger as such than in the file."""

_DAMAGED = (
    pa.ArrowException,
    shapely.errors.ShapelyError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What the libraries and a row that is none raise."""

_PLATFORMS = {"S2": "sentinel-2", "L0": "landsat-"}
"""Begin of an overpass, and of the platform it tells of: `S2A`, `L08`."""

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
]

_ASSET = pa.struct(
    [
        ("href", pa.string()),
        ("roles", pa.list_(pa.string())),
        ("proj:transform", pa.list_(pa.float64())),
        ("proj:shape", pa.list_(pa.int64())),
        (f"{_OWN}stamp", pa.string()),
    ]
)

_LINK = pa.struct([("href", pa.string()), ("rel", pa.string())])

_EDGES = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])

_TEXTS = (
    "overpass",
    "tile",
    "baseline",
    "generated",
    "sequence",
    "sensor",
    "offset_reason",
    "updated",
    "metadata_href",
    "footprint",
    "lost",
    "dropped",
)
"""Our own columns of text: fields of `Scene`, the two parts of its version, the footprint as JSON
where `geometry` is not all of it, and the reason of a dropped scene."""

_SCHEMA = pa.schema(
    [
        ("type", pa.string()),
        ("stac_version", pa.string()),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("collection", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", _EDGES),
        ("links", pa.list_(_LINK)),
        ("assets", pa.struct([(name, _ASSET) for name in (*BANDS, SCL)])),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("platform", pa.string()),
        ("proj:code", pa.string()),
        ("eo:cloud_cover", pa.float64()),
        ("s2:processing_baseline", pa.string()),
        *((f"{_OWN}{name}", pa.string()) for name in _TEXTS),
        (f"{_OWN}offset", pa.int32()),
        (f"{_OWN}is_locked", pa.bool_()),
        (f"{_OWN}cost", pa.string()),
    ]
)
"""The same for every file, whatever the items held."""


def write_scenes(path: Path, found: SceneList, *, question: str = "") -> None:
    """Write the lock file, whole or not at all, and so that it outlives a power cut.

    `question` is kept with it, for `read_scenes` to return; empty keeps the list's own. Raises
    `OSError`, and `ValueError` for assets that are no bands
    or a footprint that is no polygon.
    """
    rows = [*map(_row, found.scenes), *map(_dropped_row, found.dropped)]
    own = {"format": _FORMAT, "question": question or found.question}
    schema = _SCHEMA.with_metadata(_geo_metadata() | {_KEY: json.dumps(own).encode()})
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), content, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, content.getvalue())


def read_scenes(path: Path) -> SceneList:
    """Read a lock file; raise `InputError` if it is missing, damaged, or something else."""
    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            question = _question(parquet.schema_arrow.metadata, path)
            if not parquet.schema_arrow.equals(_SCHEMA):
                raise ValueError("its columns are others")
            scenes: list[Scene] = []
            dropped: list[DroppedScene] = []
            for batch in parquet.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    reason = row[f"{_OWN}dropped"]
                    if reason is None:
                        scenes.append(Scene.from_json(_record(row)))
                    else:
                        dropped.append(DroppedScene(id=str(row["id"]), reason=reason))
        return SceneList(scenes=tuple(scenes), dropped=tuple(dropped), question=question)
    except FileNotFoundError:
        raise InputError(
            f"scene list {str(path)!r} does not exist; run `canopycube lock RECIPE`"
        ) from None
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"scene list {str(path)!r} is damaged ({' '.join(str(error).split())[:200]}); run "
            "`canopycube lock RECIPE`"
        ) from error


def _question(metadata: Mapping[bytes, bytes] | None, path: Path) -> str:
    try:
        own = json.loads((metadata or {})[_KEY])
        if own["format"] == _FORMAT:
            return str(own["question"])
    except (KeyError, TypeError, ValueError):
        pass  # another program's file
    raise InputError(
        f"{str(path)!r} is no scene list of this version ({_FORMAT!r}); delete it or run "
        "`canopycube lock RECIPE`"
    )


def _row(scene: Scene) -> dict[str, Any]:
    """Return a scene as a flat STAC item."""
    unknown = sorted(set(scene.assets) - {*BANDS, SCL})
    if unknown:
        raise ValueError(f"scene {scene.id!r} has assets {unknown} that are no bands")
    record = scene.to_json()
    geometry, is_whole = _geometry(scene.footprint)
    generated, sequence = scene.version
    texts = record | {
        "generated": generated,
        "sequence": sequence,
        "footprint": None if is_whole else json.dumps(scene.footprint),
        "dropped": None,
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": scene.id,
        "collection": scene.collection,
        "geometry": shapely.to_wkb(geometry),
        "bbox": _edges(geometry),
        "links": [],
        "assets": {name: _asset(asset) for name, asset in record["assets"].items()},
        "datetime": scene.time,
        "platform": _platform(scene.overpass),
        "proj:code": f"EPSG:{scene.epsg}",
        "eo:cloud_cover": scene.cloud_cover,
        "s2:processing_baseline": scene.baseline if "sentinel-2" in scene.sensor else None,
        **{f"{_OWN}{name}": texts[name] for name in _TEXTS},
        f"{_OWN}offset": scene.offset,
        f"{_OWN}is_locked": scene.is_locked,
        f"{_OWN}cost": json.dumps(record["cost"]),
    }


def _dropped_row(dropped: DroppedScene) -> dict[str, Any]:
    nowhere = MultiPolygon()  # readers of STAC fall over a missing geometry, or bbox
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": dropped.id,
        "geometry": shapely.to_wkb(nowhere),
        "bbox": _edges(nowhere),
        "links": [],
        f"{_OWN}dropped": dropped.reason,
    }


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as `Scene.from_json` reads it."""
    own = {name: row[f"{_OWN}{name}"] for name in (*_TEXTS, "offset", "is_locked")}
    footprint = own["footprint"]
    assets = {name: asset for name, asset in row["assets"].items() if asset is not None}
    return own | {
        "cost": json.loads(row[f"{_OWN}cost"]),
        "id": row["id"],
        "collection": row["collection"],
        "time": row["datetime"].isoformat(),
        "version": [own["generated"], own["sequence"]],
        "epsg": row["proj:code"].removeprefix("EPSG:"),
        "cloud_cover": row["eo:cloud_cover"],
        "footprint": geojson(shapely.from_wkb(row["geometry"]))
        if footprint is None
        else json.loads(footprint),
        "assets": {
            name: {
                "href": asset["href"],
                "transform": asset["proj:transform"],
                "shape": asset["proj:shape"],
                "stamp": asset[f"{_OWN}stamp"],
            }
            for name, asset in assets.items()
        },
    }


def _asset(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "href": record["href"],
        "roles": ["data"],
        "proj:transform": record["transform"],
        "proj:shape": record["shape"],
        f"{_OWN}stamp": record["stamp"],
    }


def _geometry(footprint: Mapping[str, Any]) -> tuple[Polygon | MultiPolygon, bool]:
    """(footprint within -180..180 degrees, whether that is all of it, to the last digit)."""
    outline = shape(dict(footprint))
    if not isinstance(outline, Polygon | MultiPolygon):
        raise ValueError(f"a footprint is a {outline.geom_type}, no polygon")
    west, _, east, _ = outline.bounds
    if west >= -180 and east <= 180:
        return outline, geojson(outline) == footprint
    return on_globe(outline) or MultiPolygon(), False


def _edges(geometry: Polygon | MultiPolygon) -> dict[str, float]:
    """Return the bbox, NaN of an empty geometry.

    As RFC 7946 has it, west is more than east where it crosses the antimeridian.
    """
    west, south, east, north = geometry.bounds
    parts = sorted(part.bounds for part in getattr(geometry, "geoms", [geometry]))
    if len(parts) > 1 and west == -180 and east == 180:
        widest = max(pairwise(parts), key=lambda two: float(np.subtract(two[1][0], two[0][2])))
        west, east = widest[1][0], widest[0][2]
    return {"xmin": west, "ymin": south, "xmax": east, "ymax": north}


def _platform(overpass: str) -> str | None:
    satellite = overpass.removeprefix("HLS-")[:3]
    family = _PLATFORMS.get(satellite[:2])
    return None if family is None else f"{family}{satellite[2:].lower()}"


def _geo_metadata() -> dict[bytes, bytes]:
    """Return what GeoParquet 1.1 and stac-geoparquet 1.0 want to find in a file."""
    edges = {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
    geometry = {
        "encoding": "WKB",
        "geometry_types": [],
        "crs": CRS.from_user_input("OGC:CRS84").to_json_dict(),
        "edges": "planar",
        "covering": {"bbox": edges},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return {
        b"geo": json.dumps(geo).encode(),
        b"stac-geoparquet": json.dumps({"version": "1.0.0"}).encode(),
    }
