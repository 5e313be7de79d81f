"""A cube and its reference in, labelled sequences out: dims (sample, time, band)."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt16
from pyproj import Transformer

from cube.blocks import spatial_blocks
from cube.cells import cell_centres
from cube.chunkreads import Run, read_cells, read_in_turn
from cube.errors import InputError
from cube.grid import LON_LAT
from cube.ledger import fingerprint
from cube.place import Place
from cube.reference import Reference
from cube.spec import CubeSpec
from cube.store import decode, read_spec
from cube.zarrstore import SCHEMA

Stratify = Literal["none", "group", "block"]
"""What samples of a class are dealt over."""


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
    stratify: Stratify = "none"
    """What a class's `max_per_class` is drawn from: `none` its cells, so that large stands give
    most; `group` or `block` each of its groups or blocks in turn, so that all are seen alike."""
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
    cube_path: Place,
    reference: Reference,
    options: SampleOptions | None = None,
    *,
    tile_digests: Mapping[str, str] | None = None,
    run: Run = read_in_turn,
    is_part: bool = False,
) -> xr.Dataset:
    """Return the time series of the labelled cells of a cube, in memory.

    `reflectance (sample, time, band)` is float32, physical, NaN where no look was clear;
    `clear_count (sample, time)` uint16. Each sample has `label`, `group`, `block` (text), `row`,
    `column`, `x`, `y` (CRS of the cube), `lon`, `lat`, `year` (of the first period); `region` (text)
    and `share (sample, class)` where the reference has them. Samples are ordered by row and column
    whatever the chunks of the cube are. Every period of the cube is there: none is shifted,
    filled or left out. `tile_digests` (tile id to digest of its data, from the ledger) enter the
    hash of the cube in `attrs["canopycube"]["cube"]`.

    First the clear counts of all labelled cells are read, then the reflectance of those chosen;
    each stored chunk at most once, with one chunk (up to 64 MiB of its periods) in memory. `run`
    does the reads, one a chunk: in turn, or as tasks of a cluster; the samples are the same. If the
    cube `is_part` of several, it may give no sample.

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

    clear_count = read_cells(cube_path, spec, "clear_count", row, column, run=run)  # (cell, time)
    is_clear = (clear_count > 0).sum(axis=1) >= options.min_clear_months
    block = None
    if options.stratify == "block":
        x, y = cell_centres(spec.geobox, row, column)
        block = _block_numbers(x, y, options.block_size)
    is_chosen = is_clear & thinned(label, group, is_clear, options, block=block)
    dropped = Counter(reference.dropped)
    dropped["cells with too few clear periods"] = int((~is_clear).sum())
    dropped["cells beyond the most per group or class"] = int((is_clear & ~is_chosen).sum())
    dropped = Counter({reason: count for reason, count in dropped.items() if count})
    if not is_part:  # what a part lacks, others may have
        refuse_too_few(label[is_chosen], dropped, options)

    chosen = order[is_chosen]
    row, column, label, group = (part[is_chosen] for part in (row, column, label, group))
    stored = read_cells(cube_path, spec, "reflectance", row, column, run=run)
    reflectance = decode(stored)  # (sample, time, band)
    drawn = samples_dataset(
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
            "dropped_names": {why: list(names) for why, names in reference.dropped_names.items()},
            "options": asdict(options),
        },
    )
    return _with_units(drawn, reference, chosen, year=_year(spec))


def _year(spec: CubeSpec) -> int:
    return int(spec.periods[0].start.astype("datetime64[Y]").astype(int)) + 1970


def _with_units(
    samples: xr.Dataset, reference: Reference, chosen: Int64[np.ndarray, " sample"], *, year: int
) -> xr.Dataset:
    """Add the year, and of the reference's `chosen` cells the regions and shares, if it has any."""
    added: dict[str, tuple[object, ...]] = {
        "year": ("sample", np.full(chosen.size, year, np.int32), {"long_name": "first year"})
    }
    if reference.region is not None:
        added["region"] = ("sample", reference.region[chosen].astype(str))
    if reference.share is None:
        return samples.assign(added)
    share = reference.share[chosen]
    is_there = share.any(axis=0)
    about = {"units": "1", "long_name": "share of the class in the plot"}
    added["share"] = (("sample", "class"), share[:, is_there], about)
    return samples.assign(added).assign_coords(
        {"class": np.array(reference.share_classes)[is_there]}
    )


def thinned(
    label: Shaped[np.ndarray, " cell"],
    group: Shaped[np.ndarray, " cell"],
    is_candidate: Bool[np.ndarray, " cell"],
    options: SampleOptions,
    *,
    block: Shaped[np.ndarray, " cell"] | None = None,
) -> Bool[np.ndarray, " cell"]:
    """Return which candidates stay: at most so many of each group, then of each class.

    Stratified, a class takes one cell of each of its groups (or of `block`) in turn until it has
    enough, so two of them differ by one at most, unless one has no more to give.
    """
    random = np.random.default_rng(options.seed)
    rank = random.random(label.size)
    is_kept = is_candidate
    if options.max_per_group is not None:
        cell = np.flatnonzero(is_kept)
        place = _place_within(_codes(group[cell]), rank[cell])
        is_kept = _only(cell[place < options.max_per_group], label.size)
    if options.max_per_class is None:
        return is_kept
    cell = np.flatnonzero(is_kept)
    code = _codes(label[cell])
    turn = rank[cell]
    if options.stratify != "none":
        stratum = group if options.stratify == "group" else block
        if stratum is None:
            raise InputError(
                "sampling stratify = 'block' goes with a cube; these samples have no blocks yet"
            )
        both = code * label.size + _codes(stratum[cell])
        within, chance = np.unique(both, return_inverse=True)[1], random.random(label.size)
        # whole part: how often the stratum has had its turn; then strata in random order
        turn = _place_within(within, turn) + chance[within]
    place = _place_within(code, turn)
    return _only(cell[place < options.max_per_class], label.size)


def _codes(key: Shaped[np.ndarray, " cell"]) -> Int64[np.ndarray, " cell"]:
    return np.unique(key, return_inverse=True)[1].astype(np.int64)


def _place_within(
    code: Int64[np.ndarray, " cell"], rank: Float64[np.ndarray, " cell"]
) -> Int64[np.ndarray, " cell"]:
    """Return the place of each cell, from 0, among those of its code in the order of `rank`."""
    order = np.lexsort((rank, code))
    start = np.flatnonzero(np.diff(code[order], prepend=-1))
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size) - np.repeat(start, np.diff(start, append=order.size))
    return place


def _only(cell: Int64[np.ndarray, " kept"], size: int) -> Bool[np.ndarray, " cell"]:
    is_kept = np.zeros(size, dtype=bool)
    is_kept[cell] = True
    return is_kept


def refuse_too_few(
    label: Shaped[np.ndarray, " sample"], dropped: Mapping[str, int], options: SampleOptions
) -> None:
    """Raise `InputError` for no sample or a single class, with what was left out and why."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    if not label.size:
        raise InputError(f"no sample is left: {reasons or 'no labels'}{_advice(dropped, options)}")
    classes = np.unique(label)
    if classes.size < 2:
        raise InputError(
            f"samples of two classes or more are needed; all {label.size:,} are {str(classes[0])!r}"
            + (f" (left out: {reasons})" if reasons else "")
        )


_ADVICE = {
    "not asked for": "name classes in reference.classes, or take them out of reference.drop",
    "too few clear": "lower sampling.min_clear_months, which is {months}",
    "decisions": "take rows out of reference.decisions",
}
"""What to do where nothing is left, by words of the reason that most were left out for."""


def _advice(dropped: Mapping[str, int], options: SampleOptions) -> str:
    most = max(dropped, key=lambda reason: dropped[reason], default="")
    told = next((advice for words, advice in _ADVICE.items() if words in most), "")
    return f"; {told.format(months=options.min_clear_months)}" if told else ""


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


def _block_numbers(
    x: Float64[np.ndarray, " cell"], y: Float64[np.ndarray, " cell"], size: int | float
) -> Int64[np.ndarray, " cell"]:
    """Number the blocks of `spatial_blocks`: of millions of cells, texts would take gigabytes."""
    east, north = (_codes(np.floor(part / size).astype(np.int64)) for part in (x, y))
    return np.asarray(east * (int(north.max(initial=0)) + 1) + north)
