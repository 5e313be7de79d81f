import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import InputError
from cube.radiometry import (
    OffsetDecision,
    decide_offset,
    read_offset_from_pixels,
    settle_offset,
)

BOA = "earthsearch:boa_offset_applied"


def decide(baseline, flag=None, declared=()):
    properties = {} if flag is None else {BOA: flag}
    return decide_offset(
        scene_id="S", baseline=baseline, properties=properties, declared=frozenset(declared)
    )


@pytest.mark.parametrize(
    ("baseline", "flag", "declared", "offset"),
    [
        ("02.14", False, {0.0}, 0),
        ("03.01", None, (), 0),
        ("00.01", False, {0.0}, 0),
        ("02.07", False, {-0.1}, 0),  # whatever the item states, no such product has the offset
        ("04.00", True, {-0.1}, 0),
        ("05.09", True, {-0.1}, 0),
        ("05.10", True, {0.0}, 0),
        ("04.00", False, {-0.1}, -1000),
        ("05.11", None, {-0.1}, -1000),
        ("05.10", None, (), -1000),
    ],
)
def test_truth_table(baseline, flag, declared, offset):
    decision = decide(baseline, flag, declared)
    assert decision.offset == offset
    assert baseline in decision.reason


@pytest.mark.parametrize(
    ("flag", "declared"), [(False, {0.0}), (False, ()), (None, {0.0}), (None, {0.0, -0.1})]
)
def test_contradicting_metadata_are_refused(flag, declared):
    with pytest.raises(InputError, match=r"'S'.*contradict each other"):
        decide("05.09", flag, declared)


@pytest.mark.parametrize("baseline", ["", "5.9", "99.99", "N0509", "05.09 "])
def test_unknown_baseline_is_refused(baseline):
    with pytest.raises(InputError, match=r"'S': processing baseline .* is unknown"):
        decide(baseline, True, {-0.1})


def test_flag_must_be_a_boolean():
    with pytest.raises(InputError, match="boa_offset_applied is 'true'; expected true or false"):
        decide("05.09", "true", {-0.1})


def scene(rng, *, dark, size=5000, scl=4):
    """Counts (3, pixel) of a surface whose reflectance is `dark` or more in every band."""
    reflectance = dark + rng.gamma(2.0, 0.02, (3, size))
    return np.round(reflectance * 10_000).astype(np.uint16), np.full(size, scl, np.uint8)


def test_forest_and_water_say_whether_the_offset_is_in(rng):
    for scl in (4, 6):
        counts, classes = scene(rng, dark=0.01, scl=scl)
        assert read_offset_from_pixels(counts, classes) == "applied"
        assert read_offset_from_pixels(counts + np.uint16(1000), classes) == "present"


def test_bright_ground_cannot_tell(rng):
    counts, sand = scene(rng, dark=0.09, scl=5)
    assert read_offset_from_pixels(counts, sand) == "undecided"
    assert read_offset_from_pixels(counts + np.uint16(1000), sand) == "undecided"


def test_a_few_pixels_cannot_tell(rng):
    counts, classes = scene(rng, dark=0.01, size=199)
    assert read_offset_from_pixels(counts, classes) == "undecided"
    counts, classes = scene(rng, dark=0.01, size=100_000)
    classes[900:] = 5
    assert read_offset_from_pixels(counts, classes) == "undecided"
    assert (
        read_offset_from_pixels(np.empty((3, 0), np.uint16), np.empty(0, np.uint8)) == "undecided"
    )


def test_haze_everywhere_cannot_tell(rng):
    counts, classes = scene(rng, dark=0.10)
    assert read_offset_from_pixels(counts, classes) == "present"  # what haze can look like
    classes[: classes.size // 3] = 7
    assert read_offset_from_pixels(counts, classes) == "undecided"


def test_nodata_and_clouds_are_not_read(rng):
    counts, classes = scene(rng, dark=0.01)
    counts += np.uint16(1000)
    counts[1, :500] = 0
    shadow = slice(500, 1000)
    counts[:, shadow], classes[shadow] = 5, 3
    assert read_offset_from_pixels(counts, classes) == "present"


@given(
    dark=st.floats(0.0, 0.3),
    is_in=st.booleans(),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_no_surface_darker_than_nine_per_cent_is_read_wrongly(dark, is_in, share, seed):
    rng = np.random.default_rng(seed)
    counts, classes = scene(rng, dark=dark, size=2000)
    classes[: int(share * classes.size)] = 5
    if is_in:
        counts += np.uint16(1000)
    reading = read_offset_from_pixels(counts, classes)
    # a surface with no pixel below 0.085 in any band is no vegetation; only there it may err
    if dark < 0.06 or is_in:
        assert reading in ("undecided", "present" if is_in else "applied")


def readings(frames):
    """(right, wrong, undecided) over real scenes without offset, as they are and with it put in."""
    found = {"right": 0, "wrong": 0, "undecided": 0}
    for counts, scl in frames:
        for truth, added in (("applied", 0), ("present", 1000)):
            reading = read_offset_from_pixels(np.where(counts > 0, counts + added, 0), scl)
            found[
                "undecided" if reading == "undecided" else "right" if reading == truth else "wrong"
            ] += 1
    return found


def test_real_series_are_never_read_wrongly(shared_data):
    site = shared_data / "worldcereal-site1"
    fine = xr.open_dataset(next(site.glob("S2_L2A_10m*.nc")), mask_and_scale=False)
    coarse = xr.open_dataset(next(site.glob("S2_L2A_20m*.nc")), mask_and_scale=False)
    with fine, coarse:
        red, blue = fine["B04"].values[:, ::2, ::2], fine["B02"].values[:, ::2, ::2]
        swir, scl = coarse["B12"].values, coarse["SCL"].values
    flanders = [
        (np.stack([red[i], swir[i], blue[i]]).reshape(3, -1).astype(np.int64), scl[i].ravel())
        for i in range(len(scl))
    ]
    found = readings(flanders)
    assert found["wrong"] == 0
    assert found["right"] >= 80

    path = shared_data / "nrt-romania" / "sentinel2_cube_subset_romania_20m.nc"
    with xr.open_dataset(path, mask_and_scale=False) as forest:
        bands = [forest[name].values.astype(np.int64) for name in ("B4", "B11", "B3")]
        scl = forest["SCL"].values
    carpathians = [
        (np.stack([band[i] for band in bands]).reshape(3, -1), scl[i].ravel())
        for i in range(len(scl))
    ]
    found = readings(carpathians)
    assert found["wrong"] == 0
    assert found["right"] >= 190


METADATA = OffsetDecision(offset=0, reason="boa true")


def test_settling():
    def settle(reading, setting):
        return settle_offset(METADATA, reading, setting=setting, scene_id="S")

    assert settle("present", "metadata") == METADATA
    assert settle("applied", "check").reason == "boa true; pixels agree"
    assert settle("undecided", "verify").offset == 0
    assert "undecided" in settle("undecided", "check").reason
    won = settle("present", "verify")
    assert won.offset == -1000
    assert won.reason == "pixels say present, against metadata (boa true)"
    with pytest.raises(InputError, match=r"'S'.*add 0 counts \(boa true\).*present.*'verify'"):
        settle("present", "check")


def test_decision_refuses_any_other_offset():
    with pytest.raises(InputError, match="neither 0 nor -1000"):
        OffsetDecision(offset=-7000, reason="")


@pytest.fixture
def rng():
    return np.random.default_rng(7)
