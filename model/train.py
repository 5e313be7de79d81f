"""Samples in, one report per epoch out: the training loop, which the caller drives."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from model.assess import Scores
from model.config import TrainConfig
from model.errors import SampleError
from model.network import BATCH, LSTMClassifier, class_probability
from model.preparation import Preparation
from model.samples import Samples
from model.threads import torch_threads


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A trained network with what it needs to read reflectance."""

    network: LSTMClassifier
    """In evaluation mode; nothing in it is trained further."""
    preparation: Preparation
    """How reflectance becomes its input."""
    config: TrainConfig
    """How it was trained."""
    epoch: int
    """The epoch these weights come from, 1 for the first."""

    def probability(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        batch: int = BATCH,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return the probability of each class (a sample without a clear period gets one too)."""
        # In pieces, so that memory does not grow with the number of samples.
        pieces = [
            class_probability(
                self.network,
                self.preparation.apply(reflectance[start : start + batch], bands),
                batch=batch,
            )
            for start in range(0, len(reflectance), batch)
        ]
        if not pieces:
            return np.empty((0, self.network.head.out_features), np.float32)
        return np.concatenate(pieces)


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochReport:
    """What one epoch did."""

    epoch: int
    """1 for the first."""
    epochs: int
    """How many there are at most."""
    loss: float
    """Mean weighted cross-entropy over the training samples, with dropout."""
    validation_loss: float | None
    """Weighted cross-entropy over the validation samples; None without them."""
    validation_macro_f1: float | None
    """Macro-F1 over the validation samples; None without them."""
    seconds: float
    """Wall time of the epoch."""
    best: Fitted
    """The network of the lowest validation loss so far, or without validation the latest."""


def fit(
    samples: Samples, config: TrainConfig, *, validation: Samples | None = None
) -> Iterator[EpochReport]:
    """Train a network, yielding after every epoch; stop iterating to stop training.

    `report.best` of the last report is the result. `validation` must share no group with
    `samples`; it decides which epoch is kept and, with `config.patience`, when to stop. The
    caller's random state is left alone. Raises `SampleError` for no samples, samples without a
    clear period, or validation of another shape; `FeatureError` for a missing band.
    """
    _refuse_unusable(samples, config)
    preparation = Preparation.learn(samples, config)
    inputs = torch.from_numpy(preparation.apply(samples.reflectance, samples.bands))
    labels = torch.from_numpy(samples.label)
    weights = torch.from_numpy(_class_weights(samples, config))
    held_out = None
    if validation is not None and len(validation):
        if validation.classes != samples.classes or len(validation.periods) != len(samples.periods):
            raise SampleError(
                "validation samples have other classes or periods than the training's"
            )
        held_out = (preparation.apply(validation.reflectance, validation.bands), validation.label)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = LSTMClassifier.from_config(
            config, channels=preparation.channels, classes=len(samples.classes)
        )
        random_state = torch.get_rng_state()
    # With a weight decay of 0 this is plain Adam.
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    lowest, best = math.inf, None
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        # Between epochs the caller may use torch: its random state and threads are its own.
        with torch_threads(config.threads), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(random_state)
            loss = _train_epoch(network, optimiser, config, (inputs, labels, weights), epoch)
            random_state = torch.get_rng_state()
            validation_loss, macro_f1 = None, None
            if held_out is not None:
                validation_loss, macro_f1 = _validate(network, held_out, weights, samples.classes)
        if best is None or validation_loss is None or validation_loss < lowest:
            lowest = math.inf if validation_loss is None else validation_loss
            best = Fitted(
                network=_frozen_copy(network), preparation=preparation, config=config, epoch=epoch
            )
        yield EpochReport(
            epoch=epoch,
            epochs=config.epochs,
            loss=loss,
            validation_loss=validation_loss,
            validation_macro_f1=macro_f1,
            seconds=time.perf_counter() - started,
            best=best,
        )
        waited_enough = config.patience is not None and epoch - best.epoch >= config.patience
        if held_out is not None and waited_enough:
            return


def _refuse_unusable(samples: Samples, config: TrainConfig) -> None:
    if not len(samples):
        raise SampleError("there is no sample to train on")
    if len(np.unique(samples.label)) < 2:
        raise SampleError(f"all samples are of class {samples.classes[samples.label[0]]!r}; "
                          "training needs two classes or more")  # fmt: skip
    empty = len(samples) - len(samples.with_clear_periods(config.features))
    if empty:
        raise SampleError(
            f"{empty} of {len(samples)} samples have no clear period; leave them out "
            "(Samples.with_clear_periods)"
        )


def _class_weights(samples: Samples, config: TrainConfig) -> Float32[np.ndarray, "class"]:
    """Weights with mean 1 over the samples; a class without samples has 1 and no effect."""
    counts = np.bincount(samples.label, minlength=len(samples.classes)).astype(float)
    power = {"none": 0.0, "root": 0.5, "balanced": 1.0}[config.class_weights]
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    weights *= counts.sum() / (weights * counts).sum()
    return np.where(counts > 0, weights, 1).astype(np.float32)


def _learning_rate(config: TrainConfig, progress: float) -> float:
    """Step size when a share `progress` of all steps is done."""
    if config.schedule == "constant":
        return config.learning_rate
    rise = 0.2
    if progress < rise:
        return config.learning_rate * (0.05 + 0.95 * progress / rise)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def _train_epoch(
    network: LSTMClassifier,
    optimiser: torch.optim.Optimizer,
    config: TrainConfig,
    data: tuple[Tensor, Tensor, Tensor],
    epoch: int,
) -> float:
    inputs, labels, weights = data
    network.train()
    total = 0.0
    batches = torch.split(torch.randperm(len(inputs)), config.batch_size)
    for number, chosen in enumerate(batches):
        progress = (epoch - 1 + number / len(batches)) / config.epochs
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(config, progress)
        steps = inputs[chosen]  # (sample, time, channel)
        if config.month_dropout > 0:
            shown = torch.rand(steps.shape[:2]) >= config.month_dropout
            steps = steps * shown[..., None]  # a hidden period looks like a missing one
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(steps), labels[chosen], weight=weights)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_limit is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_limit)
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(inputs)


def _validate(
    network: LSTMClassifier,
    held_out: tuple[Float32[np.ndarray, "sample time channel"], Int64[np.ndarray, "sample"]],
    weights: Tensor,
    classes: tuple[str, ...],
) -> tuple[float, float]:
    prepared, label = held_out
    network.eval()
    probability = class_probability(network, prepared).astype(np.float64)
    weight = weights.numpy()[label].astype(np.float64)
    true_probability = np.maximum(probability[np.arange(len(label)), label], 1e-12)
    loss = float((-np.log(true_probability) * weight).sum() / weight.sum())
    predicted = probability.argmax(axis=1).astype(np.int64)
    return loss, Scores.from_labels(label, predicted, classes).macro_f1


def _frozen_copy(network: LSTMClassifier) -> LSTMClassifier:
    return copy.deepcopy(network).eval().requires_grad_(False)
