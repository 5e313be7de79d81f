"""Labelled series in, how honest probabilities, sets and the area of applicability are out.

`python -m tests.benchmarks.certainty [TABLE ...] --json` holds out blocks (`--split`) as `train`
does (a class of one block is never held out) and measures on what was held out, with figures fitted on other blocks: the calibration error before and after
the temperature (`ece_chance`: what perfect probabilities would show on as few samples), the
coverage of 90 % conformal sets (`coverage_lowest`: of the worst class with 20 held-out samples or
more), and which share of held-out and of foreign samples is inside the area of applicability.
Foreign are held-out samples changed: 0.1 added to reflectance (`offset`); every second band 10 %
brighter and the others darker (`gains`), or 30 % of the next band in each (`shapes`), for another
sensor; half a year late (`season`). Bands that are no reflectance have the season only.

Without a table it simulates a forest a seed (`--scale`, or `--forest` for folders that hold its
samples) and reads the MODIS series and the site of real scenes in the data folder. Models:
`default lstm`, `reference lstm`, and the simple ones; an lstm's last hidden layer is a space of
its own (`--no-hidden`).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cube.errors import InputError
from cube.forest import ForestSpec, write_forest
from cube.samplestore import open_samples
from model import Samples, TrainConfig
from model.baselines import BASELINES, fit_baseline
from model.certainty.applicability import clear_values, thresholds_of
from model.certainty.calibrate import cross_calibrated
from model.certainty.conformal import cross_conformal
from model.certainty.reliability import assess_reliability
from model.certainty.space import Space
from model.crossvalidate import train_network
from model.errors import ModelError
from model.features import BANDS, default_features
from model.fitted import Fitted
from model.predictor import Predictor
from model.split import Folds, make_folds
from pipelines.demo import demo_recipe
from pipelines.recipe import read_recipe
from pipelines.run import open_run
from pipelines.series_options import add_series_options, series_options
from tests.benchmarks.rounds import machine
from tests.benchmarks.series import imported
from tests.benchmarks.site import DATA, site_samples

DEFAULT, REFERENCE = "default lstm", "reference lstm"
MODELS = (DEFAULT, REFERENCE, *BASELINES)
MODIS = DATA / "sits-labelled-series" / "samples_modis_ndvi.csv"
ENOUGH = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every set with every model asked for; print a table, or one JSON object."""
    options = _parser().parse_args(arguments)
    try:
        rows = list(_rows(options))
    except (InputError, ModelError) as error:
        print(f"certainty: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"machine": machine(["numpy", "torch", "scikit-learn"]), "runs": rows}))
    else:
        print("\n".join(_lines(rows)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.certainty", description=__doc__
    )
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE")
    parser.add_argument("--sets", default="forest,modis,site1", help="without tables (%(default)s)")
    parser.add_argument("--models", default=f"{DEFAULT},random forest", help=", ".join(MODELS))
    parser.add_argument("--split", choices=("block", "grouped"), default="block")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="0, 1 .. of folds and weights (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="edge of the forest, 1 is 4.8 km")
    parser.add_argument("--forest", type=Path, nargs="+", help="samples.zarr of a forest a seed")
    parser.add_argument("--epochs", type=int, help="of the lstm, for a quick look")
    parser.add_argument("--no-hidden", action="store_true", help="leave the hidden layer out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--crs")
    parser.add_argument("--json", action="store_true")
    add_series_options(parser)
    parser.set_defaults(nodata=["auto"], block_degrees=1.0)
    return parser


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    models = [name.strip() for name in options.models.split(",")]
    if unknown := [name for name in models if name not in MODELS]:
        raise InputError(f"--models {unknown[0]!r} is not known; expected {', '.join(MODELS)}")
    for seed in range(options.seeds):
        for name, samples in _sets(options, seed):
            folds = make_folds(samples, options.split, folds=options.folds, seed=seed)
            for model in models:
                started = time.perf_counter()
                found = _measured(samples, folds, model, options, seed)
                seconds = round(time.perf_counter() - started, 1)
                row = {"set": name, "model": model, "seed": seed, **found, "seconds": seconds}
                print(json.dumps(row), file=sys.stderr, flush=True)
                yield row


def _sets(options: argparse.Namespace, seed: int) -> Iterator[tuple[str, Samples]]:
    if options.tables:
        samples, _ = imported(options.tables, series_options(options))
        yield options.tables[0].name, samples
        return
    wanted = options.sets.split(",")
    if "forest" in wanted:
        yield "forest", _forest(options, seed)
    if "modis" in wanted:
        yield "modis", imported([MODIS], series_options(options))[0]
    if "site1" in wanted:
        yield "site1", site_samples()


def _forest(options: argparse.Namespace, seed: int) -> Samples:
    """Return the samples of a simulated forest, by the whole chain; another one for each seed."""
    if options.forest:
        return _opened(options.forest[seed % len(options.forest)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_forest(folder / "forest", ForestSpec(seed=7 + seed, scale=options.scale))
        (folder / "demo.toml").write_text(demo_recipe(), encoding="utf-8")
        with open_run(read_recipe(folder / "demo.toml", ())) as run:
            run.build()
            run.sample()
        return _opened(folder / "samples.zarr")


def _opened(path: Path) -> Samples:
    stored = open_samples(path)
    return _samples(
        stored["reflectance"].values,
        bands=[str(name) for name in stored["band"].values],
        periods=[str(name) for name in stored["period"].values],
        labels=[str(name) for name in stored["label"].values],
        group=stored["group"].values,
        block=stored["block"].values,
    )


def _samples(
    reflectance: np.ndarray, *, group: np.ndarray, block: np.ndarray, **rest: Any
) -> Samples:
    samples = Samples.from_names(
        reflectance=reflectance.astype(np.float32),
        group=np.unique(group, return_inverse=True)[1],
        block=np.unique(block, return_inverse=True)[1],
        **rest,
    )
    return samples.with_clear_periods(default_features(samples.bands))


def _measured(
    samples: Samples, folds: Folds, model: str, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Train on all folds but one in turn; measure on the one."""
    probability = np.full((len(samples), len(samples.classes)), np.nan, np.float32)
    distances: dict[str, dict[str, np.ndarray]] = {}
    for fold in range(folds.count):
        train, held = samples.take(folds.trained_on(fold)), folds.held_out(fold)
        if not len(held):
            continue
        fitted = _learned(train, model, folds, options, seed)
        test = samples.take(held)
        probability[held] = fitted.probability(test.reflectance, test.bands)
        spaces = {
            name: Space.learn(values, label=train.label, group=train.group)
            for name, values in _values(fitted, train, options).items()
        }
        for kind, changed in {"own": test, **_foreign(test)}.items():
            for name, values in _values(fitted, changed, options).items():
                of_kind = distances.setdefault(kind, {})
                into = of_kind.setdefault(name, np.full(len(samples), np.nan, np.float32))
                into[held] = spaces[name].dissimilarity(values)
    there = np.flatnonzero(np.isfinite(probability).all(axis=1))
    unit = (samples.block if folds.split == "block" else samples.group)[there]
    outside = _outside({k: {n: d[there] for n, d in of.items()} for k, of in distances.items()},
                       folds.fold[there])  # fmt: skip
    return {**_honesty(probability[there], samples.label[there], unit, seed), **outside}


def _learned(
    train: Samples, model: str, folds: Folds, options: argparse.Namespace, seed: int
) -> Predictor:
    features = default_features(train.bands)
    if model in BASELINES:
        return fit_baseline(model, train, features, seed=seed, threads=options.threads)
    config = TrainConfig.preset(
        "default" if model == DEFAULT else "reference",
        features=features, seed=seed, threads=options.threads,
    )  # fmt: skip
    if options.epochs is not None:
        config = replace(config, epochs=options.epochs)
    return train_network(train, config, stop_by=folds.split)


def _values(
    fitted: Predictor, samples: Samples, options: argparse.Namespace
) -> dict[str, np.ndarray]:
    values = {"features": clear_values(fitted.features, samples.reflectance, samples.bands)}
    if isinstance(fitted, Fitted) and not options.no_hidden:
        values["hidden"] = fitted.hidden(samples.reflectance, samples.bands)[:, None]
    return values


def _foreign(samples: Samples) -> dict[str, Samples]:
    """Return the samples as they would be with an offset, from another sensor, half a year late."""
    own = samples.reflectance
    found = {"season": np.roll(own, len(samples.periods) // 2, axis=1)}
    if set(samples.bands) <= set(BANDS):
        sign = np.where(np.arange(len(samples.bands)) % 2, 1, -1)
        shapes = own.copy()
        shapes[..., :-1] = 0.7 * own[..., :-1] + 0.3 * own[..., 1:]
        found |= {"offset": own + 0.1, "gains": own * (1 + 0.1 * sign), "shapes": shapes}
    return {
        kind: replace(samples, reflectance=changed.astype(np.float32))
        for kind, changed in found.items()
    }


def _honesty(
    probability: np.ndarray, label: np.ndarray, unit: np.ndarray, seed: int
) -> dict[str, Any]:
    before = assess_reliability(probability, label)
    honest = cross_calibrated(probability, label, unit, seed=seed)
    after = assess_reliability(honest.probability, label)
    sets = cross_conformal(honest.probability, label, unit, seed=seed)
    counts = np.bincount(label, minlength=probability.shape[1])
    told = sets.to_dict()
    return {
        "samples": len(label),
        "accuracy": before.accuracy,
        "ece_before": before.error,
        "ece": after.error,
        "ece_chance": after.chance_error,
        "log_loss": after.log_loss,
        "temperature": float(np.mean(honest.temperatures)),
        "coverage": sets.share,
        "coverage_lowest": float(np.min(sets.by_class[counts >= ENOUGH])),
        "coverage_by_group": sets.by_group,
        "set_size": told["mean_size"],
    }


def _outside(distances: dict[str, dict[str, np.ndarray]], fold: np.ndarray) -> dict[str, float]:
    """Return shares outside (of `own`: inside), each fold by the thresholds of the others."""
    shares: dict[str, list[np.ndarray]] = {kind: [] for kind in distances}
    for index in np.unique(fold):
        held, rest = fold == index, fold != index
        limits = thresholds_of({name: d[rest] for name, d in distances["own"].items()})
        for kind, of_kind in distances.items():
            is_out = [of_kind[name][held] > limit for name, limit in limits.items()]
            shares[kind].append(np.any(is_out, axis=0))
    found = {kind: float(np.concatenate(parts).mean()) for kind, parts in shares.items()}
    return {"inside": 1 - found.pop("own"), **{f"outside_{k}": v for k, v in found.items()}}


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Return the means over the seeds as a table."""
    names = [name for name in rows[0] if name not in ("set", "model", "seed", "samples")]
    names += [
        name for row in rows for name in row if name.startswith("outside") and name not in names
    ]
    names = list(dict.fromkeys(names))
    yield "| set | model | " + " | ".join(names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for key in dict.fromkeys((row["set"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["model"]) == key]
        cells = [
            f"{np.mean([row[name] for row in mine]):.3f}" if name in mine[0] else ""
            for name in names
        ]
        yield f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
