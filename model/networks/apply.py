"""Networks and prepared sequences in, probabilities and vectors out, as arrays."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from model.networks.network import Network

BATCH = 512
"""Sequences in a call of the network at inference; 256 to 1,024 run fastest on a core."""


def class_probability(
    network: Network | Sequence[Network],
    prepared: Float32[np.ndarray, "sample time channel"],
    *,
    batch: int = BATCH,
) -> Float32[np.ndarray, "sample class"]:
    """Return the probability of each class, without dropout; the mean over several networks."""
    networks = [network] if isinstance(network, Network) else list(network)
    parts = [
        _in_batches(
            one,
            lambda steps, one=one: torch.softmax(one(steps), dim=1),  # type: ignore[misc]
            prepared,
            one.head.out_features,
            batch,
        )
        for one in networks
    ]
    if len(parts) == 1:
        return parts[0]
    total: np.ndarray = np.stack(parts).mean(axis=0, dtype=np.float64)
    return total.astype(np.float32)


def hidden_values(
    network: Network,
    prepared: Float32[np.ndarray, "sample time channel"],
    *,
    batch: int = BATCH,
) -> Float32[np.ndarray, "sample unit"]:
    """Return the vector before the head, without dropout."""
    return _in_batches(network, network.hidden, prepared, network.head.in_features, batch)


def _in_batches(
    network: Network,
    call: Callable[[Tensor], Tensor],
    prepared: Float32[np.ndarray, "sample time channel"],
    width: int,
    batch: int,
) -> Float32[np.ndarray, "sample value"]:
    """Call the network with exactly `batch` rows each time, the last ones filled with zeros.

    Matrix kernels differ with the number of rows, so a result would depend on its neighbours
    otherwise.
    """
    if network.training:
        raise ValueError("the network is in training mode; call network.eval() first")
    count = len(prepared)
    values = np.empty((count, width), np.float32)
    rows = np.zeros((batch, *prepared.shape[1:]), np.float32)
    with torch.inference_mode():
        for start in range(0, count, batch):
            part = prepared[start : start + batch]
            rows[: len(part)] = part
            rows[len(part) :] = 0
            values[start : start + batch] = call(torch.from_numpy(rows))[: len(part)].numpy()
    return values
