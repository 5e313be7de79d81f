import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from cube.errors import InputError
from cube.mask import ClearMask


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_classes_that_are_clear(dtype):
    scl = np.arange(14, dtype=dtype).reshape(2, 7)
    is_clear = ClearMask().is_clear(scl, pixel_size=20.0)
    assert is_clear.dtype == np.bool_
    assert scl[is_clear].tolist() == [4, 5, 6, 7]
    assert scl[ClearMask(classes=(4, 11)).is_clear(scl, pixel_size=20.0)].tolist() == [4, 11]


def near(places, y, x, radius, step):
    """Whether one of `places` lies within `radius` metres of (y, x)."""
    return any(
        ((y - i) * step[0]) ** 2 + ((x - j) * step[1]) ** 2 <= radius**2 + 1e-6 for i, j in places
    )


def clear_by_hand(scl, usable, *, buffer=0.0, opening=0.0, step):
    """Plain loops: open the cloud, widen it and the shadow, and see what stays."""
    places = list(np.ndindex(scl.shape))
    cloud = {p for p in places if scl[p] in (8, 9, 10) and scl[p] not in usable}
    ground = [p for p in places if scl[p] != 0 and p not in cloud]
    opened = cloud
    if opening:  # every disc that holds no ground, moved to wherever its centre may be
        centres = [p for p in places if not near(ground, *p, opening, step)]
        opened = {p for p in cloud if near(centres, *p, opening, step)}
    shadow = {p for p in places if scl[p] == 3} if 3 not in usable else set()
    out = np.zeros(scl.shape, bool)
    for p in places:
        is_clear = scl[p] in usable or p in cloud - opened
        out[p] = is_clear and not (buffer and near(opened | shadow, *p, buffer, step))
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
        expected = clear_by_hand(scl[look], (4, 5, 10), buffer=buffer, step=step)
        np.testing.assert_array_equal(found[look], expected)


@given(
    scl=arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 2, 3, 4, 4, 8, 9, 9, 9, 9, 10, 11])),
    buffer=st.sampled_from([0.0, 10.0, 25.0]),
    opening=st.sampled_from([0.0, 9.0, 10.0, 15.0, 20.0]),
    step=st.sampled_from([(10.0, 10.0), (20.0, 10.0)]),
    shadow=st.booleans(),
    snow=st.booleans(),
)
@settings(deadline=None)
def test_opening_shadow_and_snow_against_plain_loops(scl, buffer, opening, step, shadow, snow):
    mask = ClearMask(classes=(4,), buffer=buffer, opening=opening, shadow=shadow, snow=snow)
    usable = {4} | ({2, 3} if shadow else set()) | ({11} if snow else set())
    assert set(mask.clear_classes) == usable
    found = mask.is_clear(scl, pixel_size=step)
    expected = clear_by_hand(scl, usable, buffer=buffer, opening=opening, step=step)
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(scl[found])) <= set(mask.possible_classes)


def test_a_speck_is_no_cloud_and_a_cloud_keeps_its_shape():
    scl = np.full((30, 40), 4, np.uint8)
    scl[5, 5:7] = 9  # a roof
    scl[10:25, 10:30] = 8
    scl[28:, :] = 0  # and a cloud that goes on where nothing was seen
    scl[26:28, 35:] = 10
    found = ClearMask(opening=20.0).is_clear(scl, pixel_size=10.0)
    assert found[5, 5:7].all()
    assert not found[12:23, 10:30].any()
    assert found[10, 10]  # a disc does not reach into a corner
    assert not found[27, 38]
    around = ClearMask(opening=20.0, buffer=30.0).is_clear(scl, pixel_size=10.0)
    assert around[5, 5:7].all()
    assert not around[9, 20]
    assert not around[17, 7]
    assert around[17, 6]


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"buffer": 45.0}, 5),
        ({"opening": 25.0}, 6),
        ({"buffer": 31.0, "opening": 20.0}, 8),
        ({"buffer": 20.0, "opening": 30.0, "shadow": True, "snow": True}, 8),
    ],
)
def test_a_tile_with_its_margin_equals_a_cut_of_the_whole(options, width):
    noise = gaussian_filter(np.random.default_rng(7).standard_normal((90, 100)), 2.5)
    scl = np.select([noise > 0.09, noise < -0.16, noise < -0.12], [9, 3, 11], 4).astype(np.uint8)
    scl[:, 80:] = 0
    mask = ClearMask(**options)
    margin = mask.margin(pixel_size=10.0)
    assert margin == width
    whole = mask.is_clear(scl, pixel_size=10.0)
    plain = ClearMask(shadow=mask.shadow, snow=mask.snow).is_clear(scl, pixel_size=10.0)
    assert (whole != plain).any()
    for top, left in ((20, 20), (33, 47), (50, 65)):
        wide = scl[top - margin : top + 21 + margin, left - margin : left + 17 + margin]
        inner = np.s_[margin : margin + 21, margin : margin + 17]
        tile = mask.is_clear(wide, pixel_size=10.0)[inner]
        np.testing.assert_array_equal(tile, whole[top : top + 21, left : left + 17])


def test_all_cloud_and_no_cloud():
    mask = ClearMask(opening=30.0, buffer=30.0)
    assert not mask.is_clear(np.full((4, 5), 9, np.uint8), pixel_size=10.0).any()
    assert mask.is_clear(np.full((4, 5), 4, np.uint8), pixel_size=10.0).all()
    assert not mask.is_clear(np.zeros((4, 5), np.uint8), pixel_size=10.0).any()
    assert mask.is_spatial
    assert not ClearMask(shadow=True, snow=True).is_spatial


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
    ("options", "text"),
    [
        ({"classes": (0, 4)}, r"\[0\] can never be clear: SCL 0 is nodata"),
        ({"classes": (1, 4)}, r"\[1\] can never be clear: .* 1 saturated or defective; leave"),
        ({"classes": (12,)}, r"\[12\] do not exist; SCL has 2..11"),
        ({"classes": ()}, "classes are empty"),
        ({"buffer": -1.0}, "buffer is -1.0; expected metres"),
        ({"buffer": float("nan")}, "buffer is nan"),
        ({"opening": -2.0}, "opening is -2.0; expected metres"),
        ({"opening": float("inf")}, "opening is inf"),
    ],
)
def test_bad_settings(options, text):
    with pytest.raises(InputError, match=text):
        ClearMask(**options)
