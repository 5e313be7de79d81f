import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import CubicSpline
from scipy.linalg import solve

from cube.bands import NODATA, STORED_MAX
from cube.errors import InputError
from cube.gapfill import GapFill, fill_gaps

METHODS = ("linear", "harmonic", "whittaker")


def gaps_of(values, days, longest_gap):
    """Places to fill of one series, each with the observations before and after it."""
    seen = [time for time in range(len(values)) if values[time] != NODATA]
    return {
        gap: (before, after)
        for before, after in itertools.pairwise(seen)
        if days[after] - days[before] <= longest_gap
        for gap in range(before + 1, after)
    }


def linear_by_hand(values, days, seen, gaps):
    return {
        gap: int(values[before])
        + Fraction(
            (int(values[after]) - int(values[before])) * int(days[gap] - days[before]),
            int(days[after] - days[before]),
        )
        for gap, (before, after) in gaps.items()
    }


def harmonic_by_hand(values, days, seen, gaps):
    if len(seen) < 5:
        return linear_by_hand(values, days, seen, gaps)
    angle = 2 * np.pi * np.asarray(days, float) / 365.2425
    waves = [np.ones_like(angle), np.cos(angle), np.sin(angle)]
    if len(seen) >= 8:
        waves += [np.cos(2 * angle), np.sin(2 * angle)]
    design = np.stack(waves, axis=1)
    weights, *_ = np.linalg.lstsq(design[seen], values[seen].astype(float))
    least, most = float(values[seen].min()), float(values[seen].max())
    least, most = least - (most - least) / 4, most + (most - least) / 4
    return {gap: min(max(float(design[gap] @ weights), least), most) for gap in gaps}


def whittaker_by_hand(values, days, seen, gaps, smoothness=0.1):
    inner = slice(seen[0], seen[-1] + 1)
    months = np.asarray(days[inner], float) / (365.2425 / 12)
    size = len(months)
    rows = np.eye(size)
    for order in (1, 2):  # divided differences, as Eilers writes them down
        rows = np.diff(rows, axis=0) / (months[order:] - months[:-order])[:, None]
    second = 2 * rows  # the second derivative is twice the second divided difference
    is_seen = np.diag((values[inner] != NODATA).astype(float))
    wanted = np.where(values[inner] == NODATA, 0, values[inner]).astype(float)
    curve = solve(is_seen + smoothness * second.T @ second, is_seen @ wanted)
    return {gap: float(curve[gap - seen[0]]) for gap in gaps}


BY_HAND = {
    "linear": linear_by_hand,
    "harmonic": harmonic_by_hand,
    "whittaker": whittaker_by_hand,
}


def check_against_oracle(reflectance, days, method, longest_gap):
    settings_ = GapFill(method=method, longest_gap=longest_gap)
    filled, is_filled = fill_gaps(reflectance, settings_, days=days)
    times, bands, height, width = reflectance.shape
    expected_flag = np.zeros((times, height, width), bool)
    for band, y, x in np.ndindex(bands, height, width):
        values = reflectance[:, band, y, x]
        dates = days if days.ndim == 1 else days[:, y, x]
        seen = np.flatnonzero(values != NODATA)
        gaps = gaps_of(values, dates, longest_gap)
        wanted = BY_HAND[method](values, dates, seen, gaps) if gaps else {}
        for time in range(times):
            found = filled[time, band, y, x]
            if time not in wanted:
                assert found == values[time]
                continue
            expected_flag[time, y, x] = True
            exact = min(max(wanted[time], -32767), STORED_MAX)
            if method == "linear":
                assert found == round(exact)
            else:  # a value on the edge between two units may fall either way
                assert abs(found - exact) <= 0.5 + 1e-5
    np.testing.assert_array_equal(is_filled, expected_flag)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_against_oracles(method, data):
    times = data.draw(st.integers(1, 16))
    steps = data.draw(arrays(np.int32, times, elements=st.integers(5, 40)))
    days = np.cumsum(steps, dtype=np.int32) + np.int32(data.draw(st.integers(-9000, 30000)))
    shape = (times, 2, 1, 3)
    if method == "linear":
        elements = st.sampled_from([NODATA, NODATA, -32767, -1, 0, 1, 2, 7, STORED_MAX])
    else:
        elements = st.sampled_from([NODATA, NODATA, NODATA, 100, 250, 800, 1500, 4000, 20000])
    values = data.draw(arrays(np.int16, shape, elements=elements))
    if method == "harmonic":  # so far apart that every wave is determined
        days = np.arange(times, dtype=np.int32) * np.int32(40) + days[0]
        values[::2] = np.where(values[::2] == NODATA, 300, values[::2])
    check_against_oracle(values, days, method, data.draw(st.sampled_from([20, 45, 100, 4000])))


@pytest.mark.parametrize("method", METHODS)
def test_a_year_of_months_with_its_own_date_in_every_pixel(method):
    generator = np.random.default_rng(6)
    months = np.arange("2022-01", "2023-07", dtype="M8[M]").astype("M8[D]").astype(np.int32)
    days = (months[:, None, None] + generator.integers(0, 28, (18, 6, 7))).astype(np.int32)
    season = 1500 + 900 * np.sin(2 * np.pi * days / 365.2425)
    reflectance = (season[:, None] + generator.normal(0, 80, (18, 2, 6, 7))).astype(np.int16)
    reflectance[generator.random((18, 6, 7)).argsort(axis=0)[:5], 0] = NODATA
    gaps = generator.random((18, 6, 7)) < 0.35
    reflectance = np.where(gaps[:, None], np.int16(NODATA), reflectance)
    before = reflectance.copy()
    check_against_oracle(reflectance, days, method, 100)
    np.testing.assert_array_equal(reflectance, before)


def test_harmonic_finds_the_season_that_a_line_cuts_off():
    days = np.arange(18, dtype=np.int32) * np.int32(30)
    season = np.rint(2000 + 1000 * np.cos(2 * np.pi * days / 365.2425)).astype(np.int16)
    reflectance = season.reshape(18, 1, 1, 1).copy()
    reflectance[[6, 7]] = NODATA  # the second valley, of which the first half was seen
    errors = {}
    for method in METHODS:
        filled, _ = fill_gaps(reflectance, GapFill(method=method), days=days)
        errors[method] = np.abs(filled.ravel().astype(int) - season).max()
    assert errors["harmonic"] <= 1
    assert errors["whittaker"] < errors["linear"]


def test_whittaker_of_little_weight_is_nearly_a_natural_spline():
    """With even steps and weight near 0 the curve through the points that bends least."""
    days = np.arange(9, dtype=np.int32) * np.int32(30)
    values = np.array([100, 900, 1500, NODATA, 1400, 700, NODATA, 300, 200], np.int16)
    seen = values != NODATA
    spline = CubicSpline(days[seen], values[seen], bc_type="natural")(days)
    settings_ = GapFill(method="whittaker", smoothness=1e-6)
    filled, _ = fill_gaps(values.reshape(9, 1, 1, 1), settings_, days=days)
    assert np.abs(filled.ravel() - spline).max() < 50
    np.testing.assert_array_equal(filled.ravel()[seen], values[seen])


@pytest.mark.parametrize("method", METHODS)
def test_what_stays_empty(method):
    days = np.array([0, 30, 60, 90, 120, 150, 180, 210], np.int32)
    _ = NODATA
    series = [
        [_, _, 500, _, 700, _, _, _],  # nothing before the first or after the last
        [500, _, _, _, 700, _, 900, 900],  # 120 days between the observations
        [_, _, _, _, _, _, _, _],
        [_, 500, _, _, _, _, _, _],
        [1, 2, 3, 4, 5, 6, 7, 8],
    ]
    reflectance = np.array(series, np.int16).T.reshape(8, 1, 1, 5).copy()
    filled, is_filled = fill_gaps(reflectance, GapFill(method=method, longest_gap=119), days=days)
    assert np.argwhere(is_filled[:, 0]).tolist() == [[3, 0], [5, 1]]
    np.testing.assert_array_equal(filled == NODATA, (reflectance == NODATA) & ~is_filled[:, None])
    _, is_filled = fill_gaps(reflectance, GapFill(method=method, longest_gap=120), days=days)
    assert is_filled[:, 0, 1].tolist() == [False, True, True, True, False, True, False, False]


def test_dates_too_close_together_for_a_wave_get_a_line():
    """Ten dates within twelve days say nothing of a year: least squares would swing wildly."""
    days = np.arange(12, dtype=np.int32)
    values = (1000 + 7 * days).astype(np.int16)
    values[5:7] = NODATA
    filled, _ = fill_gaps(values.reshape(12, 1, 1, 1), GapFill(method="harmonic"), days=days)
    np.testing.assert_array_equal(filled.ravel(), 1000 + 7 * days)


@pytest.mark.parametrize("method", METHODS)
def test_pixels_know_nothing_of_each_other(method):
    generator = np.random.default_rng(3)
    days = np.cumsum(generator.integers(10, 40, 14), dtype=np.int32)
    reflectance = generator.integers(0, 5000, (14, 2, 3, 4), dtype=np.int16)
    reflectance[generator.random(reflectance.shape) < 0.4] = NODATA
    settings_ = GapFill(method=method)
    whole, flags = fill_gaps(reflectance, settings_, days=days)
    for y, x in np.ndindex(3, 4):
        part = np.s_[:, :, y : y + 1, x : x + 1]
        alone, flag = fill_gaps(reflectance[part], settings_, days=days)
        np.testing.assert_array_equal(alone, whole[part])
        np.testing.assert_array_equal(flag[:, 0, 0], flags[:, y, x])
    again, more = fill_gaps(reflectance.astype(np.int16, order="F"), settings_, days=days)
    np.testing.assert_array_equal(again, whole)
    np.testing.assert_array_equal(more, flags)


def test_nothing_in_is_nothing_out():
    filled, is_filled = fill_gaps(
        np.empty((0, 3, 2, 2), np.int16), GapFill(), days=np.empty(0, np.int32)
    )
    assert filled.shape == (0, 3, 2, 2)
    assert is_filled.shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "cubic"}, "'cubic' is unknown; expected one of linear, harmonic, whittaker"),
        ({"longest_gap": 0}, "longest_gap is 0; expected 1 day or more"),
        ({"smoothness": 0.0}, "smoothness is 0.0; expected above 0"),
        ({"smoothness": float("nan")}, "smoothness is nan"),
    ],
)
def test_bad_settings(options, text):
    with pytest.raises(InputError, match=text):
        GapFill(**options)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
def test_days_that_do_not_ascend(shape):
    days = np.zeros(shape, np.int32)
    with pytest.raises(InputError, match="needs days that ascend"):
        fill_gaps(np.zeros((3, 1, 2, 2), np.int16), GapFill(), days=days)
