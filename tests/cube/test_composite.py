import itertools
import statistics
from datetime import date, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odc.geo.geobox import GeoBox

from cube.bands import NODATA, STORED_MAX
from cube.composite import SceneComposites, mean_day_of_year, median_composite, sorting_network
from cube.periods import Period
from cube.source import Looks


def median_by_hand(reflectance, is_clear):
    """Plain loops in exact rational numbers: `round` of a Fraction takes halves to even."""
    looks, bands, height, width = reflectance.shape
    median = np.full((bands, height, width), NODATA, np.int16)
    clear_count = np.zeros((height, width), np.uint16)
    for y, x in itertools.product(range(height), range(width)):
        clear = [look for look in range(looks) if is_clear[look, y, x]]
        clear_count[y, x] = len(clear)
        for band in range(bands if clear else 0):
            values = [Fraction(int(reflectance[look, band, y, x])) for look in clear]
            median[band, y, x] = round(statistics.median(values))
    return median, clear_count


@st.composite
def months_of_looks(draw):
    """Looks and mask; values from a few, so that ties, extremes and equal halves are common."""
    looks, bands = draw(st.integers(0, 9)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 37))
    few = st.sampled_from([NODATA, -32767, -3, -2, -1, 0, 1, 2, 3, 32766, STORED_MAX])
    values = few if draw(st.booleans()) else st.integers(NODATA, STORED_MAX)
    reflectance = draw(arrays(np.int16, (looks, bands, height, width), elements=values))
    clear = st.just(draw(st.booleans())) if draw(st.booleans()) else st.booleans()
    return reflectance, draw(arrays(np.bool_, (looks, height, width), elements=clear))


@given(months_of_looks())
@settings(max_examples=150, deadline=None)
def test_equals_the_median_worked_out_pixel_by_pixel(month):
    reflectance, is_clear = month
    before = reflectance.copy(), is_clear.copy()
    median, clear_count = median_composite(reflectance, is_clear)
    expected_median, expected_count = median_by_hand(reflectance, is_clear)
    np.testing.assert_array_equal(median, expected_median)
    np.testing.assert_array_equal(clear_count, expected_count)
    np.testing.assert_array_equal(reflectance, before[0])
    np.testing.assert_array_equal(is_clear, before[1])


@pytest.mark.parametrize("looks", [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 16, 17, 20, 31])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 61), (32, 32), (33, 100)])
def test_equals_nanmedian_rounded_to_even(looks, height, width):
    generator = np.random.default_rng([looks, height, width])
    reflectance = generator.integers(
        NODATA, STORED_MAX, (looks, 2, height, width), dtype=np.int16, endpoint=True
    )
    is_clear = generator.random((looks, height, width)) < generator.random((height, width))
    median, clear_count = median_composite(reflectance, is_clear)
    seen = is_clear.any(axis=0)
    known = np.where(is_clear[:, None], reflectance, np.nan)[..., seen]  # (look, band, pixel)
    np.testing.assert_array_equal(median[:, seen], np.rint(np.nanmedian(known, axis=0)))
    assert (median[:, ~seen] == NODATA).all()
    np.testing.assert_array_equal(clear_count, is_clear.sum(axis=0))


def test_every_combination_of_clear_looks():
    """All masks of up to seven looks side by side: each count meets each number of hidden looks."""
    for looks in range(1, 8):
        masks = np.array(list(itertools.product([False, True], repeat=looks))).T  # (look, mask)
        values = np.random.default_rng(looks).integers(-50, 50, (looks, 1, 1, 2**looks), np.int16)
        median, clear_count = median_composite(values, masks[:, None, :])
        expected_median, expected_count = median_by_hand(values, masks[:, None, :])
        np.testing.assert_array_equal(median, expected_median)
        np.testing.assert_array_equal(clear_count, expected_count)


@pytest.mark.parametrize(
    ("clear", "expected"),
    [
        ([1, 2], 2),
        ([2, 3], 2),
        ([-1, 0], 0),
        ([-2, -1], -2),
        ([-3, -2], -2),
        ([STORED_MAX, STORED_MAX], STORED_MAX),
        ([STORED_MAX, STORED_MAX - 1], STORED_MAX - 1),
        ([NODATA, NODATA + 1], NODATA),
        ([-5], -5),
        ([7, 7, 7, 100], 7),
        ([], NODATA),
    ],
)
def test_halves_extremes_and_single_looks(clear, expected):
    hidden = [STORED_MAX, NODATA, 1234]
    values = np.array([*hidden, *clear], np.int16).reshape(-1, 1, 1, 1)
    is_clear = np.arange(len(values)).reshape(-1, 1, 1) >= len(hidden)
    median, clear_count = median_composite(values, is_clear)
    assert (median.item(), clear_count.item()) == (expected, len(clear))


def test_no_look_at_all_is_nodata():
    median, clear_count = median_composite(
        np.empty((0, 3, 4, 5), np.int16), np.empty((0, 4, 5), np.bool_)
    )
    assert median.shape == (3, 4, 5)
    assert clear_count.shape == (4, 5)
    assert (median == NODATA).all()
    assert (clear_count == 0).all()


def test_a_window_without_pixels():
    median, clear_count = median_composite(
        np.empty((3, 2, 0, 5), np.int16), np.empty((3, 0, 5), np.bool_)
    )
    assert median.shape == (2, 0, 5)
    assert clear_count.shape == (0, 5)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_memory_layout_does_not_matter(order):
    """Views whose axes lie in memory in any order, and one that may not be written to."""
    generator = np.random.default_rng(3)
    reflectance = generator.integers(-100, 9000, (5, 3, 8, 9), dtype=np.int16)
    is_clear = generator.random((5, 8, 9)) < 0.6
    expected = median_composite(reflectance, is_clear)
    view = np.ascontiguousarray(reflectance.transpose(order)).transpose(np.argsort(order))
    view.setflags(write=False)
    mirrored = np.ascontiguousarray(is_clear[:, ::-1])[:, ::-1]
    for result, wanted in zip(median_composite(view, mirrored), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@given(months_of_looks(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_looks_does_not_matter(month, random):
    reflectance, is_clear = month
    order = list(range(len(reflectance)))
    random.shuffle(order)
    shuffled = median_composite(reflectance[order], is_clear[order])
    for result, wanted in zip(shuffled, median_composite(reflectance, is_clear), strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("count", range(17))
def test_network_sorts_every_sequence_of_zeros_and_ones(count):
    """A network that sorts these sorts everything (Knuth, TAOCP 3, 5.3.4, theorem Z)."""
    rows = (np.arange(2**count) >> np.arange(count)[:, None] & 1).astype(np.uint8)  # (row, word)
    ones = rows.sum(axis=0)
    for low, high in sorting_network(count):
        assert 0 <= low < high < count
        rows[[low, high]] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
    expected = np.arange(count)[:, None] >= count - ones
    np.testing.assert_array_equal(rows, expected)


def mean_day_by_hand(days, is_clear):
    """Day of the year of the rounded mean date, in exact fractions and Python's own calendar."""
    _, height, width = is_clear.shape
    expected = np.zeros((height, width), int)
    for y, x in np.ndindex(height, width):
        clear = [Fraction(int(day)) for day, look in zip(days, is_clear, strict=True) if look[y, x]]
        if clear:
            mean = date(1970, 1, 1) + timedelta(days=round(sum(clear) / len(clear)))
            expected[y, x] = mean.timetuple().tm_yday
    return expected


@settings(deadline=None)
@given(
    st.lists(st.integers(-20000, 40000), max_size=8),
    st.integers(0, 400),
    st.randoms(use_true_random=False),
)
def test_mean_day_across_years(offsets, spread, random):
    first = random.randint(-20000, 40000)
    days = np.array([first + offset % (spread + 1) for offset in offsets], np.int32)
    is_clear = np.array(
        [[[random.random() < 0.6 for _ in range(4)] for _ in range(3)] for _ in offsets], bool
    ).reshape(len(offsets), 3, 4)
    found = mean_day_of_year(days, is_clear)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, mean_day_by_hand(days, is_clear))


def test_mean_day_around_new_year():
    days = np.array(["2021-12-30", "2022-01-03", "2022-01-04"], "M8[D]").astype(np.int32)
    is_clear = np.array([[[1, 1, 0, 1]], [[1, 0, 0, 1]], [[0, 0, 0, 1]]], bool)
    assert mean_day_of_year(days, is_clear).tolist() == [[1, 364, 0, 2]]


class OneMonth:
    """A catalogue that has looks in one month only."""

    def __init__(self, month, looks):
        self.month, self.found = month, looks

    def looks(self, month, window, bands):
        if month == self.month:
            return self.found
        empty = np.empty((0, len(bands), *window.shape), np.int16)
        return Looks(
            reflectance=empty,
            is_clear=np.empty((0, *window.shape), np.bool_),
            days=np.empty(0, np.int32),
            seen_count=np.zeros(window.shape, np.uint16),
            ids=(),
        )


def test_a_source_of_composites_over_a_catalogue():
    window = GeoBox.from_bbox((0, 0, 50, 30), "EPSG:32633", resolution=10)
    generator = np.random.default_rng(4)
    found = Looks(
        reflectance=generator.integers(0, 5000, (4, 2, *window.shape), dtype=np.int16),
        is_clear=generator.random((4, *window.shape)) < 0.5,
        days=np.array([19144, 19149, 19150, 19170], np.int32),  # June 1st is 19144
        seen_count=np.full(window.shape, 4, np.uint16),
        ids=("a", "b", "c+d", "e"),
    )
    source = SceneComposites(catalogue=OneMonth(Period.parse("2022-06"), found))
    june = source.composite(Period.parse("2022-06"), window, ("B04", "B08"))
    expected_median, expected_count = median_by_hand(found.reflectance, found.is_clear)
    np.testing.assert_array_equal(june.reflectance, expected_median)
    np.testing.assert_array_equal(june.clear_count, expected_count)
    assert june.scenes == found.ids
    np.testing.assert_array_equal(june.seen_count, 4)
    np.testing.assert_array_equal(june.mean_day, mean_day_by_hand(found.days, found.is_clear))
    july = source.composite(Period.parse("2022-07"), window, ("B04", "B08"))
    assert (july.reflectance == NODATA).all()
    assert (july.clear_count == 0).all()
    assert july.scenes == ()
    assert not july.mean_day.any()
    assert not july.seen_count.any()
