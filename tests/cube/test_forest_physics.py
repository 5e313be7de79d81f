"""The forest's parts against independent oracles: SciPy, closed forms, PROSAIL itself."""

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from cube.bands import REFLECTANCE_BANDS
from cube.forest import ForestSpec, canopy
from cube.forest.canopy import CANOPIES, TRAITS, canopy_tables, leaf_area
from cube.forest.noise import SmoothNoise, sigmoid
from cube.forest.sensor import CENTRE_AND_WIDTH, PLATFORMS, band_weights
from cube.forest.sun import illumination, sun_position


@given(scale=st.floats(0.25, 8), seed=st.integers(0, 2**63))
def test_grids_fit_pixels_of_20_and_60_metres(scale: float, seed: int) -> None:
    spec = ForestSpec(scale=scale, seed=seed)
    assert spec.edge % 12 == 0
    assert abs(spec.edge - 480 * scale) <= 6
    left, top = spec.corner
    assert left % 60 == top % 60 == 0
    centre = (left + spec.edge * 5, top - spec.edge * 5)
    assert np.allclose(centre, (742_800, 3_732_000), atol=60)


def test_random_streams_of_two_purposes_differ_and_of_one_agree() -> None:
    spec = ForestSpec(seed=3)
    one, same, other = (spec.generator(p, 4).random(5) for p in ("a", "a", "b"))
    assert np.array_equal(one, same)
    assert not np.any(one == other)
    assert not np.any(one == spec.generator("a", 5).random(5))


def test_smooth_noise_is_the_cubic_spline_of_its_lattice() -> None:
    field = SmoothNoise(
        np.random.default_rng(1), extent=(900.0, 700.0), octaves=((130.0, 1.0),), margin=200.0
    )
    ((spacing, lattice),) = field._octaves
    y, x = np.linspace(-200, 1100, 41), np.linspace(-200, 900, 37)
    grid = np.meshgrid((y + 200) / spacing + 1, (x + 200) / spacing + 1, indexing="ij")
    expected = map_coordinates(lattice, grid, order=3, prefilter=False, mode="mirror")
    assert np.allclose(field.on_grid(y, x), expected, atol=1e-5)


def test_smooth_noise_has_mean_0_and_variance_1() -> None:
    axis = np.arange(0, 20_000, 40.0)
    field = SmoothNoise(
        np.random.default_rng(2), extent=(20_000.0, 20_000.0), octaves=((200.0, 1.0), (90.0, 0.5))
    ).on_grid(axis, axis)
    assert field.mean() == pytest.approx(0, abs=0.05)
    assert field.std() == pytest.approx(1, abs=0.05)


@given(st.floats(-700, 700))
def test_sigmoid(value: float) -> None:
    assert sigmoid(np.array([value]))[0] == pytest.approx(1 / (1 + np.exp(-value)), abs=1e-12)


@pytest.mark.parametrize(
    ("month", "day", "declination"), [(3, 20, 0.0), (6, 21, 23.44), (9, 23, 0.0), (12, 21, -23.44)]
)
def test_the_noon_sun_stands_where_astronomy_puts_it(
    month: int, day: int, declination: float
) -> None:
    # Local noon at 107.62 E is near 04:49 UTC; the least zenith of the day is what counts.
    start = datetime.datetime(2022, month, day, 4)
    minutes = [start + datetime.timedelta(minutes=m) for m in range(100)]
    zenith, azimuth = min(sun_position(time) for time in minutes)
    assert zenith == pytest.approx(33.70 - declination, abs=0.6)
    assert azimuth == pytest.approx(180, abs=1.5)


def test_the_morning_sun_is_in_the_south_east() -> None:
    zenith, azimuth = sun_position(datetime.datetime(2022, 12, 21, 3, 48))
    assert 57 < zenith < 62
    assert 150 < azimuth < 175


@pytest.mark.parametrize(("north", "east"), [(0.0, 0.0), (0.3, 0.0), (-0.3, 0.1), (0.0, 0.4)])
def test_illumination_of_a_tilted_plane(north: float, east: float) -> None:
    # Rise per metre to the north and to the east; rows run south.
    rows, columns = np.meshgrid(np.arange(9) * 10.0, np.arange(9) * 10.0, indexing="ij")
    plane = (1000 - north * rows + east * columns).astype(np.float32)
    zenith, azimuth = 40.0, 150.0
    slope = np.arctan(np.hypot(north, east))
    aspect = np.arctan2(-east, -north)  # downhill, from north over east
    z, a = np.radians(zenith), np.radians(azimuth)
    cosine = np.cos(z) * np.cos(slope) + np.sin(z) * np.sin(slope) * np.cos(a - aspect)
    expected = (max(cosine, 0) + 0.45) / (np.cos(z) + 0.45)
    assert np.allclose(illumination(plane, zenith=zenith, azimuth=azimuth), expected, atol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_band_responses_have_their_centre_and_width(platform: str) -> None:
    weights = band_weights(platform)
    wavelength = np.arange(400, 2501)
    assert np.allclose(weights.sum(axis=1), 1)
    for row, band in zip(weights, REFLECTANCE_BANDS, strict=True):
        centre, width = CENTRE_AND_WIDTH[platform][band]
        assert (row * wavelength).sum() == pytest.approx(centre, abs=0.6)
        assert np.sum(row > row.max() / 2) == pytest.approx(width, abs=2)


@pytest.mark.parametrize("index", range(len(CANOPIES)))
def test_the_table_agrees_with_prosail_off_the_mean(index: int) -> None:
    prosail = pytest.importorskip("prosail", reason="needs the package prosail")
    assert prosail is not None
    left = np.where(
        np.array([CENTRE_AND_WIDTH["S2A"][b][0] for b in REFLECTANCE_BANDS]) < 700, 0.25, 0.45
    )
    generator = np.random.default_rng(index)
    table = canopy_tables()["S2A"]
    for day in (40.0, 104.0, 200.0, 288.0):  # nodes of the table
        deviation = generator.normal(0, [0.16, 0.10, 0.09, 0.09, 0.03, 0.14])
        spectrum = canopy._prosail(CANOPIES[index], day, deviation)
        shade = CANOPIES[index].shade
        expected = (band_weights("S2A") @ spectrum) * (1 - shade * (1 - left))
        found = table.reflectance(index, day=np.array([day]), deviation=deviation[None])[0]
        assert np.max(np.abs(found / expected - 1)) < 0.03


def test_the_table_runs_round_the_year() -> None:
    table = canopy_tables()["S2B"]
    none = np.zeros((1, len(TRAITS)))
    for index in range(len(CANOPIES)):
        ends = [
            table.reflectance(index, day=np.array([d]), deviation=none) for d in (364.99, 365.0)
        ]
        assert np.allclose(*ends, atol=1e-4)
        assert np.array_equal(
            ends[1], table.reflectance(index, day=np.array([0.0]), deviation=none)
        )


def test_larch_loses_its_needles_and_pine_does_not() -> None:
    table = canopy_tables()["S2A"]
    none = np.zeros((2, len(TRAITS)))
    red, infrared = REFLECTANCE_BANDS.index("B04"), REFLECTANCE_BANDS.index("B08")
    change = {}
    for index, one in enumerate(CANOPIES):
        winter, summer = table.reflectance(index, day=np.array([20.0, 190.0]), deviation=none)
        ndvi = [(r[infrared] - r[red]) / (r[infrared] + r[red]) for r in (winter, summer)]
        change[one.name] = ndvi[1] - ndvi[0]
        assert ndvi[1] > 0.75
    assert all(change[name] > 0.3 for name in ("larch_JP", "larch_CN", "deci_broad", "shrubland"))
    assert all(abs(change[name]) < 0.1 for name in ("ever_coni", "ever_broad"))


def test_leaf_area_rises_and_falls() -> None:
    larch = CANOPIES[0]
    area = leaf_area(larch, np.array([10.0, larch.green_up, 200.0, larch.leaf_fall, 355.0]))
    winter, summer = larch.leaf_area
    middle = (winter + summer) / 2
    assert np.allclose(area, [winter, middle, summer, middle, winter], atol=0.01)
