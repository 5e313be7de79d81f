import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.bands import NODATA, STORED_MAX
from cube.composite import (
    METHODS,
    best_composite,
    composite_of,
    geomedian_composite,
    max_ndvi_composite,
    mean_composite,
    median_composite,
    medoid_composite,
    method_margin,
)
from cube.composite.geomedian_few import FEW
from cube.composite.pick import CLOUD_REACH, best_score
from cube.errors import InputError
from cube.periods import Period
from cube.source import Looks

BANDS = ("B02", "B04", "B08")
JUNE = Period.parse("2022-06")


@st.composite
def looks_of_a_period(draw):
    """Looks and mask; values from a few, so that ties and extremes are common."""
    looks = draw(st.integers(0, 7))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    few = st.sampled_from([-32767, -3, -1, 0, 1, 2, 3, 1000, STORED_MAX])
    values = few if draw(st.booleans()) else st.integers(-32767, STORED_MAX)
    reflectance = draw(arrays(np.int16, (looks, 3, height, width), elements=values))
    return reflectance, draw(arrays(np.bool_, (looks, height, width)))


def by_hand(reflectance, is_clear, value_of):
    """Call `value_of` with the places of the clear looks and the pixel's (look, band) integers."""
    _, bands, height, width = reflectance.shape
    composite = np.full((bands, height, width), NODATA, np.int16)
    for y, x in itertools.product(range(height), range(width)):
        clear = [look for look in range(len(is_clear)) if is_clear[look, y, x]]
        if clear:
            pixel = reflectance[:, :, y, x].astype(object)
            composite[:, y, x] = value_of(clear, pixel, (y, x))
    return composite


def mean_by_hand(clear, pixel, place):
    return [
        round(Fraction(sum(int(pixel[look, band]) for look in clear), len(clear)))
        for band in range(pixel.shape[1])
    ]


def medoid_by_hand(clear, pixel, place):
    def cost(look):
        return sum(
            abs(int(a) - int(b))
            for other in clear
            for a, b in zip(pixel[look], pixel[other], strict=True)
        )

    return pixel[min(clear, key=cost)]


def max_ndvi_by_hand(clear, pixel, place):
    def ndvi(look):
        red, infrared = int(pixel[look, 1]), int(pixel[look, 2])
        if red + infrared <= 0:
            return (0, 0)
        return (1, Fraction(infrared - red, infrared + red))

    return pixel[max(clear, key=ndvi)]  # the first of equals


@pytest.mark.parametrize(
    ("compose", "value_of"),
    [
        (mean_composite, mean_by_hand),
        (medoid_composite, medoid_by_hand),
        (lambda r, c: max_ndvi_composite(r, c, bands=BANDS), max_ndvi_by_hand),
    ],
    ids=["mean", "medoid", "max-ndvi"],
)
@given(period=looks_of_a_period())
@settings(max_examples=80, deadline=None)
def test_exact_against_plain_loops(compose, value_of, period):
    reflectance, is_clear = period
    before = reflectance.copy(), is_clear.copy()
    composite, clear_count = compose(reflectance, is_clear)
    np.testing.assert_array_equal(composite, by_hand(reflectance, is_clear, value_of))
    np.testing.assert_array_equal(clear_count, is_clear.sum(axis=0))
    np.testing.assert_array_equal(reflectance, before[0])
    np.testing.assert_array_equal(is_clear, before[1])


@pytest.mark.parametrize("looks", [1, 2, 5, 8, 17])
def test_methods_on_more_pixels_than_a_block(looks):
    generator = np.random.default_rng(looks)
    reflectance = generator.integers(-200, 6000, (looks, 3, 33, 41), dtype=np.int16)
    is_clear = generator.random((looks, 33, 41)) < 0.6
    for compose, value_of in ((mean_composite, mean_by_hand), (medoid_composite, medoid_by_hand)):
        composite, _ = compose(reflectance, is_clear)
        np.testing.assert_array_equal(composite, by_hand(reflectance, is_clear, value_of))


def test_medoid_of_so_many_looks_that_sums_leave_32_bits():
    """Two camps at the ends of the range: 65,534 x 40 bands x 1,200 looks is more than 2**31."""
    reflectance = np.full((1200, 40, 1, 1), STORED_MAX, np.int16)
    reflectance[:580] = -32767
    composite, clear_count = medoid_composite(reflectance, np.ones((1200, 1, 1), np.bool_))
    assert (composite == STORED_MAX).all()
    assert clear_count.item() == 1200


def summed_distance(point, spectra):
    return np.sqrt(((spectra - point) ** 2).sum(axis=1)).sum()


def geomedian_by_hand(spectra):
    """Weiszfeld's steps until they stand still, or the look itself where none is better."""
    point = spectra.mean(axis=0)
    for _ in range(20_000):
        distance = np.maximum(np.sqrt(((spectra - point) ** 2).sum(axis=1)), 1e-9)
        moved = (spectra / distance[:, None]).sum(axis=0) / (1 / distance).sum()
        if np.abs(moved - point).max() < 1e-7:
            break
        point = moved
    return min([point, *spectra], key=lambda place: summed_distance(place, spectra))


@pytest.mark.parametrize(("looks", "bands"), [(3, 2), (4, 10), (8, 10), (9, 4)])
def test_geomedian_is_the_point_of_least_summed_distance(looks, bands):
    generator = np.random.default_rng([looks, bands])
    ground = generator.uniform(200, 4000, (1, bands, 5, 9))
    haze = generator.exponential(300, (looks, 1, 5, 9))
    noise = generator.normal(0, 60, (looks, bands, 5, 9))
    reflectance = (ground + haze + noise).astype(np.int16)
    is_clear = generator.random((looks, 5, 9)) < 0.8
    composite, clear_count = geomedian_composite(reflectance, is_clear)
    for y, x in itertools.product(range(5), range(9)):
        spectra = reflectance[is_clear[:, y, x], :, y, x].astype(np.float64)
        assert clear_count[y, x] == len(spectra)
        if len(spectra) == 0:
            assert (composite[:, y, x] == NODATA).all()
        elif len(spectra) == 2:
            np.testing.assert_array_equal(composite[:, y, x], np.rint(spectra.mean(axis=0)))
        else:
            expected = geomedian_by_hand(spectra)
            assert np.abs(composite[:, y, x] - expected).max() <= 0.51


@given(looks_of_a_period())
@settings(max_examples=60, deadline=None)
def test_geomedian_is_never_worse_than_any_look_or_the_mean(period):
    reflectance, is_clear = period
    composite, _ = geomedian_composite(reflectance, is_clear)
    for y, x in np.argwhere(is_clear.any(axis=0)):
        spectra = reflectance[is_clear[:, y, x], :, y, x].astype(np.float64)
        found = summed_distance(composite[:, y, x], spectra)
        # rounding moves the point by at most half a unit in each of three bands
        allowed = 0.9 * len(spectra) + 1e-6 * found
        for other in [*spectra, spectra.mean(axis=0), np.median(spectra, axis=0)]:
            assert found <= summed_distance(other, spectra) + allowed


@pytest.mark.parametrize("clear", [3, FEW, FEW + 1])
def test_geomedian_by_either_kernel_is_the_point_of_least_summed_distance(clear):
    """Around the number of clear looks where another kernel takes over."""
    generator = np.random.default_rng(clear)
    looks = FEW + 6
    ground = generator.uniform(200, 4000, (1, 6, 2, 3))
    reflectance = (
        ground
        + generator.exponential(300, (looks, 1, 2, 3))
        + generator.normal(0, 60, (looks, 6, 2, 3))
    ).astype(np.int16)
    is_clear = np.zeros((looks, 2, 3), np.bool_)
    for y, x in np.ndindex(2, 3):
        is_clear[generator.permutation(looks)[:clear], y, x] = True
    composite, _ = geomedian_composite(reflectance, is_clear)
    for y, x in np.ndindex(2, 3):
        spectra = reflectance[is_clear[:, y, x], :, y, x].astype(np.float64)
        assert np.abs(composite[:, y, x] - geomedian_by_hand(spectra)).max() <= 0.51


def test_geomedian_of_a_pixel_follows_from_its_own_clear_looks():
    """Looks that are clear nowhere, a cut window and every pixel by itself change nothing."""
    generator = np.random.default_rng(11)
    reflectance = generator.integers(-200, 6000, (FEW + 4, 4, 9, 31), dtype=np.int16)
    is_clear = generator.random((FEW + 4, 9, 31)) < np.linspace(0.1, 1, 31)
    whole, _ = geomedian_composite(reflectance, is_clear)
    hidden = generator.integers(-200, 6000, (7, 4, 9, 31), dtype=np.int16)
    more, _ = geomedian_composite(
        np.concatenate([hidden, reflectance]),
        np.concatenate([np.zeros((7, 9, 31), np.bool_), is_clear]),
    )
    np.testing.assert_array_equal(more, whole)
    cut, _ = geomedian_composite(
        np.ascontiguousarray(reflectance[..., 2:7, 5:28]),
        np.ascontiguousarray(is_clear[:, 2:7, 5:28]),
    )
    np.testing.assert_array_equal(cut, whole[:, 2:7, 5:28])
    for y, x in [(0, 0), (4, 16), (8, 30)]:
        alone, _ = geomedian_composite(
            np.ascontiguousarray(reflectance[..., y : y + 1, x : x + 1]),
            np.ascontiguousarray(is_clear[:, y : y + 1, x : x + 1]),
        )
        np.testing.assert_array_equal(alone[:, 0, 0], whole[:, y, x])


def test_geomedian_of_one_band_is_a_median_and_equal_looks_are_themselves():
    generator = np.random.default_rng(5)
    reflectance = generator.integers(0, 4000, (7, 1, 6, 8), dtype=np.int16)
    is_clear = np.ones((7, 6, 8), np.bool_)
    expected, _ = median_composite(reflectance, is_clear)
    np.testing.assert_array_equal(geomedian_composite(reflectance, is_clear)[0], expected)
    same = np.broadcast_to(reflectance[:1], (6, 1, 6, 8))
    composite, _ = geomedian_composite(same, is_clear[:6])
    np.testing.assert_array_equal(composite, reflectance[0])


def test_geomedian_of_looks_almost_on_one_line_ends_near_its_middle():
    """Where Weiszfeld's steps creep: three looks on a line, with a count of noise beside it."""
    along = np.array([0, 1000, 9000], np.int16)[:, None] * np.ones(4, np.int16)
    beside = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], np.int16)
    spectra = (along + beside).reshape(3, 4, 1, 1)
    composite, _ = geomedian_composite(spectra, np.ones((3, 1, 1), np.bool_))
    assert np.abs(composite.ravel() - spectra[1].ravel()).max() <= 1


def test_max_ndvi_takes_b8a_without_b08_and_needs_one_of_them():
    reflectance = np.array(
        [[[[300]], [[400]]], [[[200]], [[3000]]]], np.int16
    )  # (look, band, 1, 1)
    is_clear = np.ones((2, 1, 1), np.bool_)
    composite, _ = max_ndvi_composite(reflectance, is_clear, bands=("B04", "B8A"))
    assert composite.ravel().tolist() == [200, 3000]
    with pytest.raises(
        InputError, match=r"'max-ndvi' needs B04 and B08 or B8A .* \['B04', 'B11'\]"
    ):
        max_ndvi_composite(reflectance, is_clear, bands=("B04", "B11"))


def best_score_by_hand(is_clear, days, *, target, scale, step):
    looks, height, width = is_clear.shape
    score = np.empty(is_clear.shape)
    for look, y, x in itertools.product(range(looks), range(height), range(width)):
        metres = [
            np.hypot((y - i) * step[0], (x - j) * step[1]) for i, j in np.argwhere(~is_clear[look])
        ]
        near = min([*metres, 500.0])
        date = np.exp(-(((days[look] + 0.5 - target) / scale) ** 2) / 2)
        score[look, y, x] = date + 1 / (1 + np.exp(-(near - 250) / 50))
    return score


@pytest.mark.parametrize("step", [(10.0, 10.0), (60.0, 20.0)])
def test_best_is_near_the_middle_of_the_period_and_far_from_cloud(step):
    generator = np.random.default_rng(9)
    days = np.array([19150, 19158, 19163, 19170, 19172], np.int32)
    reflectance = generator.integers(0, 5000, (5, 3, 9, 31), dtype=np.int16)
    is_clear = generator.random((5, 9, 31)) < 0.95
    is_clear[3] = True
    is_clear[4] = False
    middle = np.datetime64("2022-06-16").astype(int)  # midnight between the halves of June
    expected = best_score_by_hand(is_clear, days, target=middle, scale=7.5, step=step)
    score = best_score(is_clear, days=days, period=JUNE, pixel_size=step)
    np.testing.assert_allclose(score, expected, rtol=1e-12)

    def greatest(clear, pixel, place):
        return pixel[max(clear, key=lambda look: expected[(look, *place)])]

    composite, clear_count = best_composite(
        reflectance, is_clear, days=days, period=JUNE, pixel_size=step
    )
    np.testing.assert_array_equal(composite, by_hand(reflectance, is_clear, greatest))
    np.testing.assert_array_equal(clear_count, is_clear.sum(axis=0))


def test_best_of_equals_is_the_earliest_and_an_acquisition_has_a_score():
    reflectance = np.arange(6, dtype=np.int16).reshape(2, 3, 1, 1)
    is_clear = np.ones((2, 1, 1), np.bool_)
    same_day = np.array([19164, 19164], np.int32)
    composite, _ = best_composite(
        reflectance, is_clear, days=same_day, period=JUNE, pixel_size=(10.0, 10.0)
    )
    assert composite.ravel().tolist() == [0, 1, 2]
    moment = Period.parse("2022-06-21T10:30:21")
    score = best_score(is_clear, days=same_day, period=moment, pixel_size=(10.0, 10.0))
    assert np.isfinite(score).all()


def test_every_method_by_its_name():
    generator = np.random.default_rng(2)
    looks = Looks(
        reflectance=generator.integers(0, 5000, (6, 3, 8, 8), dtype=np.int16),
        is_clear=generator.random((6, 8, 8)) < 0.7,
        days=np.arange(19145, 19175, 5, dtype=np.int32),
        seen_count=np.full((8, 8), 6, np.uint16),
        ids=tuple("abcdef"),
    )
    expected = {
        "median": median_composite(looks.reflectance, looks.is_clear),
        "mean": mean_composite(looks.reflectance, looks.is_clear),
        "medoid": medoid_composite(looks.reflectance, looks.is_clear),
        "geomedian": geomedian_composite(looks.reflectance, looks.is_clear),
        "max-ndvi": max_ndvi_composite(looks.reflectance, looks.is_clear, bands=BANDS),
        "best": best_composite(
            looks.reflectance, looks.is_clear, days=looks.days, period=JUNE, pixel_size=(10.0, 10.0)
        ),
    }
    assert tuple(expected) == METHODS
    different = set()
    for method, (reflectance, clear_count) in expected.items():
        found = composite_of(method, looks, bands=BANDS, period=JUNE, pixel_size=(10.0, 10.0))
        np.testing.assert_array_equal(found[0], reflectance)
        np.testing.assert_array_equal(found[1], clear_count)
        different.add(found[0].tobytes())
    assert len(different) == len(METHODS)


def test_only_best_looks_beyond_the_pixel():
    assert {method: method_margin(method, pixel_size=(10.0, 20.0)) for method in METHODS} == {
        **dict.fromkeys(METHODS, 0),
        "best": CLOUD_REACH / 10,
    }


@pytest.mark.parametrize(
    "compose", [mean_composite, medoid_composite, geomedian_composite, median_composite]
)
def test_no_look_and_no_pixel(compose):
    composite, count = compose(np.empty((0, 3, 4, 5), np.int16), np.empty((0, 4, 5), np.bool_))
    assert (composite == NODATA).all()
    assert (count == 0).all()
    composite, count = compose(np.empty((2, 3, 0, 5), np.int16), np.empty((2, 0, 5), np.bool_))
    assert composite.shape == (3, 0, 5)
    assert count.shape == (0, 5)
