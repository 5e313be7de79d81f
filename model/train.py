"""Samples in, one report per epoch out: the training loop, which the caller drives."""

from collections.abc import Iterator
from pathlib import Path

from model.checkpoint import Checkpoint
from model.config import TrainConfig
from model.course import Course, EpochReport
from model.fitted import Fitted
from model.networks import Network
from model.samples import Samples
from model.trainable import refuse_unusable

__all__ = ["EpochReport", "Fitted", "fit"]


def fit(
    samples: Samples,
    config: TrainConfig,
    *,
    validation: Samples | None = None,
    checkpoint: Path | None = None,
) -> Iterator[EpochReport]:
    """Train, yielding after every epoch; stop iterating to stop training.

    `report.best` of the last report is the result. `validation` must share no group with
    `samples`; it decides which epoch is kept and, with `config.patience`, when to stop. Of several
    members one is trained after the other. The caller's random state is left alone.

    `checkpoint` is a folder that holds the state of training. A run of the same samples,
    validation and settings goes on from there, to the same weights as without the interruption;
    its first report repeats the last one before. A checkpoint of something else, or a broken one,
    is not used and gets replaced: the first report's `note` says so.

    Raises `SampleError` for no samples, samples without a clear period, or validation of another
    shape or of the same groups; `FeatureError` for a missing band; `ConfigError` if the loss or the
    weights are no longer finite.
    """
    refuse_unusable(samples, config)
    course = Course.prepare(samples, config, validation)
    keeper = None if checkpoint is None else Checkpoint.of(checkpoint, samples, config, validation)
    done: list[Network] = []
    member, note = course.start(0), ""
    if keeper is not None:
        found, note = keeper.read(lambda: [course.start(index) for index in range(config.members)])
        if found is not None:
            done, member = found.done, found.member
            yield course.report(done, member, **found.report, note=note)
            note = ""
    while True:
        while not member.is_done(config, validated=course.held_out is not None):
            report = course.run_epoch(done, member, note)
            note = ""
            if keeper is not None:
                is_last = member.is_done(config, validated=course.held_out is not None)
                keeper.write(done, member, report, at_once=is_last)
            yield report
        if len(done) + 1 == config.members:
            return
        assert member.best is not None  # it is done, so there was an epoch
        done = [*done, member.best]
        member = course.start(len(done))
