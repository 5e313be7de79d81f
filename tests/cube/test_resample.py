"""The quick kernels against the general one, and that one against sums written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cube.resample import along_axes, at_centres, resample

KINDS = st.sampled_from(["uint8", "uint16", "int16"])


def means(corners):
    """Return the mean position of each pixel's four corners."""
    height, width = (size - 1 for size in corners.shape)
    parts = [corners[i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    return sum(parts) / 4


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.25, 0.5, 1.0, 1.375]),
    kind=KINDS,
    is_smooth=st.booleans(),
)
def test_straight_and_turned_pixels_take_the_same_values(seed, scale, kind, is_smooth):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 20, 2)
    largest = min(np.iinfo(kind).max, 60000)
    values = random.integers(0, 4, (1, height, width)) * (largest // 3)
    values = values.astype(kind)
    rows = np.floor((np.arange(25) * scale + random.uniform(-3, 3)) * 1024) / 1024
    columns = np.floor((np.arange(23) * scale + random.uniform(-3, 3)) * 1024) / 1024
    row_corners = np.repeat(rows[:, None], 23, axis=1)
    column_corners = np.repeat(columns[None], 25, axis=0)
    expected = resample(values, column_corners, row_corners, is_smooth, 0)[0]
    straight = np.empty_like(expected)
    along_axes(
        values[0],
        (rows[1:] + rows[:-1]) / 2,
        (columns[1:] + columns[:-1]) / 2,
        is_smooth,
        0,
        straight,
    )
    assert_array_equal(straight, expected)
    turned = np.empty_like(expected)
    at_centres(values[0], means(row_corners), means(column_corners), is_smooth, 0, turned)
    assert_array_equal(turned, expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pixels_of_a_turned_grid(seed):
    random = np.random.default_rng(seed)
    values = random.integers(0, 60000, (1, 30, 30)).astype(np.uint16)
    values[random.random(values.shape) < 0.1] = 0
    y, x = np.meshgrid(np.arange(16.0), np.arange(14.0), indexing="ij")
    angle = random.uniform(0, 0.3)
    rows = np.floor((5 + y * np.cos(angle) + x * np.sin(angle)) * 1024) / 1024
    columns = np.floor((7 - y * np.sin(angle) + x * np.cos(angle)) * 1024) / 1024
    for is_smooth in (True, False):
        expected = resample(values, columns, rows, is_smooth, 0)[0]
        found = np.empty_like(expected)
        at_centres(values[0], means(rows), means(columns), is_smooth, 0, found)
        assert_array_equal(found, expected)


@pytest.mark.parametrize("nodata", [0, -9999])
def test_nodata_takes_no_part(nodata):
    values = np.array([[100, nodata], [300, 400]], np.int16)
    found = np.empty((1, 1), np.int16)
    along_axes(values, np.array([0.9]), np.array([0.9]), True, nodata, found)
    weights = np.array([0.6 * 0.6, 0.4 * 0.6, 0.4 * 0.4])
    assert found[0, 0] == np.floor(weights @ [100, 300, 400] / weights.sum() + 0.5)
