"""Stored samples in; a scored, calibrated and saved classifier with its report out."""

import json
import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cube.durable import replace_text
from cube.palette import default_colours
from cube.samplestore import open_samples
from cube.stac.modelitem import ModelFacts, model_item
from model import Samples, TrainConfig
from model.classifier import SpeciesClassifier
from model.classifier_file import weights_name
from model.crossvalidate import Progress, cross_validate
from model.errors import FeatureError
from model.features import default_features
from model.fitted import Fitted
from model.learn import Learned, LearnPlan, learn
from model.search import Trial, best_of, configured, search
from model.split import SPLITS, make_folds
from pipelines.classifier_report import classifier_page
from pipelines.draw_samples import learning_samples, places_to_map, store_folds
from pipelines.plan import Layout
from pipelines.progress import Reporter
from pipelines.recipe import LearningRecipe, TrainingSection
from pipelines.recipe_model import SearchSection

PAGE, ITEM, ONNX = "report.html", "item.json", "classifier.onnx"
"""What lies in a classifier's folder beside the classifier itself."""

NOT_OF_THE_NETWORK = (
    "preset", "model", "baselines", "search", "folds", "folds_used", "splits", "buffer", "audit",
    "audit_allow", "coverage", "onnx",
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


def train_model(
    recipe: LearningRecipe, reporter: Reporter, *, audit: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Score the recipe's models with groups and blocks held out, train the chosen one, save it.

    Where the network stops early, an eighth of the groups decides when and is not learned from.
    `audit` is what the report shows of one. What is finished waits in `training/` for a run that was stopped. Raises `ValueError` of the
    model's own kind for samples or settings that cannot be trained.
    """
    started = time.perf_counter()
    layout = Layout(folder=recipe.outputs.folder)
    samples = learning_samples(layout.samples)
    section = recipe.training
    config = train_config(section, samples.bands)
    trials: list[Trial] = []
    if section.search is not None:
        trials = _search(samples, config, section, section.search, reporter)
        config = configured(config, best_of(trials))
    learned = _learn(recipe, samples, config, reporter)
    store_folds(layout.samples, {made.split: made.fold for made in learned.table.folds})
    learned.classifier.save(layout.classifier)
    found = {
        "path": str(layout.classifier),
        "classes": list(learned.classifier.classes),
        "colours": list(learned.classifier.colours),
        "fingerprint": learned.classifier.fingerprint[:16],
        **learned.found,
        "search": [
            {"settings": one.settings, "score": None if math.isnan(one.score) else one.score}
            for one in trials
        ],
        "seconds": round(time.perf_counter() - started, 2),
    }
    _write_beside(recipe, learned, found, audit)
    return found


def _learn(
    recipe: LearningRecipe, samples: Samples, config: TrainConfig, reporter: Reporter
) -> Learned:
    section, cube = recipe.training, Layout(folder=recipe.outputs.folder).cube
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
        coverage=section.coverage,
        keep=recipe.outputs.folder / "training",
    )
    fits = (len(plan.splits) - 1) * plan.folds_used + plan.folds + 1
    with reporter.bar("training", fits * config.epochs * config.members) as advance:

        def tell(at: Progress) -> None:
            fold = f"{at.split} split, fold {at.fold + 1} of {at.folds_used}"
            advance(note=f"{fold}, loss {at.report.loss:.3f}")

        return learn(
            samples,
            plan,
            watch=tell,
            watch_training=lambda report: advance(note=f"all samples, loss {report.loss:.3f}"),
        )


def _search(
    samples: Samples,
    config: TrainConfig,
    section: TrainingSection,
    wanted: SearchSection,
    reporter: Reporter,
) -> list[Trial]:
    """Try settings with whole groups held out; none of them sees a random split."""
    folds = make_folds(samples, "grouped", folds=section.folds, seed=config.seed)

    def score(tried: TrainConfig) -> float:
        return cross_validate(samples, tried, folds=folds).scores(samples).macro_f1

    trials = []
    with reporter.bar("search", wanted.trials) as advance:
        for trial in search(
            config,
            wanted.ranges,
            score,
            trials=wanted.trials,
            method=wanted.method,
            seed=config.seed,
        ):
            trials.append(trial)
            advance(note=f"macro-F1 {trial.score:.3f}, best {best_of(trials).score:.3f}")
    return trials


def _write_beside(
    recipe: LearningRecipe,
    learned: Learned,
    found: dict[str, Any],
    audit: dict[str, Any] | None,
) -> None:
    """Write the page, the STAC item and, if asked, ONNX into the classifier's folder."""
    folder = Path(found["path"])
    assets = {"settings": "classifier.json", "weights": weights_name(learned.classifier)}
    if recipe.training.onnx:
        from model.onnx_export import write_onnx

        write_onnx(learned.classifier, folder / ONNX)
        assets["onnx"] = ONNX
    assets["report"] = PAGE
    replace_text(folder / PAGE, classifier_page(recipe.name, found, audit))
    facts = _facts(recipe, learned.classifier, assets)
    replace_text(folder / ITEM, json.dumps(model_item(facts), indent=2, allow_nan=False))


def _facts(
    recipe: LearningRecipe, classifier: SpeciesClassifier, assets: dict[str, str]
) -> ModelFacts:
    stored = open_samples(Layout(folder=recipe.outputs.folder).samples)
    times = stored["time"].values
    bounds = None
    if {"lon", "lat"} <= set(stored.variables):
        lon, lat = stored["lon"].values, stored["lat"].values
        bounds = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    fitted = classifier.fitted
    return ModelFacts(
        id=f"canopycube-{classifier.fingerprint[:16]}",
        title=recipe.name,
        architecture=fitted.kind,
        parameters=sum(
            weight.numel() for network in fitted.networks for weight in network.parameters()
        )
        if isinstance(fitted, Fitted)
        else 0,
        code_version=classifier.code_version,
        bands=classifier.required_bands,
        features=fitted.features.names,
        periods=classifier.periods,
        classes=dict(zip(classifier.classes, classifier.colours, strict=True)),
        start=_moment(times.min()),
        end=_moment(times.max()),
        bounds=bounds,
        created=datetime.now(UTC),
        settings=fitted.config.to_dict() if isinstance(fitted, Fitted) else {"model": fitted.kind},
        assets=assets,
    )


def _moment(time64: Any) -> datetime:
    return datetime.fromtimestamp(int(time64.astype("datetime64[s]").astype(int)), UTC)


def class_colours(recipe: LearningRecipe, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return one colour per class: the recipe's where it gives one, else our own."""
    given = recipe.reference.colours if recipe.reference else {}
    own = default_colours(len(classes))
    return tuple(given.get(name, colour).lower() for name, colour in zip(classes, own, strict=True))
