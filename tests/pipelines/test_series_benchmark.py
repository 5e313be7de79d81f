"""The benchmark of labelled series: its folds are those that scikit-learn deals."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupKFold

from model import Samples

SOURCE = Path(__file__).parents[1] / "benchmarks" / "series.py"


@pytest.fixture(scope="module")
def series() -> ModuleType:
    """Load the benchmark as a module; its folder is no package."""
    spec = importlib.util.spec_from_file_location("series_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def samples_of(block: np.ndarray, label: np.ndarray) -> Samples:
    count = len(block)
    return Samples.from_names(
        reflectance=np.random.default_rng(0).random((count, 4, 1)).astype(np.float32),
        bands=("NDVI",),
        periods=("2018-03", "2018-04", "2018-05", "2018-06"),
        labels=label.tolist(),
        group=np.arange(count),
        block=block,
    )


def test_every_unit_is_held_out_once_as_scikit_learn_does(series: ModuleType) -> None:
    random = np.random.default_rng(3)
    block = np.repeat(np.arange(17), np.arange(1, 18) * 3)  # no two of one size: one way to deal
    samples = samples_of(block, random.choice(["oak", "beech"], len(block)))
    folds = series.folds_of(samples, "block", folds=5, seed=1)
    dealt = GroupKFold(5).split(np.zeros(len(block)), groups=block)
    expected = {frozenset(test.tolist()) for _, test in dealt}
    found = {frozenset(folds.held_out(fold).tolist()) for fold in range(5)}
    assert found == expected
    for fold in range(5):
        assert not set(block[folds.held_out(fold)]) & set(block[folds.trained_on(fold)])


def test_a_class_of_one_block_is_held_out_and_told(series: ModuleType) -> None:
    block = np.repeat(np.arange(10), 6)
    label = np.where(block == 4, "yew", np.where(np.arange(60) % 2, "oak", "beech"))
    samples = samples_of(block, label)
    folds = series.folds_of(samples, "block", folds=5, seed=0)
    assert folds.notes == ("class 'yew': 6 series are held out while none of the class trains",)
    highest = series._highest(samples, folds)
    # oak and beech have 27 series each, and six more must be called one of them
    assert highest == {
        "accuracy": 0.9,
        "macro_f1": pytest.approx((0 + 1 + 2 * 27 / (2 * 27 + 6)) / 3, abs=1e-4),
    }


def test_one_command_scores_a_table(
    series: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    rows = [
        {
            "id": one,
            "lon": 10.5 + one % 7,
            "lat": 50.5,
            "date": f"20{10 + one % 4}-{month:02d}-10",
            "label": ("oak", "beech")[one % 2],
            "NDVI": 0.3 + 0.3 * (one % 2) + random.normal(0, 0.02),
        }
        for one in range(42)
        for month in range(3, 8)
    ]
    path = tmp_path / "t.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    words = [str(path), "--seeds", "2", "--json", "--models", "lda,majority class"]
    for split, units in {"block": "blocks", "year": "years"}.items():
        assert series.main([*words, "--split", split]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["held_out"] == found["series"] == 42
        assert found["units"][units] == {"blocks": 7, "years": 4}[units]
        assert found["models"]["lda"]["accuracy"] == 1
        assert found["models"]["lda"]["macro_f1_by_seed"] == [1, 1]
    assert series.main([*words, "--split", "region"]) == 2
    assert "needs a region of every series" in capsys.readouterr().err
