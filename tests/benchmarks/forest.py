"""A simulated forest in, how each model does on stands it never saw, as they are and disturbed, out.

`python -m tests.benchmarks.forest --json` simulates a forest a seed (`--scale`, or `--forest` for
folders that hold its samples) and holds out stands (`grouped`) and 600 m squares (`block`), the
same folds for every model. By stand it also asks the same models about held-out samples

- without four of their twelve months (`four_months`, mean of `--draws` choices; `worst` of them);
- with the season moved 15 days (`later`, `earlier`), read by interpolation between the months that
  are clear;

and trains on the same folds anew

- with 20 % of the training stands given another class (`mislabelled`; held-out labels are true);
- for shares: held-out plots are blended of samples of two stands of different classes, 10 to 90 % of
  each. `share_error` is the mean of |predicted - true| over the two classes, `_of_all` over all
  classes, `_of_leaf_type` that of the share of conifers where the two differ in it. A model learns
  from pure samples only (`pure`), and from as many blends of training stands besides, with their
  shares (`soft`; simple models take none).

Drops are differences from the same model on the same held-out samples as they are. `--parts`
chooses; the reference LSTM takes minutes a fold, so `--reference-folds` bounds it: every model is
also scored on those folds alone (`accuracy_first`, `macro_f1_first`), to compare with it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cube.errors import InputError
from cube.forest import ForestSpec, write_forest
from model import Samples, TrainConfig
from model.assess import Scores
from model.baselines import BASELINES, fit_baseline
from model.crossvalidate import train_network
from model.doctor.trusted import weigh_doubt
from model.errors import ModelError
from model.features import default_features
from model.learn import Doubtful
from model.predictor import Predictor
from model.split import Folds, make_folds
from pipelines.demo import demo_recipe
from pipelines.learning_samples import learning_samples
from pipelines.recipe import read_recipe
from pipelines.run import open_run
from tests.benchmarks.disturbed import blended, disturbed, joined, share_errors
from tests.benchmarks.labels import planted
from tests.benchmarks.rounds import machine

DEFAULT, REFERENCE = "default lstm", "reference lstm"
MODELS = (DEFAULT, REFERENCE, *BASELINES)
PARTS = ("grouped", "block", "mislabelled", "shares")
WRONG = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every part with every model asked for; print a table, or one JSON object."""
    options = _parser().parse_args(arguments)
    try:
        rows = list(_rows(options))
    except (InputError, ModelError) as error:
        print(f"forest: {error}", file=sys.stderr)
        return 2
    means = _means(rows)
    if options.json:
        where = machine(["numpy", "torch", "scikit-learn"])
        print(json.dumps({"machine": where, "means": means, "runs": rows}))
    else:
        print("\n".join(_lines(means)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.forest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--models", default=",".join(MODELS), help="parted by commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1 .. of forest and weights (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="edge of the forest, 1 is 4.8 km")
    parser.add_argument("--forest", type=Path, nargs="+", help="samples.zarr of a forest a seed")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--folds-used", type=int, help="hold out only the first so many")
    parser.add_argument("--reference-folds", type=int, default=1, help="the same for it (1)")
    parser.add_argument("--draws", type=int, default=10, help="choices of four months (10)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--doubtful", choices=get_args(Doubtful), default="auto",
                        help="whether models learn from samples whose labels others contradict")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="setting of the default lstm, as JSON, to try another")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    models, parts = options.models.split(","), options.parts.split(",")
    for given, known in ((models, MODELS), (parts, PARTS)):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"{unknown[0]!r} is not known; expected {', '.join(known)}")
    for seed in range(options.seeds):
        samples = _forest(options, seed)
        for name in models:
            trial = Trial(name=name, seed=seed, samples=samples, options=options)
            for part in parts:
                if part in ("mislabelled", "shares") and name == REFERENCE:
                    continue  # no target is stated for it, and every fold takes minutes
                started = time.perf_counter()
                found = trial.measured(part)
                row = {"part": part, "model": name, "seed": seed, **found,
                       "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip
                print(json.dumps(row), file=sys.stderr, flush=True)
                yield row


def _forest(options: argparse.Namespace, seed: int) -> Samples:
    """Return the samples of a simulated forest, by the whole chain; another one for each seed."""
    if options.forest:
        samples = learning_samples(options.forest[seed % len(options.forest)])
        return samples.with_clear_periods(default_features(samples.bands))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_forest(folder / "forest", ForestSpec(seed=7 + seed, scale=options.scale))
        (folder / "demo.toml").write_text(demo_recipe(), encoding="utf-8")
        with open_run(read_recipe(folder / "demo.toml", ())) as run:
            run.build()
            run.sample()
        samples = learning_samples(folder / "samples.zarr")
    return samples.with_clear_periods(default_features(samples.bands))


@dataclass(kw_only=True, eq=False)
class Trial:
    """One model on one forest; keeps what it was measured to be by stand, to compare with."""

    name: str
    """One of `MODELS`."""
    seed: int
    """Of folds, weights and what is drawn."""
    samples: Samples
    """Of one forest."""
    options: argparse.Namespace
    """As `_parser` reads them."""
    by_stand: dict[str, float] | None = None
    """Scores by stand, once `grouped` was measured."""

    def measured(self, part: str) -> dict[str, Any]:
        """Return the figures of one of `PARTS`."""
        if part in ("grouped", "block"):
            return self._scored(make_folds(self.samples, part, folds=self.options.folds,
                                           seed=self.seed))  # fmt: skip
        folds = make_folds(self.samples, "grouped", folds=self.options.folds, seed=self.seed)
        return self._mislabelled(folds) if part == "mislabelled" else self._shares(folds)

    def _held(self, folds: Folds) -> Iterator[tuple[int, Samples, Samples]]:
        """Give number, training and held-out samples of each fold that is to be held out."""
        used = self.options.folds_used or folds.count
        if self.name == REFERENCE:
            used = min(used, self.options.reference_folds)
        for fold in range(min(used, folds.count)):
            held = folds.held_out(fold)
            if len(held):
                yield fold, self.samples.take(folds.trained_on(fold)), self.samples.take(held)

    def _learned(self, train: Samples) -> Predictor:
        doubt = weigh_doubt(train, seed=self.seed)
        if self.options.doubtful == "leave out" or (
            self.options.doubtful == "auto" and doubt.helps
        ):
            train = train.take(doubt.kept)
        features = default_features(train.bands)
        if self.name in BASELINES:
            return fit_baseline(
                self.name, train, features, seed=self.seed, threads=self.options.threads
            )
        settings = {} if self.name == REFERENCE else dict(map(_setting, self.options.set))
        config = TrainConfig.preset(
            "reference" if self.name == REFERENCE else "default",
            features=features, seed=self.seed, threads=self.options.threads, **settings,
        )  # fmt: skip
        return train_network(train, config)

    def _scored(self, folds: Folds) -> dict[str, Any]:
        """Score held-out samples as they are; by stand also disturbed."""
        label: list[np.ndarray] = []
        answers: dict[str, list[np.ndarray]] = {}
        classes = self.samples.classes
        for _, train, test in self._held(folds):
            fitted = self._learned(train)
            label.append(test.label)
            views = {"own": test.reflectance}
            if folds.split == "grouped":
                views |= disturbed(test.reflectance, self.options.draws, self.seed)
            for name, values in views.items():
                probability = fitted.probability(values, test.bands)
                answers.setdefault(name, []).append(probability.argmax(axis=1))
        truth = np.concatenate(label)
        scores = {
            name: Scores.from_labels(truth, np.concatenate(parts).astype(np.int64), classes)
            for name, parts in answers.items()
        }
        first = sum(map(len, label[: self.options.reference_folds]))
        answer = np.concatenate(answers["own"]).astype(np.int64)
        there = Scores.from_labels(truth[:first], answer[:first], classes)
        own = scores.pop("own")
        found = {"samples": len(truth), "accuracy": own.accuracy, "macro_f1": own.macro_f1,
                 "accuracy_first": there.accuracy, "macro_f1_first": there.macro_f1}  # fmt: skip
        if folds.split != "grouped":
            return found
        self.by_stand = dict(found)
        gaps = [name for name in scores if name.startswith("gap")]
        for figure in ("accuracy", "macro_f1"):
            drop = {name: found[figure] - getattr(of, figure) for name, of in scores.items()}
            found |= {
                f"{figure}_drop_four_months": float(np.mean([drop[name] for name in gaps])),
                f"{figure}_drop_four_months_worst": max(drop[name] for name in gaps),
                f"{figure}_drop_later": drop["later"],
                f"{figure}_drop_earlier": drop["earlier"],
            }
        return found

    def _mislabelled(self, folds: Folds) -> dict[str, Any]:
        """Train with wrong labels of some stands, score against the true ones."""
        label, answer = [], []
        for fold, train, test in self._held(folds):
            wrong, _ = planted(train, WRONG, seed=100 * self.seed + fold, is_by_frequency=False)
            label.append(test.label)
            fitted = self._learned(wrong)
            answer.append(fitted.probability(test.reflectance, test.bands).argmax(axis=1))
        truth, predicted = np.concatenate(label), np.concatenate(answer).astype(np.int64)
        scores = Scores.from_labels(truth, predicted, self.samples.classes)
        found: dict[str, Any] = {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1}
        if self.by_stand is not None:
            found |= {f"{name}_drop": self.by_stand[name] - found[name] for name in list(found)}
        return found

    def _shares(self, folds: Folds) -> dict[str, Any]:
        """Ask for the shares of blended plots, having learned from pure and from blended ones."""
        ways = ("pure", "soft") if self.name == DEFAULT else ("pure",)
        errors: dict[str, list[float]] = {}
        for fold, train, test in self._held(folds):
            plots = blended(test, count=len(test), seed=200 + 10 * self.seed + fold)
            for way in ways:
                learned = train
                if way == "soft":
                    extra = blended(train, count=len(train), seed=100 + 10 * self.seed + fold)
                    learned = joined(train, extra)
                given = self._learned(learned).probability(plots.reflectance, plots.bands)
                for name, error in share_errors(given, plots).items():
                    errors.setdefault(f"{way}_share_error{name}", []).append(error)
        return {name: float(np.mean(values)) for name, values in errors.items()}


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        raise InputError(f"--set {text!r}; expected NAME=VALUE, the value as JSON") from None


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over the seeds, a row for each part and model."""
    found = []
    for part, model in dict.fromkeys((row["part"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["part"], row["model"]) == (part, model)]
        mean: dict[str, Any] = {"part": part, "model": model, "seeds": len(mine)}
        for name in mine[0]:
            if name in ("part", "model", "seed"):
                continue
            values = [row[name] for row in mine]
            mean[name] = round(float(np.mean(values)), 4)
            if len(mine) > 1 and name not in ("seconds", "samples"):
                mean[f"{name}_sd"] = round(float(np.std(values, ddof=1)), 4)
        found.append(mean)
    return found


def _lines(means: list[dict[str, Any]]) -> Iterator[str]:
    for mean in means:
        figures = (
            f"{name} {value:.3f}"
            for name, value in mean.items()
            if isinstance(value, float) and not name.endswith("_sd") and name != "seconds"
        )
        yield f"{mean['part']:<12} {mean['model']:<20} {', '.join(figures)}"


if __name__ == "__main__":
    sys.exit(main())
