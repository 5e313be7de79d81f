"""Simulated sequences in, how fast each way trains the reference network on them out.

Run with `python -m tests.benchmarks.training [--json]`. Every way trains the reference preset
(hidden 128, two layers, dropout 0.2, batch 32, Adam 1e-3, cross-entropy) on the same 16,464
sequences of 12 x 20 on one thread and is scored on other stands. The plain loop is the reference
workflow's: a Dataset that gives one sample, a DataLoader that shuffles and stacks, `nn.LSTM`. It
is measured with arrays in memory, and, with the first seed, with one DataFrame group a sample as
that workflow has it. Ways take turns epoch by epoch and processor seconds are counted, so that
others who use the machine change little; a ratio is the median over these rounds.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from model.assess import Scores
from model.config import TrainConfig
from model.samples import Samples
from model.train import fit
from tests.benchmarks.rounds import machine, show

SAMPLES = 16_464
STAND = 12
"""Samples of a stand, which share its class and a part of what makes them differ."""
STEPS = 12
CLASSES = 5
FEATURES = 20

Epochs = Iterator[np.ndarray]
"""Trains one epoch, then gives the classes predicted for the test samples."""


def simulated(count: int, seed: int) -> Samples:
    """Return sequences of twenty bands whose classes differ in level and season, with much noise."""
    generator = np.random.default_rng(seed)
    shape = np.random.default_rng(0).normal(0, 1, (2, CLASSES, FEATURES))
    stand = np.arange(count) // STAND
    label = generator.integers(0, CLASSES, stand[-1] + 1)[stand]
    season = np.cos((np.arange(STEPS)[None] + label[:, None]) / STEPS * 2 * np.pi)
    values = (
        0.4 + 0.05 * shape[0][label][:, None] + 0.08 * season[..., None] * shape[1][label][:, None]
    )
    values = values + generator.normal(0, 0.05, (stand[-1] + 1, STEPS, FEATURES))[stand]
    values = values + generator.normal(0, 0.35, values.shape)
    return Samples(
        reflectance=np.clip(values, -1, 2).astype(np.float32),
        bands=tuple(f"layer {index}" for index in range(FEATURES)),
        periods=tuple(f"2022-{month:02d}" for month in range(1, STEPS + 1)),
        label=label.astype(np.int64),
        classes=tuple(f"species {index}" for index in range(CLASSES)),
        group=stand,
        block=stand,
    )


class InMemory(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One sample of an array at a time."""

    def __init__(self, samples: Samples) -> None:
        self.values, self.label = samples.reflectance, samples.label

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.tensor(self.values[index], dtype=torch.float32),
            torch.tensor(self.label[index], dtype=torch.long),
        )


class InGroups(InMemory):
    """One sample of a table at a time: its rows, sorted by date, as a tensor."""

    def __init__(self, samples: Samples) -> None:
        super().__init__(samples)
        rows = samples.reflectance.reshape(-1, FEATURES)
        table = pd.DataFrame(rows, columns=list(samples.bands))
        table["pixel"] = np.repeat(np.arange(len(samples)), STEPS)
        table["image_date"] = np.tile(pd.to_datetime(list(samples.periods)), len(samples))
        self.groups = [group for _, group in table.groupby("pixel")]
        self.features = list(samples.bands)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        group = self.groups[index].sort_values("image_date")
        return (
            torch.tensor(group[self.features].to_numpy(), dtype=torch.float32),
            torch.tensor(self.label[index], dtype=torch.long),
        )


class PlainNetwork(nn.Module):
    """The reference workflow's."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 128, num_layers=2, batch_first=True, dropout=0.2)
        self.linear = nn.Linear(128, CLASSES)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(steps)
        scores: torch.Tensor = self.linear(states[:, -1])
        return scores


def plain(dataset: InMemory, test: Samples, seed: int) -> Epochs:
    """Train as the reference workflow does."""
    torch.manual_seed(seed)
    network = PlainNetwork()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    while True:
        network.train()
        total = 0.0
        for steps, label in loader:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(steps), label)
            loss.backward()
            optimiser.step()
            total += loss.item()
        yield np.empty(0)
        network.eval()
        with torch.inference_mode():
            predicted = network(torch.from_numpy(test.reflectance)).argmax(dim=1).numpy()
        yield predicted


def ours(samples: Samples, test: Samples, seed: int) -> Epochs:
    """Train with `model.train.fit`."""
    names = [f"band:{band}" for band in samples.bands]
    config = TrainConfig.preset("reference", features=names, seed=seed)
    for report in fit(samples, config):
        yield np.empty(0)
        yield report.best.probability(test.reflectance, test.bands).argmax(axis=1)


def measure(count: int, epochs: int, seed: int, *, in_groups: bool) -> list[dict[str, Any]]:
    """Return one row a way: seconds an epoch (the first, with what is only done once, left out).

    `in_groups` takes the way with DataFrame groups in.
    """
    train, test = simulated(count, 1 + seed), simulated(4_000, 1_000 + seed)
    ways = {
        "ours": ours(train, test, seed),
        "plain loop": plain(InMemory(train), test, seed),
    }
    if in_groups:
        ways["plain loop, DataFrame groups"] = plain(InGroups(train), test, seed)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    predicted: dict[str, np.ndarray] = {}
    for number in range(epochs):
        start = number % len(ways)
        for name in list(ways)[start:] + list(ways)[:start]:
            began = time.process_time()
            next(ways[name])
            seconds[name].append(time.process_time() - began)
            predicted[name] = next(ways[name])
    rounds = {name: values[1:] for name, values in seconds.items()}
    rows = []
    for name, classes in predicted.items():
        scores = Scores.from_labels(test.label, classes.astype(np.int64), test.classes)
        rows.append(
            {
                "seed": seed,
                "way": name,
                "epochs": epochs,
                "processor s/epoch": statistics.median(rounds[name]),
                "times slower than ours": statistics.median(
                    one / own for one, own in zip(rounds[name], rounds["ours"], strict=True)
                ),
                "accuracy": float((classes == test.label).mean()),
                "macro-F1": scores.macro_f1,
            }
        )
    return rows


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.training", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="sequences to train on")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each way, 2 or more")
    parser.add_argument("--seeds", type=int, default=3, help="runs, each with another seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    title = (
        f"{options.samples:,} sequences of {STEPS} x {FEATURES}, reference preset, one thread, "
        f"medians of {options.epochs - 1} epochs, scores after {options.epochs}"
    )
    rows = [
        row
        for seed in range(options.seeds)
        for row in measure(options.samples, options.epochs, seed, in_groups=seed == 0)
    ]
    show({title: rows}, where=machine(["torch", "numpy", "numba"]), as_json=options.json)


if __name__ == "__main__":
    main()
