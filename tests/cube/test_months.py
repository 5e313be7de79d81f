"""Months, against NumPy's own calendar."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import InputError
from cube.months import Month, month_range

months = st.builds(Month, st.integers(1678, 2261), st.integers(1, 12))


@settings(deadline=None)
@given(months)
def test_start_end_and_length_are_numpys(month):
    first = np.datetime64(f"{month.year:04d}-{month.month:02d}", "M")
    assert month.start == first.astype("datetime64[D]")
    assert month.end == (first + 1).astype("datetime64[D]")
    assert month.end - month.start == np.timedelta64(month.days, "D")
    assert month.start.dtype == month.end.dtype == np.dtype("datetime64[ns]")


@settings(deadline=None)
@given(months)
def test_text_and_back(month):
    assert Month.parse(str(month)) == month


@settings(deadline=None)
@given(months, st.integers(0, 10**18))
def test_every_instant_has_one_month(month, instant):
    inside = month.start + np.timedelta64(instant % (month.days * 86_400 * 10**9), "ns")
    assert Month.of(inside) == month
    if month != Month(1678, 1):
        assert Month.of(month.start - np.timedelta64(1, "ns")) < month
    if month != Month(2261, 12):
        assert Month.of(month.end) == month.next()


@settings(deadline=None)
@given(months, st.integers(0, 60))
def test_ranges_are_consecutive(first, length):
    index = first.year * 12 + first.month - 1 + length
    last = (index // 12, index % 12 + 1)
    if last[0] > 2261:
        return
    found = month_range(first, Month(*last))
    expected = np.arange(
        np.datetime64(str(first)), np.datetime64(str(Month(*last))) + 1, dtype="datetime64[M]"
    )
    assert [str(month) for month in found] == [str(month) for month in expected]


def test_order_and_leap_years():
    assert Month(2021, 12) < Month(2022, 1) < Month(2022, 2)
    assert (Month(2020, 2).days, Month(2021, 2).days, Month(1900, 2).days) == (29, 28, 28)
    assert Month.of(np.datetime64("2018-03-01T00:00:00")) == Month(2018, 3)
    assert Month.of(np.datetime64("2018-02-28T23:59:59.999999999")) == Month(2018, 2)


def test_a_range_that_runs_backwards():
    with pytest.raises(InputError, match="end at 2021-12, before they start at 2022-01"):
        month_range(Month(2022, 1), Month(2021, 12))


@pytest.mark.parametrize(
    "text", ["2022-13", "2022-00", "2022-3", "22-03", "2022-03-01", "2022-03\n", "", "٢٠٢٢-٠٣"]
)
def test_what_is_no_month(text):
    with pytest.raises(InputError, match=r"does not exist; expected YYYY-MM"):
        Month.parse(text)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_month_or_an_input_error(text):
    try:
        found = str(Month.parse(text))
    except InputError as error:
        found = str(error)
    assert found == text or re.match(r"month .* (does not exist|is beyond)", found, re.DOTALL)


@pytest.mark.parametrize("text", ["0001-01", "1677-12", "2262-01", "9999-12"])
def test_years_that_nanoseconds_cannot_hold(text):
    with pytest.raises(InputError, match=r"beyond the time axis, which holds the years 1678..2261"):
        Month.parse(text)


def test_no_time_is_in_no_month():
    with pytest.raises(InputError, match="'NaT' does not exist"):
        Month.of(np.datetime64("NaT", "ns"))
