"""Stored samples in; a scored, calibrated and saved classifier with its report out."""

import math
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Int64

from cube.errors import InputError
from cube.palette import default_colours
from model import Samples, TrainConfig
from model.classifier import SpeciesClassifier
from model.classunits import groups_by_class
from model.crossvalidate import Progress
from model.errors import FeatureError
from model.features import default_features, warnings_of
from model.fitted import Fitted
from model.learn import AUTO, NETWORK, Learned, LearnPlan, learn, refuse_empty_classes
from model.search import Trial, best_of, configured, search
from model.split import NEVER_HELD_OUT, SPLITS
from pipelines.classifier_files import write_beside
from pipelines.draw_samples import places_to_map, store_folds
from pipelines.label_units import refuse_few_groups
from pipelines.layout import Layout
from pipelines.learning_samples import learning_samples
from pipelines.progress import Reporter
from pipelines.recipe import LearningRecipe, TrainingSection
from pipelines.search_settings import SettingsSearch

NOT_OF_THE_NETWORK = (
    "preset", "model", "baselines", "search", "folds", "folds_used", "splits", "buffer", "audit",
    "audit_allow", "coverage", "onnx", "doubtful", "importance",
)  # fmt: skip
"""Keys of `[training]` that are not settings of the network."""


def train_config(section: TrainingSection, bands: tuple[str, ...]) -> TrainConfig:
    """Return the preset with the keys the recipe overrides.

    The default preset's features are those that `bands` suffice for. Features that the recipe
    names, or that the reference preset is made of, must all be there: `FeatureError`.
    """
    given = section.model_dump(exclude=set(NOT_OF_THE_NETWORK), exclude_none=True)
    config = TrainConfig.preset(section.preset, **given)
    if section.features is None and section.preset == "default":
        return replace(config, features=default_features(bands))
    if missing := config.features.missing_bands(bands):
        raise FeatureError(
            f"training needs bands {', '.join(missing)}, which the samples do not have; "
            "add them to bands or choose other training.features"
        )
    return config


def check_training(recipe: LearningRecipe) -> None:
    """Refuse models, settings to search and splits that cannot be, before samples are drawn.

    Raises `InputError` or the model's own errors.
    """
    section, reference = recipe.training, recipe.reference
    if len(set(section.splits)) < len(section.splits):
        raise InputError(f"training.splits names one twice: {', '.join(section.splits)}")
    is_file = reference is not None and reference.file is not None
    names_region = reference is not None and reference.region_column is not None
    if "region" in section.splits and is_file and not names_region:
        raise InputError(
            "training.splits names 'region', but the labels have none; name the column of regions "
            "in reference.region_column"
        )
    config = TrainConfig.preset(section.preset)
    LearnPlan(config=config, colours=(), model=section.model, baselines=section.baselines)
    if section.onnx:
        _refuse_onnx(section)
    if (wanted := section.search) is not None:
        # the first trial is the settings as they are: nothing is trained, the ranges are looked at
        next(iter(search(config, wanted.ranges, lambda _: 0.0, trials=1, method=wanted.method)))


def _refuse_onnx(section: TrainingSection) -> None:
    """Refuse ONNX of a simple model, and without what writes it: training may last for hours."""
    if section.model not in (NETWORK, AUTO):
        raise InputError(
            f"training.onnx writes networks only, and training.model is {section.model!r}; take one "
            "of them out"
        )
    if not all(find_spec(name) for name in ("onnx", "onnxscript")):
        raise InputError("training.onnx needs more packages: pip install 'canopycube[onnx]'")


def train_model(
    recipe: LearningRecipe, reporter: Reporter, *, audit: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Score the recipe's models with groups and blocks held out, train the chosen one, save it.

    Samples without a period that is clear in every band of the features are left out and counted.
    `audit` is what the report shows of one. What is finished waits in `training/` for a run that
    was stopped. Raises `InputError` for a class with fewer groups than folds, and `ValueError` of
    the model's own kind for samples or settings that cannot be trained.
    """
    started = time.perf_counter()
    layout = Layout.of(recipe.outputs)
    stored = learning_samples(layout.samples)
    section = recipe.training
    config = train_config(section, stored.bands)
    samples, used = _usable(stored, config, section, reporter)
    trials: list[Trial] = []
    searching: SettingsSearch | None = None
    if section.search is not None:
        searching = SettingsSearch(
            config=config,
            section=section,
            keep=layout.training / "search",
            reporter=reporter,
        )
        trials = _search(samples, searching)
        config = configured(config, best_of(trials))
    learned = _learn(recipe, samples, config, reporter, trials=len(trials), searching=searching)
    store_folds(layout.samples, _folds_of_all(learned, used, count=len(stored)))
    learned.classifier.save(layout.classifier)
    found = {
        "path": str(layout.classifier),
        "classes": list(learned.classifier.classes),
        "colours": list(learned.classifier.colours),
        "fingerprint": learned.classifier.fingerprint[:16],
        **learned.found,
        "left_out": {_NEVER_CLEAR: left_out} if (left_out := len(stored) - len(samples)) else {},
        "warnings": [
            *warnings_of(learned.classifier.fitted.features),
            *_without_onnx(section, learned.classifier),
        ],
        "search": [
            {"settings": one.settings, "score": None if math.isnan(one.score) else one.score}
            for one in trials
        ],
        "search_without": searching.settled if searching else [],
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_beside(recipe, learned.classifier, found, audit)
    return found


def _without_onnx(section: TrainingSection, classifier: SpeciesClassifier) -> list[str]:
    if not section.onnx or isinstance(classifier.fitted, Fitted):
        return []
    return [f"no ONNX was written: {classifier.fitted.kind}, which won, is no network"]


_NEVER_CLEAR = "samples without a period that is clear in every band of the features"


def _usable(
    stored: Samples, config: TrainConfig, section: TrainingSection, reporter: Reporter
) -> tuple[Samples, Int64[np.ndarray, " used"]]:
    """Return the samples that the features can be computed of, and where they are stored."""
    is_clear = config.features.is_clear(stored.reflectance, stored.bands).any(axis=1)
    used = np.flatnonzero(is_clear).astype(np.int64)
    samples = stored.take(used)
    if lost := len(stored) - len(samples):
        reporter.say(f"left out  {lost:,} {_NEVER_CLEAR}")
        refuse_empty_classes(samples)
        names = np.array(samples.classes)[samples.label]
        refuse_few_groups(groups_by_class(names, samples.group), section)
    return samples, used


def _folds_of_all(
    learned: Learned, used: Int64[np.ndarray, " used"], *, count: int
) -> dict[str, Int64[np.ndarray, " sample"]]:
    """Return the fold of each stored sample under each split; those left out are in none."""
    folds: dict[str, Int64[np.ndarray, " sample"]] = {}
    for made in learned.table.folds:
        folds[made.split] = np.full(count, NEVER_HELD_OUT, np.int64)
        folds[made.split][used] = made.fold
    return folds


def _learn(
    recipe: LearningRecipe,
    samples: Samples,
    config: TrainConfig,
    reporter: Reporter,
    *,
    trials: int,
    searching: SettingsSearch | None,
) -> Learned:
    section, cube = recipe.training, Layout.of(recipe.outputs).cube
    plan = LearnPlan(
        config=config,
        colours=class_colours(recipe, samples.classes),
        parents=recipe.reference.legend if recipe.reference else {},
        model=section.model,
        baselines=section.baselines,
        splits=(*SPLITS, *section.splits),
        folds=section.folds,
        folds_used=min(section.folds_used, section.folds),
        buffer=section.buffer,
        prediction=places_to_map(cube) if cube.exists() else None,
        trials=trials,
        doubtful=section.doubtful,
        measures_importance=section.importance,
        coverage=section.coverage,
        keep=Layout.of(recipe.outputs).training,
    )
    held_out = (len(plan.splits) - 1) * plan.folds_used + plan.folds
    epochs = _epochs(config, len(samples)) * config.members
    told: set[str] = set()
    if searching is not None:
        reporter.say(
            f"search    anew without each held-out part, so that no score has seen the choice: some "
            f"{held_out} searches, {searching.networks(held_out):,} networks in all"
        )
    with reporter.bar("training", (held_out + 1) * epochs) as advance:

        def tell_once(what: str) -> None:
            if not reporter.is_live and what not in told:  # a log has no bar, and this lasts
                told.add(what)
                reporter.say(f"training  {what}")

        def tell(at: Progress) -> None:
            fold = f"{at.split} split, fold {at.fold + 1} of {at.folds_used}"
            advance(note=f"{fold}, loss {at.report.loss:.3f}")
            tell_once(fold)

        def tell_search(progress: str) -> None:
            advance(by=0, note=progress)
            tell_once(progress.partition(",")[0])

        if searching is not None:
            plan = replace(plan, settle=partial(searching.settle, watch=tell_search))
        return learn(
            samples,
            plan,
            watch=tell,
            watch_training=lambda report: advance(note=f"all samples, loss {report.loss:.3f}"),
        )


def _epochs(config: TrainConfig, samples: int) -> int:
    """Return how many epochs a fit to so many samples takes, where it does not stop early."""
    batches = math.ceil(samples / config.batch_size)
    return max(config.epochs, math.ceil(config.least_steps / batches))


def _search(samples: Samples, searching: SettingsSearch) -> list[Trial]:
    """Try settings on all samples; the best are those that are saved."""
    wanted = searching.section.search
    assert wanted is not None  # the caller asks only for recipes with one
    trials = []
    with searching.reporter.bar("search", wanted.trials) as advance:
        for trial in searching.trials(samples, watch=lambda told: advance(by=0, note=told)):
            trials.append(trial)
            advance(note=f"macro-F1 {trial.score:.3f}, best {best_of(trials).score:.3f}")
    return trials


def class_colours(recipe: LearningRecipe, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return one colour per class: the recipe's where it gives one, else our own."""
    given = recipe.reference.colours if recipe.reference else {}
    own = default_colours(len(classes))
    return tuple(given.get(name, colour).lower() for name, colour in zip(classes, own, strict=True))
