import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.networks.encoding import NARROWEST, PiecewiseEncoding


@given(st.integers(1, 4), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_channels_are_those_of_a_loop(
    features: int, pieces: int, constant: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    encoding = PiecewiseEncoding(features=features, pieces=pieces)
    values = torch.randn(50, features)
    if constant:
        values[:, 0] = 1.5  # all edges are one
    encoding.learn(values)
    edges = np.quantile(values.double().numpy(), np.linspace(0, 1, pieces + 1), axis=0)
    mask = torch.randint(0, 2, (2, 3, 1)).float()
    steps = torch.cat([torch.randn(2, 3, features) * mask, mask, torch.rand(2, 3, 2)], dim=2)
    encoded = encoding(steps)
    assert encoded.shape[2] == steps.shape[2] + encoding.added
    assert torch.equal(encoded[..., :features], steps[..., :features])
    assert torch.equal(encoded[..., -3:], steps[..., features:])
    for sample in range(2):
        for time in range(3):
            for feature in range(features):
                for piece in range(pieces):
                    low, high = edges[piece, feature], edges[piece + 1, feature]
                    share = (float(steps[sample, time, feature]) - low) / max(high - low, NARROWEST)
                    expected = (2 * min(max(share, 0), 1) - 1) * float(mask[sample, time])
                    found = encoded[sample, time, features + feature * pieces + piece]
                    assert abs(float(found) - expected) < 2e-3
