"""Prepared sequences in, class scores out: convolutions over time (TempCNN).

Pelletier, Webb & Petitjean 2019, "Temporal convolutional neural network for the classification of
satellite image time series", Remote Sensing 11(5) 523: three convolutions of 64 filters and width
5 with batch normalisation and dropout, one dense layer of 256, dropout.
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from model.networks.network import Network

KERNEL = 5
"""Steps a filter sees."""

DENSE = 256
"""Units of the layer before the head."""


class TempCNN(Network):
    """Convolutions over the steps, all their outputs to a dense layer.

    Unlike the paper's the dense layer is normalised per sample, not over the batch, so that a
    batch may be a single sample.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        steps: int,
        filters: int = 64,
        layers: int = 3,
        dropout: float = 0.5,
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [channels, *[filters] * layers]
        self.convolutions = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv1d(before, after, KERNEL, padding=KERNEL // 2),
                    nn.BatchNorm1d(after),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                )
                for before, after in pairwise(widths)
            )
        )
        self.dense = nn.Sequential(
            nn.Linear(filters * steps, DENSE), nn.LayerNorm(DENSE), nn.ReLU()
        )
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(DENSE, classes)

    def read(self, encoded: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return the dense layer's output."""
        filtered: Tensor = self.convolutions(encoded.transpose(1, 2))  # (sample, filter, time)
        dense: Tensor = self.dense(filtered.flatten(1))
        return dense
