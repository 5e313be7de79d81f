"""Samples in, a refusal of what cannot be trained on, or not be held out, out."""

import numpy as np

from model.config import TrainConfig
from model.errors import SampleError
from model.loss import class_counts
from model.periods import calendar_positions
from model.samples import Samples


def refuse_unusable(samples: Samples, config: TrainConfig) -> None:
    """Raise `SampleError` for no samples, those of one class, or without a clear period."""
    if not len(samples):
        raise SampleError("there is no sample to train on")
    if np.count_nonzero(class_counts(samples)) < 2:
        raise SampleError(f"all samples are of class {samples.classes[samples.label[0]]!r}; "
                          "training needs two classes or more")  # fmt: skip
    empty = len(samples) - len(samples.with_clear_periods(config.features))
    if empty:
        raise SampleError(
            f"{empty} of {len(samples)} samples have no clear period; leave them out "
            "(Samples.with_clear_periods)"
        )


def refuse_other_validation(samples: Samples, validation: Samples, config: TrainConfig) -> None:
    """Refuse what would be read wrongly, or would say "go on" because it was learned from."""
    positions = calendar_positions(samples.periods), calendar_positions(validation.periods)
    if validation.classes != samples.classes or positions[0] != positions[1]:
        raise SampleError("validation samples have other classes or periods than the training's")
    shared = np.intersect1d(samples.group, validation.group)
    if len(shared):
        raise SampleError(
            f"validation shares {len(shared)} groups with the training, first {shared[0]}; hold "
            "whole groups out"
        )
    empty = len(validation) - len(validation.with_clear_periods(config.features))
    if empty:
        raise SampleError(f"{empty} of {len(validation)} validation samples have no clear period")
