import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import InputError
from cube.radiometry import (
    OffsetDecision,
    compare_with_neighbour,
    decide_offset,
    read_offset_from_pixels,
    settle_offset,
    weigh_neighbours,
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


@pytest.mark.parametrize(
    ("baseline", "flag", "declared", "product", "offset"),
    [
        ("02.14", None, (), 0, 0),
        ("04.00", None, (), -1000, -1000),
        ("05.00", False, {-0.1}, -1000, -1000),
        ("05.09", True, {-0.1}, -1000, 0),  # ESA delivered it, the archive took it out
    ],
)
def test_product_metadata_in_the_truth_table(baseline, flag, declared, product, offset):
    properties = {} if flag is None else {BOA: flag}
    decision = decide_offset(
        scene_id="S",
        baseline=baseline,
        properties=properties,
        declared=frozenset(declared),
        product_offset=product,
    )
    assert decision.offset == offset
    assert decision.reason.startswith(f"product states {product}; baseline {baseline}")


@pytest.mark.parametrize(
    ("baseline", "product", "text"),
    [
        ("05.09", 0, r"BOA_ADD_OFFSET 0, but the item's baseline 05.09 has -1000"),
        ("02.14", -1000, r"BOA_ADD_OFFSET -1000, but the item's baseline 02.14 has 0"),
        ("04.00", -7000, "BOA_ADD_OFFSET -7000, neither 0 nor -1000"),
        ("99.99", -1000, "baseline '99.99' is unknown"),
    ],
)
def test_product_metadata_that_contradict_the_item(baseline, product, text):
    with pytest.raises(InputError, match=f"'S'.*{text}"):
        decide_offset(
            scene_id="S",
            baseline=baseline,
            properties={},
            declared=frozenset(),
            product_offset=product,
        )


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
    assert read_offset_from_pixels(counts + np.uint16(1000), classes) == "undecided"
    counts, classes = scene(rng, dark=0.05, size=199)  # half of them above 400
    assert read_offset_from_pixels(counts, classes) == "undecided"
    counts, classes = scene(rng, dark=0.01, size=9)
    assert read_offset_from_pixels(counts, classes) == "undecided"
    counts, classes = scene(rng, dark=0.01, size=100_000)
    classes[900:] = 5
    assert read_offset_from_pixels(counts, classes) == "undecided"
    assert (
        read_offset_from_pixels(np.empty((3, 0), np.uint16), np.empty(0, np.uint8)) == "undecided"
    )


def test_a_few_pixels_far_too_dark_are_enough(rng):
    counts, classes = scene(rng, dark=0.005, size=10)
    assert read_offset_from_pixels(counts, classes) == "applied"


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


@pytest.fixture(scope="module")
def series(shared_data):
    """(dates, bands, counts per date (band, pixel), classes per date) of two real places."""
    site = shared_data / "worldcereal-site1"
    fine = xr.open_dataset(next(site.glob("S2_L2A_10m*.nc")), mask_and_scale=False)
    coarse = xr.open_dataset(next(site.glob("S2_L2A_20m*.nc")), mask_and_scale=False)
    with fine, coarse:
        red, blue = fine["B04"].values[:, ::2, ::2], fine["B02"].values[:, ::2, ::2]
        swir, scl = coarse["B12"].values, coarse["SCL"].values
        dates = coarse["timestamp"].values
    flanders = Series(dates, ("B04", "B12", "B02"), np.stack([red, swir, blue], axis=1), scl)
    path = shared_data / "nrt-romania" / "sentinel2_cube_subset_romania_20m.nc"
    with xr.open_dataset(path, mask_and_scale=False) as forest:
        bands = np.stack([forest[name].values for name in ("B4", "B11", "B3")], axis=1)
        carpathians = Series(
            forest["time"].values, ("B04", "B11", "B03"), bands, forest["SCL"].values
        )
    return {"flanders": flanders, "carpathians": carpathians}


class Series:
    """Real scenes of one place, none with the offset in."""

    def __init__(self, dates, bands, counts, scl):
        self.dates, self.bands = dates, bands
        self.counts = counts.reshape(len(dates), len(bands), -1).astype(np.int64)
        self.scl = scl.reshape(len(dates), -1)

    def frames(self):
        return list(zip(self.counts, self.scl, strict=True))

    def nearest(self, date, among):
        others = [other for other in among if other != date]
        return sorted(others, key=lambda other: abs(self.dates[other] - self.dates[date]))[:4]

    def compared(self, date, other, *, added, offset):
        """Compare a date that has `added` in its counts and is given `offset` with another."""
        return compare_with_neighbour(
            self.counts[date] + added + offset,
            self.counts[other],
            bands=self.bands,
            our_offset=offset,
            our_scl=self.scl[date],
            their_scl=self.scl[other],
        )


def test_real_series_are_never_read_wrongly(series):
    found = readings(series["flanders"].frames())
    assert found["wrong"] == 0
    assert found["right"] >= 80
    found = readings(series["carpathians"].frames())
    assert found["wrong"] == 0
    assert found["right"] >= 190


@pytest.mark.parametrize(("place", "told"), [("flanders", 90), ("carpathians", 110)])
def test_real_neighbours_are_never_wrong(series, place, told):
    here = series[place]
    settled = [i for i, (c, s) in enumerate(here.frames()) if read_offset_from_pixels(c, s) != UN]
    found = {"right": 0, "wrong": 0, UN: 0}
    for date in range(len(here.dates)):
        near = here.nearest(date, settled)
        for added, offset in ((0, 0), (0, -1000), (1000, 0), (1000, -1000)):
            truth = "agrees" if added + offset == 0 else "denies"
            said = [here.compared(date, other, added=added, offset=offset) for other in near]
            together = weigh_neighbours(said)
            found[UN if together == UN else "right" if together == truth else "wrong"] += 1
            assert set(said) <= {truth, UN}
    assert found["wrong"] == 0
    assert found["right"] >= 2 * told


UN = "undecided"


def compare(change, *, offset=0, bands=("B04", "B12", "B02"), size=500, classes=(4, 4)):
    """Compare noisy ground with itself, each band brighter by `change`."""
    rng = np.random.default_rng(1)
    ground = rng.normal(600, 100, (len(bands), size)).round().astype(np.int64)
    return compare_with_neighbour(
        ground + np.asarray(change)[:, None],
        ground,
        bands=bands,
        our_offset=offset,
        our_scl=np.full(size, classes[0], np.uint8),
        their_scl=np.full(size, classes[1], np.uint8),
    )


@pytest.mark.parametrize(
    ("change", "offset", "said"),
    [
        ((0, 0, 0), 0, "agrees"),
        ((390, -390, 0), -1000, "agrees"),
        ((1000, 1000, 1000), 0, "denies"),
        ((-1000, -700, -1300), -1000, "denies"),
        ((1000, 1000, 1000), -1000, UN),  # that a wrong -1000 cannot do
        ((-1000, -1000, -1000), 0, UN),
        ((1000, 1000, 0), 0, UN),  # haze, or another crop
        ((500, 500, 500), 0, UN),
        ((4000, 4000, 4000), 0, UN),
    ],
)
def test_comparing(change, offset, said):
    assert compare(change, offset=offset) == said


def test_comparing_needs_common_ground():
    same = (0, 0, 0)
    assert compare(same, size=99) == UN
    assert compare(same, classes=(4, 5)) == UN
    assert compare(same, classes=(8, 8)) == UN
    assert compare(same, bands=("B04", "B02", "B03")) == UN
    assert compare((0, 0), bands=("B11", "B12")) == UN


@pytest.mark.parametrize(
    ("said", "together"),
    [
        ((), UN),
        (("undecided",), UN),
        (("agrees",), "agrees"),
        (("agrees", "undecided", "undecided"), "agrees"),
        (("denies",), UN),
        (("denies", "undecided", "denies"), "denies"),
        (("denies", "denies", "denies", "agrees"), UN),
    ],
)
def test_weighing(said, together):
    assert weigh_neighbours(said) == together


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


def test_settling_names_the_witness():
    def settle(reading, setting):
        return settle_offset(METADATA, reading, setting=setting, scene_id="S", witness="neighbours")

    assert settle("applied", "check").reason == "boa true; neighbours agree"
    assert settle("undecided", "check").reason == "boa true; neighbours are undecided"
    assert (
        settle("present", "verify").reason == "neighbours say present, against metadata (boa true)"
    )
    with pytest.raises(
        InputError, match=r"neighbours say the offset is present; set source\.offset = 'ver"
    ):
        settle("present", "check")


def test_decision_refuses_any_other_offset():
    with pytest.raises(InputError, match="neither 0 nor -1000"):
        OffsetDecision(offset=-7000, reason="")


@pytest.fixture
def rng():
    return np.random.default_rng(7)
