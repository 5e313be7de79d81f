"""Sequences in; reflectance with 0.1 too much or too little in every band out, by date and group."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int64

from model.audit.audited import NO_DAY, Audited
from model.audit.finding import Finding, rows_of, some

OFFSET = 0.1
"""What products of baseline 04.00 and later add to reflectance: 1000 counts."""

_DARK = ("B02", "B03", "B04", "B12")
"""Bands of which one at least is dark wherever something green grows."""

_LEFT_IN = 0.095
"""The darkest of a part with the offset in: no ground is darker than 0, less some noise."""

_TWICE = -0.02
"""Median of the dark bands below which the offset was removed twice: haze taken out too well
leaves -0.01."""

_ZEROS = 0.3
"""Share of dark values that are exactly 0 where negative ones were cut off."""

_DARKEST = 0.05
"""Quantile that stands for the darkest: single shadows and errors are darker than the ground."""

_FEWEST_STEPS, _FEWEST_OF_GROUP = 30, 6
"""Green steps that a date, and a group, needs to be judged."""


def find_offset(audited: Audited) -> list[Finding]:
    """Return findings of an offset that was left in or removed twice.

    Vegetation is dark in blue, red or the second short-wave infrared: 0.02 to 0.07. Where the
    darkest twentieth of a whole date, or of all of a group's, has 0.095, nothing is dark because
    0.1 was never taken away; where half is below -0.02, it was taken away twice.
    """
    dark, is_green = _dark_of_green(audited)
    if not is_green.any():
        return []
    is_in, is_twice = np.zeros(dark.shape, bool), np.zeros(dark.shape, bool)
    named: dict[bool, list[str]] = {True: [], False: []}
    for name, part, fewest in _parts(audited):
        looked = dark[part & is_green]
        if len(looked) < fewest:
            continue
        if np.quantile(looked, _DARKEST) >= _LEFT_IN:
            is_in |= part
            named[True].append(name)
        elif np.median(looked) < _TWICE or (looked == 0).mean() > _ZEROS:
            is_twice |= part
            named[False].append(name)
    for kind, is_it in ((True, is_in), (False, is_twice)):
        by_group = _odd_groups(audited, dark, is_green & ~is_it, is_left_in=kind)
        if by_group.any():
            is_it |= by_group[:, np.newaxis] & audited.is_seen
            named[kind].append(f"{len(np.unique(audited.group[by_group]))} groups")
    return [
        *_told(audited, is_in & audited.is_seen, named[True], is_left_in=True),
        *_told(audited, is_twice & audited.is_seen, named[False], is_left_in=False),
    ]


def _dark_of_green(
    audited: Audited,
) -> tuple[Float32[np.ndarray, "sample time"], Bool[np.ndarray, "sample time"]]:
    """Return the lowest dark band of every step, and which steps are of something green."""
    if not audited.has("B04", "B08"):
        nothing = np.zeros(audited.values.shape[:2], bool)
        return np.full(nothing.shape, np.nan, np.float32), nothing
    red, near = audited.band("B04"), audited.band("B08")
    bands = [audited.band(band) for band in _DARK if audited.has(band)]
    dark = np.minimum.reduce(bands)
    # without the offset bright sand is as dark as a forest with it; sand is not green
    is_green = (near > 2 * red) & (near > 0.05) & np.isfinite(dark)
    return dark, is_green


def _parts(audited: Audited) -> Iterator[tuple[str, Bool[np.ndarray, "sample time"], int]]:
    """Yield the name of each date or period, its steps, and how many of them must be green."""
    shape = audited.values.shape[:2]
    if audited.day is not None:
        for day in np.unique(audited.day[audited.day != NO_DAY]):
            yield str(np.datetime64(int(day), "D")), audited.day == day, _FEWEST_STEPS
        return
    names = audited.periods or tuple(f"step {step}" for step in range(shape[1]))
    for step, name in enumerate(names):
        part = np.zeros(shape, bool)
        part[:, step] = True
        yield name, part, _FEWEST_STEPS


def _odd_groups(
    audited: Audited,
    dark: Float32[np.ndarray, "sample time"],
    is_green: Bool[np.ndarray, "sample time"],
    *,
    is_left_in: bool,
) -> Bool[np.ndarray, "sample"]:
    """Return the samples of groups that are shifted while most are not."""
    sample, step = np.nonzero(is_green)
    nobody = np.zeros(len(audited), bool)
    if len(sample) < _FEWEST_STEPS:
        return nobody
    values = dark[sample, step]
    groups, member = np.unique(audited.group[sample], return_inverse=True)
    order = np.lexsort((values, member))
    starts = np.flatnonzero(np.diff(member[order], prepend=-1))
    size = np.diff(starts, append=len(order))
    share = 0.1 if is_left_in else 0.5
    at = starts + np.floor(share * (size - 1)).astype(np.int64)
    low: Float32[np.ndarray, " group"] = values[order][at]
    is_odd = (low >= _LEFT_IN) if is_left_in else (low < _TWICE)
    is_odd &= size >= _FEWEST_OF_GROUP
    if is_odd.sum() < max(3, 0.02 * len(groups)):
        return nobody
    return np.isin(audited.group, groups[is_odd])


def _told(
    audited: Audited,
    is_it: Bool[np.ndarray, "sample time"],
    named: list[str],
    *,
    is_left_in: bool,
) -> list[Finding]:
    if not is_it.any():
        return []
    of_samples = is_it.any(axis=1)
    rows: Int64[np.ndarray, " row"] = np.flatnonzero(of_samples)
    share = is_it.sum() / max(int(audited.is_seen.sum()), 1)
    what = f"{share:.0%} of all steps ({some(named)})"
    return [
        Finding(
            code="offset-left-in" if is_left_in else "offset-removed-twice",
            severity="severe",
            what=f"green ground is nowhere darker than {_LEFT_IN} in {what}: an offset of "
            f"{OFFSET} was not removed"
            if is_left_in
            else f"green ground has negative reflectance, or 0, in {what}: an offset of {OFFSET} "
            "was removed twice",
            count=len(rows),
            rows=rows_of(rows),
            advice="Build these dates again; products say by their baseline and offset whether "
            "1000 counts are to be removed",
        )
    ]
