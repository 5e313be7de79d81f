"""Words of the command line in, `SeriesOptions` out: how tables of labelled series are read."""

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cube.errors import InputError

if TYPE_CHECKING:  # both take seconds to import, which `--help` need not
    from cube.periods import Step
    from cube.series import SeriesOptions

CALENDAR = "calendar"
"""`--step` of a prediction: the calendar of the classifier."""

_COLUMNS = {
    "id": "column that says which rows are one series",
    "label": "column with the class",
    "date": "column with the day",
    "group": "column of the field, stand or plot (default: places near each other)",
    "year": "column of the year, where ids begin again every year",
    "region": "column of the region",
}


def add_series_options(
    parser: argparse.ArgumentParser,
    *,
    is_prediction: bool = False,
    only: Sequence[str] | None = None,
) -> None:
    """Add what is said of tables of series; `--crs`, `--scale`, `--first`, `--last` are elsewhere.

    For a prediction the classifier says the bands, and nothing is split. `only` names those that
    the command takes; of the others it has what holds where nothing is said.
    """
    series = parser.add_argument_group("tables of labelled series (id, date, label, values)")
    calendar = ", or calendar: that of the classifier" if is_prediction else ""
    wanted = _COLUMNS.keys() | _OTHERS.keys() if only is None else set(only)
    wanted -= {"bands", "group_distance", "block_degrees"} if is_prediction else set()
    for name, text in _COLUMNS.items():
        if name in wanted:
            series.add_argument(f"--{name}", metavar="COLUMN", help=text)
    for name, given in _OTHERS.items():
        if name in wanted:
            more = {"help": given["help"] + calendar} if name == "step" else {}
            series.add_argument(f"--{name.replace('_', '-')}", **(given | more))
    for name in (_COLUMNS.keys() | _OTHERS.keys()) - wanted:
        parser.set_defaults(**{name: _OTHERS.get(name, {}).get("default")})


_OTHERS: dict[str, dict[str, Any]] = {
    "bands": {
        "metavar": "NAME,NAME",
        "help": "value columns (default: those that vary in time)",
    },
    "wide": {
        "metavar": "PATTERN",
        "help": "names of value columns, e.g. '{band}_{date}' or 'OPTICAL-{band}-ts{step}-10m'",
    },
    "start": {
        "metavar": "DAY",
        "help": "day of the first step, or its column, where steps count",
    },
    "step": {
        "metavar": "STEP",
        "help": "common calendar: month, half-month, season or a number of days",
    },
    "nodata": {
        "action": "append",
        "default": [],
        "metavar": "VALUE",
        "help": "value that means not observed; nan for empty cells, auto for the usual ones",
    },
    "duplicates": {
        "choices": ("refuse", "first", "mean"),
        "default": "refuse",
        "help": "what is taken where a series has a date twice (%(default)s)",
    },
    "sort": {
        "action": "store_true",
        "default": False,
        "help": "rows may come in any order of dates",
    },
    "group_distance": {
        "type": float,
        "metavar": "METRES",
        "help": "places this near each other are one group (default: 1000; long chains are cut)",
    },
    "block_degrees": {
        "type": float,
        "metavar": "DEGREES",
        "help": "edge of spatial blocks (default: 1, less where that gives under five)",
    },
}
"""Options beside those that name columns, and how the command line takes them."""


def series_options(
    options: argparse.Namespace, *, has_classifier: bool = False, **more: Any
) -> "SeriesOptions":
    """Return what was said of tables of series; raises `InputError` for what cannot be.

    `has_classifier` allows `--step calendar`: dates are put into the classifier's periods.
    """
    from cube.periods import parse_month
    from cube.series import SeriesOptions

    months: dict[str, Any] = {
        name: parse_month(text)
        for name in ("first", "last")
        if (text := getattr(options, name, None)) is not None
    }
    return SeriesOptions(
        **{name: getattr(options, name) for name in _COLUMNS},
        bands=_names(options.bands),
        wide=options.wide,
        start=options.start,
        step=_step(options.step, has_classifier=has_classifier),
        **months,
        nodata=_values(options.nodata),
        finds_nodata="auto" in options.nodata,
        scale=getattr(options, "scale", None),
        duplicates=options.duplicates,
        sorts=options.sort,
        crs=getattr(options, "crs", None),
        group_distance=options.group_distance,
        block_degrees=options.block_degrees,
        **more,
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise InputError("--bands names no band; expected e.g. NDVI,EVI")
    return names


_STEPS: "dict[str, Step]" = {
    "month": "month",
    "half-month": "half-month",
    "season": "season",
}


def _step(text: str | None, *, has_classifier: bool) -> "Step | None":
    if text is None:
        return None
    if text == CALENDAR and has_classifier:
        return "month"  # that there is one is all that counts
    if text in _STEPS:
        return _STEPS[text]
    if text.isascii() and text.isdigit():
        return int(text)
    others = f", or {CALENDAR}: that of the classifier" if has_classifier else ""
    raise InputError(
        f"--step {text!r} is no step; expected month, half-month, season or a number of days{others}"
    )


def _values(texts: list[str]) -> tuple[float, ...]:
    values = []
    for text in texts:
        if text == "auto":
            continue
        try:
            value = float(text)
        except ValueError:
            raise InputError(f"--nodata {text!r} is no number, nan or auto") from None
        values.append(value)
    return tuple(sorted(values, key=lambda value: (math.isnan(value), value)))
