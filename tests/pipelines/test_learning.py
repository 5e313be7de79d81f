"""Labelled series from a table to a classifier: every step, its choices, and what it refuses."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cube.samplestore import open_samples, stored_folds
from model.classifier import SpeciesClassifier
from model.classunits import classes_of_few, groups_by_class
from pipelines.label_names import LabelNames, read_label_names

Command = Callable[..., tuple[int, str, str]]

CLASSES = ("beech", "larch", "pine")

PLACES = 10
"""Places of each class, some 30 km apart: as many groups, and several blocks."""

QUICK = (
    *("--set", "training.hidden=8"),
    *("--set", "training.epochs=3"),
    *("--set", 'training.baselines=["lda"]'),
)


def series_table(
    path: Path,
    *,
    classes: Sequence[str] = CLASSES,
    places: int = PLACES,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> Path:
    """Write monthly NDVI and EVI of two series a place, whose season tells the class."""
    random = np.random.default_rng(1)
    rows = []
    for number in range(2 * places * len(classes)):
        kind, spot = number % len(classes), number // (2 * len(classes))
        lon, lat = 10 + 0.4 * (spot % 5) + 0.05 * kind, 46 + 0.4 * (spot // 5)
        for month in range(1, 13):
            season = np.cos((month - 7 - kind) / 6 * np.pi)
            value = 0.5 + (0.1 + 0.1 * kind) * season + random.normal(0, 0.02)
            rows.append(
                {
                    "id": number,
                    "date": date(2021, month, 15).isoformat(),
                    "label": classes[kind],
                    "longitude": round(lon, 4),
                    "latitude": round(lat, 4),
                    "NDVI": round(float(value), 4),
                    "EVI": round(float(value) * 0.8 + random.normal(0, 0.01), 4),
                }
            )
    change(pd.DataFrame(rows)).to_csv(path, index=False)
    return path


@pytest.fixture
def imported(tmp_path: Path, command: Command) -> Path:
    """Return the recipe that the import of a small table wrote."""
    series_table(tmp_path / "series.csv")
    code, _, complaint = command("import-table", tmp_path / "series.csv", "--to", tmp_path / "in")
    assert code == 0, complaint
    return tmp_path / "in" / "recipe.toml"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carry the recipe out once: the folder of the import, with `run` in it."""
    from pipelines.__main__ import main

    folder = tmp_path_factory.mktemp("learned")
    table = series_table(folder / "series.csv")
    assert main(["import-table", str(table), "--to", str(folder / "in"), "--json"]) == 0
    words = ["run", str(folder / "in" / "recipe.toml"), "--json", *QUICK]
    assert main(words) == 0
    return folder


@pytest.fixture
def copy(learned: Path, tmp_path: Path) -> Path:
    """Return the recipe of a copy of what was carried out."""
    shutil.copytree(learned / "in", tmp_path / "in")
    return tmp_path / "in" / "recipe.toml"


def report_of(recipe: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((recipe.parent / "run" / "report.json").read_text())
    return found


def refused(command: Command, *words: str | Path) -> str:
    """Return the complaint of a command that must be refused in one or two lines."""
    code, _, complaint = command(*words)
    assert code == 2, complaint
    assert complaint.startswith("canopycube: ")
    assert len(complaint.strip().splitlines()) == 1
    return complaint


def test_every_step_tells_what_it_found(learned: Path, command: Command) -> None:
    recipe = learned / "in" / "recipe.toml"
    code, printed, _ = command("run", recipe, *QUICK)
    assert code == 0
    for line in (
        r"^samples   60 in 30 groups and \d+ blocks: beech 20, larch 20, pine 20$",
        r"^scores    random +lstm \d\.\d+ / .*; lda .*; majority class .*flatters",
        r"^scores    grouped ",
        r"^scores    block ",
        r"^verdict   lstm: accuracy .* with blocks held out",
        r"calibration error 0\.\d+ \(0\.\d+ before\), Brier score",
        r"sets of likely classes hold the true one for \d+\.\d% \(90% asked\)",
        r"lie inside the area of applicability$",
        r"^done .* peak memory [1-9]",
    ):
        assert re.search(line, printed, flags=re.MULTILINE), line
    text = (recipe.parent / "run" / "report.md").read_text()
    assert "## Audit" in text
    assert "| block | lda |" in text
    assert "Per class of lstm, whole spatial blocks held out" in text


def test_the_classifier_folder_is_whole(learned: Path) -> None:
    folder = learned / "in" / "run" / "classifier"
    classifier = SpeciesClassifier.load(folder)
    assert classifier.classes == CLASSES
    assert classifier.required_bands == ("NDVI", "EVI")
    assert classifier.calibration is not None
    assert classifier.conformal is not None
    assert classifier.applicability is not None
    assert classifier.scores is not None
    assert classifier.scores["verdict"]
    item = json.loads((folder / "item.json").read_text())
    assert {asset["href"] for asset in item["assets"].values()} <= {
        file.name for file in folder.iterdir()
    } | {f"./{file.name}" for file in folder.iterdir()}
    assert "<svg" in (folder / "report.html").read_text()
    assert read_label_names(folder) == LabelNames()


def test_every_sample_knows_its_fold(learned: Path) -> None:
    stored = open_samples(learned / "in" / "run" / "samples.zarr")
    folds = stored_folds(stored)
    assert set(folds) == {"random", "grouped", "block"}
    group, block = stored["group"].values, stored["block"].values
    for split, unit in (("grouped", group), ("block", block)):
        table = pd.DataFrame({"unit": unit, "fold": folds[split]})
        assert (table.groupby("unit")["fold"].nunique() == 1).all()


def test_blocks_stay_those_of_the_import(learned: Path) -> None:
    before = open_samples(learned / "in" / "samples.zarr")["block"].values
    after = open_samples(learned / "in" / "run" / "samples.zarr")["block"].values
    assert (before == after).all()


def test_predictions_say_how_sure_they_are(learned: Path, tmp_path: Path, command: Command) -> None:
    classifier, target = learned / "in" / "run" / "classifier", tmp_path / "found.csv"
    code, printed, _ = command("predict", classifier, learned / "series.csv", "--to", target)
    assert code == 0
    assert "60 classified" in printed
    assert "scores    accuracy" in printed
    found = pd.read_csv(target, keep_default_na=False)
    share = found[[f"probability {name}" for name in CLASSES]].to_numpy(float)
    assert np.allclose(share.sum(axis=1), 1, atol=1e-5)
    assert (found["class"] == np.array(CLASSES)[share.argmax(axis=1)]).all()
    assert set("; ".join(found["likely_classes"]).split("; ")) <= {*CLASSES, ""}
    assert found["is_applicable"].astype(bool).mean() > 0.9

    foreign = series_table(
        tmp_path / "foreign.csv", change=lambda rows: rows.assign(NDVI=rows["NDVI"] - 1.2)
    )
    code, printed, _ = command("predict", classifier, foreign, "--to", target, "--json")
    assert code == 0
    assert json.loads(printed)["applicable"] < 5


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--to", "found.txt"), "no known ending"),
        (("--to", "found.csv", "--step", "fortnight"), "'fortnight' is no step"),
    ],
)
def test_predict_refuses(
    learned: Path, tmp_path: Path, command: Command, words: tuple[str, ...], complaint: str
) -> None:
    words = tuple(str(tmp_path / word) if word.startswith("found") else word for word in words)
    table = learned / "series.csv"
    assert complaint in refused(command, "predict", learned / "in/run/classifier", table, *words)


def test_predict_refuses_other_bands(learned: Path, tmp_path: Path, command: Command) -> None:
    table = series_table(tmp_path / "one.csv", change=lambda rows: rows.drop(columns="EVI"))
    words = ("predict", learned / "in/run/classifier", table, "--to", tmp_path / "found.csv")
    assert "lacks EVI" in refused(command, *words)


@pytest.mark.parametrize("step", ["plan", "build", "map", "publish", "lock", "export"])
def test_what_needs_a_cube_is_refused(imported: Path, command: Command, step: str) -> None:
    assert "needs a cube" in refused(command, step, imported)


def test_training_that_was_killed_ends_with_the_same_classifier(
    learned: Path, imported: Path, command: Command
) -> None:
    words = [sys.executable, "-m", "pipelines", "run", str(imported), *QUICK]
    training = imported.parent / "run" / "training"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(training.glob("grouped-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (imported.parent / "run" / "classifier").exists()
    code, _, complaint = command("run", imported, *QUICK)
    assert code == 0, complaint
    whole = report_of(learned / "in" / "recipe.toml")["training"]
    assert report_of(imported)["training"]["fingerprint"] == whole["fingerprint"]
    assert not training.exists()


def test_done_is_not_done_again(copy: Path, command: Command) -> None:
    before = (copy.parent / "run" / "classifier" / "classifier.json").stat().st_mtime_ns
    assert command("train", copy, *QUICK)[0] == 0
    assert (copy.parent / "run" / "classifier" / "classifier.json").stat().st_mtime_ns == before


def test_legend_model_search_and_splits(copy: Path, command: Command) -> None:
    with copy.open("a") as file:
        file.write('[reference.legend]\nlarch = "conifers"\npine = "conifers"\n')
        file.write("[training.search]\ntrials = 2\n[training.search.ranges]\nhidden = [4, 8]\n")
    words = ("--set", "training.model=auto", "--set", 'training.splits=["knndm"]')
    code, _, complaint = command("train", copy, *QUICK, *words, "--set", "training.folds=2")
    assert code == 0, complaint
    # three splits of one fold, the strictest of two; two trials on two folds each
    assert "search    anew without each held-out part" in complaint
    assert "some 5 searches, 20 networks in all" in complaint
    assert complaint.count("training  search without fold ") == 5
    found = report_of(copy)["training"]
    assert found["model"] in ("lstm", "lda")
    assert found["model"] == found["scores"]["best"]
    assert len(found["search"]) == 2
    assert "was chosen among 2 on these samples" in found["verdict"]
    assert len(found["search_without"]) == 5
    assert all(set(one["settings"]) <= {"hidden"} for one in found["search_without"])
    if found["model"] == "lstm":
        assert (
            "chosen among 2 trials, for each score anew without what it holds" in found["verdict"]
        )
    assert not (copy.parent / "run" / "training").exists()
    assert [len(level["nodes"]) for level in found["legend"]["levels"]] == [2, 3]
    assert {"knndm", "block"} <= {entry["split"] for entry in found["scores"]["entries"]}
    assert SpeciesClassifier.load(copy.parent / "run" / "classifier").legend.depth == 2


def test_a_simple_model_can_be_what_is_saved(copy: Path, tmp_path: Path, command: Command) -> None:
    code, _, complaint = command("train", copy, *QUICK, "--set", "training.model=lda")
    assert code == 0, complaint
    assert report_of(copy)["training"]["verdict"].startswith("lda: accuracy")
    table, target = tmp_path / "series.csv", tmp_path / "found.parquet"
    series_table(table)
    assert command("predict", copy.parent / "run/classifier", table, "--to", target)[0] == 0
    assert len(pd.read_parquet(target)) == 60


def test_decisions_about_labels_are_read(copy: Path, command: Command) -> None:
    code, printed, complaint = command("label-doctor", copy, "--json")
    assert code == 0, complaint
    assert Path(json.loads(printed)["page"]).is_file()
    stored = open_samples(copy.parent / "run" / "samples.zarr")
    group = str(stored["group"].values[stored["label"].values == "beech"][0])
    with (copy.parent / "decisions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "given", "decision", "label", "note"])
        writer.writerow([group, "beech", "fix", "pine", ""])
    text = copy.read_text().replace("[reference]", '[reference]\ndecisions = "decisions.csv"')
    copy.write_text(text)
    code, _, complaint = command("sample", copy)
    assert code == 0, complaint
    assert report_of(copy)["samples"]["by_class"] == {"beech": 18, "larch": 20, "pine": 22}
    refused(command, "train", copy, "--set", "training.folds=20")


def test_severe_faults_stop_training_unless_told_otherwise(
    tmp_path: Path, command: Command
) -> None:
    def repeat(rows: pd.DataFrame) -> pd.DataFrame:
        """Give every series the values of the first series of its class: no split is honest."""
        for name in ("NDVI", "EVI"):
            first = rows[rows["id"] < len(CLASSES)].set_index(["label", "date"])[name]
            rows[name] = first.loc[list(zip(rows["label"], rows["date"], strict=True))].to_numpy()
        return rows

    series_table(tmp_path / "same.csv", change=repeat)
    command("import-table", tmp_path / "same.csv", "--to", tmp_path / "in")
    recipe = tmp_path / "in" / "recipe.toml"
    assert command("sample", recipe)[0] == 0
    code, printed, complaint = command("audit", recipe)
    assert code == 1, printed
    code_word = re.search(r"found ([a-z-]+)", complaint)
    assert code_word is not None
    codes = re.findall(r"^severe +([a-z-]+):", printed, flags=re.MULTILINE)
    assert code_word[1] in codes

    assert command("train", recipe, *QUICK)[0] == 1
    assert not (tmp_path / "in" / "run" / "classifier").exists()
    allowed = ("--set", f"training.audit_allow={json.dumps(codes)}")
    assert command("train", recipe, *QUICK, *allowed)[0] == 0
    assert "(allowed)" in command("train", recipe, *QUICK, *allowed)[1]
    assert command("train", recipe, *QUICK, "--set", "training.audit=tell")[0] == 0
    printed = command("train", recipe, *QUICK, "--set", "training.audit=off")[1]
    told = (
        'audit     switched off (training.audit = "off"): nobody looked for faults of the samples'
    )
    assert told in printed
    assert codes[0] not in printed
    page = (tmp_path / "in" / "run" / "classifier" / "report.html").read_text()
    assert "The audit was switched off" in page
    assert codes[0] not in json.dumps(report_of(recipe)["audit"])
    assert "no code of a finding" in refused(
        command, "train", recipe, *QUICK, "--set", 'training.audit_allow=["nonsense"]'
    )


HOSTILE = ("<script>alert(1)</script>", "a|b`$x$", "=1+1\x1b[31m")


def test_hostile_class_names_are_data(tmp_path: Path, command: Command) -> None:
    series_table(tmp_path / "odd.csv", classes=HOSTILE)
    assert command("import-table", tmp_path / "odd.csv", "--to", tmp_path / "in")[0] == 0
    code, printed, complaint = command("run", tmp_path / "in" / "recipe.toml", *QUICK)
    assert code == 0, complaint
    assert "\x1b" not in printed
    folder = tmp_path / "in" / "run"
    for text in (
        (folder / "classifier" / "report.html").read_text(),
        (folder / "report.md").read_text().split("```")[2],
    ):
        assert "<script>" not in text
        assert "&lt;script" in text


def test_series_without_a_clear_step_are_left_out_and_counted(
    tmp_path: Path, command: Command
) -> None:
    def blank(rows: pd.DataFrame) -> pd.DataFrame:
        """Take one band of one series away: something of it is seen, but never all."""
        rows.loc[rows["id"] == 7, "EVI"] = np.nan
        return rows

    series_table(tmp_path / "gap.csv", change=blank)
    words = ("--nodata", "nan")
    command("import-table", tmp_path / "gap.csv", "--to", tmp_path / "in", *words)
    recipe = tmp_path / "in" / "recipe.toml"
    code, printed, _ = command("run", recipe, *QUICK)
    assert code == 0
    assert "left out  1 samples without a period that is clear in every band" in printed
    folds = stored_folds(open_samples(recipe.parent / "run" / "samples.zarr"))
    assert [fold.tolist().count(-1) for fold in folds.values()] == [1, 1, 1]


def test_onnx_lies_beside_the_classifier(copy: Path, command: Command) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the group onnx")
    code, _, complaint = command("train", copy, *QUICK, "--set", "training.onnx=true")
    assert code == 0, complaint
    file = copy.parent / "run" / "classifier" / "classifier.onnx"
    assert onnxruntime.InferenceSession(str(file)).get_inputs()


def test_a_simple_model_has_no_onnx(copy: Path, command: Command) -> None:
    words = ("--set", "training.onnx=true", "--set")
    assert "writes networks only, and training.model is 'lda'" in refused(
        command, "train", copy, *QUICK, *words, "training.model=lda"
    )
    assert report_of(copy)["training"]["model"] == "lstm"  # nothing was begun
    pytest.importorskip("onnx", reason="needs the group onnx")
    pytest.importorskip("onnxscript", reason="needs the group onnx")
    # one step of a tiny network: the simple model wins
    code, printed, complaint = command(
        "train", copy, *QUICK, *words, "training.model=auto",
        "--set", "training.epochs=1", "--set", "training.learning_rate=1e-6",
    )  # fmt: skip
    assert code == 0, complaint
    assert report_of(copy)["training"]["model"] == "lda"
    assert "warning   no ONNX was written: lda, which won, is no network" in printed
    assert not (copy.parent / "run" / "classifier" / "classifier.onnx").exists()


@pytest.mark.parametrize("name", ["classifier.json", "weights"])
@pytest.mark.parametrize("damage", ["cut", "edited", "gone"])
def test_a_damaged_classifier_is_refused(
    learned: Path, tmp_path: Path, command: Command, name: str, damage: str
) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(learned / "in" / "run" / "classifier", folder)
    file = next(folder.glob(f"{name}*"))
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "edited":
        place = content.index(b'"beech"') if b'"beech"' in content else len(content) - 100
        file.write_bytes(content[: place + 1] + b"B" + content[place + 2 :])
    else:
        file.unlink()
    complaint = refused(
        command, "predict", folder, learned / "series.csv", "--to", tmp_path / "found.csv"
    )
    assert "classifier" in complaint
    assert "again" in complaint or (damage == "gone" and name == "classifier.json")
    assert not (tmp_path / "found.csv").exists()


def test_a_class_of_few_groups_is_refused(tmp_path: Path, command: Command) -> None:
    series_table(tmp_path / "few.csv", places=3)
    command("import-table", tmp_path / "few.csv", "--to", tmp_path / "in", "--group", "id")
    recipe = tmp_path / "in" / "recipe.toml"
    assert command("sample", recipe)[0] == 0
    complaint = refused(command, "train", recipe, *QUICK, "--set", "training.folds=8")
    assert "fewer groups than the 8 folds that score them: beech 6, larch 6, pine 6" in complaint
    assert "training.folds = 6" in complaint
    # every series is its own group here, and two of them are of one place
    allowed = ("--set", 'training.audit_allow=["few-groups", "same-pixel"]')
    code, _, complaint = command("train", recipe, *QUICK, "--set", "training.folds=8", *allowed)
    assert code == 0, complaint


def test_a_class_of_few_groups_is_told_when_it_is_imported_and_sampled(
    tmp_path: Path, command: Command
) -> None:
    def one_larch(rows: pd.DataFrame) -> pd.DataFrame:
        """Leave one series of larch, the second: of id 1."""
        return rows[(rows["label"] != "larch") | (rows["id"] == 1)]

    series_table(tmp_path / "one.csv", change=one_larch)
    code, printed, _ = command("import-table", tmp_path / "one.csv", "--to", tmp_path / "in")
    assert code == 0
    told = "classes have fewer groups than the 5 folds that score them: larch 1; label more places"
    assert f"note      {told}, merge or drop the class" in printed
    assert told in (tmp_path / "in" / "import.md").read_text()
    recipe = tmp_path / "in" / "recipe.toml"
    code, printed, _ = command("sample", recipe)
    assert code == 0
    assert f"          {told}" in printed
    # samples stay as they are, what is told of them follows the folds
    code, printed, _ = command("sample", recipe, "--set", "training.folds=3")
    assert "fewer groups than the 3 folds" in printed
    assert told not in printed
    code, printed, _ = command("sample", recipe, "--set", 'reference.drop=["larch"]')
    assert (code, "fewer groups" in printed) == (0, False)


def test_groups_are_counted_by_class() -> None:
    label = np.array(["a", "a", "b", "b", "c"])
    group = np.array(["1", "2", "2", "2", "3"])
    assert groups_by_class(label, group) == {"a": 2, "b": 1, "c": 1}
    assert classes_of_few({"a": 2, "b": 1, "c": 5}, 3) == {"b": 1, "a": 2}


def _with(rows: pd.DataFrame, at: int, column: str, value: object) -> pd.DataFrame:
    rows[column] = rows[column].astype(object)
    rows.loc[at, column] = value
    return rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: _with(rows, 30, "label", ""), "label"),
        (lambda rows: _with(rows, 30, "label", "   "), "holds '   ', no class"),
        (lambda rows: _with(rows, 30, "label", 5), "label"),
        (lambda rows: _with(rows, 30, "NDVI", "inf"), "NDVI"),
        (lambda rows: _with(rows, 30, "NDVI", np.nan), "NDVI"),
        (lambda rows: _with(rows, 30, "NDVI", "high"), "NDVI"),
        (lambda rows: _with(rows, 30, "date", rows["date"][31]), "date"),
        (lambda rows: rows.iloc[[1, 0, *range(2, len(rows))]], "date"),
        (lambda rows: rows.drop(index=30), "dates"),
    ],
    ids=["blank", "spaces", "mixed", "infinite", "nan", "word", "duplicate", "unsorted", "lengths"],
)
def test_bad_tables_are_refused(
    tmp_path: Path,
    command: Command,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    words: str,
) -> None:
    series_table(tmp_path / "bad.csv", change=change)
    complaint = refused(command, "import-table", tmp_path / "bad.csv", "--to", tmp_path / "in")
    assert words in complaint
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "reference.drop=['beech','larch','pine']",
            "classes not asked for; name classes in reference.classes",
        ),
        ("reference.drop=['beech','larch']", "class"),
        ("reference.drop=['oak']", "'oak'"),
        ("sampling.min_clear_months=13", "clear"),
    ],
)
def test_a_class_that_filters_empty_is_refused(
    imported: Path, command: Command, key: str, words: str
) -> None:
    assert words in refused(command, "sample", imported, "--set", key)
