"""A config and a seed in, a network in training out: all that decides how its training goes on."""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.config import TrainConfig
from model.durable import below
from model.networks import Network, build_network


class Member:
    """One network of an ensemble while it is trained."""

    network: Network
    """The weights that the optimiser moves."""
    optimiser: torch.optim.Optimizer
    """Adam with decoupled weight decay."""
    random_state: Tensor
    """State of torch's generator, for what the next epoch draws."""
    average: dict[str, Tensor]
    """Mean of the weights at the ends of the epochs that count; empty before them."""
    averaged: int
    """How many epochs that are."""
    epochs: int
    """Epochs there will be at most."""
    epoch: int
    """Epochs done."""
    lowest: float
    """Lowest validation loss so far."""
    best: Network | None
    """The network of that loss, or without validation the latest; frozen. None before epoch 1."""
    best_epoch: int
    """The epoch it comes from."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        epochs: int,
        member: int,
        channels: int,
        classes: int,
        steps: int,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(member_seed(config.seed, member))
            self.network = build_network(config, channels=channels, classes=classes, steps=steps)
            self.random_state = torch.get_rng_state()
        # With a weight decay of 0 this is plain Adam; fused is the same sums in one pass.
        weights = list(self.network.parameters())
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": 0.0}]
        if config.weight_decay:  # each group is a call of its own
            groups = [
                {"params": [w for w in weights if w.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
            ]
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            fused=True,
        )
        self.average, self.averaged, self.epochs = {}, 0, epochs
        self.epoch, self.lowest, self.best, self.best_epoch = 0, math.inf, None, 0

    def is_done(self, config: TrainConfig, *, validated: bool) -> bool:
        """Say whether training has ended: all epochs done, or none better for long enough."""
        if self.epoch >= self.epochs:
            return True
        waited = self.epoch - self.best_epoch
        return validated and config.patience is not None and waited >= config.patience

    def candidate(self, config: TrainConfig) -> Network:
        """Take the epoch's weights into the average where it counts; return the network to judge.

        That is a frozen copy, of the average once there is one.
        """
        if self.epoch > self.epochs - round(self.epochs * config.weight_average):
            self.averaged += 1
            for name, value in self.network.state_dict().items():
                if not value.is_floating_point() or name not in self.average:
                    self.average[name] = value.clone()
                else:
                    self.average[name] += (value - self.average[name]) / self.averaged
        copied = copy.deepcopy(self.network).eval().requires_grad_(False)
        copied.zero_grad()
        if self.average:
            copied.load_state_dict(self.average)
        return copied

    def keep(self, candidate: Network, validation_loss: float | None) -> None:
        """Remember `candidate` if it is the best so far, or if nothing tells."""
        if self.best is None or validation_loss is None or validation_loss < self.lowest:
            self.lowest = math.inf if validation_loss is None else validation_loss
            self.best, self.best_epoch = candidate, self.epoch

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is a tensor, by names that `restore` reads."""
        assert self.best is not None  # asked for after an epoch
        parts: dict[str, dict[str, Tensor]] = {
            "network": self.network.state_dict(),
            "best": self.best.state_dict(),
            "average": self.average,
            "random": {"state": self.random_state},
        }
        for index, state in self.optimiser.state_dict()["state"].items():
            parts[f"optimiser.{index}"] = state
        return {f"{part}.{name}": t for part, held in parts.items() for name, t in held.items()}

    def numbers(self) -> dict[str, Any]:
        """Return everything else, as what JSON can hold."""
        return {
            "epoch": self.epoch,
            "lowest": self.lowest if math.isfinite(self.lowest) else None,
            "best_epoch": self.best_epoch,
            "averaged": self.averaged,
        }

    def restore(self, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to what `numbers` and `tensors` described.

        Raises `KeyError`, `TypeError`, `ValueError` or `RuntimeError` if they do not fit.
        """
        self.network.load_state_dict(_part(tensors, "network"))
        self.best = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.best.load_state_dict(_part(tensors, "best"))
        self.average = _part(tensors, "average")
        self.random_state = tensors["random.state"]
        count = len(list(self.network.parameters()))
        states = {index: _part(tensors, f"optimiser.{index}") for index in range(count)}
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict(
            {"state": {i: s for i, s in states.items() if s}, "param_groups": groups}
        )
        self.epoch, self.best_epoch = int(numbers["epoch"]), int(numbers["best_epoch"])
        self.averaged = int(numbers["averaged"])
        self.lowest = math.inf if numbers["lowest"] is None else float(numbers["lowest"])


def member_seed(seed: int, member: int) -> int:
    """Return the seed of a network: `seed` itself for the first, far from it for the others."""
    if member == 0:
        return seed
    state = np.random.SeedSequence(seed, spawn_key=(member,)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in below(tensors, f"{part}.").items()}
