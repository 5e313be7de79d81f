"""Prepared sequences in, a vector and scores per sample out: what all networks share."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from model.networks.encoding import PiecewiseEncoding


class Network(nn.Module):
    """An encoding of each step, a body that turns a sequence into one vector, a linear head."""

    dropout: nn.Dropout
    """Drops values of the vector in training."""
    head: nn.Linear
    """Vector to one unnormalised score per class."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding: PiecewiseEncoding | nn.Identity = nn.Identity()

    @abstractmethod
    def read(self, encoded: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return the vector the head reads, before dropout, of encoded sequences."""

    def hidden(self, steps: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample unit"]:
        """Return the vector the head reads, before dropout."""
        return self.read(self.encoding(steps))

    def scores(
        self, encoded: Float[Tensor, "sample time channel"]
    ) -> Float[Tensor, "sample class"]:
        """Return one unnormalised score per class of encoded sequences."""
        scores: Tensor = self.head(self.dropout(self.read(encoded)))
        return scores

    def forward(self, steps: Float[Tensor, "sample time channel"]) -> Float[Tensor, "sample class"]:
        """Return one unnormalised score per class."""
        return self.scores(self.encoding(steps))
