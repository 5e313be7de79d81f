import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.bands import NODATA, REFLECTANCE_BANDS
from cube.composite import median_composite
from cube.errors import InputError
from cube.forest import ForestSpec, scenes_of, true_scene
from cube.mask import ClearMask
from cube.outlier import OutlierScreen, clear_after_screen, screen_series, series_outliers

BANDS = ("B04", "B02", "B03")
BLUE = 1

screens = st.builds(
    OutlierScreen,
    absolute=st.sampled_from([0.01, 0.03, 0.5]),
    relative=st.sampled_from([0.0, 0.5, 2.0]),
    longest_gap=st.sampled_from([5, 40, 400]),
)
values = st.sampled_from([NODATA + 1, -200, -1, 0, 50, 99, 100, 101, 400, 1000, 9000, 32767])


def limit_by_hand(reference, screen):
    return reference + screen.absolute * 1e4 + screen.relative * max(reference, 0)


@given(
    reflectance=arrays(np.int16, (6, 3, 2, 4), elements=values),
    is_clear=arrays(np.bool_, (6, 2, 4)),
    screen=screens,
)
@settings(max_examples=80, deadline=None)
def test_looks_against_plain_loops(reflectance, is_clear, screen):
    before = is_clear.copy()
    kept = clear_after_screen(reflectance, is_clear, screen, bands=BANDS)
    for y, x in np.ndindex(2, 4):
        clear = [int(v) for v in reflectance[is_clear[:, y, x], BLUE, y, x]]
        for look in range(6):
            stays = bool(is_clear[look, y, x])
            if stays and len(clear) > 1:
                lower_median = sorted(clear)[(len(clear) - 1) // 2]
                stays = reflectance[look, BLUE, y, x] <= limit_by_hand(lower_median, screen)
            assert kept[look, y, x] == stays
    np.testing.assert_array_equal(is_clear, before)
    np.testing.assert_array_equal(kept.any(axis=0), is_clear.any(axis=0))


@given(
    reflectance=arrays(np.int16, (7, 3, 2, 3), elements=values | st.just(NODATA)),
    steps=arrays(np.int32, 7, elements=st.integers(1, 50)),
    screen=screens,
)
@settings(max_examples=80, deadline=None)
def test_series_against_plain_loops(reflectance, steps, screen):
    days = np.cumsum(steps, dtype=np.int32)
    counts = np.full((7, 2, 3), 3, np.uint16)
    found = series_outliers(reflectance, screen, days=days, bands=BANDS)
    for y, x in np.ndindex(2, 3):
        series = reflectance[:, BLUE, y, x]
        for time in range(7):
            before = [t for t in range(time) if series[t] != NODATA]
            after = [t for t in range(time + 1, 7) if series[t] != NODATA]
            expected = False
            if series[time] != NODATA and before and after:
                near = max(days[time] - days[before[-1]], days[after[0]] - days[time])
                reference = max(int(series[before[-1]]), int(series[after[0]]))
                expected = near <= screen.longest_gap
                expected &= series[time] > limit_by_hand(reference, screen)
            assert found[time, y, x] == expected
    screened, counts_after = screen_series(reflectance, counts, screen, days=days, bands=BANDS)
    assert (screened[np.broadcast_to(found[:, None], screened.shape)] == NODATA).all()
    np.testing.assert_array_equal(counts_after, np.where(found, 0, 3))
    kept = np.broadcast_to(~found[:, None], screened.shape)
    np.testing.assert_array_equal(screened[kept], reflectance[kept])


def test_without_blue_the_next_band_serves():
    reflectance = np.zeros((2, 2, 1, 1), np.int16)
    reflectance[1, 1] = 3000
    is_clear = np.ones((2, 1, 1), np.bool_)
    for band in ("B02", "B03", "B04"):
        kept = clear_after_screen(reflectance, is_clear, OutlierScreen(), bands=("B11", band))
        assert kept.ravel().tolist() == [True, False]
    with pytest.raises(InputError, match=r"needs one of B02, B03, B04 .* found \['B08', 'B11'\]"):
        clear_after_screen(reflectance, is_clear, OutlierScreen(), bands=("B08", "B11"))


def test_nothing_to_screen():
    empty = np.empty((0, 3, 2, 2), np.int16)
    kept = clear_after_screen(empty, np.empty((0, 2, 2), np.bool_), OutlierScreen(), bands=BANDS)
    assert kept.shape == (0, 2, 2)
    found = series_outliers(empty, OutlierScreen(), days=np.empty(0, np.int32), bands=BANDS)
    assert found.shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"absolute": -0.1}, "absolute is -0.1; expected 0 or more"),
        ({"relative": float("nan")}, "relative is nan"),
        ({"absolute": 0.0, "relative": 0.0}, "allows no difference at all"),
        ({"longest_gap": 0}, "longest_gap is 0; expected 1 day or more"),
    ],
)
def test_bad_settings(options, text):
    with pytest.raises(InputError, match=text):
        OutlierScreen(**options)


def test_days_that_do_not_ascend():
    with pytest.raises(InputError, match=r"days that ascend, found \[3, 3\]"):
        series_outliers(
            np.zeros((2, 3, 1, 1), np.int16),
            OutlierScreen(),
            days=np.array([3, 3], np.int32),
            bands=BANDS,
        )


MONTHS = np.arange("2022-01", "2023-01", dtype="M8[M]")
MIDDLES = (MONTHS.astype("M8[D]").astype(np.int32) + 14).astype(np.int32)


def as_stored(reflectance):
    whole = np.rint(np.nan_to_num(reflectance) * 1e4).astype(np.int16)
    return np.where(np.isnan(reflectance), np.int16(NODATA), whole)


def forest_looks(spec):
    """(month, measured and true blue, clear after SCL, cloud that is really there) of each scene."""
    place = REFLECTANCE_BANDS.index("B02")
    for scene in scenes_of(spec):
        if scene.epsg != 32648 or scene.part != "whole":
            continue
        truth = true_scene(spec, scene.id)
        measured = as_stored(truth.measured["B02"])
        scl = truth.scl.repeat(2, axis=0).repeat(2, axis=1)
        is_clear = ClearMask().is_clear(scl, pixel_size=10.0) & (measured != NODATA)
        yield scene.time.month - 1, measured, as_stored(truth.reflectance[place]), is_clear, truth


@pytest.mark.parametrize("seed", [7, 11])
def test_clouds_that_the_classification_missed_in_the_forest(seed):
    """Most are found, hardly any good value is lost, and the composite comes nearer the truth."""
    months = [[] for _ in MONTHS]
    for month, *look in forest_looks(ForestSpec(seed=seed, scale=0.25)):
        months[month].append(look)
    missed = caught = good = lost = 0
    series = {True: [], False: []}
    truths = []
    for looks in months:
        if not looks:
            shape = truths[0].shape if truths else (120, 120)
            truths.append(np.full(shape, NODATA, np.int16))
            for kept in series.values():
                kept.append(np.full((1, *shape), NODATA, np.int16))
            continue
        measured, true, is_clear = (np.stack([look[i] for look in looks]) for i in range(3))
        is_cloud = np.stack([look[3].is_cloud for look in looks])
        kept = clear_after_screen(measured[:, None], is_clear, OutlierScreen(), bands=("B02",))
        is_good = is_clear & ~is_cloud & (np.abs(measured.astype(int) - true) < 300)
        missed += (is_clear & is_cloud).sum()
        caught += (is_clear & is_cloud & ~kept).sum()
        good += is_good.sum()
        lost += (is_good & ~kept).sum()
        truths.append(median_composite(true[:, None], true != NODATA)[0][0])
        series[True].append(median_composite(measured[:, None], kept)[0])
        series[False].append(median_composite(measured[:, None], is_clear)[0])
    assert missed > 2000
    assert caught / missed > 0.6
    assert lost / good < 0.01
    truth = np.stack(truths)
    screened = np.stack(series[True])  # (time, band, y, x)
    is_outlier = series_outliers(screened, OutlierScreen(), days=MIDDLES, bands=("B02",))
    screened = np.where(is_outlier[:, None], np.int16(NODATA), screened)
    with_screen, without = (
        np.sqrt(np.mean((blue.astype(float) - truth)[(blue != NODATA) & (truth != NODATA)] ** 2))
        for blue in (screened[:, 0], np.stack(series[False])[:, 0])
    )
    assert with_screen < 0.8 * without


def test_few_values_of_a_real_series_are_rejected(shared_data):
    """On dates that the SCL calls clear all over, a rejected value is most likely a false alarm."""
    folder = shared_data / "worldcereal-site1"
    name = "00002806639B424A_32631_2017-08-01_2018-11-30.nc"
    layers = {}
    for size, layer in (("10m", "B02"), ("20m", "SCL")):
        with netCDF4.Dataset(folder / f"S2_L2A_{size}_{name}") as file:
            file.set_auto_maskandscale(False)
            layers[layer] = file[layer][:]
            times = netCDF4.num2date(file["timestamp"][:], file["timestamp"].units)
    scl = layers["SCL"].repeat(2, axis=1).repeat(2, axis=2)
    blue = np.minimum(layers["B02"], 32767).astype(np.int16)
    is_clear = ClearMask().is_clear(scl, pixel_size=10.0) & (blue > 0)
    months = np.array([str(time)[:7] for time in times])
    kept = np.empty_like(is_clear)
    for month in np.unique(months):
        here = months == month
        kept[here] = clear_after_screen(
            blue[here][:, None], is_clear[here], OutlierScreen(), bands=("B02",)
        )
    is_cloudless = is_clear.mean(axis=(1, 2)) > 0.99
    assert is_cloudless.sum() > 25
    assert (is_clear & ~kept)[is_cloudless].sum() < 0.005 * is_clear[is_cloudless].sum()
    assert 0.02 < (is_clear & ~kept).sum() / is_clear.sum() < 0.08
