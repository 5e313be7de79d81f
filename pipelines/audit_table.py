"""Tables of labelled pixels in, what is wrong with what the reference workflow makes of them out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float64, Int32, Int64
from odc.geo.geom import Geometry
from pyproj import Transformer

from cube.errors import InputError
from cube.grid import LON_LAT, utm_crs
from cube.series import SeriesOptions
from cube.tables.groups import groups_of
from model.audit import NO_DAY, Audited, Finding, audit
from model.audit.finding import SEVERITIES, rows_of, some
from model.audit.steps import by_chance, filled_down, rows_filled_down
from model.errors import SplitError
from model.samples import Samples
from model.split import Folds, make_folds
from pipelines.audit_labels import labels_spelt
from pipelines.audit_rows import read_plain_rows
from pipelines.audit_text import AuditReport
from pipelines.import_table import find_tables
from pipelines.plain_rows import PlainRows, order_by_date

WORKFLOW_STEPS = 12
"""Steps of the reference workflow: shorter sequences are padded with their last row."""

NOT_SEEN = ("whether values are scaled before training: a table holds none of a network's inputs",)

_PIXEL, _BLOCK = 10.0, 1000.0
_DECIMALS = 6
"""Of degrees, to which the workflow rounds coordinates when it maps."""

_MOST_STEPS = 1000
_MOST_VALUES = 500_000_000
"""Values of all sequences (2 GB), each as long as the longest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Where:
    """Where the rows of tables with coordinates lie."""

    cell: Int64[np.ndarray, " row"]
    """Number of the 10 m pixel."""
    group: Int64[np.ndarray, " row"]
    """What hangs together over edges or corners of pixels: the patch round a point."""
    metres: Float64[np.ndarray, "row 2"]
    """Easting and northing in the UTM zone of their middle."""


def audit_tables(
    names: Sequence[str],
    *,
    options: SeriesOptions | None = None,
    folds: int = 5,
    seed: int = 0,
) -> AuditReport:
    """Return the audit of tables as they are: no value is repaired, masked or left out.

    `names` are files, folders or patterns; `options` say what tables of series do not. Rows of one text of coordinates (or one id) become a
    sequence by date. Sequences of Earth Engine's exports are padded to twelve steps with their last
    row and split at random by pixel, as the reference workflow does and believes; they are split by
    group and block, too. Tables without labels are passed over. Raises `InputError` for files that
    are no such tables.
    """
    started = time.perf_counter()
    rows, unlabelled = read_plain_rows(find_tables(names), options)
    order, sequence = order_by_date(rows)
    where = _where(rows)
    audited = _audited(rows, order, sequence, where)
    made = _folds(audited, folds, seed)
    believed = {"grouped", "block"} | ({"random"} if rows.is_export else set())
    audited = replace(audited, folds=made, believed=frozenset(believed))
    found = [one for one in audit(audited) if one.code != "filled-down"]
    found += _of_table(rows, order, sequence, where)
    first = order[np.flatnonzero(np.diff(sequence, prepend=-1))]
    return AuditReport(
        what=", ".join(names),
        samples=len(audited),
        splits=tuple(split.split for split in made),
        findings=tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))),
        names=_names(rows, first),
        not_seen=(*NOT_SEEN, *_passed_over(unlabelled)),
        seconds=time.perf_counter() - started,
    )


def _names(rows: PlainRows, first: Int64[np.ndarray, " sample"]) -> dict[str, list[str]]:
    """Return what tells where a sequence is: its first row, its class, and its place or id."""
    named = {"row": rows.number[first].tolist(), "label": rows.label[first].tolist()}
    if not rows.is_export:
        named["id"] = rows.key[first].tolist()
    if rows.place is not None:
        for name, degrees in zip(("lon", "lat"), rows.place[first].T, strict=True):
            named[name] = [repr(value) for value in degrees.tolist()]
    return named


def _passed_over(unlabelled: Sequence[str]) -> list[str]:
    if not unlabelled:
        return []
    return [f"{some(list(unlabelled), 3)}: tables without labels are passed over"]


def _where(rows: PlainRows) -> _Where | None:
    if rows.place is None:
        return None
    middle = shapely.Point(*((rows.place.min(axis=0) + rows.place.max(axis=0)) / 2))
    crs = utm_crs(Geometry(middle, LON_LAT))
    transformer = Transformer.from_crs(LON_LAT, crs, always_xy=True)
    metres = np.stack(transformer.transform(*rows.place.T), axis=1)
    if not np.isfinite(metres).all():
        raise InputError("some rows lie too far from the others for one UTM zone; audit in parts")
    column, row = np.floor(metres / _PIXEL).astype(np.int64).T
    column, row = column - column.min(), row - row.min()
    wide = int(column.max()) + 2
    place, cell = np.unique(row * wide + column, return_inverse=True)
    group = groups_of(*np.divmod(place, wide))
    return _Where(cell=cell.astype(np.int64), group=group[cell], metres=metres)


def _audited(
    rows: PlainRows,
    order: Int64[np.ndarray, " row"],
    sequence: Int64[np.ndarray, " row"],
    where: _Where | None,
) -> Audited:
    """Return sequences as the reference workflow would form them."""
    starts = np.flatnonzero(np.diff(sequence, prepend=-1))
    length = np.diff(starts, append=len(sequence))
    if length.max() > _MOST_STEPS:
        raise InputError(
            f"a place has {length.max():,} rows; more than {_MOST_STEPS} are no sequence"
        )
    steps = max(int(length.max()), WORKFLOW_STEPS if rows.is_export else 1)
    step = np.arange(steps)
    if (values_needed := len(starts) * steps * len(rows.bands)) > _MOST_VALUES:
        raise InputError(
            f"{len(starts):,} sequences of up to {steps} rows and {len(rows.bands)} bands would be "
            f"{values_needed:,} values, more than {_MOST_VALUES:,}; audit them in parts"
        )
    is_there = step < length[:, np.newaxis]
    taken = order[starts[:, np.newaxis] + np.minimum(step, length[:, np.newaxis] - 1)]
    values = rows.values[taken]  # (sample, time, band), the last row again where there is none
    columns = {name: column[taken] for name, column in rows.columns.items()}
    if not rows.is_export:
        values[~is_there] = np.nan
    first = order[starts]
    classes, label = np.unique(rows.label[first], return_inverse=True)
    pixel = np.unique(rows.key[first], return_inverse=True)[1].astype(np.int64)
    more: dict[str, Any] = {"group": pixel}
    if where is not None and rows.place is not None:
        rounded = np.rint(rows.place[first] * 10**_DECIMALS).astype(np.int64)
        pixel = np.unique(rounded, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        square = np.floor(where.metres[first] / _BLOCK).astype(np.int64)
        block = np.unique(square, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        more = {"group": where.group[first], "block": block, "place": where.metres[first]}
    return Audited(
        values=values,
        bands=rows.bands,
        label=label.astype(np.int64),
        classes=tuple(classes.tolist()),
        pixel=pixel,
        day=np.where(is_there, rows.day[taken], NO_DAY).astype(np.int32),
        clear_count=is_there.astype(np.int64),
        columns=columns,
        features=(*rows.bands, *rows.columns) if rows.is_export else None,
        **more,
    )


def _folds(audited: Audited, folds: int, seed: int) -> tuple[Folds, ...]:
    """Return the folds that can be made; they look at labels and units only, so values are 0."""
    shape = (len(audited), 1, 1)
    samples = Samples(
        reflectance=np.zeros(shape, np.float32),
        bands=("B02",),
        periods=("2022-01",),
        label=audited.label,
        classes=audited.classes,
        group=audited.group,
        block=audited.group if audited.block is None else audited.block,
    )
    made = []
    for split in ("random", "grouped") if audited.block is None else ("random", "grouped", "block"):
        try:
            made.append(make_folds(samples, split, folds=folds, seed=seed))
        except SplitError:
            continue  # a class with few groups is a finding of its own
    return tuple(made)


def _of_table(
    rows: PlainRows,
    order: Int64[np.ndarray, " row"],
    sequence: Int64[np.ndarray, " row"],
    where: _Where | None,
) -> list[Finding]:
    """Return findings that sequences do not show: rows filled down, texts of places, single looks."""
    sequence_of = np.empty(len(order), np.int64)
    sequence_of[order] = sequence
    found = labels_spelt(rows.written, sequence_of)
    cell = sequence_of if where is None else where.cell
    is_filled = rows_filled_down(rows.values, cell)
    if is_filled.sum() > max(2, by_chance(len(rows.bands)) * len(rows)):
        share = float(is_filled.mean())
        named = np.unique(sequence_of[is_filled])
        found.append(filled_down(int(is_filled.sum()), share, rows_of(named), what="rows"))
    is_twice = (np.diff(sequence, prepend=-1) == 0) & (np.diff(rows.day[order], prepend=-1) == 0)
    if is_twice.any():
        found.append(
            Finding(
                code="duplicate-date",
                severity="warning",
                what=f"{int(is_twice.sum()):,} rows have the date of another row of their sequence",
                count=int(is_twice.sum()),
                rows=rows_of(np.unique(sequence[is_twice])),
                advice="Keep one row a pixel and date; the others shift all later steps",
            )
        )
    if rows.is_export and rows.place is not None:
        found += _spelt_otherwise(rows, sequence_of, rows.place)
        found += _single_looks(rows, rows.place)
    return found


def _rounded(place: Float64[np.ndarray, "row 2"]) -> Int64[np.ndarray, " row"]:
    whole = np.rint(place * 10**_DECIMALS).astype(np.int64)
    return np.unique(whole, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _spelt_otherwise(
    rows: PlainRows, sequence_of: Int64[np.ndarray, " row"], place: Float64[np.ndarray, "row 2"]
) -> list[Finding]:
    pixel = _rounded(place)
    pairs = np.unique(
        np.stack([pixel, np.unique(rows.key, return_inverse=True)[1]], axis=1), axis=0
    )
    texts = np.bincount(pairs[:, 0])
    is_several = texts > 1
    if not is_several.any():
        return []
    named = np.unique(sequence_of[is_several[pixel]])
    return [
        Finding(
            code="coordinates-spelt",
            severity="severe",
            what=f"{int(is_several.sum()):,} of {len(texts):,} pixels have their coordinates spelt "
            f"in several ways, {texts.max()} at most: grouped by text they become several "
            "sequences, each short of dates",
            count=int(is_several.sum()),
            rows=rows_of(named),
            advice="Group rows by the pixel they fall into, as import-table does",
        )
    ]


def _single_looks(rows: PlainRows, place: Float64[np.ndarray, "row 2"]) -> list[Finding]:
    pixel, month = _rounded(place), _months(rows.day)
    looks = np.unique(np.stack([pixel, month, rows.day], axis=1), axis=0)
    _, counts = np.unique(looks[:, :2], axis=0, return_counts=True)
    if counts.max() > 1 or len(np.unique(month)) < 2:
        return []
    days = rows.day.astype("datetime64[D]")
    of_month = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    return [
        Finding(
            code="single-look",
            severity="warning",
            what="no pixel has more than one date in a month (day "
            f"{int(np.median(of_month))} of it in the middle): steps are single looks, such as the "
            "first image of each month, not composites",
            count=len(counts),
            rows=(),
            advice="Export every date and composite, so that a cloud in one look does not stay",
        )
    ]


def _months(day: Int32[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    return day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
