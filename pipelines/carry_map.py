"""Earlier stores of a map in, those of its tiles out that are still made from the same."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cube.errors import InputError
from cube.ledger import Ledger, digest
from cube.mapstore import read_map_region, write_map_region
from cube.place import Place
from cube.spec import CubeSpec, Region
from cube.zarrstore import read_attributes
from pipelines.earlier import earlier_stores
from pipelines.lazy_map import stored_layers
from pipelines.map_tile import MapJob

_THREADS = 4
"""Tiles carried over at once: each is read, checked and written, a byte a pixel and layer."""


def map_spec(path: Place) -> CubeSpec | None:
    """Return the spec of the cube that a map was made of; None of a map that does not say it."""
    described = read_attributes(path, kind="map").get("spec")
    return CubeSpec.from_json(described) if isinstance(described, dict) else None


def carry_tiles(
    job: MapJob,
    inputs: Mapping[str, str],
    regions: Sequence[Region],
) -> set[str]:
    """Copy what still holds of the map's earlier stores to `regions`; return the ids of those tiles.

    A tile holds if its record is of the same inputs (`inputs` by tile id), wherever it was in the
    earlier grid, and if its pixels are what that record says. Raises `OSError`.
    """
    carried: set[str] = set()
    for earlier in earlier_stores(job.path):
        kept = _kept_tiles(earlier)
        pairs = [
            (region, kept[inputs[region.id]])
            for region in regions
            if region.id not in carried and inputs[region.id] in kept
        ]
        with ThreadPoolExecutor(_THREADS) as pool:
            for region, is_whole in pool.map(lambda pair: _carry(job, inputs, *pair), pairs):
                if is_whole:
                    carried.add(region.id)
    return carried


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A tile of an earlier store."""

    store: Place
    region: Region
    record: dict[str, Any]


def _kept_tiles(earlier: Place) -> dict[str, _Kept]:
    """Return the tiles of an earlier map by what their records are known by."""
    try:
        if (spec := map_spec(earlier)) is None:
            return {}
        return {
            record["inputs"]: _Kept(store=earlier, region=spec.region(tile), record=record)
            for tile, record in Ledger(store=earlier, inputs=None).each()
        }
    except InputError:
        return {}  # nothing can be told of a damaged one: its tiles are made anew


def _carry(
    job: MapJob, inputs: Mapping[str, str], region: Region, kept: _Kept
) -> tuple[Region, bool]:
    try:
        layers = read_map_region(kept.store, kept.region)
    except (ValueError, RuntimeError, KeyError):
        return region, False  # damaged, or another layout: it is made anew
    if digest(layers) != kept.record.get("digest"):
        return region, False
    ledger = Ledger(store=job.path, inputs=inputs[region.id], mark=job.mark)
    ledger.forget_others(region)
    write_map_region(job.path, region, stored_layers(layers, job.layers))
    known = {key: value for key, value in kept.record.items() if key not in ("tile", "inputs")}
    ledger.record(region, known)
    return region, True
