"""A run's samples in, doubtful labels out: a summary, a table of all groups and a page to decide on."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cube.decisions import read_decisions
from cube.durable import replace_text
from cube.errors import InputError
from cube.relabel import are_decided_by
from cube.samplestore import open_samples
from model.doctor import (
    Diagnosis,
    SomConfig,
    SomVerdicts,
    diagnose,
    doctor_features,
    fit_som,
    judge_labels,
    pooled_baselines,
)
from model.samples import Samples
from model.split import make_folds
from pipelines.label_findings import LabelFindings
from pipelines.label_page import write_html
from pipelines.layout import Layout
from pipelines.learning_samples import learning_samples
from pipelines.printable import printable
from pipelines.progress import Reporter
from pipelines.recipe import LearningRecipe

PAGE_NAME, TABLE_NAME = "label_doctor.html", "label_doctor.csv"

_ROUNDS = 2


def examine_labels(
    recipe: LearningRecipe,
    reporter: Reporter,
    *,
    page: Path | None = None,
    decisions: Path | None = None,
    models: Sequence[str] = ("lda",),
) -> dict[str, Any]:
    """Judge the labels of a run's samples; write table and page; return what was found.

    The page goes to `page`, by default into the run's folder, where the table goes. `decisions`
    are those made before, by default the recipe's. Raises `InputError` if there are no samples,
    the decisions cannot be read or the page's folder does not exist, and the model's own errors
    for samples that cannot be split.
    """
    started = time.perf_counter()
    folder = recipe.outputs.folder
    path = Layout(folder=folder).samples
    if not path.exists():
        raise InputError(
            f"there are no samples at {str(path)!r} yet; run `canopycube sample` first"
        )
    page = page or folder / PAGE_NAME
    if not page.absolute().parent.is_dir():
        raise InputError(f"--page {str(page)!r} lies in a folder that does not exist; make it")
    given = decisions or (recipe.reference.decisions if recipe.reference else None)
    before = read_decisions(given) if given else ()
    stored, samples = open_samples(path), learning_samples(path)
    diagnosis = _judge(recipe, samples, models, reporter)
    verdicts = _judge_by_map(samples, seed=recipe.training.seed)
    findings = LabelFindings(
        stored=stored,
        samples=samples,
        names=np.unique(stored["group"].values.astype(str)),
        diagnosis=diagnosis,
        verdicts=verdicts,
        before=before,
    )
    colours = recipe.reference.colours if recipe.reference else {}
    _write(folder / TABLE_NAME, findings.table())
    _write(page, write_html(findings.page(recipe.name, colours)))
    return findings.summary() | {
        "models": list(models),
        "page": str(page),
        "table": str(folder / TABLE_NAME),
        "notes": _notes(stored, recipe),
        "seconds": round(time.perf_counter() - started, 2),
    }


def examined_lines(found: dict[str, Any]) -> list[str]:
    """Return what `examine_labels` found as lines for people."""
    lines = [
        f"{found['suspects']:,} of {found['groups']:,} labels are doubtful "
        f"({found['undecided']:,} undecided); about {found['noise']:.0%} may be wrong"
    ]
    if others := found["by_map_only"]:
        lines.append(f"the page lists {others:,} more, which only the map of series would remove")
    for one in found["most_doubtful"]:
        text = f"{one['group']}: {one['given']}, looks like {one['suggested']}"
        lines.append(f"  {one['score']:.2f}  {printable(text)}")
    if found["unjudged"]:
        lines.append(
            f"{found['unjudged']:,} groups could not be judged: alone of their class, "
            "or never clear in every band"
        )
    lines += [
        f"look at them: {found['page']}",
        f"all scores: {found['table']}",
        "a doubt is a question, no proof: classes that look alike are doubted too",
    ]
    return lines + [f"note: {note}" for note in found["notes"]]


def _notes(stored: xr.Dataset, recipe: LearningRecipe) -> list[str]:
    """Say whether the samples that were judged know the decisions that the recipe names."""
    decisions = recipe.reference.decisions if recipe.reference else None
    if are_decided_by(stored, decisions):
        return []
    return ["decisions changed since sampling; run `canopycube sample`, then look again"]


def _judge(
    recipe: LearningRecipe, samples: Samples, models: Sequence[str], reporter: Reporter
) -> Diagnosis:
    training = recipe.training
    folds = make_folds(samples, "grouped", folds=training.folds, seed=training.seed)
    with reporter.bar("labels", _ROUNDS * folds.count * len(models)) as advance:
        fit = pooled_baselines(
            doctor_features(samples.bands),
            names=models,
            seed=training.seed,
            threads=training.threads or 1,
            watch=advance,
        )
        return diagnose(fit, samples, folds, rounds=_ROUNDS)


def _judge_by_map(samples: Samples, *, seed: int) -> SomVerdicts:
    features = doctor_features(samples.bands)
    series = features.compute(samples.reflectance, samples.bands)
    config = SomConfig(seed=seed)
    som = fit_som(series, config)
    return judge_labels(
        som,
        series,
        samples.label,
        samples.group,
        class_count=len(samples.classes),
        config=config,
    )


def _write(path: Path, text: str) -> None:
    try:
        replace_text(path, text)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}") from error
