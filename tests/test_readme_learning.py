"""What the README says of learning is done as it stands there, on a small table of series."""

import csv
import io
import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.classifier import SpeciesClassifier
from pipelines.__main__ import main
from pipelines.recipe import read_recipe

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")

LABELS = ("beech", "Larix decidua", "Larix kaempferi", "pine", "unknown", "spruce")
"""Label of stand n: the n-th, and so on round; decisions of the README fit to that."""

QUICK = (
    *("--set", "training.folds=2", "--set", "training.epochs=2", "--set", "training.members=1"),
    *("--set", "training.search.trials=2", "--set", "training.importance=false"),
    *("--set", "training.search.ranges={ hidden = [4, 8], architecture = ['lstm', 'tempcnn'] }"),
    *("--set", "training.audit=tell"),
)


def block(kind: str, holding: str) -> str:
    """Return the README's block of a language that holds a text."""
    found = [
        one for one in re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) if holding in one
    ]
    assert len(found) == 1
    return str(found[0])


def inventory(path: Path) -> Path:
    """Write monthly NDVI and EVI of two series a stand, whose season tells the label."""
    random = np.random.default_rng(0)
    rows = []
    for stand in range(1, 61):
        kind = stand % len(LABELS)
        for number in (0, 1):
            for month in range(1, 13):
                value = 0.5 + 0.2 * np.cos((month - 7 - kind / 2) / 6 * np.pi)
                rows.append(
                    {
                        "id": f"{stand}-{number}",
                        "stand": f"stand {stand}",
                        "longitude": 10 + 0.4 * (stand % 8) + 0.001 * number,
                        "latitude": 46 + 0.4 * (stand // 8),
                        "date": f"2021-{month:02d}-15",
                        "label": LABELS[kind],
                        "NDVI": round(float(value + random.normal(0, 0.03)), 4),
                        "EVI": round(float(0.8 * value + random.normal(0, 0.03)), 4),
                    }
                )
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carry out what the README says; return the folder of the run."""
    folder = tmp_path_factory.mktemp("readme")
    table = inventory(folder / "series.csv")
    words = ("import-table", str(table), "--to", str(folder / "imported"), "--group", "stand")
    assert main([*words, "--json"]) == 0
    (folder / "decisions.csv").write_text(block("csv", "group,given,decision"))
    recipe = block("toml", "[training.search]")
    for line in ('file = "plots.gpkg"', 'class_column = "species"', 'group_column = "stand"'):
        assert line in recipe
        recipe = recipe.replace(line, "")
    recipe = recipe.replace("[reference]", '[reference]\nsamples = "imported/samples.zarr"')
    if not all(find_spec(name) for name in ("onnx", "onnxscript")):
        recipe = recipe.replace("onnx = true", "onnx = false")
    (folder / "recipe.toml").write_text(
        f'name = "README"\n{recipe}\n[outputs]\nfolder = "run"\n', encoding="utf-8"
    )
    assert main(["run", str(folder / "recipe.toml"), "--json", *QUICK]) == 0
    return folder


def test_the_recipe_is_one(tmp_path: Path) -> None:
    text = block("toml", "[training.search]")
    assert tomllib.loads(text)["training"]["search"]["trials"] == 20
    (tmp_path / "plots.gpkg").touch()
    (tmp_path / "decisions.csv").touch()
    area = 'name = "A"\n[area]\nbbox = [10, 46, 10.1, 46.1]\n[months]\nfirst = "2022-01"\n'
    source = 'last = "2022-12"\n[source]\nkind = "stac"\ncatalogue = "earth-search"\n'
    (tmp_path / "recipe.toml").write_text(
        f'{area}{source}{text}\n[outputs]\nfolder = "run"\n', encoding="utf-8"
    )
    section = read_recipe(tmp_path / "recipe.toml").training
    assert section.search is not None
    # three splits of one fold each, the strictest of five: as many searches of 20 trials, 5 folds
    assert (3 * section.folds_used + section.folds) * section.search.trials * section.folds == 800
    assert "beforehand: here about 900" in README  # with the 100 that find what is saved


def test_classes_are_merged_and_decisions_followed(learned: Path) -> None:
    found = json.loads((learned / "run" / "report.json").read_text())["samples"]
    # ten stands of two series each; stand 17 becomes larch, stand 21 goes
    assert found["by_class"] == {"beech": 20, "larch": 42, "pine": 18, "spruce": 18}
    assert found["dropped"]["samples that decisions drop"] == 2
    assert found["dropped"]["samples of classes not asked for"] == 20
    rows = list(csv.DictReader(io.StringIO(block("csv", "group,given,decision"))))
    assert [row["decision"] for row in rows] == ["fix", "drop", "accept"]


def test_the_winner_is_saved_and_scored_as_said(learned: Path) -> None:
    found = json.loads((learned / "run" / "report.json").read_text())["training"]
    entries = {(one["split"], one["model"]) for one in found["scores"]["entries"]}
    assert {"random", "grouped", "block", "knndm"} == {split for split, _ in entries}
    assert {"lda", "random forest"} <= {model for _, model in entries}
    assert "logistic regression" not in {model for _, model in entries}
    assert found["model"] == found["scores"]["best"]
    assert len(found["search"]) == 2
    levels = [set(level["nodes"]) for level in found["legend"]["levels"]]
    assert levels[:2] == [{"beech", "conifers"}, {"beech", "larch", "evergreen conifers"}]


def test_predict_names_the_classes_of_a_table(learned: Path) -> None:
    target = learned / "classes.csv"
    folder = learned / "run" / "classifier"
    assert main(["predict", str(folder), str(learned / "series.csv"), "--to", str(target)]) == 0
    classes = SpeciesClassifier.load(folder).classes
    assert set(pd.read_csv(target)["class"]) <= set(classes) == {"beech", "larch", "pine", "spruce"}
