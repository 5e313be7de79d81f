"""Samples in, settings of the network that score best on held-out groups of them out."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from model import Samples, TrainConfig
from model.crossvalidate import Progress, cross_validate
from model.errors import SplitError
from model.search import Trial, best_of, configured, search
from model.split import Split, make_folds
from pipelines.progress import Reporter
from pipelines.recipe import TrainingSection

ALL = "all"
"""Folder of the trials on all samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SettingsSearch:
    """The recipe's search, to be done on any part of the samples.

    The settings that are saved are found among all samples. What scores a held-out part is trained
    with settings found without it (`settle`), so no score has seen the choice.
    """

    config: TrainConfig
    """What is searched from: the recipe's own settings, the first trial."""
    section: TrainingSection
    """The recipe's, with a search."""
    keep: Path
    """Folder of the trials' networks, for a run that was stopped."""
    reporter: Reporter
    """Where is told what could not be searched."""
    settled: list[dict[str, Any]] = field(default_factory=list)
    """What `settle` found, in the order in which it was asked."""

    def trials(
        self, samples: Samples, place: str = ALL, *, watch: Callable[[str], None] | None = None
    ) -> Iterator[Trial]:
        """Try settings on `samples` with whole groups held out; none of them sees a random split.

        Groups are dealt by another seed than those that score the chosen settings. The networks
        wait in the folder `place` of `keep`. `watch` is told how far it is after every epoch.
        Raises `SplitError` for samples of too few groups.
        """
        wanted = self.section.search
        assert wanted is not None  # the caller asks only for recipes with one
        folds = make_folds(
            samples, "grouped", folds=self.section.folds, seed=self.config.seed + 1,
            buffer=self.section.buffer,
        )  # fmt: skip
        done: list[Trial] = []

        def tell(at: Progress) -> None:
            if watch is not None:
                best = f", best macro-F1 {best_of(done).score:.3f}" if done else ""
                watch(f"trial {len(done) + 1} of {wanted.trials}, fold {at.fold + 1}{best}")

        def score(tried: TrainConfig) -> float:
            settings = json.dumps(tried.to_dict(), sort_keys=True)
            keep = self.keep / place / sha256(settings.encode()).hexdigest()[:16]
            found = cross_validate(samples, tried, folds=folds, watch=tell, keep=keep)
            return found.scores(samples).macro_f1

        for trial in search(
            self.config, wanted.ranges, score,
            trials=wanted.trials, method=wanted.method, seed=self.config.seed,
        ):  # fmt: skip
            done.append(trial)
            yield trial

    def settle(
        self,
        samples: Samples,
        split: Split,
        fold: int,
        *,
        watch: Callable[[str], None] | None = None,
    ) -> TrainConfig:
        """Return settings for the samples that train while a fold of a split is held out.

        The recipe's own where they have too few groups to compare any.
        """
        where = f"fold {fold + 1} of the {split} split"

        def tell(progress: str) -> None:
            if watch is not None:
                watch(f"search without {where}, {progress}")

        try:
            best = best_of(list(self.trials(samples, f"{split}-{fold}", watch=tell)))
        except SplitError as error:
            self.reporter.say(
                f"search    not without {where}, where settings stay as given: {error}"
            )
            return self.config
        self.settled.append({"split": split, "fold": fold, "settings": best.settings})
        return configured(self.config, best)

    def networks(self, held_out: int) -> int:
        """Return how many networks are trained to score `held_out` parts without having seen them."""
        assert self.section.search is not None  # as in `trials`
        return held_out * self.section.search.trials * self.section.folds
