"""A finished map's job in, what computed it and how far from exact out, for its report."""

from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float32

from cube.spec import Region
from cube.store import decode, read_region
from model.engines import measure_difference
from pipelines.lazy_map import load_once
from pipelines.map_tile import MapJob, wanted_pixels

_TILES, _EDGE = 8, 64
"""Tiles that are looked into, and pixels of the square that is taken from the middle of each."""


def engine_details(job: MapJob) -> dict[str, Any]:
    """Return the engine, why it was chosen and, of `fast`, its difference from `exact`.

    That is measured on pixels of the map: the share that gets the same class and the largest
    difference of a probability. As plain JSON values.
    """
    details: dict[str, Any] = {"name": job.engine, "reason": job.engine_reason}
    if job.engine not in ("fast", "cuda-fast"):
        return details
    found = measure_difference(
        load_once(job.classifier, job.stamp),
        own_pixels(job),
        job.spec.bands,
        engine=job.engine,
        against="exact",
    )
    if not found.pixels:
        return details
    return {
        **details,
        "pixels_compared": found.pixels,
        "classes_equal": found.classes_equal,
        "largest_difference": found.largest,
    }


def own_pixels(job: MapJob) -> Float32[np.ndarray, "pixel time band"]:
    """Return reflectance of some pixels of the map, from tiles all over it; NaN where not clear."""
    regions = job.spec.regions()
    step = -(-len(regions) // _TILES)
    parts = []
    for region in islice(regions, 0, None, step):
        window = _middle(region)
        pixels = decode(read_region(job.cube, window)).transpose(2, 3, 0, 1)  # (y, x, time, band)
        wanted = wanted_pixels(job, window)
        parts.append(pixels[np.ones(pixels.shape[:2], bool) if wanted is None else wanted])
    return np.concatenate(parts)


def _middle(region: Region) -> Region:
    """Return the square in the middle of a tile; of a small tile all."""
    height, width = min(region.height, _EDGE), min(region.width, _EDGE)
    return Region(
        row=region.row,
        column=region.column,
        top=region.top + (region.height - height) // 2,
        left=region.left + (region.width - width) // 2,
        height=height,
        width=width,
    )
