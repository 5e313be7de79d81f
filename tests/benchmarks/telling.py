"""A simulated forest in, how much single layers tell of class, place and date out.

Run with `python -m tests.benchmarks.telling [--json]`. The air of the simulated forest knows
nothing of its trees: what AOT and WVP alone score under a random split is memory of the place, and
what a random split can claim for nothing. Scored by scikit-learn's own random forest and folds.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict

from tests.benchmarks.rounds import machine, show

sys.path.append(str(Path(__file__).parents[1] / "simulated"))

from changqing import ExportSpec, write_export

BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
LAYERS: tuple[tuple[str, ...], ...] = (("AOT",), ("WVP",), ("B1",), ("B9",), ("B4",), BANDS)
BLOCK = 20
"""Edge of a block in pixels of 10 m."""


def rows_of(rows: pd.DataFrame, layers: Sequence[str], seed: int) -> dict[str, Any]:
    """Score a forest that sees only `layers` on all dates, then on single dates."""
    series = rows.pivot_table(
        index=["point", "row", "column"], columns="image", values=list(layers), aggfunc="first"
    )
    label = rows.groupby(["point", "row", "column"])["class"].first().loc[series.index].to_numpy()
    point, row, column = (
        series.index.get_level_values(name).to_numpy() for name in ("point", "row", "column")
    )
    block = row // BLOCK * 1000 + column // BLOCK
    shuffled = StratifiedKFold(5, shuffle=True, random_state=seed)
    forest = RandomForestClassifier(100, random_state=seed)
    found: dict[str, Any] = {"layers": " ".join(layers), "seed": seed}
    for name, folds, group in (
        ("random", shuffled, None),
        ("point", GroupKFold(5), point),
        ("block", GroupKFold(5), block),
    ):
        given = cross_val_predict(forest, series.to_numpy(), label, groups=group, cv=folds)
        found[f"accuracy, {name} split"] = round(float(accuracy_score(label, given)), 3)
        found[f"macro-F1, {name} split"] = round(float(f1_score(label, given, average="macro")), 3)
    placed = cross_val_predict(forest, series.to_numpy(), block, cv=shuffled)
    found["names the 200 m block"] = round(float(accuracy_score(block, placed)), 3)
    looks = rows.sample(min(6000, len(rows)), random_state=seed)
    dated = cross_val_predict(forest, looks[list(layers)].to_numpy(), looks["image"], cv=5)
    found["names the date"] = round(float(accuracy_score(looks["image"], dated)), 3)
    found["largest class"] = round(
        float(np.unique(label, return_counts=True)[1].max()) / len(label), 3
    )
    return found


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.telling", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--seeds", type=int, default=3, help="number of random splits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export = write_export(Path(folder) / "exports", ExportSpec(has_gaps=False, is_masked=False))
        rows = export.rows[export.ground_truth]
    found = [rows_of(rows, layers, seed) for layers in LAYERS for seed in range(options.seeds)]
    show(
        {"What single layers tell, nine dates, seven classes": found},
        where=machine(["numpy", "scikit-learn"]),
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
