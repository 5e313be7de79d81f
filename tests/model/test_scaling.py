import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.scaling import centre_and_scale


@given(st.integers(-30, 30), st.integers(0, 100))
def test_scale_is_numpys_in_any_unit(power: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(3, 1, 20) * 10.0**power
    centre, scale = centre_and_scale(values)
    np.testing.assert_allclose([centre, scale], [values.mean(), values.std()])


@pytest.mark.parametrize("value", [0.0, 1e-40, 0.3, 290.0, 3.1e8])
def test_rounding_of_a_constant_never_shouts(value: float) -> None:
    noise = np.random.default_rng(0).integers(-1, 2, 100)
    values = (np.float32(value) + noise * np.spacing(np.float32(value))).astype(np.float64)
    centre, scale = centre_and_scale(values)
    assert scale >= 1
    assert np.abs((values - centre) / scale).max() < 1e-5
