"""Prepared sequences in, class scores out: convolutions of several widths over time.

After Ismail Fawaz et al. 2020, "InceptionTime: finding AlexNet for time series classification",
Data Mining and Knowledge Discovery 34: modules of a bottleneck, three convolutions of different
width and a pooled branch, a shortcut round every three modules, the mean over time to the head.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.networks.network import Network

RESIDUAL_EVERY = 3
"""Modules that a shortcut goes round."""


class InceptionClassifier(Network):
    """Inception modules; the widths of the filters follow the length of the sequence.

    The paper's series have hundreds of steps and filters of 10, 20 and 40; here the widest filter
    sees about the whole sequence, the others a half and a quarter of it, at least 3 steps.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        steps: int,
        width: int = 128,
        layers: int = 3,
        dropout: float = 0.0,
        head_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        filters = max(1, width // 4)  # of each of the four branches
        kernels = tuple(_odd(min(steps / share, 39.0)) for share in (4, 2, 1))
        modules, shortcuts = [], {}
        before, at_shortcut = channels, channels
        for layer in range(layers):
            modules.append(_Module(before, filters, kernels, dropout))
            before = 4 * filters
            if layer % RESIDUAL_EVERY == RESIDUAL_EVERY - 1:
                shortcuts[str(layer)] = nn.Sequential(
                    nn.Conv1d(at_shortcut, before, 1, bias=False), nn.BatchNorm1d(before)
                )
                at_shortcut = before
        self.modules_in_turn = nn.ModuleList(modules)
        self.shortcuts = nn.ModuleDict(shortcuts)
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(before, classes)

    def read(self, encoded: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return the mean over time of the last module."""
        values = kept = encoded.transpose(1, 2)  # (sample, channel, time)
        for layer, module in enumerate(self.modules_in_turn):
            values = module(values)
            if str(layer) in self.shortcuts:
                values = kept = torch.relu(values + self.shortcuts[str(layer)](kept))
        return values.mean(dim=2)


class _Module(nn.Module):
    """A bottleneck to filters of three widths, beside the largest of three steps."""

    def __init__(
        self, channels: int, filters: int, kernels: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        # a bottleneck saves work only where there is more to carry than it passes on
        narrow = channels > filters
        self.bottleneck = nn.Conv1d(channels, filters, 1, bias=False) if narrow else nn.Identity()
        inner = filters if narrow else channels
        self.branches = nn.ModuleList(
            nn.Conv1d(inner, filters, kernel, padding=kernel // 2, bias=False) for kernel in kernels
        )
        self.pooled = nn.Sequential(
            nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(channels, filters, 1, bias=False)
        )
        self.after = nn.Sequential(
            nn.BatchNorm1d(filters * (len(kernels) + 1)), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(
        self, values: Float[Tensor, "sample channel time"]
    ) -> Float[Tensor, "sample filter time"]:
        inner = self.bottleneck(values)
        parts = [branch(inner) for branch in self.branches]
        joined: Tensor = self.after(torch.cat([*parts, self.pooled(values)], dim=1))
        return joined


def _odd(width: float) -> int:
    """Return the odd number at or below `width`, at least 3."""
    return max(3, (int(width) - 1) // 2 * 2 + 1)
