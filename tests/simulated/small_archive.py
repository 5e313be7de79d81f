"""Dates and granules in, a static catalogue of small scenes out whose pixels a test may change.

Pixels are 100 m wide, so that granules lie further apart than a footprint's slack although a scene
has few thousand of them.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

EPSG, LEFT, TOP, PIXEL = 32648, 700_000.0, 3_700_000.0, 100.0
"""Corner and pixels of all granules together, in EPSG:32648."""

BANDS = {"B04": "red", "B08": "nir"}
"""Bands of a scene, with their names in the catalogue."""


@dataclass(frozen=True, kw_only=True)
class Granule:
    """A scene of the archive: an overpass over a strip of ground."""

    day: str
    """Date, YYYY-MM-DD."""
    tile: str
    """MGRS tile, e.g. `48SYC`."""
    left: int
    """First column of its pixels."""
    width: int
    """Columns."""
    height: int = 96
    """Rows; all begin at the top."""
    top: int = 0
    """First row of its pixels."""
    seed: int = 0
    """Start of its pixels: another one gives others."""
    version: int = 0
    """Counted up when the item is changed."""

    @property
    def id(self) -> str:
        """Id of its item."""
        return f"S2A_{self.tile}_{self.day.replace('-', '')}_0_L2A"


class SmallArchive:
    """A static catalogue in a folder; granules may be added, replaced and taken out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.granules: dict[str, Granule] = {}

    @classmethod
    def copied(cls, folder: Path, original: "SmallArchive") -> "SmallArchive":
        """Return the archive of a folder that is a copy of another's."""
        made = cls(folder)
        made.granules = dict(original.granules)
        return made

    @property
    def catalogue(self) -> Path:
        """The catalogue's own file."""
        return self.folder / "catalog.json"

    def add(self, *granules: Granule) -> None:
        """Write granules, in place of those of the same day and tile."""
        for granule in granules:
            self.granules[granule.id] = granule
            _write_scene(self.folder / granule.id, granule)
        self._write_links()

    def correct(self, id_: str) -> None:
        """Give a scene other pixels, as an archive does that has processed it again."""
        before = self.granules[id_]
        self.add(replace(before, seed=before.seed + 1000, version=before.version + 1))

    def remove(self, id_: str) -> None:
        """Take a scene out of the catalogue."""
        del self.granules[id_]
        self._write_links()

    def _write_links(self) -> None:
        items = [
            {"rel": "item", "href": f"./{id_}/{id_}.json", "type": "application/geo+json"}
            for id_ in self.granules
        ]
        _write_json(
            self.folder / "catalog.json",
            {
                "type": "Catalog",
                "id": "small",
                "stac_version": "1.0.0",
                "description": "small",
                "links": [
                    {"rel": "root", "href": "./catalog.json"},
                    {"rel": "self", "href": "./catalog.json"},
                    *items,
                ],
            },
        )


def _write_scene(folder: Path, granule: Granule) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = (granule.height, granule.width)
    random = np.random.default_rng([granule.seed, *granule.id.encode()])
    transform = Affine(PIXEL, 0, LEFT + granule.left * PIXEL, 0, -PIXEL, TOP - granule.top * PIXEL)
    classes = random.choice(np.array([4, 4, 4, 5, 9], np.uint8), size)
    layers = {"SCL": classes} | {
        name: random.integers(100, 5000, size, np.uint16) for name in BANDS
    }
    for name, pixels in layers.items():
        file = folder / f"{name}.tif"
        file.unlink(missing_ok=True)
        with rasterio.open(
            file,
            "w",
            driver="GTiff",
            height=size[0],
            width=size[1],
            count=1,
            dtype=pixels.dtype,
            crs=f"EPSG:{EPSG}",
            transform=transform,
            nodata=0,
            tiled=True,
            blockxsize=64,
            blockysize=64,
            compress="deflate",
        ) as opened:
            opened.write(pixels, 1)
    _write_json(folder / f"{granule.id}.json", _item(granule, GeoBox(size, transform, EPSG)))


def _item(granule: Granule, grid: GeoBox) -> dict[str, Any]:
    outline = grid.extent.to_crs("EPSG:4326")
    ring = [[round(number, 7) for number in point] for point in outline.exterior.coords[:]]
    stamp = f"{granule.day.replace('-', '')}T033744"
    changed = f"{granule.day}T10:00:{granule.version:02d}Z"
    names = {"SCL": "scl", **BANDS}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": granule.id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(outline.boundingbox),
        "properties": {
            "datetime": f"{granule.day}T03:48:58Z",
            "created": f"{granule.day}T10:00:00Z",
            "updated": changed,
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "eo:cloud_cover": 10.0,
            "proj:epsg": EPSG,
            "grid:code": f"MGRS-{granule.tile}",
            "s2:processing_baseline": "03.01",
            "s2:product_uri": f"S2A_MSIL2A_{stamp}_N0301_R018_T{granule.tile}_{stamp}.SAFE",
            "s2:generation_time": changed,
            "s2:datatake_id": f"GS2A_{stamp}_034543_N03.01",
            "s2:sequence": "0",
            "earthsearch:boa_offset_applied": False,
        },
        "links": [],
        "assets": {
            asset: {
                "href": f"./{name}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "proj:shape": list(grid.shape),
                "proj:transform": list(grid.transform)[:6],
            }
            for name, asset in names.items()
        },
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
