"""Stored samples in, a scored and saved classifier out."""

import time
from typing import Any

import numpy as np
import xarray as xr

from cube.palette import default_colours
from cube.samplestore import open_samples
from model import Samples, TrainConfig
from model.classifier import train_classifier
from model.crossvalidate import compare_splits
from pipelines.plan import Layout
from pipelines.progress import Reporter
from pipelines.recipe import Recipe, TrainingSection

SCORING_KEYS = ("preset", "folds", "folds_used")
"""Keys of `[training]` that are not settings of the network."""


def train_config(section: TrainingSection) -> TrainConfig:
    """Return the preset with the keys the recipe overrides."""
    given = section.model_dump(exclude=set(SCORING_KEYS), exclude_none=True)
    return TrainConfig.preset(section.preset, **given)


def model_samples(samples: xr.Dataset) -> Samples:
    """Return stored samples as the model takes them: arrays, no names of dimensions."""
    return Samples.from_names(
        reflectance=samples["reflectance"].transpose("sample", "time", "band").values,
        bands=tuple(str(band) for band in samples["band"].values),
        months=tuple(str(time)[:7] for time in samples["time"].values.astype("datetime64[M]")),
        labels=samples["label"].values.tolist(),
        group=np.unique(samples["group"].values.astype(str), return_inverse=True)[1],
        block=np.unique(samples["block"].values.astype(str), return_inverse=True)[1],
    )


def train_model(recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Score the recipe's network under three splits, train it on everything, save it.

    Raises `ValueError` of the model's own kind for samples or settings that cannot be trained.
    """
    started = time.perf_counter()
    layout = Layout(folder=recipe.outputs.folder)
    config = train_config(recipe.training)
    samples = model_samples(open_samples(layout.samples))
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
