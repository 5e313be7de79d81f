"""Prepared sequences in, class scores out: the networks, one interface for all of them.

`build_network` makes what a `TrainConfig` describes; `class_probability` and `hidden_values` apply
it to arrays.
"""

from model.networks.apply import BATCH, class_probability, hidden_values
from model.networks.build import build_network
from model.networks.lstm import LSTMClassifier
from model.networks.network import Network

__all__ = [
    "BATCH",
    "LSTMClassifier",
    "Network",
    "build_network",
    "class_probability",
    "hidden_values",
]
