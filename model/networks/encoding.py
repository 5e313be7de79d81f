"""Scaled features in, several channels for each out: where in its range a value lies."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

NARROWEST = 1e-3
"""Width that a piece has at least, in standard deviations."""


class PiecewiseEncoding(nn.Module):
    """Adds to each feature how far each piece of its range is passed, -1 (before) to 1 (behind).

    The piecewise linear encoding of Gorishniy 2022, "On embeddings for numerical features in
    tabular deep learning": pieces hold equally many of the training values, so that small
    differences count where values are dense. The channels behind the features stay; the first of
    them is the mask, and where it is 0 all pieces are.
    """

    edges: Tensor

    def __init__(self, *, features: int, pieces: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer(
            "edges", torch.linspace(-1, 1, pieces + 1).repeat(features, 1)
        )  # (feature, edge)

    @property
    def added(self) -> int:
        """Number of channels beyond those that come in."""
        return self.features * (self.edges.shape[1] - 1)

    def learn(self, values: Float32[Tensor, "value feature"]) -> None:
        """Set the edges to quantiles of the clear training values."""
        share = torch.linspace(0, 1, self.edges.shape[1], dtype=torch.float64)
        ranked = values.double().sort(dim=0).values  # (value, feature)
        place = share * (len(ranked) - 1)
        below, above = ranked[place.floor().long()], ranked[place.ceil().long()]
        quantiles = below + (above - below) * (place - place.floor())[:, None]
        self.edges.copy_(quantiles.T.to(self.edges.dtype))

    def forward(
        self, steps: Float[Tensor, "sample time channel"]
    ) -> Float[Tensor, "sample time wide"]:
        """Return features, pieces and the channels behind the features."""
        values, behind = steps[..., : self.features], steps[..., self.features :]
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        passed = (values[..., None] - low) / (high - low).clamp_min(NARROWEST)
        pieces = (passed.clamp(0, 1) * 2 - 1).flatten(2) * behind[..., :1]
        return torch.cat([values, pieces, behind], dim=2)
