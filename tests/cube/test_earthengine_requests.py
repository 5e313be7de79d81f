import io

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cube.earthengine.errors import PassingError
from cube.earthengine.pixels import read_pixels
from cube.earthengine.requests import (
    LONGEST_SIDE,
    MOST_BANDS,
    REQUEST_BYTES,
    SMALLEST_SIDE,
    grid_of,
    most_pixels,
    parts_of,
    quarters,
    request_bytes,
    request_windows,
)
from cube.errors import InputError

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
BANDS = ("B02", "B08", "clear_count")


def window(height, width, *, transform=NORTH_UP, crs="EPSG:32633"):
    return GeoBox((height, width), transform, crs)


def names(number):
    return tuple(f"B{k}" for k in range(number))


def array_bytes(values):
    """As Earth Engine sends it, and as NumPy writes it."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@given(
    height=st.integers(1, 70_000),
    width=st.integers(1, 70_000),
    bands=st.integers(1, 40) | st.integers(1, MOST_BANDS),
)
def test_windows_fit_into_requests_and_cover_exactly(height, width, bands):
    whole = window(height, width)
    parts = parts_of(whole, names(bands)) if height * width * bands < 4e10 else []
    corners = set()
    area = 0
    for y, x in parts:
        rows, columns = y.stop - y.start, x.stop - x.start
        assert 0 <= y.start < y.stop <= height
        assert 0 <= x.start < x.stop <= width
        assert max(rows, columns) <= LONGEST_SIDE
        assert rows * columns * bands * 2 + 128 + 24 * bands < REQUEST_BYTES
        assert request_bytes(rows * columns, bands) < REQUEST_BYTES
        corners.add((y.start, x.start))
        area += rows * columns
    if parts:
        assert area == height * width
        assert len(corners) == len(parts)


@given(height=st.integers(1, 90), width=st.integers(1, 90), cuts=st.integers(0, 3))
def test_windows_do_not_overlap(height, width, cuts):
    parts = [(slice(0, height), slice(0, width))]
    for _ in range(cuts):
        parts = [small for part in parts for small in (quarters(part) or [part])]
    seen = np.zeros((height, width), int)
    for part in parts:
        seen[part] += 1
        assert all(side.stop - side.start >= min(SMALLEST_SIDE // 2, *seen.shape) for side in part)
    assert (seen == 1).all()


def test_a_large_grid_is_covered_pixel_by_pixel():
    whole = window(5_001, 3_333)
    seen = np.zeros(whole.shape, np.int8)
    for part in parts_of(whole, names(18)):
        seen[part] += 1
    assert (seen == 1).all()


def test_windows_lie_on_the_grid_and_are_near_square():
    whole = window(4_096, 4_096)
    found = request_windows(whole, names(18))
    assert {tuple(one.shape) for one in found} == {(1_024, 1_024)}
    assert len(found) == 16
    for one in found:
        assert one.crs == whole.crs
        assert (one.transform.a, one.transform.e) == (10, -10)
        assert (one.transform.c - 500_000) % 10 == 0
    assert found[0].transform == whole.transform


def test_a_window_that_fits_is_asked_for_at_once():
    whole = window(1_024, 1_024)
    assert request_windows(whole, names(18)) == [whole]
    assert len(request_windows(window(1, LONGEST_SIDE), ("a",))) == 1
    assert len(request_windows(window(1, LONGEST_SIDE + 1), ("a",))) == 2


def test_the_largest_request_is_just_below_the_limit():
    for bands in (1, 18, MOST_BANDS):
        assert request_bytes(most_pixels(bands), bands) < REQUEST_BYTES
        assert request_bytes(most_pixels(bands) + 1, bands) >= REQUEST_BYTES


@pytest.mark.parametrize("bands", [0, MOST_BANDS + 1])
def test_bands_that_fit_no_request_are_refused(bands):
    with pytest.raises(InputError, match=f"{bands} bands cannot be asked .* expected 1 to 1024"):
        request_windows(window(10, 10), names(bands))


def test_a_smallest_window_is_not_cut():
    small = slice(3, 3 + SMALLEST_SIDE)
    assert quarters((small, small)) == []
    assert quarters((small, slice(0, 40))) == [(small, slice(0, 20)), (small, slice(20, 40))]


def test_the_grid_of_a_request_leaves_nothing_open():
    assert grid_of(window(30, 20)) == {
        "dimensions": {"width": 20, "height": 30},
        "affineTransform": {
            "scaleX": 10,
            "shearX": 0,
            "translateX": 500_000,
            "shearY": 0,
            "scaleY": -10,
            "translateY": 5_000_000,
        },
        "crsCode": "EPSG:32633",
    }


def test_a_crs_without_code_travels_as_wkt():
    lambert = "+proj=laea +lat_0=47 +lon_0=11 +x_0=1 +y_0=2 +ellps=GRS80 +units=m +no_defs"
    grid = grid_of(window(3, 4, crs=lambert))
    assert "crsCode" not in grid
    assert grid["crsWkt"].startswith("PROJCS[")
    assert 'PROJECTION["Lambert_Azimuthal_Equal_Area"]' in grid["crsWkt"]


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 0, 0, 10, 0),
        Affine(-10, 0, 0, 0, -10, 0),
        Affine(10, 1, 0, 0, -10, 0),
        Affine(10, 0, 0, 2, -10, 0),
    ],
)
def test_a_grid_that_is_not_north_up_is_refused(transform):
    with pytest.raises(InputError, match="is not north-up; Earth Engine is asked for grids whose"):
        grid_of(window(3, 4, transform=transform))


def test_a_grid_without_crs_is_refused():
    with pytest.raises(InputError, match="has no CRS"):
        grid_of(GeoBox((3, 4), NORTH_UP, None))


def structured(height=2, width=3, bands=BANDS, kind="<i2"):
    values = np.zeros((height, width), [(name, kind) for name in bands])
    for number, name in enumerate(bands):
        values[name] = 1000 * number + np.arange(height * width).reshape(height, width) - 5
    return values


def test_pixels_are_read_as_numpy_reads_them():
    values = structured()
    found = read_pixels(array_bytes(values), (2, 3), BANDS)
    for number, name in enumerate(BANDS):
        np.testing.assert_array_equal(found[..., number], values[name])
    assert found.dtype == np.int16


def test_a_thousand_bands_are_read():
    bands = tuple(f"a_band_with_a_long_name_{k}" for k in range(MOST_BANDS))
    assert read_pixels(array_bytes(structured(1, 1, bands)), (1, 1), bands).shape == (1, 1, 1024)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (structured(3, 2), r"shape \(3, 2\) instead of \(2, 3\)"),
        (structured(bands=("B02", "B8", "clear_count")), "has bands .*'B8'.* instead of"),
        (structured(kind="<f8"), "numbers of float64 instead of int16"),
        (structured(kind=">i2"), "numbers of >i2 instead of int16"),
        (np.zeros((2, 3), np.int16), "no array of named bands"),
        (np.asfortranarray(structured()), "no array of named bands"),
    ],
)
def test_another_array_is_not_taken(values, text):
    with pytest.raises(PassingError, match=text):
        read_pixels(array_bytes(values), (2, 3), BANDS)


@pytest.mark.parametrize("kept", [0, 5, 9, 60, 130, -1, -7])
def test_an_array_cut_short_is_not_taken(kept):
    with pytest.raises(PassingError, match=r"cut short|no array"):
        read_pixels(array_bytes(structured())[:kept], (2, 3), BANDS)


def test_objects_are_never_unpickled():
    values = np.empty((2, 3), [(name, object) for name in BANDS])
    with pytest.raises(PassingError, match="numbers of object instead of int16"):
        read_pixels(array_bytes(values), (2, 3), BANDS)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x93NUMPY" + tail))
def test_foreign_bytes_are_not_taken(content):
    with pytest.raises(PassingError):
        read_pixels(content, (2, 3), BANDS)
