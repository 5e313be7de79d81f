"""A cube and its reference in, labelled sequences out: dims (sample, time, band)."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Bool, Float32, Int64, Shaped, UInt16
from pyproj import Transformer

from cube.cells import cell_centres
from cube.errors import InputError
from cube.grid import LON_LAT
from cube.ledger import fingerprint
from cube.reference import Reference
from cube.spec import CubeSpec
from cube.store import decode, read_spec
from cube.zarrstore import SCHEMA

_READ_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Which of the labelled cells become samples."""

    max_per_class: int | None = None
    """Samples a class may have; the rest is left out at random."""
    max_per_group: int | None = None
    """Samples a group (point, polygon, patch) may have: a large stand repeats itself."""
    min_clear_months: int = 1
    """Periods with a clear look that a sample must have."""
    block_size: int | float = 1000
    """Metres along the edge of a spatial block, in the CRS of the cube. A kilometre is longer than
    most stands and parcels, so a block seldom shares one with its neighbour, and still leaves
    some 12,000 blocks on a Sentinel-2 tile; smaller sites need smaller blocks."""
    seed: int = 0
    """Decides which samples are left out; the same seed leaves out the same ones."""

    def __post_init__(self) -> None:
        for name in ("max_per_class", "max_per_group"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"sampling {name} = {value!r}; expected 1 or more")
        if self.min_clear_months < 0:
            raise InputError(
                f"sampling min_clear_months = {self.min_clear_months}; expected 0 or more"
            )
        if not (math.isfinite(self.block_size) and self.block_size > 0):
            raise InputError(f"sampling block_size = {self.block_size!r}; expected metres above 0")
        if self.seed < 0:
            raise InputError(f"sampling seed = {self.seed}; expected 0 or more")


def draw_samples(
    cube_path: Path,
    reference: Reference,
    options: SampleOptions | None = None,
    *,
    tile_digests: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Return the time series of the labelled cells of a cube, in memory.

    `reflectance (sample, time, band)` is float32, physical, NaN where no look was clear;
    `clear_count (sample, time)` uint16. Each sample has `label`, `group`, `block` (text), `row`,
    `column`, `x`, `y` (CRS of the cube), `lon`, `lat`. Samples are ordered by row and column
    whatever the chunks of the cube are. Every period of the cube is there: none is shifted,
    filled or left out. `tile_digests` (tile id to digest of its data, from the ledger) enter the
    hash of the cube in `attrs["canopycube"]["cube"]`.

    First the clear counts of all labelled cells are read, then the reflectance of those chosen;
    each stored chunk at most once, with one chunk (up to 64 MiB of its periods) in memory.

    Raises `InputError` if there is no cube, the reference is on another grid, no sample is left,
    or fewer than two classes are.
    """
    options = options or SampleOptions()
    spec = read_spec(cube_path)
    if reference.geobox != spec.geobox:
        raise InputError(
            f"the reference is on another grid than the cube {str(cube_path)!r}: "
            f"{reference.geobox.shape} cells against {spec.geobox.shape}; read it for this cube"
        )
    order = np.lexsort((reference.column, reference.row))
    row, column = (part[order].astype(np.int64) for part in (reference.row, reference.column))
    label, group = (part[order].astype(str) for part in (reference.label, reference.group))

    group_of_arrays = zarr.open_group(cube_path, mode="r")
    clear_count = np.zeros((row.size, len(spec.periods)), dtype=np.uint16)
    for at, block in _cells_by_chunk(_stored(group_of_arrays, "clear_count"), spec, row, column):
        clear_count[at] = block.T  # (sample, time)
    is_clear = (clear_count > 0).sum(axis=1) >= options.min_clear_months
    is_chosen = is_clear & thinned(label, group, is_clear, options)
    dropped = Counter(reference.dropped)
    dropped["cells with too few clear periods"] = int((~is_clear).sum())
    dropped["cells beyond the most per group or class"] = int((is_clear & ~is_chosen).sum())
    dropped = Counter({reason: count for reason, count in dropped.items() if count})
    row, column, label, group = (part[is_chosen] for part in (row, column, label, group))
    refuse_too_few(label, dropped, options)

    reflectance = np.empty((row.size, len(spec.periods), len(spec.bands)), dtype=np.float32)
    for at, block in _cells_by_chunk(_stored(group_of_arrays, "reflectance"), spec, row, column):
        reflectance[at] = decode(block.transpose(2, 0, 1))  # (sample, time, band)
    return samples_dataset(
        spec,
        reflectance=reflectance,
        clear_count=clear_count[is_chosen],
        row=row,
        column=column,
        label=label,
        group=group,
        options=options,
        attributes={
            "schema": SCHEMA,
            "kind": "samples",
            "cube": fingerprint({"spec": spec.to_json(), "tiles": dict(tile_digests or {})}),
            "bands": list(spec.bands),
            "periods": [str(period) for period in spec.periods],
            "dropped": dict(dropped),
            "options": asdict(options),
        },
    )


def _stored(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)  # read_spec has vouched for the cube
    return array


def _cells_by_chunk(
    array: zarr.Array[Any],
    spec: CubeSpec,
    row: Int64[np.ndarray, " cell"],
    column: Int64[np.ndarray, " cell"],
) -> Iterator[tuple[Int64[np.ndarray, " part"], np.ndarray]]:
    """Yield (indices of cells, their values (time, …, cell)) for each stored chunk that has cells."""
    height, width = spec.geobox.shape
    edge = spec.chunk
    chunk = (row // edge) * (-(-width // edge)) + column // edge
    order = np.argsort(chunk, kind="stable")
    starts = np.flatnonzero(np.diff(chunk[order], prepend=-1))
    period_bytes = int(np.prod(array.shape[1:-2])) * edge * edge * array.dtype.itemsize
    batch = max(1, _READ_BYTES // period_bytes)
    for at in np.split(order, starts[1:]) if row.size else []:
        top, left = int(row[at[0]] // edge) * edge, int(column[at[0]] // edge) * edge
        rows, columns = slice(top, min(top + edge, height)), slice(left, min(left + edge, width))
        parts = []
        for first in range(0, array.shape[0], batch):
            block = np.asarray(array[first : first + batch, ..., rows, columns])
            parts.append(block[..., row[at] - top, column[at] - left])
        yield at, np.concatenate(parts)


def thinned(
    label: Shaped[np.ndarray, " cell"],
    group: Shaped[np.ndarray, " cell"],
    is_candidate: Bool[np.ndarray, " cell"],
    options: SampleOptions,
) -> Bool[np.ndarray, " cell"]:
    """Return which candidates stay: at most so many of each group, then of each class."""
    rank = np.random.default_rng(options.seed).random(label.size)
    is_kept = is_candidate
    for key, most in ((group, options.max_per_group), (label, options.max_per_class)):
        if most is None:
            continue
        cell = np.flatnonzero(is_kept)
        code = np.unique(key[cell], return_inverse=True)[1]
        order = np.lexsort((rank[cell], code))
        start = np.flatnonzero(np.diff(code[order], prepend=-1))
        place = np.arange(order.size) - np.repeat(start, np.diff(start, append=order.size))
        is_kept = np.zeros(label.size, dtype=bool)
        is_kept[cell[order[place < most]]] = True
    return is_kept


def refuse_too_few(
    label: Shaped[np.ndarray, " sample"], dropped: Mapping[str, int], options: SampleOptions
) -> None:
    """Raise `InputError` for no sample or a single class, with what was left out and why."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    if not label.size:
        raise InputError(
            f"no sample is left (min_clear_months = {options.min_clear_months}): {reasons or 'no labels'}"
        )
    classes = np.unique(label)
    if classes.size < 2:
        raise InputError(
            f"samples of two classes or more are needed; all {label.size:,} are {str(classes[0])!r}"
            + (f" (left out: {reasons})" if reasons else "")
        )


def samples_dataset(
    spec: CubeSpec,
    *,
    reflectance: Float32[np.ndarray, "sample time band"],
    clear_count: UInt16[np.ndarray, "sample time"],
    row: Int64[np.ndarray, " sample"],
    column: Int64[np.ndarray, " sample"],
    label: Shaped[np.ndarray, " sample"],
    group: Shaped[np.ndarray, " sample"],
    options: SampleOptions,
    attributes: Mapping[str, object],
) -> xr.Dataset:
    """Return labelled sequences as `draw_samples` does, blocks and coordinates from their cells.

    `attributes` become `attrs["canopycube"]`.
    """
    x, y = cell_centres(spec.geobox, row, column)
    lon, lat = Transformer.from_crs(spec.geobox.crs, LON_LAT, always_xy=True).transform(x, y)
    crs = spec.geobox.crs
    assert crs is not None  # CubeSpec refuses a grid without one
    return xr.Dataset(
        {
            "reflectance": (("sample", "time", "band"), reflectance, {"units": "1"}),
            "clear_count": (("sample", "time"), clear_count, {"units": "1"}),
            "label": ("sample", label, {"long_name": "class"}),
            "group": ("sample", group, {"long_name": "point, polygon or patch of the reference"}),
            "block": ("sample", spatial_blocks(x, y, options.block_size)),
            "row": ("sample", row.astype(np.int32), {"long_name": "row of the cube's grid"}),
            "column": (
                "sample",
                column.astype(np.int32),
                {"long_name": "column of the cube's grid"},
            ),
            "x": ("sample", x, {"units": "m", "long_name": "easting of the cell centre"}),
            "y": ("sample", y, {"units": "m", "long_name": "northing of the cell centre"}),
            "lon": ("sample", lon, {"units": "degrees_east"}),
            "lat": ("sample", lat, {"units": "degrees_north"}),
        },
        coords={
            "time": np.array([period.start for period in spec.periods]),
            "period": ("time", np.array([str(period) for period in spec.periods])),
            "band": np.array(spec.bands),
        },
        attrs={"title": "canopycube samples", "crs": crs.to_wkt(), "canopycube": dict(attributes)},
    )


def spatial_blocks(
    x: Shaped[np.ndarray, " sample"], y: Shaped[np.ndarray, " sample"], size: int | float
) -> Shaped[np.ndarray, " sample"]:
    """Return the block of each place as text, e.g. `e0501n5629` for 1000 m blocks.

    Blocks are counted from the origin of the CRS, not from the corner of the cube, so that two
    cubes that overlap agree on them.
    """
    east, north = (np.floor(part / size).astype(np.int64).tolist() for part in (x, y))
    return np.array([f"e{e:04d}n{n:04d}" for e, n in zip(east, north, strict=True)], dtype=str)
