"""Stored samples in, a scored and saved classifier out."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cube.palette import default_colours
from cube.samplestore import open_samples
from model import Samples, TrainConfig
from model.classifier import train_classifier
from model.crossvalidate import compare_splits
from model.errors import FeatureError
from pipelines.plan import Layout
from pipelines.progress import Reporter
from pipelines.recipe import Recipe, TrainingSection

SCORING_KEYS = ("preset", "folds", "folds_used")
"""Keys of `[training]` that are not settings of the network."""


def train_config(section: TrainingSection, bands: tuple[str, ...]) -> TrainConfig:
    """Return the preset with the keys the recipe overrides.

    The default preset's features are those that `bands` suffice for. Features that the recipe
    names, or that the reference preset is made of, must all be there: `FeatureError`.
    """
    given = section.model_dump(exclude=set(SCORING_KEYS), exclude_none=True)
    config = TrainConfig.preset(section.preset, **given)
    if section.features is None and section.preset == "default":
        return replace(config, features=config.features.restricted_to(bands))
    if missing := config.features.missing_bands(bands):
        raise FeatureError(
            f"training needs bands {', '.join(missing)}, which the cube does not have; "
            "add them to bands or choose other training.features"
        )
    return config


def load_samples(path: Path) -> Samples:
    """Return stored samples as the model takes them: arrays, no names of dimensions.

    Raises `InputError` if there are none at `path`.
    """
    samples = open_samples(path)
    return Samples.from_names(
        reflectance=samples["reflectance"].transpose("sample", "time", "band").values,
        bands=tuple(str(band) for band in samples["band"].values),
        periods=tuple(str(period) for period in samples["period"].values),
        labels=samples["label"].values.tolist(),
        group=np.unique(samples["group"].values.astype(str), return_inverse=True)[1],
        block=np.unique(samples["block"].values.astype(str), return_inverse=True)[1],
    )


def train_model(recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Score the recipe's network under three splits, train it on all samples, save it.

    Where the network stops early, an eighth of the groups decides when and is not learned from.

    Raises `ValueError` of the model's own kind for samples or settings that cannot be trained.
    """
    started = time.perf_counter()
    layout = Layout(folder=recipe.outputs.folder)
    samples = load_samples(layout.samples)
    config = train_config(recipe.training, samples.bands)
    folds_used = min(recipe.training.folds_used, recipe.training.folds)
    with reporter.bar("scores", 3 * folds_used * config.epochs) as advance:
        table = compare_splits(
            samples,
            config,
            folds=recipe.training.folds,
            folds_used=folds_used,
            watch=lambda at: advance(note=f"{at.split} split, loss {at.report.loss:.3f}"),
        )
    with reporter.bar("training", config.epochs) as advance:
        classifier = train_classifier(
            samples,
            config,
            colours=class_colours(recipe, samples.classes),
            scores=table,
            watch=lambda report: advance(note=f"loss {report.loss:.3f}"),
        )
    classifier.save(layout.classifier)
    return {
        "path": str(layout.classifier),
        "classes": list(classifier.classes),
        "fingerprint": classifier.fingerprint[:16],
        "epoch": classifier.fitted.epoch,
        "scores": table.to_dict(),
        "seconds": round(time.perf_counter() - started, 2),
    }


def class_colours(recipe: Recipe, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return one colour per class: the recipe's where it gives one, else our own."""
    given = recipe.reference.colours if recipe.reference else {}
    own = default_colours(len(classes))
    return tuple(given.get(name, colour).lower() for name, colour in zip(classes, own, strict=True))
