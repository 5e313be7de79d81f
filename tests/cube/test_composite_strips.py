from dataclasses import dataclass, field

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

from cube.bands import NODATA
from cube.composite import METHODS, SceneComposites
from cube.composite.methods import check_method
from cube.errors import InputError
from cube.outlier import OutlierScreen
from cube.periods import Period
from cube.source import CountingCatalogue, Looks, SceneCatalogue

BANDS = ("B02", "B04", "B08")
JUNE = Period.parse("2022-06")
GRID = GeoBox.from_bbox((500_000, 5_000_000, 500_370, 5_003_000), "EPSG:32633", resolution=10)
"""300 rows of 37 pixels of 10 m."""
LOOKS = 5
ROW_BYTES = LOOKS * len(BANDS) * 37 * 2


@dataclass
class Ground:
    """A catalogue of made-up looks over all the ground there is: any window shows its part."""

    windows: list[tuple[int, int]] = field(default_factory=list)
    """Shapes that were read."""

    def looks(self, period, window, bands, *, without=frozenset()):
        self.windows.append(window.shape)
        reach = 60
        wide = GRID.pad(reach)
        generator = np.random.default_rng(8)
        reflectance = generator.integers(0, 5000, (LOOKS, len(bands), *wide.shape), dtype=np.int16)
        is_clear = generator.random((LOOKS, *wide.shape)) < 0.9
        top = round((wide.affine.f - window.affine.f) / 10)
        left = round((window.affine.c - wide.affine.c) / 10)
        place = (slice(top, top + window.shape[0]), slice(left, left + window.shape[1]))
        assert min(place[0].start, place[1].start) >= 0
        shown = [look for look in range(LOOKS) if is_clear[look][place].any()]
        return Looks(
            reflectance=reflectance[shown][:, :, *place],
            is_clear=is_clear[shown][:, *place],
            days=np.array([19145, 19150, 19150, 19160, 19170], np.int32)[shown],
            seen_count=np.full(window.shape, LOOKS, np.uint16)
            + np.arange(top, top + window.shape[0], dtype=np.uint16)[:, None],
            ids=tuple(f"scene-{look}" for look in shown),
        )


class CountedGround(Ground):
    """The same, and it knows how many looks there are."""

    def count(self, period, window):
        return LOOKS


def composite(method, buffer_bytes, catalogue, screen=None):
    source = SceneComposites(
        catalogue=catalogue, method=method, screen=screen, buffer_bytes=buffer_bytes
    )
    return source.composite(JUNE, GRID, BANDS)


def assert_equal(one, other):
    for name in ("reflectance", "clear_count", "seen_count", "mean_day"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.scenes == other.scenes


@pytest.mark.parametrize("method", METHODS)
def test_strips_equal_the_whole(method):
    reach = 50 if method == "best" else 0
    width = 37 + 2 * reach
    whole, cut = Ground(), CountedGround()
    buffer_bytes = LOOKS * len(BANDS) * width * 2 * (130 + 2 * reach)
    expected = composite(method, buffer_bytes, whole)
    assert_equal(composite(method, buffer_bytes, cut), expected)
    assert whole.windows == [(300 + 2 * reach, width)]
    assert [rows - 2 * reach for rows, _ in cut.windows] == [128, 128, 44]
    for rows, columns in cut.windows:
        assert LOOKS * len(BANDS) * rows * columns * 2 <= buffer_bytes


def test_strips_equal_the_whole_with_a_screen():
    screen = OutlierScreen(absolute=0.1, relative=0.1)
    expected = composite("median", 2**30, Ground(), screen)
    plain = composite("median", 2**30, Ground())
    assert (expected.clear_count < plain.clear_count).any()
    assert (expected.clear_count > 0).sum() == (plain.clear_count > 0).sum()
    np.testing.assert_array_equal(expected.seen_count, plain.seen_count)
    assert_equal(composite("median", 70 * ROW_BYTES, CountedGround(), screen), expected)


@pytest.mark.parametrize(("rows", "heights"), [(1, [1] * 300), (50, [50] * 6), (299, [256, 44])])
def test_heights_of_strips(rows, heights):
    catalogue = CountedGround()
    found = composite("median", rows * ROW_BYTES + 1, catalogue)
    assert [height for height, _ in catalogue.windows] == heights
    if rows > 1:
        assert_equal(found, composite("median", 2**30, Ground()))


def test_a_window_that_fits_is_read_at_once():
    catalogue = CountedGround()
    composite("median", 300 * ROW_BYTES, catalogue)
    assert catalogue.windows == [(300, 37)]


def test_no_look_at_all_needs_no_buffer():
    class Nothing(Ground):
        def count(self, period, window):
            return 0

        def looks(self, period, window, bands, *, without=frozenset()):
            return Looks(
                reflectance=np.empty((0, 3, *window.shape), np.int16),
                is_clear=np.empty((0, *window.shape), np.bool_),
                days=np.empty(0, np.int32),
                seen_count=np.zeros(window.shape, np.uint16),
                ids=(),
            )

    for method in METHODS:
        found = composite(method, 1, Nothing())
        assert (found.reflectance == NODATA).all()
        assert found.scenes == ()


def test_which_catalogues_count():
    assert isinstance(CountedGround(), CountingCatalogue)
    assert isinstance(Ground(), SceneCatalogue)
    assert not isinstance(Ground(), CountingCatalogue)


def test_what_cannot_be_is_said():
    with pytest.raises(
        InputError, match=r"2022-06 needs 1110 bytes for one row .* has 1109; raise"
    ):
        composite("median", ROW_BYTES - 1, CountedGround())
    with pytest.raises(InputError, match=r"'mode' is unknown; expected one of median, mean, medo"):
        check_method("mode")
    with pytest.raises(InputError, match="buffer is 0 bytes; expected above 0"):
        SceneComposites(catalogue=Ground(), buffer_bytes=0)
    catalogue = Ground()
    with pytest.raises(InputError, match="'max-ndvi' needs B04"):
        SceneComposites(catalogue=catalogue, method="max-ndvi").composite(JUNE, GRID, ("B02",))
    with pytest.raises(InputError, match=r"outlier screen needs one of B02, B03, B04 .* \['B11'\]"):
        SceneComposites(catalogue=catalogue, screen=OutlierScreen()).composite(JUNE, GRID, ("B11",))
    degrees = GeoBox.from_bbox((10, 50, 10.1, 50.1), "EPSG:4326", resolution=0.01)
    with pytest.raises(InputError, match="'best' measures metres, but the grid is in EPSG:4326"):
        SceneComposites(catalogue=catalogue, method="best").composite(JUNE, degrees, BANDS)
