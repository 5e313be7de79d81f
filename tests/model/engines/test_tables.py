"""Tables of an encoding against the encoding itself in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engines.bfloat import pairs_of
from model.engines.preparing import locate
from model.engines.tables import paired_table, points_of, tabulate
from model.networks.encoding import NARROWEST, PiecewiseEncoding

LIMIT = 10.0


def as_float(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def both(
    edges: np.ndarray, values: np.ndarray, mask: np.ndarray, *, paired: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return what tables and what the encoding give one gate per weight vector."""
    features, pieces = len(edges), edges.shape[1] - 1
    weights = np.random.default_rng(0).normal(0, 0.3, (features + features * pieces + 1, 7))
    encoding = PiecewiseEncoding(features=features, pieces=pieces).double()
    encoding.edges.copy_(torch.from_numpy(edges))
    steps = np.concatenate([values * mask[:, None], mask[:, None]], axis=1)
    expected = encoding(torch.from_numpy(steps).double()[:, None])[:, 0].numpy() @ weights

    points = points_of(edges, LIMIT)
    table = tabulate(points, edges, weights)
    count = len(values)
    inputs = np.ascontiguousarray(steps.T.astype(np.float32))[None]
    places = np.empty((1, features, count), np.int32)
    low, high = (np.empty((1, features, count), np.float32) for _ in range(2))
    locate(
        inputs,
        points.values,
        points.counts,
        points.firsts,
        points.inverse,
        1,
        False,
        places,
        low,
        high,
    )
    found = np.zeros((count, 7))
    if paired:
        locate(
            inputs, points.values, points.counts, points.firsts, points.inverse, 1, True,
            places, low, high,
        )  # fmt: skip
        near, further = (pairs_of(one.astype(np.float32)) for one in paired_table(points, table))
        for feature in range(features):
            entry, words = places[0, feature], low[0, feature].view(np.uint32)
            found += as_float(words & 0xFFFF)[:, None] * as_float(near[entry]).astype(float)
            found += as_float(words >> 16)[:, None] * as_float(further[entry]).astype(float)
        return found, expected
    for feature in range(features):
        entry = places[0, feature]
        found += low[0, feature][:, None].astype(float) * table[entry]
        found += high[0, feature][:, None].astype(float) * table[entry + 1]
    return found, expected


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    features=st.integers(1, 5),
    pieces=st.integers(1, 12),
    spread=st.sampled_from([1.0, 4.0, 0.01]),
)
def test_tables_give_what_the_encoding_gives(
    seed: int, features: int, pieces: int, spread: float
) -> None:
    generator = np.random.default_rng(seed)
    edges = np.sort(generator.normal(0, spread, (features, pieces + 1)), axis=1)
    edges = edges.astype(np.float32).astype(float)
    values = generator.normal(0, 2 * spread, (50, features)).clip(-LIMIT, LIMIT)
    values[:5] = generator.choice([-LIMIT, 0, LIMIT], (5, features))
    values[5:15] = edges[:, generator.integers(0, pieces + 1, 10)].T.clip(-LIMIT, LIMIT)
    mask = (generator.random(50) < 0.8).astype(float)
    found, expected = both(edges, values.astype(np.float32).astype(float), mask)
    # a piece of 0.001 is 2,000 times as steep as its weight
    steepest = 1 / max(NARROWEST, np.diff(edges, axis=1).min())
    np.testing.assert_allclose(found, expected, atol=5e-6 + 1e-6 * spread * steepest)


def test_paired_tables_are_right_to_bfloat16() -> None:
    generator = np.random.default_rng(3)
    edges = np.sort(generator.normal(0, 1, (4, 9)), axis=1).astype(np.float32).astype(float)
    values = generator.normal(0, 1, (500, 4)).astype(np.float32).astype(float)
    mask = (generator.random(500) < 0.8).astype(float)
    found, expected = both(edges, values, mask, paired=True)
    error = np.abs(found - expected)
    assert error.max() < 0.04  # of sums of four features' pieces, each of up to 1 or 2
    assert error.mean() < 0.003
    assert not found[mask == 0].any()


@pytest.mark.parametrize(
    "edges",
    [
        [0.0, 0.0, 0.0, 0.0],  # a constant feature: pieces lie on each other
        [-1.0, 0.5, 0.5, 1.0],
        [0.1, 0.1004, 0.1008, 0.3],  # narrower than the narrowest: each reaches into the next
        [-30.0, -20.0, 20.0, 30.0],  # beyond the limit
        [3.0, 2.0, 1.0, 0.0],  # falling, as no training makes them
    ],
)
def test_odd_edges(edges: list[float]) -> None:
    values = np.concatenate([np.linspace(-LIMIT, LIMIT, 400), np.linspace(0, 0.6, 400)])
    values = values.astype(np.float32).astype(float)[:, None]
    exact = np.array([edges]).astype(np.float32).astype(float)
    found, expected = both(exact, values, np.ones(800))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_no_place_lies_outside_the_table() -> None:
    edges = np.array([[-1.0, 0.0, 1.0]])
    points = points_of(edges, LIMIT)
    assert points.values[0].tolist() == [-10, -1, 0, 1, 10]
    inputs = np.array([[[-10, 10, 10, -10, 0], [1, 1, 0, 0, 1]]], np.float32)
    places = np.empty((1, 1, 5), np.int32)
    low, high = (np.empty((1, 1, 5), np.float32) for _ in range(2))
    locate(
        inputs,
        points.values,
        points.counts,
        points.firsts,
        points.inverse,
        64,
        False,
        places,
        low,
        high,
    )
    assert places.ravel().tolist() == [0, 192, 192, 0, 128]
    assert low.ravel().tolist() == [1, 0, 0, 0, 1]
    assert high.ravel().tolist() == [0, 1, 0, 0, 0]
