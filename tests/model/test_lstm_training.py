"""The kernels against torch's own LSTM and autograd, in double precision."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.config import TrainConfig
from model.networks import lstm as lstm_module
from model.networks import lstm_kernels, lstm_training
from model.networks.kernel import COLUMNS, ROWS
from model.networks.lstm_training import TrainingLSTM, is_supported
from model.samples import Samples
from model.train import fit

Make = Callable[..., Samples]


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 40),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    samples=st.integers(1, 33),
    times=st.integers(1, 13),
    seed=st.integers(0, 1000),
)
def test_states_and_gradients_are_torch_s(
    channels: int, layers: int, bidirectional: bool, samples: int, times: int, seed: int
) -> None:
    torch.manual_seed(seed)
    ours = nn.LSTM(channels, 32, num_layers=layers, batch_first=True, bidirectional=bidirectional)
    exact = copy.deepcopy(ours).double()
    steps = torch.randn(samples, times, channels)
    assert is_supported(ours, steps)
    states, expected = TrainingLSTM(ours)(steps), exact(steps.double())[0]
    torch.testing.assert_close(states.double(), expected, atol=2e-6, rtol=0)
    slope = torch.randn(states.shape)
    (states * slope).sum().backward()
    (expected * slope.double()).sum().backward()
    for found, wanted in zip(ours.parameters(), exact.parameters(), strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        scale = float(wanted.grad.abs().max())
        torch.testing.assert_close(found.grad.double(), wanted.grad, atol=1e-5 * scale, rtol=0)


def test_extreme_scores_saturate_without_overflow() -> None:
    values = np.linspace(-200, 200, 64 * COLUMNS, dtype=np.float32)
    result = np.empty_like(values)
    with np.errstate(over="ignore"):
        lstm_kernels._logistic(values, result)
        np.testing.assert_allclose(result, 1 / (1 + np.exp(-values.astype(float))), atol=2e-7)
        lstm_kernels._hyperbolic(values, result)
        np.testing.assert_allclose(result, np.tanh(values.astype(float)), atol=4e-7)


def test_gradients_reach_what_is_read() -> None:
    lstm = nn.LSTM(5, 32, batch_first=True)
    steps = torch.randn(3, 4, 5, requires_grad=True)
    TrainingLSTM(lstm)(steps).square().sum().backward()
    found = steps.grad
    steps.grad = None
    lstm(steps)[0].square().sum().backward()
    torch.testing.assert_close(found, steps.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_states_are_torch_s(bidirectional: bool) -> None:
    lstm = nn.LSTM(5, 32, num_layers=2, batch_first=True, bidirectional=bidirectional)
    exact = copy.deepcopy(lstm).double()
    steps = torch.randn(33, 4, 5)
    last = TrainingLSTM(lstm).last(steps)
    ends = exact(steps.double())[1][0][-1 - bidirectional :]
    expected = torch.cat(tuple(ends), dim=1)
    torch.testing.assert_close(last.double(), expected, atol=2e-6, rtol=0)
    slope = torch.randn(last.shape)
    (last * slope).sum().backward()
    (expected * slope.double()).sum().backward()
    for found, wanted in zip(lstm.parameters(), exact.parameters(), strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad.double(), wanted.grad, atol=1e-4, rtol=1e-5)


def test_gradients_of_several_batches_add_up() -> None:
    lstm = nn.LSTM(5, 32, batch_first=True)
    reader, batches = TrainingLSTM(lstm), [torch.randn(3, 4, 5) for _ in range(3)]
    for steps in batches:
        reader(steps).square().sum().backward()
    found = [weight.grad for weight in lstm.parameters()]
    lstm.zero_grad()
    lstm(torch.cat(batches))[0].square().sum().backward()
    for one, weight in zip(found, lstm.parameters(), strict=True):
        torch.testing.assert_close(one, weight.grad, atol=1e-5, rtol=1e-4)


def test_memory_is_reused_for_batches_of_other_sizes() -> None:
    lstm = nn.LSTM(5, 32, batch_first=True)
    reader = TrainingLSTM(lstm)
    for samples in (3 * ROWS, 5, 4 * ROWS, 1):
        steps = torch.randn(samples, 6, 5)
        lstm.zero_grad()
        reader(steps)[:, -1].sum().backward()
        found = [weight.grad.clone() for weight in lstm.parameters() if weight.grad is not None]
        lstm.zero_grad()
        lstm(steps)[0][:, -1].sum().backward()
        for one, weight in zip(found, lstm.parameters(), strict=True):
            torch.testing.assert_close(one, weight.grad, atol=1e-5, rtol=1e-4)


def test_going_back_after_reading_something_else_is_refused() -> None:
    reader = TrainingLSTM(nn.LSTM(5, 32, batch_first=True))
    first = reader(torch.randn(3, 4, 5)).sum()
    reader(torch.randn(3, 4, 5))
    with pytest.raises(RuntimeError, match="read other sequences since; go back before going on"):
        first.backward()


def test_dropout_between_layers_drops_and_scales() -> None:
    lstm = nn.LSTM(5, 32, num_layers=2, dropout=0.5, batch_first=True)
    reader, steps = TrainingLSTM(lstm), torch.randn(64, 4, 5)
    torch.manual_seed(0)
    first = reader(steps)
    torch.manual_seed(0)
    assert torch.equal(reader(steps), first)
    assert not torch.equal(reader(steps), first)


def test_dropped_values_are_as_many_as_asked_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    factors = np.empty((12, 129, 32), np.float32)
    lstm_training.draw_factors(factors, 0.2)
    dropped = torch.from_numpy(factors)
    assert 0.19 < float((dropped == 0).float().mean()) < 0.21
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 1.25))
    # four values come of one draw: they must not go together
    pairs = (dropped.flatten()[0::4] == 0) & (dropped.flatten()[1::4] == 0)
    assert 0.03 < float(pairs.float().mean()) < 0.05


def test_what_the_kernels_cannot_do_is_left_to_torch() -> None:
    steps = torch.randn(2, 4, 5)
    assert not is_supported(nn.LSTM(5, 33, batch_first=True), steps)
    assert not is_supported(nn.LSTM(5, 32), steps)
    assert not is_supported(nn.LSTM(5, 32, batch_first=True).double(), steps.double())
    with torch.no_grad():
        assert not is_supported(nn.LSTM(5, 32, batch_first=True), steps)
    torch.set_num_threads(2)
    assert not is_supported(nn.LSTM(5, 32, batch_first=True), steps)


def test_training_takes_the_same_course(
    make_samples: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig.preset(
        "reference",
        hidden=32,
        dropout=0.0,
        epochs=12,
        learning_rate=1e-2,
        features=["B2", "B8", "NDVI"],
    )
    samples = make_samples(groups=12)
    ours = [report.loss for report in fit(samples, config)]
    monkeypatch.setattr(lstm_module, "is_supported", lambda lstm, steps: False)
    torch_s = [report.loss for report in fit(samples, config)]
    assert ours[-1] < 0.9 * ours[0]
    np.testing.assert_allclose(ours, torch_s, rtol=1e-4)
    assert ours != torch_s  # they were not trained by the same code
