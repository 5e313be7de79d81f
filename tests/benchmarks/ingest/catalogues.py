"""A forest served over HTTP in, catalogues and areas to measure on out."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cube.forest import ForestSpec

SCENES = (10, 50, 100, 200)
EDGE = 96
"""Edge of a tile where tiles are counted."""


def plain_catalogue(folder: Path, url: str, work: Path) -> Path:
    """Write a catalogue of the whole granules of the forest's own zone, and return it.

    All ways can make the same cube of these: a day of two granules with two offsets, or of two
    zones, comes out otherwise where granules are mosaicked before the offset is taken off.
    """
    chosen = [
        _again(item, 0, url)
        for item in _items(folder)
        if "_48" in item["id"] and not _is_half(item)
    ]
    return _written(work / "plain", chosen, folder)


def catalogues(folder: Path, url: str, work: Path) -> Iterator[tuple[int, Path]]:
    """Yield (number of scenes, catalogue) with the forest's scenes taken again hours later.

    Every copy has the files of its original, so that only the number of scenes grows. Overcast
    scenes and the neighbouring zone are left out: each scene gives a look.
    """
    items = [
        item
        for item in _items(folder)
        if item["properties"]["eo:cloud_cover"] < 90 and "_48" in item["id"]
    ]
    for count in SCENES:
        chosen = [
            _again(items[number % len(items)], number // len(items), url) for number in range(count)
        ]
        yield count, _written(work / f"scenes{count}", chosen, folder)


def _items(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*/*_0_L2A/*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _is_half(item: dict[str, Any]) -> bool:
    return bool(item["properties"]["s2:nodata_pixel_percentage"] > 40)


def _written(root: Path, items: list[dict[str, Any]], folder: Path) -> Path:
    root.mkdir()
    for item in items:
        (root / f"{item['id']}.json").write_text(json.dumps(item), encoding="utf-8")
    collection = json.loads(next(folder.glob("*/collection.json")).read_text(encoding="utf-8"))
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in items]
    (root / "collection.json").write_text(
        json.dumps({**collection, "links": links}), encoding="utf-8"
    )
    catalogue = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "benchmark",
        "description": "scenes of a forest",
        "links": [{"rel": "child", "href": "./collection.json"}],
    }
    (root / "catalog.json").write_text(json.dumps(catalogue), encoding="utf-8")
    return root / "catalog.json"


def _again(item: dict[str, Any], turn: int, url: str) -> dict[str, Any]:
    """Return a scene as another overpass, `turn` hours later, with addresses on the server."""
    made = copy.deepcopy(item)
    properties = made["properties"]
    stamp = properties["s2:datatake_id"].split("_")[1]
    later = f"{stamp[:9]}{int(stamp[9:11]) + turn:02d}{stamp[11:]}"
    for key in ("s2:datatake_id", "s2:product_uri"):
        properties[key] = properties[key].replace(stamp, later)
    time = properties["datetime"]
    properties["datetime"] = f"{time[:11]}{int(time[11:13]) + turn:02d}{time[13:]}"
    folder = f"{url}/{item['collection']}/{item['id']}"
    for asset in made["assets"].values():
        asset["href"] = f"{folder}/{Path(asset['href']).name}?turn={turn}"
    made["id"] = item["id"].replace("_0_L2A", f"_{turn}_L2A")
    made["links"] = []
    return made


def boxes(spec: ForestSpec) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Yield (number of tiles, box in the forest's CRS): 1, 4, 25, 100 or what fits."""
    left, top = spec.corner
    for edge in (1, 2, 5, 10):
        size = edge * EDGE * 10
        if edge * EDGE <= spec.edge:
            yield edge * edge, (left + 2.0, top - size + 2.0, left + size - 2.0, top - 2.0)
