"""A finished map's job in, what computed it and how far from exact out, for its report."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from cube.ledger import Ledger
from cube.mapstore import UNCLASSIFIED, read_map_region
from cube.spec import Region
from cube.store import decode, read_region
from model.engines import measure_difference
from pipelines.lazy_map import load_once
from pipelines.map_tile import MapJob

_TILES, _EDGE = 8, 64
"""Tiles that are looked into, and pixels of the square that is taken from each."""

NOT_MEASURED = "not measured: the map has no classified pixel"


def engine_details(job: MapJob) -> dict[str, Any]:
    """Return the engine, why it was chosen and, of `fast`, its difference from `exact`.

    That is measured on pixels of the map: the share that gets the same class and the largest
    difference of a probability; `difference` says so if there are none. As plain JSON values.
    """
    details: dict[str, Any] = {"name": job.engine, "reason": job.engine_reason}
    if job.engine not in ("fast", "cuda-fast"):
        return details
    pixels = own_pixels(job)
    if pixels is None:
        return {**details, "difference": NOT_MEASURED}
    found = measure_difference(
        load_once(job.classifier, job.stamp),
        pixels,
        job.spec.bands,
        engine=job.engine,
        against="exact",
    )
    return {
        **details,
        "pixels_compared": found.pixels,
        "classes_equal": found.classes_equal,
        "largest_difference": found.largest,
    }


def tiles_by_engine(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many of a map's tiles each engine made, and each arithmetic, from their records.

    Tiles outside the clip were computed by none and are not counted.
    """
    pairs = [(record["engine"], record.get("arithmetic", "not recorded")) for record in records]
    made = [pair for pair in pairs if pair[0] != "none"]
    return {
        name: dict(sorted(Counter(pair[place] for pair in made).items()))
        for place, name in enumerate(("tiles", "arithmetic"))
    }


def own_pixels(job: MapJob) -> Float32[np.ndarray, "pixel time band"] | None:
    """Return reflectance of some classified pixels, from tiles all over the map; None without any.

    Physical units, NaN where not clear.
    """
    records = Ledger(store=job.path, inputs=None).records("classified")
    regions = [
        region
        for region in job.spec.regions()
        if records.get(region.id, {}).get("classified", 0) > 0
    ]
    if not regions:
        return None
    step = -(-len(regions) // _TILES)
    return np.concatenate([_pixels_of(job, region) for region in regions[::step]])


def _pixels_of(job: MapJob, region: Region) -> Float32[np.ndarray, "pixel time band"]:
    """Return the classified pixels of that square of a tile which has most of them."""
    is_classified = read_map_region(job.path, region)[0] != UNCLASSIFIED
    square = _fullest(region, is_classified)
    top, left = square.top - region.top, square.left - region.left
    chosen = is_classified[top : top + square.height, left : left + square.width]
    pixels = decode(read_region(job.cube, square)).transpose(2, 3, 0, 1)  # (y, x, time, band)
    found: np.ndarray = pixels[chosen]  # (pixel, time, band)
    return found


def _fullest(region: Region, is_wanted: Bool[np.ndarray, "y x"]) -> Region:
    """Return the square of a tile, of those side by side in it, that has most wanted pixels."""
    tops, lefts = (np.arange(0, size, _EDGE) for size in is_wanted.shape)
    wanted = np.add.reduceat(
        np.add.reduceat(is_wanted, tops, axis=0, dtype=np.int64), lefts, axis=1
    )
    row, column = np.unravel_index(wanted.argmax(), wanted.shape)
    top, left = int(tops[row]), int(lefts[column])
    return Region(
        row=region.row,
        column=region.column,
        top=region.top + top,
        left=region.left + left,
        height=min(_EDGE, region.height - top),
        width=min(_EDGE, region.width - left),
    )
