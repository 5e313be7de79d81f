"""Dates of Earth Engine in, dates, numbers and text out; all in UTC."""

from datetime import UTC, datetime, timedelta
from typing import Any

from earthengine_graph import Function, instant
from earthengine_grids import EngineError
from earthengine_values import Instant, Span

_UNITS = {"second": 1e3, "minute": 6e4, "hour": 36e5, "day": 864e5, "week": 6048e5}


def utc(date: Instant) -> datetime:
    """Return a date as Python has it."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=date.milliseconds)


def _milliseconds(time: datetime) -> Instant:
    return Instant(
        milliseconds=round((time - datetime.fromtimestamp(0, UTC)) / timedelta(milliseconds=1))
    )


def _singular(unit: str) -> str:
    return unit.removesuffix("s")


def _advanced(date: Instant, delta: float, unit: str, zone: Any) -> Instant:
    _refuse_zone(zone)
    unit = _singular(unit)
    if unit in _UNITS:
        return Instant(milliseconds=date.milliseconds + delta * _UNITS[unit])
    if unit not in ("month", "year") or not float(delta).is_integer():
        raise EngineError(f"Date.advance: this server does not know {delta} {unit}s.")
    time = utc(date)
    months = time.year * 12 + time.month - 1 + int(delta) * (12 if unit == "year" else 1)
    return _milliseconds(time.replace(year=months // 12, month=months % 12 + 1))


def _refuse_zone(zone: Any) -> None:
    if zone not in (None, "UTC", "Etc/UTC"):
        raise EngineError(f"This server does not know the time zone {zone!r}.")


def _date(value: Any, zone: Any) -> Instant:
    _refuse_zone(zone)
    return instant(value)


def _difference(date: Instant, start: Instant, unit: str) -> float:
    if _singular(unit) not in _UNITS:
        raise EngineError(f"Date.difference: this server does not know {unit!r}.")
    return (date.milliseconds - start.milliseconds) / _UNITS[_singular(unit)]


def _part_of_date(date: Instant, unit: str, zone: Any) -> int:
    _refuse_zone(zone)
    if unit not in ("year", "month", "day", "hour", "minute", "second"):
        raise EngineError(f"Date.get: this server does not know {unit!r}.")
    return int(getattr(utc(date), unit))


def _formatted(date: Instant, pattern: str | None, zone: Any) -> str:
    _refuse_zone(zone)
    time = utc(date)
    known = {
        None: "%Y-%m-%dT%H:%M:%S",
        "YYYY-MM-dd": "%Y-%m-%d",
        "yyyy-MM-dd": "%Y-%m-%d",
        "YYYYMMdd": "%Y%m%d",
        "yyyyMMdd": "%Y%m%d",
        "YYYY-MM": "%Y-%m",
    }
    if pattern not in known:
        raise EngineError(f"Date.format: this server does not know {pattern!r}.")
    return time.strftime(known[pattern])


def _span(start: Any, end: Any, zone: Any) -> Span:
    _refuse_zone(zone)
    first = instant(start).milliseconds
    return Span(start=first, end=first + 1 if end is None else instant(end).milliseconds)


DATE_FUNCTIONS: dict[str, Function] = {
    "Date": _date,
    "Date.advance": _advanced,
    "Date.millis": lambda date: date.milliseconds,
    "Date.difference": _difference,
    "Date.get": _part_of_date,
    "Date.format": _formatted,
    "DateRange": _span,
    "Image.date": lambda image: instant(image.properties["system:time_start"]),
}
