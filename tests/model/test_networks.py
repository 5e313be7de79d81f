import numpy as np
import pytest
import torch
from torch import nn

from model.config import TrainConfig
from model.networks import LSTMClassifier, Network, build_network, class_probability, hidden_values

ARCHITECTURES = ("lstm", "tempcnn", "ltae", "inception")


def built(
    architecture: str, channels: int = 5, classes: int = 3, steps: int = 12, **settings: object
) -> Network:
    torch.manual_seed(0)
    plain = {"input_pieces": 0, "bidirectional": False, "pooling": "last"}
    config = TrainConfig.preset("default", architecture=architecture, **(plain | settings))
    return build_network(config, channels=channels, classes=classes, steps=steps)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("steps", "channels", "classes"), [(4, 1, 2), (12, 23, 5), (60, 60, 60)])
def test_every_network_reads_short_and_long_series(
    architecture: str, steps: int, channels: int, classes: int
) -> None:
    network = built(architecture, channels, classes, steps)
    sequences = torch.randn(3, steps, channels)
    scores = network(sequences)
    assert scores.shape == (3, classes)
    scores.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    vector = network.eval().hidden(sequences)
    assert vector.shape == (3, network.head.in_features)
    torch.testing.assert_close(network.head(vector), network(sequences))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_of_one_can_be_trained_on(architecture: str) -> None:
    assert built(architecture)(torch.randn(1, 12, 5)).isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sample_is_read_alike_whatever_its_neighbours(architecture: str) -> None:
    network = built(architecture).eval()
    prepared = np.random.default_rng(0).normal(size=(600, 12, 5)).astype(np.float32)
    together = class_probability(network, prepared)
    np.testing.assert_array_equal(class_probability(network, prepared[550:]), together[550:])
    assert hidden_values(network, prepared).shape == (600, network.head.in_features)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)


def test_plain_lstm_is_the_reference_workflow_s() -> None:
    """The oracle is written out: nn.LSTM, its last output, a linear layer, one seed."""
    config = TrainConfig.preset("reference")
    torch.manual_seed(4)
    ours = build_network(config, channels=5, classes=3, steps=12)
    torch.manual_seed(4)
    lstm = nn.LSTM(5, 128, num_layers=2, dropout=0.2, batch_first=True)
    head = nn.Linear(128, 3)
    sequences = torch.randn(8, 12, 5)
    assert torch.equal(ours.eval()(sequences), head(lstm.eval()(sequences)[0][:, -1]))


def test_pooling_reads_all_states() -> None:
    sequences = torch.randn(4, 12, 5)
    mean = built("lstm", pooling="mean").eval()
    assert isinstance(mean, LSTMClassifier)
    torch.testing.assert_close(mean.hidden(sequences), mean.lstm(sequences)[0].mean(dim=1))
    attention = built("lstm", pooling="attention", bidirectional=True, layer_norm=True).eval()
    vector = attention.hidden(sequences)
    assert vector.shape == (4, 2 * 64)
    torch.testing.assert_close(vector.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)


def test_the_largest_state_stands_beside_the_weighted_mean() -> None:
    network = built("lstm", pooling="attention-max").eval()
    assert isinstance(network, LSTMClassifier)
    nn.init.zeros_(network.attention.weight)
    sequences = torch.randn(4, 12, 5)
    states = network.lstm(sequences)[0]
    expected = torch.cat([states.mean(dim=1), states.max(dim=1).values], dim=1)
    torch.testing.assert_close(network.hidden(sequences), expected)


def test_attention_with_equal_scores_is_the_mean() -> None:
    network = built("lstm", pooling="attention").eval()
    assert isinstance(network, LSTMClassifier)
    nn.init.zeros_(network.attention.weight)
    sequences = torch.randn(4, 12, 5)
    torch.testing.assert_close(network.hidden(sequences), network.lstm(sequences)[0].mean(dim=1))


def test_several_networks_give_the_mean_of_their_probabilities() -> None:
    first, second = built("tempcnn").eval(), built("lstm").eval()
    prepared = np.random.default_rng(0).normal(size=(9, 12, 5)).astype(np.float32)
    expected = (class_probability(first, prepared) + class_probability(second, prepared)) / 2
    np.testing.assert_allclose(class_probability((first, second), prepared), expected, rtol=1e-6)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call network.eval\(\) first"):
        class_probability(built("ltae"), np.zeros((1, 12, 5), np.float32))
