"""The header of a wide table in, which column holds which band at which step out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cube.errors import InputError
from cube.series.dates import parse_day
from cube.series.names import known_band, listed, may_be_value

_DATE = r"\d{4}[-_.]?\d{2}(?:[-_.]?\d{2})?"
_USUAL = (
    re.compile(rf"^(?P<band>.+?)[-_. ](?P<date>{_DATE})$"),
    re.compile(rf"^X?(?P<date>{_DATE})(?:T\w+)?[-_. ](?P<band>.+)$"),
    re.compile(r"^(?P<band>.+?)[-_. ](?:ts|t|step)(?P<step>\d{1,4})(?:[-_]\d+m)?$", re.I),
    re.compile(r"^(?P<band>.+?)[-_. ](?P<step>\d{1,3})$"),
    re.compile(r"^(?P<step>\d{1,3})[-_. ](?P<band>.+)$"),
)
"""Names such as NDVI_2018-09-14, 20180914_B2, B02_ts0, OPTICAL-B02-ts0-10m, NDVI.7, 3_B8."""

_FEWEST_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class WideColumns:
    """The value columns of a wide table."""

    columns: Mapping[str, tuple[str, ...]]
    """Of each band, by its name, the columns of its steps in their order."""
    days: tuple[int, ...] | None
    """Day of each step (since 1970) where columns are named by dates; None if they are counted."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(next(iter(self.columns.values())))


Step = tuple[int, str]
"""What steps are ordered by, and how one is told."""

Found = dict[str, dict[Step, str]]
"""Columns of each band, by their step."""


def wide_columns(
    header: Sequence[str], *, file: str, pattern: str | None, bands: tuple[str, ...] | None
) -> WideColumns | None:
    """Return the value columns that a pattern, or the usual ones, find; None if there are none.

    Raises `InputError` if bands have different steps, or `bands` names one that is not there.
    """
    ways = (_compiled(pattern),) if pattern is not None else _USUAL
    found: Found = max((_matches(header, way) for way in ways), key=_size)
    if _size(found) < _FEWEST_STEPS:
        if pattern is None:
            return None
        raise InputError(
            f"{file!r}: --wide {pattern!r} fits {_size(found)} columns; found {listed(header)!r}"
        )
    chosen = _chosen(found, bands, file)
    _refuse_double(header, max(ways, key=lambda way: _size(_matches(header, way))), chosen, file)
    steps = sorted({step for columns in chosen.values() for step in columns})
    for band, columns in chosen.items():
        if lacking := [step for step in steps if step not in columns]:
            raise InputError(
                f"{file!r}: {band} has no column for step {lacking[0][1]}, which other bands have; "
                "leave it out with --bands, or add the column"
            )
    by_name = {
        known_band(band) or band: tuple(columns[step] for step in steps)
        for band, columns in chosen.items()
    }
    is_dated = steps[0][1].count("-") == 2
    return WideColumns(columns=by_name, days=tuple(step[0] for step in steps) if is_dated else None)


def bands_of_header(header: Sequence[str], pattern: str | None) -> tuple[str, ...]:
    """Return every band that columns are named after, also those not imported unless named."""
    ways = (_compiled(pattern),) if pattern is not None else _USUAL
    found: Found = max((_matches(header, way) for way in ways), key=_size)
    return tuple(found)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression that a pattern with `{band}` and `{date}` or `{step}` stands for."""
    has = {part for part in ("band", "date", "step") if "{" + part + "}" in pattern}
    if "band" not in has or len(has) != 2:
        raise InputError(
            f"--wide {pattern!r} is no pattern; expected {{band}} and one of {{date}} and {{step}}, "
            "e.g. '{band}_{date}' or 'OPTICAL-{band}-ts{step}-10m'"
        )
    text = re.escape(pattern)
    for part, expression in {"band": ".+?", "date": _DATE, "step": r"\d+"}.items():
        text = text.replace(re.escape("{" + part + "}"), f"(?P<{part}>{expression})", 1)
    try:
        return re.compile(f"^{text}$")
    except re.error as error:
        raise InputError(f"--wide {pattern!r} is no pattern: {error}") from error


def _matches(header: Sequence[str], way: re.Pattern[str]) -> Found:
    found: Found = {}
    for name in header:
        if (match := _match(name, way)) is not None:
            found.setdefault(match[0], {})[match[1]] = name
    return {band: columns for band, columns in found.items() if len(columns) >= _FEWEST_STEPS}


def _match(name: str, way: re.Pattern[str]) -> tuple[str, Step] | None:
    """Return the band and the step that a column is named after."""
    match = way.match(name)
    if match is None:
        return None
    parts = match.groupdict()
    if "date" not in parts:
        return parts["band"], (int(parts["step"]), str(int(parts["step"])))
    day = parse_day(re.sub(r"[_.]", "-", parts["date"]))
    return None if day is None else (parts["band"], (day.toordinal() - _EPOCH, day.isoformat()))


def _refuse_double(header: Sequence[str], way: re.Pattern[str], chosen: Found, file: str) -> None:
    """Raise `InputError` for two columns of one band and step, as `NDVI_20180914` written twice."""
    for name in header:
        match = _match(name, way)
        if match is None or match[0] not in chosen:
            continue
        other = chosen[match[0]][match[1]]
        if other != name:
            raise InputError(
                f"{file!r}: columns {name!r} and {other!r} are both {match[0]} of step "
                f"{match[1][1]}; take one out"
            )


_EPOCH = 719163
"""Ordinal of 1970-01-01."""


def _size(found: Found) -> int:
    return sum(len(columns) for columns in found.values())


def _chosen(found: Found, bands: tuple[str, ...] | None, file: str) -> Found:
    if bands is not None:
        names = {known_band(band) or band: band for band in found} | {band: band for band in found}
        wanted = [names.get(known_band(band) or band, names.get(band)) for band in bands]
        if None in wanted:
            lacking = bands[wanted.index(None)]
            raise InputError(
                f"{file!r} has no band {lacking!r} (--bands); found {listed(list(found))!r}"
            )
        return {band: found[band] for band in wanted if band is not None}
    known = {band: columns for band, columns in found.items() if known_band(band)}
    others = {
        band: columns for band, columns in found.items() if band not in known and may_be_value(band)
    }
    # columns that happen to end in numbers are no bands: those have the steps of the others
    usual = Counter(frozenset(columns) for columns in (known or others or found).values())
    steps = usual.most_common(1)[0][0] if usual else frozenset()
    chosen = known | {band: columns for band, columns in others.items() if set(columns) == steps}
    twice = [name for name, n in Counter(known_band(b) or b for b in chosen).items() if n > 1]
    if twice:
        raise InputError(
            f"{file!r} has band {twice[0]!r} twice, under two names; choose with --bands"
        )
    if not chosen:
        raise InputError(
            f"{file!r} has no value column that is known to be one; name them with --bands, of "
            f"{listed(list(found))!r}"
        )
    return chosen
