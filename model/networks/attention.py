"""Prepared sequences in, class scores out: attention over time with one learned query (L-TAE).

Sainte Fare Garnot & Landrieu 2020, "Lightweight temporal self-attention for classifying satellite
image time series", arXiv 2007.00586: the channels are shared out among heads, every head has one
learned query instead of one per step, and a small perceptron follows.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.networks.network import Network

HEADS = 16
"""Most heads; fewer where the width has no 16 equal parts."""

KEY = 8
"""Size of a key and of a query."""

LONGEST_PERIOD = 1000.0
"""Of the sines that tell a step's place, in steps."""


class LightTemporalAttention(Network):
    """Each head looks where in the year its query points; their views go to a perceptron.

    A step's place in the sequence is added as sines and cosines, as in the paper (which takes its
    day; days come as channels here, `TrainConfig.calendar_input`).
    """

    places: Tensor

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        steps: int,
        width: int = 128,
        dropout: float = 0.1,
        head_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.heads = math.gcd(HEADS, width)
        self.embed = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))
        self.register_buffer("places", _places(steps, width))
        self.key = nn.Linear(width, self.heads * KEY)
        self.query = nn.Parameter(torch.empty(self.heads, KEY))
        nn.init.normal_(self.query, std=math.sqrt(2 / KEY))
        self.attention_dropout = nn.Dropout(dropout)
        self.perceptron = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(width, classes)

    def read(self, encoded: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return the perceptron's output."""
        embedded = self.embed(encoded) + self.places  # (sample, time, unit)
        samples, times, width = embedded.shape
        keys = self.key(embedded).view(samples, times, self.heads, KEY)
        score = (keys * self.query).sum(dim=-1) / math.sqrt(KEY)  # (sample, time, head)
        share = self.attention_dropout(torch.softmax(score, dim=1))
        values = embedded.view(samples, times, self.heads, width // self.heads)
        seen = (values * share[..., None]).sum(dim=1).flatten(1)  # (sample, unit)
        read: Tensor = self.perceptron(seen)
        return read


def _places(steps: int, width: int) -> Float[Tensor, "time unit"]:
    """Sines and cosines of rising period, in turns (Vaswani 2017)."""
    step = torch.arange(steps, dtype=torch.float32)[:, None]
    unit = torch.arange(width)[None]
    angle = step / LONGEST_PERIOD ** (2 * (unit // 2) / width)
    return torch.where(unit % 2 == 0, angle.sin(), angle.cos())
