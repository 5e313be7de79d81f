"""A config and sizes in, the network it describes out."""

from model.config import TrainConfig
from model.networks.attention import LightTemporalAttention
from model.networks.encoding import PiecewiseEncoding
from model.networks.inception import InceptionClassifier
from model.networks.lstm import LSTMClassifier
from model.networks.network import Network
from model.networks.tempcnn import TempCNN

FEWEST_PIECES, MOST_PIECES = 4, 32
"""Pieces of a feature's range, however many features share them."""


def build_network(config: TrainConfig, *, channels: int, classes: int, steps: int) -> Network:
    """Build the network `config` describes, with random weights, in training mode.

    `channels` values per step, `classes` scores, sequences of `steps` steps (an LSTM reads other
    lengths too).
    """
    if not config.input_pieces:
        return _build(config, channels, classes, steps)
    behind = config.mask_input + 2 * config.calendar_input
    features = channels - behind
    pieces = min(max(config.input_pieces // features, FEWEST_PIECES), MOST_PIECES)
    encoding = PiecewiseEncoding(features=features, pieces=pieces)
    network = _build(config, channels + encoding.added, classes, steps)
    network.encoding = encoding
    return network


def _build(config: TrainConfig, channels: int, classes: int, steps: int) -> Network:
    dropouts = {"dropout": config.dropout, "head_dropout": config.head_dropout}
    if config.architecture == "tempcnn":
        return TempCNN(
            channels=channels,
            classes=classes,
            steps=steps,
            filters=config.hidden,
            layers=config.layers,
            **dropouts,
        )
    if config.architecture == "inception":
        return InceptionClassifier(
            channels=channels,
            classes=classes,
            steps=steps,
            width=config.hidden,
            layers=config.layers,
            **dropouts,
        )
    if config.architecture == "ltae":
        return LightTemporalAttention(
            channels=channels, classes=classes, steps=steps, width=config.hidden, **dropouts
        )
    return LSTMClassifier.from_config(config, channels=channels, classes=classes)
