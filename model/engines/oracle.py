"""A trained model and reflectance in, probabilities in double precision out: what is true."""

import copy

import numpy as np
import torch
from jaxtyping import Float32, Float64

from model.fitted import Fitted
from model.threads import torch_threads

_BATCH = 32
"""Sequences at once: what a wide LSTM holds of a hundred is more than all its weights."""


def true_probability(
    fitted: Fitted, reflectance: Float32[np.ndarray, "sample time band"], bands: tuple[str, ...]
) -> Float64[np.ndarray, "sample class"]:
    """Return the probability of each class, computed in float64 from the float32 features on.

    Physical units in, NaN where not clear. Slow: PyTorch in double precision.
    """
    prepared = torch.from_numpy(fitted.preparation.apply(reflectance, bands)).double()
    total = torch.zeros(len(prepared), fitted.class_count, dtype=torch.float64)
    with torch.inference_mode(), torch_threads(1):
        for network in fitted.networks:
            exact = copy.deepcopy(network).double().eval()
            starts = range(0, len(prepared), _BATCH)
            parts = [torch.softmax(exact(prepared[i : i + _BATCH]), dim=1) for i in starts]
            total += torch.cat(parts)
    return np.asarray((total / len(fitted.networks)).numpy())
