"""Stored samples in; how many planted wrong labels the label doctor finds, and how surely, out.

`python -m tests.benchmarks.labels FOLDER/samples.zarr --share 0.2 --seeds 4 --json` gives a share of
the groups another class, drawn evenly or, with `--by-frequency`, as often as classes occur, and lets
the doctor judge: recall is the share of planted groups among its suspects, precision the share of
suspects that were planted. `--share 0` says how many labels it doubts of those as they are, which
may hold errors of their own.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cube.errors import InputError
from model.doctor import diagnose, doctor_features, pooled_baselines
from model.errors import ModelError
from model.samples import Samples
from model.split import make_folds
from pipelines.learning_samples import learning_samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant and look for wrong labels; print a line a seed, or one JSON object."""
    options = _parser().parse_args(arguments)
    try:
        found = measured(options)
    except (InputError, ModelError) as error:
        print(f"labels: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found) if options.json else "\n".join(_lines(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.labels", description=__doc__)
    parser.add_argument("samples", type=Path, help="a store of samples")
    parser.add_argument("--share", type=float, default=0.2, help="of the groups (%(default)s)")
    parser.add_argument("--by-frequency", action="store_true", help="wrong classes as they occur")
    parser.add_argument("--seeds", type=int, default=3, help="noises drawn (%(default)s)")
    parser.add_argument("--model", action="append", help="baseline; several are pooled (lda)")
    parser.add_argument("--rounds", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was found for each seed, and means over them."""
    clean = learning_samples(options.samples)
    models = tuple(options.model or ("lda",))
    runs = []
    for seed in range(options.seeds):
        samples, wrong = planted(
            clean, options.share, seed=seed, is_by_frequency=options.by_frequency
        )
        started = time.perf_counter()
        folds = make_folds(samples, "grouped", folds=options.folds)
        fit = pooled_baselines(doctor_features(samples.bands), names=models)
        diagnosis = diagnose(fit, samples, folds, rounds=options.rounds)
        suspects = set(diagnosis.suspects.tolist())
        hits = len(suspects & wrong)
        runs.append(
            {
                "seed": seed,
                "groups": len(diagnosis),
                "planted": len(wrong),
                "suspects": len(suspects),
                "recall": hits / len(wrong) if wrong else None,
                "precision": hits / len(suspects) if suspects and wrong else None,
                "noise": diagnosis.noise,
                "seconds": time.perf_counter() - started,
            }
        )
    return {
        "samples": str(options.samples),
        "share": options.share,
        "models": list(models),
        "runs": runs,
        **{name: _mean(runs, name) for name in ("suspects", "recall", "precision", "noise")},
    }


def planted(
    samples: Samples, share: float, *, seed: int, is_by_frequency: bool
) -> tuple[Samples, set[int]]:
    """Give so many of the groups another class; return the samples and the groups."""
    random = np.random.default_rng(seed)
    groups, first = np.unique(samples.group, return_index=True)
    own = samples.label[first]
    weight = np.bincount(own, minlength=len(samples.classes)) if is_by_frequency else None
    given = own.copy()
    chosen = random.choice(len(groups), round(share * len(groups)), replace=False)
    for place in chosen:
        odds = np.ones(len(samples.classes)) if weight is None else weight.astype(float)
        odds[own[place]] = 0
        given[place] = random.choice(len(odds), p=odds / odds.sum())
    label = given[np.searchsorted(groups, samples.group)]
    return replace(samples, label=label, share=None), set(groups[chosen].tolist())


def _mean(runs: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run[name] is not None]
    return sum(values) / len(values) if values else None


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['samples']}: {found['share']:.0%} planted, {' + '.join(found['models'])}"]
    for run in [*found["runs"], {"seed": "mean", **found}]:
        figures = (
            f"{name} {run[name]:.2f}"
            for name in ("recall", "precision", "noise")
            if run[name] is not None
        )
        lines.append(f"seed {run['seed']}: {run['suspects']:g} suspects, {', '.join(figures)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
