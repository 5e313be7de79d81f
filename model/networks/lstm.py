"""Prepared sequences in, class scores out: the LSTM."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.config import Pooling, TrainConfig
from model.networks.lstm_training import TrainingLSTM, is_supported
from model.networks.network import Network


class LSTMClassifier(Network):
    """An LSTM over the steps of a year, one vector of its states to one linear layer.

    With `pooling` last it is the reference workflow's network: read is the state after the last
    step; of a bidirectional one also the state of the backward LSTM after its last step, which is
    the first period. `mean` and `attention` read the states after all
    steps, `attention-max` also the largest value of each unit.
    """

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
        pooling: Pooling = "last",
        layer_norm: bool = False,
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
        width = hidden * (1 + bidirectional)
        vector = width * (2 if pooling == "attention-max" else 1)
        self.pooling = pooling
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(vector, classes)
        if pooling in ("attention", "attention-max"):
            self.attention = nn.Linear(width, 1, bias=False)
        self._trainer: TrainingLSTM | None = None
        self.norm = nn.LayerNorm(vector) if layer_norm else nn.Identity()

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
            pooling=config.pooling,
            layer_norm=config.layer_norm,
        )

    def read(self, encoded: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return what `pooling` makes of the states."""
        if self.pooling == "last":
            return self._normalised(self._last(encoded))
        states = self._states(encoded)  # (sample, time, unit)
        if self.pooling == "mean":
            pooled = states.mean(dim=1)
        else:
            share = torch.softmax(self.attention(torch.tanh(states)), dim=1)  # (sample, time, 1)
            pooled = (states * share).sum(dim=1)
            if self.pooling == "attention-max":
                pooled = torch.cat([pooled, states.amax(dim=1)], dim=1)
        return self._normalised(pooled)

    def _normalised(self, vector: Float[Tensor, "sample unit"]) -> Float[Tensor, "sample unit"]:
        normalised: Tensor = self.norm(vector)
        return normalised

    def _last(self, encoded: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return the states after the last step, of both directions."""
        if self.training and is_supported(self.lstm, encoded):
            return self._fast().last(encoded)
        _, (ends, _) = self.lstm(encoded)
        return torch.cat(tuple(ends[-1 - self.lstm.bidirectional :]), dim=-1)

    def _states(
        self, encoded: Float[Tensor, "sample time channel"]
    ) -> Float[Tensor, "sample time unit"]:
        """Return the states after all steps."""
        if self.training and is_supported(self.lstm, encoded):
            return self._fast()(encoded)
        states: Tensor = self.lstm(encoded)[0]
        return states

    def _fast(self) -> TrainingLSTM:
        """Return what reads in training, which keeps its memory."""
        if self._trainer is None:
            self._trainer = TrainingLSTM(self.lstm)
        return self._trainer

    def __deepcopy__(self, memo: dict[int, Any]) -> "LSTMClassifier":
        """Copy without the memory that training uses."""
        copied = copy.copy(self)
        copied.__dict__ = {
            name: None if name == "_trainer" else copy.deepcopy(value, memo)
            for name, value in self.__dict__.items()
        }
        return copied
