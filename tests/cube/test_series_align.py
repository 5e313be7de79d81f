"""Series of other years and lengths on one calendar: against loops over dates, and pandas."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import InputError
from cube.periods import parse_month
from cube.series import SeriesOptions, align, align_to, series_dataset
from cube.series.median import median_of_cells
from cube.series.observations import Observations
from cube.series.places import blocks_of, far_note, groups_of, local_metres
from model.periods import calendar_positions

EPOCH = date(1970, 1, 1)


def series_of(dates: list[list[date]], values: list[list[float]] | None = None) -> Observations:
    """Return series of one band with these dates; values are numbers of steps unless given."""
    count = len(dates)
    values = values or [[float(step) for step, _ in enumerate(days)] for days in dates]
    return Observations(
        bands=("NDVI",),
        id=np.array([f"s{one}" for one in range(count)], dtype=object),
        where=np.array([f"'t.csv', line {one + 2}" for one in range(count)], dtype=object),
        label=np.array([("oak", "beech")[one % 2] for one in range(count)], dtype=object),
        group=None,
        region=None,
        lon=np.arange(count) * 0.3 + 10.05,
        lat=np.full(count, 50.05),
        series=np.repeat(np.arange(count), [len(days) for days in dates]).astype(np.int64),
        day=np.array([(day - EPOCH).days for days in dates for day in days], np.int64),
        value=np.array([v for of in values for v in of], np.float32)[:, None],
    )


def every(days: int, start: date, steps: int) -> list[date]:
    return [start + timedelta(days=days * step) for step in range(steps)]


def modis(year: int, count: int = 23) -> list[date]:
    """Return starts of MODIS' 16-day composites from September: they begin anew in January."""
    starts = [
        start
        for one in (year, year + 1)
        for start in every(16, date(one, 1, 1), 23)
        if start >= date(year, 9, 10)
    ]
    return starts[:count]


def told(observations: Observations, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        align(observations, SeriesOptions(**options))  # type: ignore[arg-type]
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)


def test_seasons_over_new_year_of_any_years_have_the_same_steps() -> None:
    years = [2000, 2003, 2004, 2005, 2007]  # 2000 and 2004 are leap years, as is the second of 2003
    found = align(series_of([modis(year) for year in years]), SeriesOptions())
    assert found.year.tolist() == years
    names = [str(period) for period in found.periods]
    assert len(names) == 23
    assert names[0].startswith("2000-09-1")
    positions = calendar_positions(names)
    assert positions[7] == "01-01/01-16"
    assert positions[-1].startswith("08-2")
    np.testing.assert_array_equal(found.value[:, :, 0], np.tile(np.arange(23.0), (5, 1)))
    assert (found.count == 1).all()


def test_one_date_in_every_month_makes_months() -> None:
    starts = [[date(y, 9, 14 - y % 2), *every(32, date(y, 10, 16), 2), date(y, 12, 19),
               *every(32, date(y + 1, 1, 17), 7), date(y + 1, 8, 29)] for y in (2006, 2006, 2011)]  # fmt: skip
    found = align(series_of(starts), SeriesOptions())
    assert [str(period) for period in found.periods] == [
        *(f"2006-{month:02d}" for month in (9, 10, 11, 12)),
        *(f"2007-{month:02d}" for month in range(1, 9)),
    ]


def test_more_than_a_year_of_steps() -> None:
    found = align(series_of([every(16, date(2018, 7, 12), 25)] * 2), SeriesOptions())
    assert len(calendar_positions([str(period) for period in found.periods])) == 25


@given(
    starts=st.lists(st.tuples(st.integers(1985, 2030), st.integers(-3, 3)), min_size=2, max_size=8),
    step=st.sampled_from([8, 16, 30]),
    month=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_series_that_begin_within_a_few_days_of_each_other_align(
    starts: list[tuple[int, int]], step: int, month: int
) -> None:
    """However many years are between them, and wherever in the year they begin."""
    dates = [
        every(step, date(year, month, 15) + timedelta(days=shift * step // 16), 10)
        for year, shift in starts
    ]
    found = align(series_of(dates), SeriesOptions())
    assert found.value.shape == (len(starts), 10, 1)
    assert found.year.tolist() == [days[0].year for days in dates]
    calendar_positions([str(period) for period in found.periods])  # raises if they do not rise
    # the nominal period of a step begins near its dates, of whatever year
    for at, period in enumerate(found.periods):
        of_year = int(period.start.astype("M8[D]").item().strftime("%j"))
        for days in dates:
            away = abs(of_year - int(days[at].strftime("%j")))
            assert min(away, 366 - away) <= step


@pytest.mark.parametrize(
    ("dates", "text"),
    [
        (
            [every(16, date(2018, 3, 1), 10), every(16, date(2019, 3, 1), 9)],
            "series have different lengths: 1 have 9 dates, 1 others, e.g. series 's0' "
            "('t.csv', line 2) 10; put them on a common calendar with --step month",
        ),
        (
            [every(16, date(2018, 3, 1), 5)] * 3 + [every(16, date(2018, 5, 1), 5)],
            "date 1 is 2018-03-01 in series 's0' ('t.csv', line 2), but 2018-05-01 in series 's3'",
        ),
        (
            [every(16, date(2018, 3, 1), 5) + every(16, date(2020, 3, 1), 5)] * 2,
            "has no date between 2018-05-04 and 2020-03-01; a series is one season",
        ),
    ],
)
def test_series_that_do_not_fit_together_are_told(dates: list[list[date]], text: str) -> None:
    assert text in told(series_of(dates))


def irregular(seed: int = 0) -> tuple[list[list[date]], list[list[float]]]:
    """Return series of other dates, lengths and years, all of seasons from April to September."""
    random = np.random.default_rng(seed)
    dates, values = [], []
    for year in (2015, 2016, 2020, 2016):
        days = np.sort(random.choice(np.arange(1, 180), int(random.integers(5, 30)), replace=False))
        dates.append([date(year, 4, 1) + timedelta(days=int(day)) for day in days])
        values.append([float(v) for v in random.random(len(days)).astype(np.float32)])
        values[-1][2] = float("nan")
    return dates, values


@pytest.mark.parametrize("step", ["month", "half-month"])
def test_a_common_calendar_takes_the_median_that_pandas_gives(step: str) -> None:
    dates, values = irregular()
    found = align(series_of(dates, values), SeriesOptions(step=step))  # type: ignore[arg-type]
    starts = [str(period.start)[5:10] for period in found.periods]
    for one, (days, of) in enumerate(zip(dates, values, strict=True)):
        frame = pd.DataFrame({"day": pd.to_datetime(days), "value": of}).dropna()
        half = "01" if step == "month" else None
        key = [f"{d:%m}-{half or ('01' if d.day <= 15 else '16')}" for d in frame["day"]]
        expected = frame.groupby(key)["value"].agg(["median", "count"]).reindex(starts)
        np.testing.assert_allclose(found.value[one, :, 0], expected["median"], rtol=1e-6)
        np.testing.assert_array_equal(found.count[one], expected["count"].fillna(0))


def test_a_calendar_may_be_asked_for() -> None:
    dates, values = irregular()
    found = align(
        series_of(dates, values),
        SeriesOptions(step="month", first=parse_month("2001-05"), last=parse_month("2001-07")),
    )
    assert calendar_positions([str(period) for period in found.periods]) == ("05", "06", "07")
    outside = sum(not 5 <= day.month <= 7 for days in dates for day in days)
    assert found.dropped == {"observations outside the calendar": outside}


def test_series_without_a_value_are_left_out_and_counted() -> None:
    nan = float("nan")
    dates = [every(16, date(2018, 3, 1), 3)] * 3
    found = align(series_of(dates, [[1, nan, 2], [nan] * 3, [nan, 3, nan]]), SeriesOptions())
    assert found.observations.id.tolist() == ["s0", "s2"]
    assert found.dropped == {"series without any value": 1}
    assert np.isnan(found.value).sum() == 3


def test_the_calendar_of_a_classifier_takes_series_of_another_year() -> None:
    trained = align(series_of([modis(2004)]), SeriesOptions())
    positions = calendar_positions([str(period) for period in trained.periods])
    found = align_to(series_of([modis(2005), modis(2007)]), positions, is_placed=False)
    assert calendar_positions([str(period) for period in found.periods]) == positions
    np.testing.assert_array_equal(found.value[:, :, 0], np.tile(np.arange(23.0), (2, 1)))
    months = ("11", "12", "01", "02")
    monthly = [[date(2018, 11, 9), date(2018, 12, 3), date(2019, 2, 28)]]
    placed = align_to(series_of(monthly), months, is_placed=True)
    np.testing.assert_array_equal(placed.value[0, :, 0], [0, 1, np.nan, 2])


def test_series_that_end_early_stay_in_their_year_of_a_long_calendar() -> None:
    """18 months: the middle of the first three is nearer to the middle of the same months later."""
    long = every(30, date(2018, 1, 10), 18)
    early = [every(30, date(year, 1, 10), 3) for year in (2018, 2020)]
    found = align(series_of([long, long, *early]), SeriesOptions(step="month"))
    assert len(found.periods) == 18
    for one in (2, 3):
        np.testing.assert_array_equal(found.value[one, :3, 0], [0, 1, 2])
        assert np.isnan(found.value[one, 3:]).all()
    assert not found.dropped


def test_series_that_do_not_fit_a_classifier_are_told() -> None:
    months = ("03", "04", "05")
    with pytest.raises(InputError, match="has 4 dates, the classifier reads 3 periods"):
        align_to(series_of([every(30, date(2018, 3, 5), 4)]), months, is_placed=False)
    with pytest.raises(InputError, match="its date 1 at 2018-06-05, the classifier's period is 03"):
        align_to(series_of([every(30, date(2018, 6, 5), 3)]), months, is_placed=False)


@given(
    cells=st.lists(st.integers(-1, 4), min_size=1, max_size=40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None)
def test_the_median_of_cells_is_numpys(cells: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    value = random.random((len(cells), 2)).astype(np.float32)
    value[random.random(value.shape) < 0.2] = np.nan
    found = median_of_cells(value, np.array(cells, np.int64), 5)
    for cell in range(5):
        for band in range(2):
            known = [v for c, v in zip(cells, value[:, band], strict=True) if c == cell and v == v]
            expected = np.median(known) if known else np.nan
            np.testing.assert_allclose(found[cell, band], expected, rtol=1e-6)


def test_samples_have_units_places_and_years() -> None:
    dates = [modis(2000 + one % 3) for one in range(8)]
    options = SeriesOptions(block_degrees=1.0)
    made = series_dataset(align(series_of(dates), options), options)
    samples = made.samples
    assert samples["reflectance"].dims == ("sample", "time", "band")
    assert samples["block"].values[:4].tolist() == ["e0010n0050"] * 4
    assert len(set(samples["group"].values)) == 8
    assert samples["year"].values.tolist() == [2000 + one % 3 for one in range(8)]
    np.testing.assert_allclose(np.diff(samples["x"]), 21_500, rtol=0.01)  # 0.3 degrees at 50 N


def test_near_places_share_a_group() -> None:
    lon, lat = np.array([10.0, 10.005, 10.011, 10.5]), np.full(4, 50.0)  # 358, 430 m, 35 km
    place, crs = local_metres(lon, lat)
    assert "+proj=aeqd" in crs
    number, distance, cut = groups_of(place, 500.0)
    assert number[0] == number[1] == number[2] != number[3]
    assert distance == 500
    assert cut is None
    assert len(set(groups_of(place, 400.0)[0].tolist())) == 3
    assert len(set(groups_of(place, 0.0)[0].tolist())) == 4
    again = np.concatenate([place, place])
    assert len(set(groups_of(again, 0.0)[0].tolist())) == 4


def carpet(count: int, step: float) -> np.ndarray:
    """Return places on a square, `count` in a row."""
    x, y = np.meshgrid(np.arange(count) * step, np.arange(count) * step)
    return np.column_stack([x.ravel(), y.ravel()])


def test_a_carpet_of_places_is_cut_into_squares_and_told() -> None:
    number, distance, cut = groups_of(carpet(20, 300.0), None)  # 8 km from corner to corner
    assert distance == 1000
    assert len(set(number.tolist())) == 36
    assert np.bincount(number).min() >= 4
    assert cut is not None
    assert "400 series are one chain of places" in cut


def test_sites_stay_whole_however_dense_they_are() -> None:
    sites = np.concatenate([carpet(10, 10.0) + np.array([50_000.0 * site, 0]) for site in range(4)])
    number, distance, cut = groups_of(sites, None)
    assert (distance, cut) == (1000, None)
    np.testing.assert_array_equal(number, np.repeat(np.arange(4), 100))


@given(
    count=st.integers(1, 60),
    spread=st.sampled_from([5.0, 60.0, 400.0]),
    distance=st.sampled_from([0.0, 3.0, 17.5, 40.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_links_are_those_of_all_pairs(
    count: int, spread: float, distance: float, seed: int
) -> None:
    place = np.round(np.random.default_rng(seed).uniform(-spread, spread, (count, 2)), 1)
    found = groups_of(place, distance)[0]
    expected = np.arange(count)
    for _ in range(count):  # the smallest number of a chain spreads along it
        for one in range(count):
            near = np.hypot(*(place - place[one]).T) <= distance + 1e-9
            expected[near] = expected[near].min()
    for one in range(count):
        np.testing.assert_array_equal(found == found[one], expected == expected[one])


def test_many_places_in_one_spot_are_one_group() -> None:
    """All pairs of them would be 20 thousand million."""
    spot = np.random.default_rng(0).uniform(0, 300, (200_000, 2))
    assert set(groups_of(spot, 1000.0)[0].tolist()) == {0}


def test_places_on_several_continents_are_told() -> None:
    lon, lat = np.array([-100.0, -60.0, 10.0, 100.0]), np.array([40.0, -10.0, 50.0, 20.0])
    note = far_note(local_metres(lon, lat)[0])
    assert note is not None
    assert "train on the continents one by one" in note
    country = local_metres(np.array([8.0, 16.0]), np.array([48.0, 54.0]))[0]
    assert far_note(country) is None


def test_blocks_are_floors_of_degrees_and_smaller_on_small_sites() -> None:
    lon, lat = np.array([-55.19, -55.0, -54.99]), np.array([-10.8, -11.0, -10.01])
    found, edge = blocks_of(lon, lat, 1.0)
    assert edge == 1
    assert found.tolist() == ["e-056n-011", "e-055n-011", "e-055n-011"]
    random = np.random.default_rng(0)
    site, edge = blocks_of(10 + random.random(200) / 10, 50 + random.random(200) / 10, None)
    assert edge < 0.1
    assert len(set(site.tolist())) >= 5
