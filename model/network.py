"""Prepared sequences in, class scores out: the LSTM."""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from model.config import TrainConfig

BATCH = 512
"""Sequences in a call of the network at inference; 256 to 1,024 run fastest on a core."""


class LSTMClassifier(nn.Module):
    """An LSTM over the steps of a year, its last output to one linear layer."""

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        hidden: int = 128,
        layers: int = 2,
        bidirectional: bool = False,
        dropout: float = 0.2,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            channels,
            hidden,
            num_layers=layers,
            # torch warns when there is no second layer to drop values before
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=bidirectional,
            batch_first=True,
        )
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(hidden * (1 + bidirectional), classes)

    @classmethod
    def from_config(cls, config: TrainConfig, *, channels: int, classes: int) -> "LSTMClassifier":
        """Build the network `config` describes."""
        return cls(
            channels=channels,
            classes=classes,
            hidden=config.hidden,
            layers=config.layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
            head_dropout=config.head_dropout,
        )

    def forward(self, steps: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample class"]:
        """Return one unnormalised score per class.

        Read is the state after the last step; of a bidirectional network also the state of the
        backward LSTM after its last step, which is the first period.
        """
        _, (state, _) = self.lstm(steps)  # (layer x direction, sample, hidden)
        directions = 1 + self.lstm.bidirectional
        last = torch.cat(tuple(state[-directions:]), dim=-1)  # (sample, direction x hidden)
        scores: Tensor = self.head(self.dropout(last))
        return scores


def class_probability(
    network: LSTMClassifier,
    prepared: Float32[np.ndarray, "sample time channel"],
    *,
    batch: int = BATCH,
) -> Float32[np.ndarray, "sample class"]:
    """Return the probability of each class, without dropout.

    Every call of the network has exactly `batch` rows, the last one filled with zeros: matrix
    kernels differ with the number of rows, so a result would depend on its neighbours otherwise.
    """
    if network.training:
        raise ValueError("the network is in training mode; call network.eval() first")
    count = len(prepared)
    probability = np.empty((count, network.head.out_features), np.float32)
    rows = np.zeros((batch, *prepared.shape[1:]), np.float32)
    with torch.inference_mode():
        for start in range(0, count, batch):
            part = prepared[start : start + batch]
            rows[: len(part)] = part
            rows[len(part) :] = 0
            scores = network(torch.from_numpy(rows))
            probability[start : start + batch] = torch.softmax(scores, dim=1)[: len(part)].numpy()
    return probability
