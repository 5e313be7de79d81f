"""Sequences in; steps that repeat others, of the sequence itself or of the one before it, out."""

import numpy as np
from jaxtyping import Bool, Float32, Int64

from model.audit.audited import NO_DAY, Audited
from model.audit.finding import Finding, rows_of

_BY_CHANCE, _BY_CHANCE_OF_FEW = 1e-3, 0.02
"""Share of steps that may equal another: with three bands or more, and with fewer, whose rounded
values are often equal."""

_FINE = ("B02", "B03", "B04", "B08")
"""Bands of 10 m: neighbours share the pixel of coarser ones, and so their values."""


def find_repeats(audited: Audited) -> list[Finding]:
    """Return findings of padded ends, steps that repeat the step before, and rows filled down."""
    equal = _equals_step_before(audited)
    tail = _tail_length(equal, audited)
    found = []
    inner = equal & ~_in_tail(tail, audited)
    steps = max(int(audited.is_seen[:, 1:].sum()), 1)
    expected = inner.sum() / steps  # how often chance makes equal steps
    is_padded = tail >= 1
    chance = by_chance(audited.values.shape[2])
    if is_padded.sum() > max(2, 3 * expected * len(audited), chance * len(audited)):
        found.append(
            Finding(
                code="padded-end",
                # one or two bands, rounded, stand still in winter without anybody's doing
                severity="severe" if audited.values.shape[2] >= 3 else "warning",
                what=f"{int(is_padded.sum()):,} sequences end with a step that repeats the one "
                f"before in every band, {tail.max()} at most",
                count=int(is_padded.sum()),
                rows=rows_of(is_padded),
                advice="Leave missing periods missing; padding tells the number of dates and shifts "
                "all later steps",
            )
        )
    is_repeated = inner.any(axis=1)
    if inner.sum() > max(2, chance * steps):
        found.append(
            Finding(
                code="repeated-step",
                severity="warning",
                what=f"{int(inner.sum()):,} steps in {int(is_repeated.sum()):,} samples repeat the "
                "step before in every band",
                count=int(is_repeated.sum()),
                rows=rows_of(is_repeated),
                advice="Leave gaps as NaN instead of carrying the last value forward",
            )
        )
    return found + _filled_down(audited)


def find_uneven_dates(audited: Audited) -> list[Finding]:
    """Return a finding where steps are no common periods, so that one step has many dates."""
    if audited.periods is not None or audited.day is None:
        return []
    dates = (audited.day != NO_DAY).sum(axis=1)
    values, counts = np.unique(dates, return_counts=True)
    if len(values) < 2:
        return []
    usual = values[counts.argmax()]
    return [
        Finding(
            code="uneven-dates",
            severity="warning",
            what=f"sequences have {values.min()} to {values.max()} dates, {usual} most often, so a "
            "step is not the same time of the year in all",
            count=int((dates != usual).sum()),
            rows=rows_of(dates != usual),
            advice="Composite to common periods, with NaN where a period has no date",
        )
    ]


def _equals_step_before(audited: Audited) -> Bool[np.ndarray, "sample step"]:
    """Say which steps (from the second) equal the one before in every band that both know."""
    now, before = audited.values[:, 1:], audited.values[:, :-1]
    is_same = (now == before) | (np.isnan(now) & np.isnan(before))
    # a date that is read twice is no padding; steps without a value repeat nothing
    return np.asarray(is_same.all(axis=2) & audited.is_seen[:, 1:])


def _tail_length(
    equal: Bool[np.ndarray, "sample step"], audited: Audited
) -> Int64[np.ndarray, "sample"]:
    """Return how many last steps of each sequence repeat the one before; gaps at the end are none."""
    steps = equal.shape[1]
    seen = audited.is_seen
    last = np.where(seen.any(axis=1), seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1), 0)
    length = np.zeros(len(equal), np.int64)
    going = np.ones(len(equal), bool)
    for back in range(steps):
        at = last - 1 - back  # place in `equal` of the step that is `back` before the last
        going &= (at >= 0) & equal[np.arange(len(equal)), np.maximum(at, 0)]
        length += going
    return length


def _in_tail(
    tail: Int64[np.ndarray, "sample"], audited: Audited
) -> Bool[np.ndarray, "sample step"]:
    seen = audited.is_seen
    last = np.where(seen.any(axis=1), seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1), 0)
    step = np.arange(1, seen.shape[1])
    return np.asarray((step > (last - tail)[:, np.newaxis]) & (step <= last[:, np.newaxis]))


def _filled_down(audited: Audited) -> list[Finding]:
    """Find steps that hold the same step of the sample above, which others would not share."""
    fine = [audited.bands.index(band) for band in _FINE if audited.has(band)]
    if len(audited) < 2 or (len(fine) < 2 and len(audited.bands) < 3):
        return []
    at = fine if len(fine) >= 2 else list(range(len(audited.bands)))
    known: Float32[np.ndarray, "sample time band"] = audited.known
    is_seen = np.isfinite(known[..., at]).all(axis=2)
    is_same = (known[1:][..., at] == known[:-1][..., at]).all(axis=2) & is_seen[1:]
    both = (is_seen[1:] & is_seen[:-1]).sum(axis=1)
    # samples that share most of their steps are duplicates, which is another fault
    is_twin = 2 * is_same.sum(axis=1) > both
    is_same &= ~is_twin[:, np.newaxis]
    if is_same.sum() <= max(2, _BY_CHANCE * is_seen.sum()):
        return []
    is_filled = np.concatenate([[False], is_same.any(axis=1)])
    share = is_same.sum() / max(int(is_seen.sum()), 1)
    return [filled_down(int(is_same.sum()), share, rows_of(is_filled), what="steps")]


def rows_filled_down(
    values: Float32[np.ndarray, "row band"],
    pixel: Int64[np.ndarray, "row"],
) -> Bool[np.ndarray, "row"]:
    """Say which rows of a table repeat every value of the row above, of another pixel."""
    is_same = ((values[1:] == values[:-1]) & np.isfinite(values[1:])).all(axis=1)
    is_other = pixel[1:] != pixel[:-1]
    return np.concatenate([np.zeros(min(1, len(values)), bool), is_same & is_other])


def by_chance(bands: int) -> float:
    """Return the share of steps of so many bands that may equal another."""
    return _BY_CHANCE if bands >= 3 else _BY_CHANCE_OF_FEW


def filled_down(count: int, share: float, rows: tuple[int, ...], *, what: str) -> Finding:
    """Return the finding of `count` rows or steps that repeat the one above, of another pixel."""
    return Finding(
        code="filled-down",
        severity="severe" if share >= 0.01 else "warning",
        what=f"{count:,} {what} ({share:.2%}) repeat every value of the one above, of another pixel",
        count=count,
        rows=rows,
        advice="Missing values were filled down the table, across pixels and classes; leave them "
        "missing",
    )
