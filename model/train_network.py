"""Samples and a config in, a network out that stops by units it does not learn from."""

from collections.abc import Callable
from pathlib import Path

from model.config import TrainConfig
from model.errors import SplitError
from model.fitted import Fitted
from model.samples import Samples
from model.split import BY_BLOCK, Folds, Split, make_folds
from model.train import EpochReport, fit

_STOPPING_FOLDS = 8
"""One part in so many of the training units decides when to stop."""


def train_network(
    samples: Samples,
    config: TrainConfig,
    *,
    stop_by: Split = "grouped",
    watch: Callable[[EpochReport], None] | None = None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train on all `samples`, holding out an eighth of the units to stop early where configured.

    `stop_by` is the split whose unit must not be on both sides: blocks for `block`, `knndm` and
    `region`, else groups; for `random` too, because samples of one group would say "go on" too
    long. `checkpoint` is a folder as `fit` takes it. Where the units are too few to hold some of
    every class out, the network learns from all samples for all epochs: stopping by the classes
    that happen to be held out would leave the others unlearned.
    """
    train, validation = samples, None
    if config.patience is not None:
        held = _stopping_folds(samples, "block" if stop_by in BY_BLOCK else "grouped", config.seed)
        if held is not None:
            parts = [samples.take(held.trained_on(0)), samples.take(held.held_out(0))]
            if len({frozenset(part.label.tolist()) for part in (*parts, samples)}) == 1:
                train, validation = parts
    fitted: Fitted | None = None
    for report in fit(train, config, validation=validation, checkpoint=checkpoint):
        fitted = report.best
        if watch is not None:
            watch(report)
    assert fitted is not None  # a config has at least one epoch
    return fitted


def _stopping_folds(samples: Samples, split: Split, seed: int) -> Folds | None:
    try:
        return make_folds(samples, split, folds=_STOPPING_FOLDS, seed=seed)
    except SplitError:
        return None  # too few units: training runs for all epochs, as `train_network` says
