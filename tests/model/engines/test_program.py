"""Programs of features against `FeatureSet.compute`, which is NumPy."""

import numpy as np
import pytest
from computable import computable_indices
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engines.preparing import count_clear, gather, prepare
from model.engines.program import feature_program
from model.features import DEFAULT_FEATURES, FEATURES, REFERENCE_FEATURES, FeatureSet
from model.formulas import BANDS

OWN = (*FEATURES, "band:VH", "log:B04", "log:VH", "shape:B04", "shape:B08", "shape:VH")
WITH_RADAR = (*BANDS, "VH")


def run_program(features: FeatureSet, reflectance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features (sample, time, feature), 0 where missing, and clear steps."""
    program = feature_program(features)
    chosen = [WITH_RADAR.index(band) for band in program.bands]
    values = np.ascontiguousarray(reflectance[..., chosen].transpose(1, 2, 0))
    times, _, places = values.shape
    registers = np.zeros((program.registers, places))
    constants = registers[len(program.bands) : len(program.bands) + len(program.constants)]
    constants[:] = program.constants[:, None]
    count = len(features)
    inputs = np.empty((times, count + 1, places), np.float32)
    prepare(
        values, program.codes, program.operands, program.limits, program.single, program.outputs,
        np.zeros(count, np.float32), np.ones(count, np.float32), np.float32(np.inf), registers,
        inputs,
    )  # fmt: skip
    return inputs[:, :-1].transpose(2, 0, 1), inputs[:, -1].T


def computed(features: FeatureSet, reflectance: np.ndarray) -> np.ndarray:
    values = features.compute(reflectance, WITH_RADAR)
    clear = features.is_clear(reflectance, WITH_RADAR)
    return np.where(np.isfinite(values) & clear[..., None], values, 0)


def spectra(seed: int, pixels: int = 96) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.normal(0.2, 0.25, (pixels, 3, len(WITH_RADAR)))
    values[:8] = generator.choice([0, 1e-5, -0.1, 1e-6, 3.2], values[:8].shape)
    values[generator.random(values.shape) < 0.03] = np.nan
    return values.astype(np.float32)


@pytest.mark.parametrize("name", OWN[:-3])
def test_own_features_are_those_of_numpy_bit_for_bit(name: str) -> None:
    features = FeatureSet(names=(name,))
    found, _ = run_program(features, spectra(0))
    expected = computed(features, spectra(0))
    if name.startswith("log:"):  # NumPy's own logarithm is off by some units in the last place
        np.testing.assert_allclose(found, expected, rtol=5e-7)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("features", [DEFAULT_FEATURES, REFERENCE_FEATURES])
def test_sets_of_features_are_those_of_numpy(features: FeatureSet) -> None:
    found, clear = run_program(features, spectra(1))
    np.testing.assert_array_equal(found, computed(features, spectra(1)))
    np.testing.assert_array_equal(clear, features.is_clear(spectra(1), WITH_RADAR))


@settings(max_examples=40, deadline=None)
@given(
    listed=st.lists(st.sampled_from(computable_indices()), max_size=5, unique=True),
    own=st.lists(st.sampled_from(OWN[:-5]), min_size=1, max_size=5, unique=True),
    shape=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_mixture_of_features(listed: list[str], own: list[str], shape: bool, seed: int) -> None:
    features = FeatureSet(names=(*own, *listed, *(OWN[-3:] if shape else ())))
    found, clear = run_program(features, spectra(seed, 64))
    np.testing.assert_allclose(found, computed(features, spectra(seed, 64)), rtol=1e-6)
    np.testing.assert_array_equal(clear, features.is_clear(spectra(seed, 64), WITH_RADAR))


def test_scaling_is_that_of_numpy() -> None:
    features = DEFAULT_FEATURES
    program = feature_program(features)
    generator = np.random.default_rng(2)
    mean = generator.normal(0, 1, 16).astype(np.float32)
    deviation = generator.uniform(0.01, 0.2, 16).astype(np.float32)
    reflectance = spectra(3)
    chosen = [WITH_RADAR.index(band) for band in program.bands]
    values = np.ascontiguousarray(reflectance[..., chosen].transpose(1, 2, 0))
    registers = np.zeros((program.registers, values.shape[2]))
    constants = registers[len(program.bands) : len(program.bands) + len(program.constants)]
    constants[:] = program.constants[:, None]
    inputs = np.empty((3, 17, values.shape[2]), np.float32)
    prepare(
        values, program.codes, program.operands, program.limits, program.single, program.outputs,
        mean, deviation, np.float32(10), registers, inputs,
    )  # fmt: skip
    expected = (features.compute(reflectance, WITH_RADAR) - mean) / deviation
    expected = np.clip(expected, -10, 10)
    clear = features.is_clear(reflectance, WITH_RADAR)
    expected[~np.isfinite(expected) | ~clear[..., None]] = 0
    np.testing.assert_array_equal(inputs[:, :-1].transpose(2, 0, 1), expected)


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1300])
def test_clear_steps_are_counted(count: int) -> None:
    generator = np.random.default_rng(count)
    stored = generator.integers(-3, 3, (5, 4, count)).astype(np.int16)
    stored[generator.random(stored.shape) < 0.2] = -32768
    observed = np.empty(count, np.uint16)
    chosen = np.array([3, 1])
    count_clear(stored, chosen, np.int16(-32768), observed)
    expected = (stored[:, chosen] != -32768).all(axis=1).sum(axis=0)
    np.testing.assert_array_equal(observed, expected)
    physical = np.where(stored == -32768, np.nan, stored).astype(np.float32)
    physical[0, 3, 0] = -np.inf
    count_clear(physical, chosen, np.float32(np.nan), observed)
    expected = np.isfinite(physical[:, chosen]).all(axis=1).sum(axis=0)
    np.testing.assert_array_equal(observed, expected)


def test_pixels_are_gathered_in_physical_units() -> None:
    generator = np.random.default_rng(0)
    stored = generator.integers(-32768, 32767, (3, 4, 50)).astype(np.int16)
    stored[0, 2, 7] = -32768
    wanted, chosen = np.array([7, 3, 49]), np.array([2, 0])
    values = np.zeros((3, 2, 8), np.float32)
    gather(stored, chosen, wanted, np.int16(-32768), np.float32(1e-4), values)
    expected = stored[:, chosen][:, :, wanted].astype(np.float32) * np.float32(1e-4)
    expected[0, 0, 0] = np.nan
    np.testing.assert_array_equal(values[..., :3], expected)
    assert np.isnan(values[..., 3:]).all()
