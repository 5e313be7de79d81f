"""Places of periods in the calendar, against dates written out by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.periods import calendar_positions, is_position, middle_of_year

HALF_FEBRUARY = ("{0}-02-01/{0}-02-15", "{0}-02-16/{0}-02-{1}")


def test_months_wrap_at_the_end_of_the_year() -> None:
    found = calendar_positions(("2017-11", "2017-12", "2018-01", "2018-03"))
    assert found == ("11", "12", "01", "03")
    assert calendar_positions(("2021-03", "2022-03")) == ("03", "03")


def test_a_year_is_like_another_whether_it_leaps_or_not() -> None:
    leap, common = (
        calendar_positions([text.format(year, last) for text in HALF_FEBRUARY])
        for year, last in ((2024, 29), (2023, 28))
    )
    assert leap == common == ("02-01/02-15", "02-16/02-28")
    winters = (("2023-12-01/2024-02-29",), ("2022-12-01/2023-02-28",))
    assert {calendar_positions(winter) for winter in winters} == {("12-01/02-28",)}


@given(st.integers(1900, 2100), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_days_keep_their_months_and_days(year: int, lengths: list[int]) -> None:
    edges = np.cumsum([np.datetime64(f"{year}-01-01").astype(int), *lengths]).astype("M8[D]")
    days = [(edge.item(), (after - 1).item()) for edge, after in pairwise(edges)]
    found = calendar_positions([f"{first}/{last}" for first, last in days])
    for position, (first, last) in zip(found, days, strict=True):
        begins, ends = position.split("/")
        assert begins == first.isoformat()[5:]
        assert ends == last.isoformat()[5:] or (ends, last.day) == ("02-28", 29)
        assert is_position(position)


@pytest.mark.parametrize(
    ("periods", "text"),
    [
        (("2022-13",), "period '2022-13' does not exist; expected a month '2022-03'"),
        (("2022-02-01/2022-02-30",), "does not exist"),
        (("2022-02-10/2022-02-01",), "does not exist"),
        (("2022-01-01/2023-01-01",), "days of a year or less"),
        (("0000-01",), "does not exist"),
        (("2022-01", "2024-01"), "'2024-01' begins more than a year after '2022-01'"),
        (("2022-01", "2022-01"), "'2022-01' does not lie after '2022-01'; periods must rise"),
        (("2022-01", "2022-01-20/2022-02-20"), "periods must rise"),
        (("2022-01-04T10:30:21",), "is a single acquisition, whose date does not come again"),
    ],
)
def test_what_has_no_place_in_the_calendar(periods: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        calendar_positions(periods)


@pytest.mark.parametrize("text", ["01", "12", "12-01/02-28", "02-29/03-15"])
def test_places(text: str) -> None:
    assert is_position(text)


@pytest.mark.parametrize("text", ["", "0", "13", "00", "02-30/03-01", "01-01", "2022-03", "٠١"])
def test_no_places(text: str) -> None:
    assert not is_position(text)


def test_a_whole_year_is_the_longest_period() -> None:
    assert calendar_positions(("2022-01-01/2022-12-31",)) == ("01-01/12-31",)


@pytest.mark.parametrize(
    ("position", "day"),
    [
        ("01", 15.5),
        ("02", 31 + 14),
        ("12", 334 + 15.5),
        ("03-01/03-15", 59 + 7.5),
        ("02-15/02-29", 45 + 7),
        ("12-01/02-28", 334 + 45),
        ("12-22/01-20", 0.0 + 5),
    ],
)
def test_middle_of_a_place_in_the_calendar(position: str, day: float) -> None:
    assert middle_of_year(position) * 365 == pytest.approx(day % 365)


def test_middle_of_no_place_is_refused() -> None:
    with pytest.raises(ValueError, match="'2022-03' is no place in the calendar"):
        middle_of_year("2022-03")
