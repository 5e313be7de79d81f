"""A table of labelled series in, what is told apart on held-out blocks, years or groups out.

`python -m tests.benchmarks.series TABLE --split block|year|grouped|region|random --json` imports
the table as `canopycube import-table` does (`--nodata auto`) and cross-validates the default LSTM,
the reference workflow's LSTM and the simple models on the same folds: every series is held out
once, and accuracy and macro-F1 are those of all series together. Blocks are squares of
`--block-degrees` (floor of longitude and latitude; 1, or less on small sites), the year is that of a series' first date. Units
are dealt to folds from the largest on, each to the fold that is smallest so far, as scikit-learn's
GroupKFold does; classes play no part. So a class that lies in one unit is held out while none of it
trains, and no model can name it: `highest` says what the best model could reach, and the figures
`_of_trained` count only series whose class was trained on. `--as-train` deals folds as `canopycube
train` does: such a class always trains and is not scored. Samples whose labels the other training
samples contradict are treated as `train` does (`--doubtful`). Each seed draws weights anew, and the
order of units of equal size.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cube.errors import InputError
from cube.series import SeriesOptions, align, read_series, series_dataset
from model import Samples, TrainConfig
from model.assess import Scores
from model.baselines import BASELINES
from model.crossvalidate import cross_validate, cross_validate_baseline, cross_validate_majority
from model.doctor.trusted import weigh_doubt, with_trusted
from model.errors import ModelError, SplitError
from model.features import default_features
from model.learn import Doubtful
from model.outoffold import OutOfFold
from model.split import ALL_SPLITS, Folds, Split, make_folds
from pipelines.series_options import add_series_options, series_options

DEFAULT, REFERENCE = "default lstm", "reference lstm"
FIGURES = ("accuracy", "macro_f1", "accuracy_of_trained", "macro_f1_of_trained")
MODELS = (DEFAULT, REFERENCE, *BASELINES, "majority class")


def main(arguments: Sequence[str] | None = None) -> int:
    """Score every model asked for; print a table, or one JSON object."""
    options = _parser().parse_args(arguments)
    try:
        found = _measured(options)
    except (InputError, ModelError) as error:
        text = "; ".join(str(error).split("\n"))
        if options.json:
            print(json.dumps({"error": text, "exit": 2}))
        print(f"series: {text}", file=sys.stderr)
        return 2
    print(json.dumps(found) if options.json else "\n".join(lines(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.series", description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    add_model_options(parser)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--crs")
    add_series_options(parser)
    parser.set_defaults(nodata=["auto"])
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add how series are held out and what is scored on them."""
    parser.add_argument("--split", choices=ALL_SPLITS, default="block")
    parser.add_argument("--folds", type=int, default=5, help="parts (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1 .. of folds and weights (3)")
    parser.add_argument(
        "--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}, parted by commas"
    )
    parser.add_argument("--as-train", action="store_true", help="deal folds as `train` does")
    parser.add_argument("--doubtful", choices=get_args(Doubtful), default="auto")
    parser.add_argument("--epochs", type=int, help="of both LSTMs, for a quick look")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    samples, edge, notes = imported(options.tables, series_options(options))
    return {
        "tables": [table.name for table in options.tables],
        "block_degrees": edge if options.split == "block" else None,
        **measured(samples, options, notes),
    }


def measured(
    samples: Samples, options: argparse.Namespace, notes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Score the models of `options` on the same folds; raises `InputError` for an unknown one."""
    models = tuple(name.strip() for name in options.models.split(","))
    if unknown := [name for name in models if name not in MODELS]:
        raise InputError(f"--models {unknown[0]!r} is not known; expected {', '.join(MODELS)}")
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}; expected 1 or more")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for seed in range(options.seeds):
        deal = make_folds if options.as_train else folds_of
        folds = deal(samples, options.split, folds=options.folds, seed=seed)
        notes = tuple(dict.fromkeys((*notes, *folds.notes)))
        trained = _is_trained(samples, folds)
        if options.doubtful == "leave out" or (
            options.doubtful == "auto" and weigh_doubt(samples, seed=seed).helps
        ):
            folds = with_trusted(folds, samples, seed=seed)
        for name in models:
            started = time.perf_counter()
            found = _learner(name, options, samples, seed)(folds)
            scores = found.scores(samples)
            known = trained[found.index]
            of_trained = Scores.from_labels(
                samples.label[found.index[known]], found.predicted[known], samples.classes
            )
            seconds = time.perf_counter() - started
            runs[name].append(
                {
                    "accuracy": scores.accuracy,
                    "macro_f1": scores.macro_f1,
                    "accuracy_of_trained": of_trained.accuracy,
                    "macro_f1_of_trained": of_trained.macro_f1,
                    "seconds": seconds,
                }
            )
            if not options.json:
                print(f"seed {seed} {name}: {scores.accuracy:.3f} / {scores.macro_f1:.3f} "
                      f"in {seconds:.1f} s", file=sys.stderr)  # fmt: skip
    return {
        "split": options.split,
        "folds": folds.count,
        "seeds": options.seeds,
        "series": len(samples),
        "held_out": sum(len(folds.held_out(fold)) for fold in range(folds.count)),
        "highest": _highest(samples, folds),
        "steps": len(samples.periods),
        "bands": list(samples.bands),
        "classes": samples.class_counts,
        "units": {
            "groups": len(np.unique(samples.group)),
            "blocks": len(np.unique(samples.block)),
            "years": 0 if samples.year is None else len(np.unique(samples.year)),
        },
        "models": {name: _summary(of) for name, of in runs.items()},
        "notes": list(notes),
    }


def imported(
    tables: Sequence[Path], options: SeriesOptions
) -> tuple[Samples, float | None, tuple[str, ...]]:
    """Return the series of tables as samples, the edge of blocks, and what the import says."""
    for table in tables:
        if not table.is_file():
            raise InputError(f"{str(table)!r} is no file")
    made = series_dataset(align(read_series(tables, options), options), options)
    stored = made.samples

    def number(name: str) -> np.ndarray:
        return np.unique(stored[name].values.astype(str), return_inverse=True)[1].astype(np.int64)

    has_place = "x" in stored
    samples = Samples.from_names(
        reflectance=stored["reflectance"].values,
        bands=stored["band"].values.tolist(),
        periods=stored["period"].values.tolist(),
        labels=stored["label"].values.tolist(),
        group=number("group"),
        block=number("block"),
        place=np.column_stack([stored["x"], stored["y"]]) if has_place else None,
        region=number("region") if "region" in stored else None,
        year=stored["year"].values,
    )
    usable = samples.with_clear_periods(default_features(samples.bands))
    lost = len(samples) - len(usable)
    notes = (f"{lost} series have no step with all bands, and were left out",) if lost else ()
    return usable, made.block_degrees, (*made.notes, *notes)


def folds_of(samples: Samples, split: Split, *, folds: int, seed: int) -> Folds:
    """Deal every unit to a fold; raises `SplitError` if there are fewer than two units."""
    if split in ("random", "knndm"):
        return make_folds(samples, split, folds=folds, seed=seed)
    of_split = {"grouped": samples.group, "block": samples.block, "year": samples.year,
                "region": samples.region}[split]  # fmt: skip
    if of_split is None:
        raise SplitError(f"the {split} split needs a {split} of every series; these have none")
    units, unit, sizes = np.unique(of_split, return_inverse=True, return_counts=True)
    count = min(folds, len(units))
    if count < 2:
        raise SplitError(f"the {split} split has {len(units)} units for {folds} folds; two are the "
                         "least (smaller --block-degrees?)")  # fmt: skip
    shuffled = np.random.default_rng(seed).permutation(len(units))
    fold_of_unit, held = np.empty(len(units), np.int64), np.zeros(count)
    for one in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of_unit[one] = held.argmin()
        held[fold_of_unit[one]] += sizes[one]
    made = Folds(split=split, fold=fold_of_unit[unit], count=count, notes=())
    lost = ~_is_trained(samples, made)
    notes = tuple(
        f"class {name!r}: {number} series are held out while none of the class trains"
        for at, name in enumerate(samples.classes)
        if (number := int((lost & (samples.label == at)).sum()))
    )
    return replace(made, notes=notes)


def _is_trained(samples: Samples, folds: Folds) -> np.ndarray:
    """Say of each series whether its class trains while it is held out."""
    found = np.zeros(len(samples), bool)
    for fold in range(folds.count):
        held = folds.held_out(fold)
        found[held] = np.isin(samples.label[held], samples.label[folds.trained_on(fold)])
    return found


def _highest(samples: Samples, folds: Folds) -> dict[str, float]:
    """Return the scores of a model that is right wherever it can be, as no model is.

    Series that cannot be named must be given some class: the sum of F1 is largest if all are given
    the same, because it is convex in how many each gets.
    """
    held = np.concatenate([folds.held_out(fold) for fold in range(folds.count)])
    trained, label = _is_trained(samples, folds)[held], samples.label[held]
    found = []
    for given in range(len(samples.classes)):
        wrong = np.where(label == given, (given + 1) % len(samples.classes), given)
        answer = np.where(trained, label, wrong).astype(np.int64)
        found.append(Scores.from_labels(label, answer, samples.classes))
    return {
        "accuracy": round(float(trained.mean()), 4),
        "macro_f1": round(max(scores.macro_f1 for scores in found), 4),
    }


def _learner(
    name: str, options: argparse.Namespace, samples: Samples, seed: int
) -> Callable[[Folds], OutOfFold]:
    features = default_features(samples.bands)
    if name in (DEFAULT, REFERENCE):
        config = TrainConfig.preset(
            "default" if name == DEFAULT else "reference",
            features=features, seed=seed, threads=options.threads,
        )  # fmt: skip
        if options.epochs is not None:
            config = replace(config, epochs=options.epochs)
        return lambda folds: cross_validate(samples, config, folds=folds)
    if name in BASELINES:
        return lambda folds: cross_validate_baseline(
            name, samples, features, folds=folds, seed=seed, threads=options.threads
        )
    return lambda folds: cross_validate_majority(samples, features, folds=folds)


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean and standard deviation over the seeds, and each of them."""
    found: dict[str, Any] = {}
    for figure in (*FIGURES, "seconds"):
        values = np.array([run[figure] for run in runs])
        found[figure] = round(float(values.mean()), 4)
        if figure != "seconds":
            found[f"{figure}_sd"] = round(float(values.std(ddof=1)), 4) if len(values) > 1 else None
            found[f"{figure}_by_seed"] = values.round(4).tolist()
    return found


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Return what people are told of a measurement."""
    units = ", ".join(f"{count} {name}" for name, count in found["units"].items())
    yield (
        f"{', '.join(found.get('tables', ['samples']))}: {found['series']:,} series of {found['steps']} steps and "
        f"{len(found['bands'])} bands, {len(found['classes'])} classes; {units}"
    )
    yield f"{found['split']} split, {found['folds']} folds, {found['seeds']} seeds"
    highest = found["highest"]
    yield f"highest possible accuracy {highest['accuracy']:.3f}, macro-F1 {highest['macro_f1']:.3f}"
    yield f"{'model':<20} {'accuracy':>15} {'macro-F1':>15} {'… of trained':>15} {'… of trained':>15} {'s':>7}"
    for name, scores in found["models"].items():
        figures = " ".join(
            f"{scores[figure]:>7.3f} ± {scores[f'{figure}_sd'] or 0:.3f}" for figure in FIGURES
        )
        yield f"{name:<20} {figures} {scores['seconds']:>7.1f}"
    for note in found["notes"]:
        yield f"note: {note}"


if __name__ == "__main__":
    sys.exit(main())
