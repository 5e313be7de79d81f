"""`Scene`, `Asset`, `SceneList`: what is known of each acquisition, as plain data and as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cube.errors import InputError
from cube.ledger import fingerprint
from cube.stac.href import resolved_href
from cube.stac.sensors import SENSORS

SCL = "SCL"
"""Name of the mask among a scene's assets, whichever the sensor (it is no band of a cube): the scene
classification of Sentinel-2, QA_PIXEL of Landsat, Fmask of HLS. `Sensor.classes_of` makes scene
classes of it."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of a scene: one band on one grid."""

    href: str
    """Absolute address (https, s3, or a local path), never with a signature."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Pixel to CRS, in the order (a, b, c, d, e, f) of the projection extension. From the item
    until the scene is locked, then from the file's own header; None if the item does not say."""
    shape: tuple[int, int] | None = None
    """Rows and columns; from where `transform` is from."""
    stamp: str | None = None
    """Size and hash of a local file when it was locked (`file_stamp`): what changes when its pixels
    do. None for files of the network, and until the scene is locked."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One granule of one acquisition, independent of the provider it came from.

    A count of a band is worth `gain * count + bias` stored units (`Sensor.calibration`).
    """

    id: str
    """Id of the STAC item."""
    collection: str
    """Id of its collection, empty if it has none."""
    time: datetime
    """Sensing time as the provider states it, in UTC."""
    overpass: str
    """Satellite and start of the datatake, e.g. `S2A_20230628T070631`: the same for every tile,
    zone and reprocessing of one pass, with every provider. Landsat: `L08-028_20200114T170517`, a
    path and when it is crossed in theory; HLS: `HLS-S2A_20210101T120000`, the local solar date."""
    tile: str
    """MGRS tile, e.g. `33TWL`; of Landsat path and row, e.g. `028030`."""
    baseline: str
    """Processing baseline, e.g. `05.09`; of Landsat the collection, `02`; of HLS the version, `2.0`."""
    version: tuple[str, str]
    """Generation time (ISO, empty if unknown) and sequence number of the product: what decides
    between two products of one baseline."""
    epsg: int
    """CRS of the assets."""
    footprint: Mapping[str, Any] = field(repr=False)
    """GeoJSON Polygon or MultiPolygon, lon/lat. One that crosses the antimeridian runs on past
    180 degrees instead of jumping to -180."""
    cloud_cover: float | None
    """Per cent of the scene, by the provider."""
    assets: Mapping[str, Asset] = field(repr=False)
    """By canonical band name, and `SCL`."""
    offset: int
    """Counts to add to reflectance: 0 or -1000; of other sensors than Sentinel-2 always 0."""
    offset_reason: str
    """Why that offset: which fields, and which pixels."""
    updated: str = ""
    """When the item was last changed, as it states it (`updated`, else `created`); else empty."""
    sensor: str = "sentinel-2-l2a"
    """Key of `cube.stac.sensors.SENSORS`: what counts and mask mean."""
    metadata_href: str = ""
    """Address of the product's own metadata (MTD_MSIL2A.xml), unsigned; empty if there is none."""
    is_locked: bool = False
    """Whether geometry and offset were checked against the files."""
    lost: str = ""
    """Which file was found broken when the scene was locked, and how; empty if none was."""
    cost: Mapping[str, int] = field(default_factory=dict, repr=False)
    """What reading it for the cube takes (`cube.stac.cost.ReadingCost` by field), once locked."""

    @property
    def identity(self) -> list[Any]:
        """What makes the scene's pixels what they are, as plain JSON; not where its files lie.

        For files of the network, which have no stamp, the item's own version stands in, and when
        it was last changed.
        """
        assets = sorted(self.assets.items())
        is_stamped = all(asset.stamp is not None for _, asset in assets)
        return [
            [self.id, self.collection, self.overpass, self.baseline, *self.version],
            [self.offset, self.epsg, self.footprint, "" if is_stamped else self.updated],
            [
                [name, *(v for k, v in _asset_to_json(a).items() if k != "href")]
                for name, a in assets
            ],
        ]

    @property
    def overpass_start(self) -> datetime:
        """Start of the datatake in UTC: one instant, and so one period, for the whole pass.

        Of Landsat the instant at which the path crosses the equator in theory, of HLS noon (UTC) of
        the local solar date (see `overpass`): not the true time, but one for every granule.
        """
        return _overpass_start(self.overpass)

    def to_json(self) -> dict[str, Any]:
        """Return the scene as plain JSON data; `from_json` reads it back."""
        return {
            "id": self.id,
            "collection": self.collection,
            "time": self.time.isoformat(),
            "overpass": self.overpass,
            "tile": self.tile,
            "baseline": self.baseline,
            "version": list(self.version),
            "updated": self.updated,
            "epsg": self.epsg,
            "cloud_cover": self.cloud_cover,
            "offset": self.offset,
            "offset_reason": self.offset_reason,
            "sensor": self.sensor,
            "metadata_href": self.metadata_href,
            "is_locked": self.is_locked,
            "lost": self.lost,
            "cost": dict(self.cost),
            "footprint": self.footprint,
            "assets": {name: _asset_to_json(asset) for name, asset in self.assets.items()},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Scene":
        """Read what `to_json` wrote; raise `InputError` for a record that is not one."""
        try:
            time = datetime.fromisoformat(record["time"])
            if time.tzinfo is None:
                raise ValueError("time has no zone")
            generated, sequence = record["version"]
            scene = cls(
                id=str(record["id"]),
                collection=str(record["collection"]),
                time=time.astimezone(UTC),
                overpass=str(record["overpass"]),
                tile=str(record["tile"]),
                baseline=str(record["baseline"]),
                version=(str(generated), str(sequence)),
                updated=str(record["updated"]),
                epsg=int(record["epsg"]),
                cloud_cover=None if record["cloud_cover"] is None else float(record["cloud_cover"]),
                offset=int(record["offset"]),
                offset_reason=str(record["offset_reason"]),
                sensor=str(record["sensor"]),
                metadata_href=str(record["metadata_href"]),
                is_locked=record["is_locked"] is True,
                lost=str(record["lost"]),
                cost={str(k): int(v) for k, v in dict(record["cost"]).items()},
                footprint=dict(record["footprint"]),
                assets={str(n): _asset_from_json(a) for n, a in dict(record["assets"]).items()},
            )
            _overpass_start(scene.overpass)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = record.get("id") if isinstance(record, Mapping) else record
            raise InputError(f"scene record {name!r} is damaged: {error!r}") from error
        if scene.offset not in (0, -1000):
            raise InputError(f"scene record {scene.id!r} has offset {scene.offset}, not 0 or -1000")
        if scene.sensor not in SENSORS:
            raise InputError(
                f"scene record {scene.id!r} is of sensor {scene.sensor!r}; known are "
                f"{', '.join(SENSORS)}"
            )
        return scene


@dataclass(frozen=True, kw_only=True)
class DroppedScene:
    """A scene that was found but is not used, and why."""

    id: str
    """Id of the STAC item."""
    reason: str
    """One clause, e.g. `cloud cover 91 % is above 80 %`."""


@dataclass(frozen=True, kw_only=True)
class SceneList:
    """What a search gave: what to use and what was left out."""

    scenes: tuple[Scene, ...]
    """To use, in order of overpass, tile and id."""
    dropped: tuple[DroppedScene, ...] = ()
    """Left out, in the order of discovery."""
    question: str = ""
    """What the list answers, as whoever asked put it; a later run compares it with its own."""

    @property
    def fingerprint(self) -> str:
        """Short hash of everything kept of the scenes to use, addresses included."""
        return fingerprint([scene.to_json() for scene in self.scenes])


def _overpass_start(overpass: str) -> datetime:
    return datetime.strptime(overpass.rpartition("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _asset_to_json(asset: Asset) -> dict[str, Any]:
    return {
        "href": asset.href,
        "transform": None if asset.transform is None else list(asset.transform),
        "shape": None if asset.shape is None else list(asset.shape),
        "stamp": asset.stamp,
    }


def _asset_from_json(record: Mapping[str, Any]) -> Asset:
    transform, shape, stamp = record["transform"], record["shape"], record["stamp"]
    return Asset(
        href=resolved_href(str(record["href"]), base="/", owner="its file"),
        transform=None if transform is None else affine_numbers(transform),
        shape=None if shape is None else pixel_shape(shape),
        stamp=None if stamp is None else str(stamp),
    )


def affine_numbers(values: Any) -> tuple[float, float, float, float, float, float]:
    """Return the first six numbers of a `proj:transform`; raise `ValueError` for anything else."""
    numbers = tuple(float(value) for value in values[:6])
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise ValueError(f"transform {values!r} is not six finite numbers")
    a, b, c, d, e, f = numbers
    if math.isclose(a * e, b * d):
        raise ValueError(f"transform {values!r} has pixels without area")
    return a, b, c, d, e, f


def pixel_shape(values: Any) -> tuple[int, int]:
    """Return (rows, columns) of a `proj:shape`; raise `ValueError` for anything else."""
    rows, columns = values
    if int(rows) != rows or int(columns) != columns or rows < 1 or columns < 1:
        raise ValueError(f"shape {values!r} is not two positive whole numbers")
    return int(rows), int(columns)
