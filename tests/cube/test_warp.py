"""How windows are placed on files: little is kept of straight grids, and the pixels are the same."""

import numpy as np
import pytest
from affine import Affine
from numpy.testing import assert_array_equal
from odc.geo.geobox import GeoBox

from cube.resample import resample
from cube.warp import Placement, place

FILE = GeoBox((300, 320), Affine(20, 0, 500000, 0, -20, 5000000), "EPSG:32633")


def corners(grid, window):
    """Return (rows, columns) of every pixel corner of `window` in `grid`, one by one."""
    shape = tuple(size + 1 for size in window.shape)
    found = np.empty((2, *shape))
    for y in range(shape[0]):
        for x in range(shape[1]):
            column, row = ~grid.transform * (window.transform * (float(x), float(y)))
            found[:, y, x] = row, column
    return np.floor(found * 1024 + 0.5) / 1024


def kept_bytes(placement: Placement) -> int:
    arrays = []
    for value in vars(placement).values():
        arrays += value if isinstance(value, tuple) else (value,)
    return sum(one.nbytes for one in arrays if isinstance(one, np.ndarray))


@pytest.mark.parametrize("resolution", [7, 10, 20, 50, 60])
@pytest.mark.parametrize("is_smooth", [True, False])
def test_straight_placements_keep_little_and_change_no_bit(resolution, is_smooth):
    window = GeoBox((90, 70), Affine(resolution, 0, 500333, 0, -resolution, 5000111), "EPSG:32633")
    place.cache_clear()
    placement = place(FILE, window)
    pixels = np.random.default_rng(3).integers(0, 9000, FILE.shape).astype(np.uint16)
    pixels[::7, ::5] = 0
    part = pixels[placement.rows, placement.columns][None]
    found = placement.bring(part, nodata=0, is_smooth=is_smooth)
    rows, columns = corners(FILE, window)
    assert_array_equal(found, resample(pixels[None], columns, rows, is_smooth, 0))
    assert kept_bytes(placement) < 40 * sum(window.shape)


def test_a_tile_of_512_takes_a_few_kilobytes():
    window = GeoBox((512, 512), Affine(10, 0, 500005, 0, -10, 4999995), "EPSG:32633")
    placement = place(FILE, window)
    part = np.ones((1, 300, 320), np.uint16)[:, placement.rows, placement.columns]
    placement.bring(part, nodata=0, is_smooth=True)
    assert 0 < kept_bytes(placement) < 20_000


def test_grids_of_two_kinds_of_crs_may_be_straight_too():
    degrees = GeoBox((40, 50), Affine(0.01, 0, 10, 0, -0.01, 50), "EPSG:4326")
    window = GeoBox((30, 35), Affine(1000, 0, 1120000, 0, -1000, 6400000), "EPSG:3857")
    straight = place(degrees, window)
    assert (straight.corner_rows.shape, straight.corner_columns.shape) == ((31,), (36,))
    turned = place(FILE, GeoBox((30, 35), Affine(20, 2, 501000, 2, -20, 4999000), "EPSG:32633"))
    assert turned.corner_rows.shape == turned.corner_columns.shape == (31, 36)
