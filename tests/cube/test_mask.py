import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.errors import InputError
from cube.mask import ClearMask


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_classes_that_are_clear(dtype):
    scl = np.arange(14, dtype=dtype).reshape(2, 7)
    is_clear = ClearMask().is_clear(scl, pixel_size=20.0)
    assert is_clear.dtype == np.bool_
    assert scl[is_clear].tolist() == [4, 5, 6, 7]
    assert scl[ClearMask(classes=(4, 11)).is_clear(scl, pixel_size=20.0)].tolist() == [4, 11]


def grown_by_hand(scl, classes, buffer, step_y, step_x):
    """Plain loops: clear class, and no cloud or shadow pixel within the buffer."""
    height, width = scl.shape
    out = np.zeros(scl.shape, bool)
    clouds = [
        (i, j)
        for i in range(height)
        for j in range(width)
        if scl[i, j] in (3, 8, 9, 10) and scl[i, j] not in classes
    ]
    for y in range(height):
        for x in range(width):
            near = any(
                ((y - i) * step_y) ** 2 + ((x - j) * step_x) ** 2 <= buffer**2 + 1e-6
                for i, j in clouds
            )
            out[y, x] = scl[y, x] in classes and not (near and buffer > 0)
    return out


@given(
    scl=arrays(np.uint8, (2, 7, 9), elements=st.integers(0, 12)),
    buffer=st.sampled_from([0.0, 9.0, 10.0, 25.0, 31.0]),
    step=st.sampled_from([(10.0, 10.0), (20.0, 10.0)]),
)
def test_buffer_against_plain_loops(scl, buffer, step):
    mask = ClearMask(classes=(4, 5, 10), buffer=buffer)
    found = mask.is_clear(scl, pixel_size=step)
    for look in range(2):
        expected = grown_by_hand(scl[look], (4, 5, 10), buffer, *step)
        np.testing.assert_array_equal(found[look], expected)


def test_margin_is_as_far_as_a_cloud_reaches():
    mask = ClearMask(buffer=50.0)
    assert mask.margin(pixel_size=20.0) == 3
    assert mask.margin(pixel_size=(10.0, 25.0)) == 5
    assert ClearMask().margin(pixel_size=10.0) == 0
    scl = np.full((21, 21), 4, np.uint8)
    scl[10, 10] = 9
    assert not mask.is_clear(scl, pixel_size=20.0)[10, 8]
    assert mask.is_clear(scl, pixel_size=20.0)[10, 7]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"classes": (0, 4)}, r"\[0\] do not exist; SCL has 1..11"),
        ({"classes": (12,)}, r"\[12\] do not exist"),
        ({"classes": ()}, "classes are empty"),
        ({"buffer": -1.0}, "buffer is -1.0; expected metres"),
        ({"buffer": float("nan")}, "buffer is nan"),
    ],
)
def test_bad_settings(settings, text):
    with pytest.raises(InputError, match=text):
        ClearMask(**settings)
