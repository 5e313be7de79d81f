"""The measured range of fields whose correlation is known, and what cannot be measured."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.autocorrelation import (
    NEARLY_NOTHING,
    block_size_for,
    correlogram,
    falls_to,
    measure_autocorrelation,
)
from cube.bands import NODATA
from cube.errors import InputError
from cube.periods import Period, periods_between
from cube.spec import CubeSpec
from cube.store import create_cube

SIZE = 400
MONTHS = periods_between(Period.of_month(2022, 5), Period.of_month(2022, 7))


def field(seed: int, length: float) -> np.ndarray:
    """A Gaussian field (y, x) with correlation exp(-distance / length), distance in pixels.

    White noise is multiplied with the root of the spectrum of that correlation on a torus.
    """
    random = np.random.default_rng(seed)
    along = np.minimum(np.arange(SIZE), SIZE - np.arange(SIZE))
    wanted = np.exp(-np.hypot(along[:, None], along) / length)
    root = np.sqrt(np.maximum(np.fft.fft2(wanted).real, 0))
    noise = np.fft.fft2(random.normal(size=(SIZE, SIZE)))
    return np.fft.ifft2(root * noise).real


def make_cube(path: Path, layers: np.ndarray) -> Path:
    """A cube of (time, y, x) values in two bands; NaN is nodata."""
    spec = CubeSpec(
        geobox=GeoBox((SIZE, SIZE), Affine(10, 0, 500_000, 0, -10, 5_200_000), "EPSG:32633"),
        periods=MONTHS,
        bands=("B04", "B8A"),
        tile=64,
        chunk=64,
        sharded=False,
    )
    create_cube(path, spec)
    group = zarr.open_group(path, mode="r+")
    stored = np.where(np.isnan(layers), NODATA, np.nan_to_num(2000 + 300 * layers)).astype(np.int16)
    for name, values in (
        ("reflectance", np.stack([stored, stored], axis=1)),
        ("clear_count", (stored != NODATA).astype(np.uint16)),
    ):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array[...] = values
    return path


@pytest.mark.parametrize("length", [5, 12])
def test_a_field_of_known_range_gives_it_back(tmp_path: Path, length: int) -> None:
    layers = np.stack([field(seed, length) for seed in range(3)])
    found = measure_autocorrelation(make_cube(tmp_path / "c.zarr", layers), seed=1)
    expected = -np.log(NEARLY_NOTHING) * length * 10  # metres where exp(-d / length) is 0.1
    assert found.range == pytest.approx(expected, rel=0.25)
    assert found.layers == tuple(f"{b} {m}" for m in MONTHS for b in ("B04", "B8A"))
    near = found.lag < expected
    np.testing.assert_allclose(
        found.correlation[near], np.exp(-found.lag[near] / (10 * length)), atol=0.15
    )
    assert found.block_size is not None
    assert found.range <= found.block_size <= found.range + 100
    assert found.notes == ()
    again = measure_autocorrelation(tmp_path / "c.zarr", seed=1)
    np.testing.assert_array_equal(found.correlation, again.correlation)
    other = measure_autocorrelation(tmp_path / "c.zarr", seed=2)
    assert other.range != found.range
    assert other.range == pytest.approx(expected, rel=0.25)


def test_noise_has_the_smallest_range_and_gaps_change_little(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(3, SIZE, SIZE))
    found = measure_autocorrelation(make_cube(tmp_path / "n.zarr", noise))
    assert found.range == found.lag[0] < 30
    assert found.block_size == 50
    layers = np.stack([field(seed, 8) for seed in range(3)])
    layers[random.random(layers.shape) < 0.3] = np.nan
    layers[0] = np.nan
    gappy = measure_autocorrelation(make_cube(tmp_path / "g.zarr", layers))
    assert gappy.range == pytest.approx(8 * 10 * np.log(10), rel=0.25)
    assert {layer.split()[1] for layer in gappy.layers} == {"2022-06", "2022-07"}


def test_a_cube_without_pixels_or_without_differences_says_so(tmp_path: Path) -> None:
    for name, value in (("empty", np.nan), ("equal", 0.0)):
        layers = np.full((3, SIZE, SIZE), value)
        found = measure_autocorrelation(make_cube(tmp_path / f"{name}.zarr", layers))
        assert (found.range, found.block_size, found.layers) == (None, None, ())
        assert found.lag.size == found.correlation.size == found.pairs.size == 0
        assert found.notes[0].startswith("fewer than 50 clear pixels that differ were found")
    with pytest.raises(InputError, match="there is no cube"):
        measure_autocorrelation(tmp_path / "none.zarr")


def test_a_slope_over_the_whole_cube_has_no_range(tmp_path: Path) -> None:
    slope = np.broadcast_to(np.linspace(-2, 2, SIZE), (3, SIZE, SIZE))
    found = measure_autocorrelation(make_cube(tmp_path / "s.zarr", slope))
    assert found.block_size is not None
    assert found.block_size <= SIZE * 10 / 2
    if found.range is None:
        assert "over more than half the cube" in found.notes[0]
    else:
        assert found.range > 1000


def test_whole_chunks_are_read_and_not_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_cube(tmp_path / "c.zarr", np.stack([field(seed, 5) for seed in range(3)]))
    reads: list[tuple[str, int, int, int]] = []
    plain = zarr.Array.__getitem__

    def counting(array: zarr.Array, selection: tuple) -> object:
        period, *_, rows, columns = selection
        assert rows.start % 64 == columns.start % 64 == 0
        assert (rows.stop % 64 == 0 or rows.stop == SIZE) and rows.stop - rows.start <= 64  # noqa: PT018
        reads.append((str(array.basename), period, rows.start, columns.start))
        return plain(array, selection)

    monkeypatch.setattr(zarr.Array, "__getitem__", counting)
    monkeypatch.setattr("cube.autocorrelation._SQUARES", 3)
    measure_autocorrelation(path)
    assert len(reads) == len(set(reads)) <= 2 * 3 * 12


def test_the_correlogram_is_that_of_all_pairs() -> None:
    random = np.random.default_rng(3)
    place, value = random.uniform(0, 100, (40, 2)), random.normal(size=(40, 2))
    edges = np.array([0.0, 10.0, 30.0, 60.0])
    likeness, lag, count = correlogram(place, value, edges)
    for index in range(3):
        gaps, lengths = [], []
        for one in range(40):
            for other in range(one):
                away = float(np.sqrt(((place[one] - place[other]) ** 2).sum()))
                if edges[index] <= away < edges[index + 1]:
                    gaps.append((value[one] - value[other]) ** 2)
                    lengths.append(away)
        assert count[index] == len(gaps)
        assert lag[index] == pytest.approx(np.mean(lengths))
        expected = 1 - 0.5 * np.mean(gaps, axis=0) / np.var(value, axis=0)
        np.testing.assert_allclose(likeness[index], expected)


def test_where_a_curve_falls_and_how_blocks_are_rounded() -> None:
    lag = np.array([10.0, 20.0, 40.0])
    assert falls_to(lag, np.array([0.8, 0.2, 0.0]), 0.1) == pytest.approx(30)
    assert falls_to(lag, np.array([0.05, 0.2, 0.0]), 0.1) == 10
    assert falls_to(lag, np.array([0.8, 0.7, 0.6]), 0.1) is None
    wide = (100_000.0, 80_000.0)
    for reach, size in ((3.0, 50), (50.0, 50), (51.0, 100), (510.0, 600), (2100.0, 2500)):
        assert block_size_for(reach, wide) == (size, ())
    size, notes = block_size_for(1500.0, (2400.0, 5000.0))
    assert size == 1200
    assert notes == (
        "pixels resemble each other over 1500 m; blocks of 1500 m do not fit twice along the "
        "cube's shorter side (2400 m), so 1200 m are suggested",
    )
    size, notes = block_size_for(None, (5000.0, 4000.0))
    assert size == 2000
    assert "2000 m leave two blocks along its shorter side" in notes[0]
