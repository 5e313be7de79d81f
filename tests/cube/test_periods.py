"""Periods, against NumPy's calendar and plain loops over days."""

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import InputError
from cube.periods import (
    Period,
    acquisition_periods,
    check_periods,
    looks_by_period,
    parse_month,
    periods_between,
    stored_times,
)

months = st.builds(Period.of_month, st.integers(1678, 2261), st.integers(1, 12))
days = st.dates(datetime(1678, 1, 1).date(), datetime(2261, 12, 31).date())
instants = st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31), timezones=st.just(UTC))


def day(text):
    return np.datetime64(text, "D")


def texts(periods):
    return [str(period) for period in periods]


@st.composite
def spans(draw):
    first, last = sorted((draw(days), draw(days)))
    return Period.of_days(day(first), day(last) + 1)


@settings(deadline=None)
@given(months)
def test_start_end_and_length_of_a_month_are_numpys(month):
    first = np.datetime64(str(month), "M")
    assert month.start == first.astype("datetime64[D]")
    assert month.end == (first + 1).astype("datetime64[D]")
    assert month.end - month.start == np.timedelta64(month.days, "D")
    assert month.start.dtype == month.end.dtype == np.dtype("datetime64[ns]")
    assert month.middle - month.start == month.end - month.middle
    assert month.is_month
    assert not month.is_acquisition


@settings(deadline=None)
@given(st.one_of(months, spans(), instants.map(Period.of_acquisition)))
def test_text_pickle_and_back(period):
    again = Period.parse(json.loads(json.dumps(str(period))))
    assert again == period == pickle.loads(pickle.dumps(period))
    assert hash(again) == hash(period)
    assert len({again, period}) == 1


def test_each_kind_has_its_text():
    assert str(Period.of_days(day("2022-03-01"), day("2022-03-16"))) == "2022-03-01/2022-03-15"
    assert str(Period.of_days(day("2022-03-01"), day("2022-04-01"))) == "2022-03"
    assert str(Period.parse("2022-03-01/2022-03-31")) == "2022-03"
    assert str(Period.parse("2022-03-01/2022-04-30")) == "2022-03-01/2022-04-30"
    assert str(Period.parse("2022-03-01/2022-03-01")) == "2022-03-01/2022-03-01"
    began = datetime(2022, 3, 4, 12, 30, 21, tzinfo=timezone(timedelta(hours=2)))
    assert str(Period.of_acquisition(began)) == "2022-03-04T10:30:21"
    assert str(Period.parse("2022-03-04T10:30:21.500")) == "2022-03-04T10:30:21.500"
    assert str(Period.of_acquisition(np.datetime64("2022-03-04"))) == "2022-03-04T00:00:00"


@settings(deadline=None)
@given(instants, st.integers(-(10**6), 10**6))
def test_an_acquisition_holds_one_instant(began, nanoseconds):
    period = Period.of_acquisition(began)
    assert period.holds(began)
    assert period.holds(period.start + np.timedelta64(nanoseconds, "ns")) == (nanoseconds == 0)
    assert period.days == 0


@settings(deadline=None)
@given(months, st.integers(0, 10**18))
def test_a_month_holds_its_instants(month, instant):
    inside = month.start + np.timedelta64(instant % (month.days * 86_400 * 10**9), "ns")
    assert month.holds(inside)
    if month != Period.of_month(1678, 1):
        assert not month.holds(month.start - np.timedelta64(1, "ns"))
    if month != Period.of_month(2261, 12):
        assert not month.holds(month.end)


def test_an_instant_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no zone"):
        Period.of_month(2022, 1).holds(datetime(2022, 1, 1))


@settings(deadline=None)
@given(months, st.integers(0, 60))
def test_months_are_consecutive(first, length):
    last = np.datetime64(str(first), "M") + length
    if last > np.datetime64("2261-12"):
        return
    found = periods_between(first, Period.parse(str(last)))
    expected = np.arange(np.datetime64(str(first), "M"), last + 1)
    assert texts(found) == [str(month) for month in expected]


@settings(deadline=None, max_examples=40)
@given(
    st.builds(Period.of_month, st.integers(1990, 2030), st.integers(1, 12)),
    st.integers(0, 30),
    st.one_of(st.just("half-month"), st.integers(1, 366)),
)
def test_every_day_is_in_the_period_of_its_place_in_the_year(first, length, step):
    last = Period.parse(str(np.datetime64(str(first), "M") + length))
    found = periods_between(first, last, step)
    check_periods(found)
    assert (found[0].start, found[-1].end) == (first.start, last.end)
    assert all(a.end == b.start for a, b in pairwise(found))
    by_place = {}
    for date in np.arange(first.start.astype("M8[D]"), last.end.astype("M8[D]")):
        plain = date.item()
        if step == "half-month":
            place = (plain.year, plain.month, plain.day > 15)
        else:
            place = (plain.year, (plain.timetuple().tm_yday - 1) // step)
        by_place.setdefault(place, []).append(date)
    expected = [(dates[0], dates[-1] + 1) for dates in by_place.values()]
    assert [(p.start, p.end) for p in found] == expected


def test_seasons():
    found = periods_between(Period.parse("2021-12"), Period.parse("2022-11"), "season")
    assert texts(found) == [
        "2021-12-01/2022-02-28",
        "2022-03-01/2022-05-31",
        "2022-06-01/2022-08-31",
        "2022-09-01/2022-11-30",
    ]
    leap = periods_between(Period.parse("1967-12"), Period.parse("1968-02"), "season")
    assert texts(leap) == ["1967-12-01/1968-02-29"]


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        ("2022-01", "2022-05", "months begin at 2022-01, within .* begin at 2021-12 or 2022-03"),
        ("2022-02", "2022-05", "begin at 2021-12 or 2022-03"),
        ("2021-12", "2022-12", "months end at 2022-12, within .* end at 2022-11 or 2023-02"),
        ("2021-12", "2022-01", "end at 2021-11 or 2022-02"),
        ("1969-10", "1970-05", "begin at 1969-09 or 1969-12"),
    ],
)
def test_seasons_that_are_cut_name_the_months_that_fit(first, last, text):
    with pytest.raises(InputError, match=text):
        periods_between(Period.parse(first), Period.parse(last), "season")


def test_what_has_no_periods():
    march, april = Period.parse("2022-03"), Period.parse("2022-04")
    with pytest.raises(InputError, match="end at 2022-03, before they start at 2022-04"):
        periods_between(april, march)
    with pytest.raises(InputError, match=r"periods of 0 days; expected a whole number 1\.\.366"):
        periods_between(march, april, 0)
    with pytest.raises(InputError, match="with a calendar month, not with 2022-03-01/2022-03-15"):
        periods_between(Period.parse("2022-03-01/2022-03-15"), april)


def test_acquisitions_are_those_that_began_in_the_months():
    began = [
        datetime(2022, 4, 30, 23, 59, 59, tzinfo=UTC),
        np.datetime64("2022-03-04T10:30:21"),
        datetime(2022, 3, 4, 10, 30, 21, tzinfo=UTC),
        np.datetime64("2022-05-01"),
    ]
    found = acquisition_periods(began, Period.parse("2022-03"), Period.parse("2022-04"))
    assert texts(found) == ["2022-03-04T10:30:21", "2022-04-30T23:59:59"]
    assert looks_by_period(found, began) == {found[0]: 2, found[1]: 1}


@settings(deadline=None)
@given(st.lists(st.integers(0, 800)), st.integers(1, 100))
def test_looks_are_counted_where_they_lie(offsets, step):
    periods = periods_between(Period.parse("2021-03"), Period.parse("2022-06"), step)[::2]
    times = [np.datetime64("2021-01-01") + offset for offset in offsets]
    found = looks_by_period(periods, times)
    plain = {p: sum(p.start <= time < p.end for time in times) for p in periods}
    assert found == {period: count for period, count in plain.items() if count}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("times", "units"),
    [
        (["2022-03-01", "1969-12-31"], "days"),
        (["2022-03-01", "2022-03-04T10:30:21"], "seconds"),
        (["2022-03-04T10:30:21.026"], "milliseconds"),
        (["2022-03-04T10:30:21.000001"], "microseconds"),
        (["2022-03-04T10:30:21.000000001"], "nanoseconds"),
    ],
)
def test_times_are_stored_exactly_in_the_coarsest_unit(times, units):
    exact = [np.datetime64(time, "ns") for time in times]
    numbers, attributes = stored_times(exact)
    assert attributes["units"] == f"{units} since 1970-01-01"
    raw = xr.Dataset(coords={"time": ("time", numbers, attributes)})
    np.testing.assert_array_equal(xr.decode_cf(raw)["time"].values.astype("M8[ns]"), exact)
    assert numbers.dtype == np.int64


def test_order_and_leap_years():
    assert Period.parse("2021-12") < Period.parse("2022-01-01/2022-01-05") < Period.parse("2022-01")
    assert [Period.of_month(year, 2).days for year in (2020, 2021, 1900)] == [29, 28, 28]


@pytest.mark.parametrize(
    "text", ["2022-13", "2022-00", "2022-3", "22-03", "2022-03-01", "2022-03\n", "", "٢٠٢٢-٠٣"]
)
def test_what_is_no_month(text):
    with pytest.raises(InputError, match=r"does not exist; expected YYYY-MM"):
        parse_month(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2022-02-30/2022-03-01", "does not exist; expected a month '2022-03', days"),
        ("2022-02-03T25:00:00", "or an instant '2022-03-04T10:30:21'"),
        ("2022-02-03T10:00", "does not exist"),
        ("2022-02-03T10:00:00Z", "does not exist"),
        ("NaT", "does not exist"),
        ("2022-03-02/2022-03-01", "not after its start"),
        ("2022-03-02/9999-12-31", "beyond the time axis, which holds the years 1678..2261"),
        ("2262-01-01T00:00:00", "beyond the time axis"),
    ],
)
def test_what_is_no_period(text, words):
    with pytest.raises(InputError, match=words):
        Period.parse(text)


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}(-[0-9]{2}[/T].*)?", fullmatch=True))
def test_any_text_is_a_period_or_an_input_error(text):
    try:
        found = Period.parse(text)
    except InputError:
        pass
    else:
        assert Period.parse(str(found)) == found


@pytest.mark.parametrize("text", ["0001-01", "1677-12", "2262-01", "9999-12"])
def test_years_that_nanoseconds_cannot_hold(text):
    with pytest.raises(InputError, match=r"beyond the time axis, which holds the years 1678..2261"):
        Period.parse(text)


@pytest.mark.parametrize(
    "time", [np.datetime64("NaT", "ns"), np.datetime64("0001-01-01"), datetime.max]
)
def test_no_time_and_times_beyond_are_in_no_period(time):
    if isinstance(time, datetime):
        time = time.replace(tzinfo=UTC)
    with pytest.raises(InputError, match="beyond the time axis"):
        Period.of_month(2022, 1).holds(time)


def test_parts_of_days_are_refused():
    start = np.datetime64("2022-03-01T00:00", "ns")
    with pytest.raises(InputError, match="not made of whole days"):
        Period(start, start + np.timedelta64(5, "h"))
