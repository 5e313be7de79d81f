"""`import-table` on labelled series, and `predict` of a table: what lies in the folder, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cube.errors import InputError
from cube.samplestore import open_samples
from cube.series import SeriesOptions
from model import Samples, TrainConfig
from model.classifier import SpeciesClassifier
from model.errors import ClassifierError
from model.features import default_features
from model.learn import train_classifier
from pipelines.label_names import LabelNames, read_label_names, write_label_names
from pipelines.learning_samples import learning_samples
from pipelines.predict_table import predict_table, prediction_lines
from pipelines.progress import Reporter
from pipelines.recipe import ReferenceSection

Command = Callable[..., tuple[int, str, str]]


def seasons(series: int = 24, *, seed: int = 0, first: int = 2010) -> pd.DataFrame:
    """Return monthly series of three years: a class that greens early, and one that does late."""
    random = np.random.default_rng(seed)
    rows = []
    for one in range(series):
        peak = (5, 8)[one % 2]
        for month in range(12):
            greenness = 0.2 + 0.6 * np.exp(-(((month - peak) / 2) ** 2))
            rows.append(
                {
                    "id": one,
                    "longitude": 10.05 + one % 6,
                    "latitude": 50.05,
                    "date": f"{first + one % 3}-{month + 1:02d}-{14 - one % 2}",
                    "label": ("early", "late")[one % 2],
                    "NDVI": round(greenness + random.normal(0, 0.03), 4),
                    "EVI": round(greenness * 0.6 + random.normal(0, 0.03), 4),
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "seasons.csv"
    seasons().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train one on the table, quickly."""
    from pipelines.import_table import import_tables

    folder = tmp_path_factory.mktemp("classifier")
    seasons().to_csv(folder / "seasons.csv", index=False)
    import_tables([str(folder / "seasons.csv")], folder / "imported", Reporter(is_quiet=True))
    samples = learning_samples(folder / "imported" / "samples.zarr")
    config = TrainConfig.preset(
        "default", features=default_features(samples.bands), epochs=30, hidden=16, patience=None
    )
    made = train_classifier(samples, config, colours=("#1b9e77", "#d95f02"))
    made.save(folder / "classifier")
    return folder / "classifier"


def test_series_become_samples_with_a_recipe_and_a_report(
    table: Path, tmp_path: Path, command: Command
) -> None:
    to = tmp_path / "imported"
    code, out, _ = command("import-table", table, "--to", to)
    assert code == 0
    assert {file.name for file in to.iterdir()} == {
        *("samples.zarr", "recipe.toml", "import.json", "import.md")
    }
    assert out.splitlines()[0] == (
        "series    24 of 1 tables, 12 steps 2010-01 .. 2010-12, begun 2010..2012"
    )
    stored = open_samples(to / "samples.zarr")
    expected = pd.read_csv(table).pivot_table(
        index="id", columns=pd.read_csv(table).groupby("id").cumcount(), values="NDVI"
    )
    np.testing.assert_allclose(stored["reflectance"].values[:, :, 0], expected, rtol=1e-6)
    assert stored["year"].values.tolist() == [2010 + one % 3 for one in range(24)]
    assert isinstance(learning_samples(to / "samples.zarr"), Samples)
    report = json.loads((to / "import.json").read_text())
    assert report["samples"]["by_class"] == {"early": 12, "late": 12}
    assert report["samples"]["groups"] == report["samples"]["blocks"] == 6
    assert report["bands"] == ["NDVI", "EVI"]
    assert "| early | 12 | 3 | 3 |" in (to / "import.md").read_text()


def test_an_import_is_replaced_and_nothing_else(
    table: Path, tmp_path: Path, command: Command
) -> None:
    to = tmp_path / "imported"
    assert command("import-table", table, "--to", to)[0] == 0
    assert command("import-table", table, "--to", to, "--bands", "EVI")[0] == 0
    assert open_samples(to / "samples.zarr")["band"].values.tolist() == ["EVI"]
    (to / "mine.txt").write_text("x")
    code, _, complaint = command("import-table", table, "--to", to)
    assert (code, "'mine.txt'" in complaint) == (2, True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--id", "plot"), "has no column 'plot' (--id)"),
        (("--step", "week"), "--step 'week' is no step"),
        (("--step", "month", "--first", "2010-03"), "--first and --last go together"),
        (("--first", "2010-03", "--last", "2010-05"), "are the months of a common calendar; say"),
        (("--nodata", "none"), "--nodata 'none' is no number"),
        (("--bands", "NDVI,B04"), "has no column 'B04' (--bands)"),
        (("--scale", "7"), "--scale 7.0; expected"),
        (("--block-degrees", "0"), "--block-degrees 0"),
        (("--label", "date"), ""),
    ],
)
def test_wrong_words_are_told(
    table: Path, tmp_path: Path, command: Command, words: tuple[str, ...], text: str
) -> None:
    code, out, complaint = command("import-table", table, "--to", tmp_path / "to", *words)
    assert (code, out) == (2, "")
    assert text in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_series_and_exports_do_not_mix(table: Path, tmp_path: Path, command: Command) -> None:
    export = tmp_path / "export.csv"
    export.write_text("B2,B3,image_date,longitude,latitude,Class\n1,2,2022-01-01,10,50,oak\n")
    code, _, complaint = command("import-table", table, export, "--to", tmp_path / "to")
    assert code == 2
    assert "'seasons.csv' holds series, 'export.csv' does not look like it" in complaint


def test_the_same_step_whatever_the_table_is_called(table: Path, tmp_path: Path) -> None:
    """Series of other dates come onto one calendar, and the gaps stay gaps."""
    from pipelines.import_table import import_tables

    cut = pd.read_csv(table)
    cut = cut[~((cut["id"] == 3) & (cut["date"].str[5:7].isin(["02", "07"])))]
    cut.to_csv(table, index=False)
    quiet = Reporter(is_quiet=True)
    with pytest.raises(InputError, match=r"23 have 12 dates, 1 others, e.g. series '3'"):
        import_tables([str(table)], tmp_path / "to", quiet)
    report = import_tables([str(table)], tmp_path / "to", quiet, series=SeriesOptions(step="month"))
    assert report["steps_missing_share"] == pytest.approx(2 / (24 * 12))
    values = open_samples(tmp_path / "to" / "samples.zarr")["reflectance"].values
    assert np.argwhere(np.isnan(values[:, :, 0])).tolist() == [[3, 1], [3, 6]]


def predicted(
    classifier: Path, table: pd.DataFrame, folder: Path, name: str = "out.csv", **more: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    path = folder / "new.csv"
    table.to_csv(path, index=False)
    target = folder / name
    report = predict_table(classifier, [str(path)], target, Reporter(is_quiet=True), **more)
    read = pd.read_parquet if target.suffix == ".parquet" else pd.read_csv
    return read(target), report


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_series_without_labels_are_classified(classifier: Path, tmp_path: Path, name: str) -> None:
    new = seasons(10, seed=5, first=2020)
    found, report = predicted(classifier, new.drop(columns="label"), tmp_path, name)
    loaded = SpeciesClassifier.load(classifier)
    values = np.stack([new.loc[new["id"] == one, ["NDVI", "EVI"]] for one in range(10)])
    expected = loaded.predict_samples(values.astype(np.float32), ("NDVI", "EVI"))
    np.testing.assert_allclose(
        found[[f"probability {c}" for c in loaded.classes]], expected, rtol=1e-4, atol=1e-6
    )
    assert found["class"].tolist() == [loaded.classes[at] for at in expected.argmax(axis=1)]
    np.testing.assert_allclose(found["confidence"], expected.max(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["margin"], np.ptp(expected, axis=1), atol=1e-5)
    assert found["id"].tolist() == list(range(10)) if name != "out.parquet" else True
    assert found["months_observed"].eq(12).all()
    assert (report["rows"], report["scores"]) == (10, None)


def test_labels_give_scores(classifier: Path, tmp_path: Path) -> None:
    new = seasons(12, seed=6)
    new.loc[new["id"] == 2, "label"] = "yew"
    found, report = predicted(classifier, new, tmp_path)
    known = found[found["label"] != "yew"]
    assert report["scores"]["accuracy"] == pytest.approx((known["class"] == known["label"]).mean())
    assert report["scores"]["accuracy"] > 0.8
    assert report["scores"]["unknown_labels"] == {"yew": 1}
    assert "          without 'yew' 1: no class of the classifier" in prediction_lines(report)


def test_labels_that_are_all_unknown_are_told(classifier: Path, tmp_path: Path) -> None:
    _, report = predicted(classifier, seasons(4).assign(label="yew"), tmp_path)
    assert report["scores"]["unknown_labels"] == {"yew": 4}
    assert "accuracy" not in report["scores"]
    told = "none: 4 of 4 labelled series are no class of the classifier: 'yew' 4"
    assert f"scores    {told}" in prediction_lines(report)


def test_labels_are_named_as_the_recipe_named_them(classifier: Path, tmp_path: Path) -> None:
    """A table with the labels as they were before they were renamed is scored as one with classes."""
    copy = tmp_path / "classifier"
    shutil.copytree(classifier, copy)
    new = seasons(12, seed=6)
    names = sorted(set(new["label"]))
    raw = {name: f"{name} L." for name in names}
    other = new.replace({"label": raw})
    _, expected = predicted(copy, new, tmp_path, "a.csv")
    _, none = predicted(copy, other, tmp_path, "b.csv")
    [line] = [line for line in prediction_lines(none) if line.startswith("scores")]
    assert line.startswith(
        "scores    none: 12 of 12 labelled series are no class of the classifier"
    )
    other.loc[other["id"] == 0, "label"] = "clearing"
    mapping = {label: name for name, label in raw.items()}
    write_label_names(copy, LabelNames(classes=mapping, drop=frozenset(["clearing"])))
    _, report = predicted(copy, other, tmp_path, "c.csv")
    assert report["scores"]["series"] == 11
    assert report["scores"]["left_out_labels"] == {"clearing": 1}
    other = new.replace({"label": raw})
    _, report = predicted(copy, other, tmp_path, "d.csv")
    assert report["scores"]["accuracy"] == expected["scores"]["accuracy"]


def test_labels_that_a_recipe_left_out_are_known(table: Path, tmp_path: Path) -> None:
    from pipelines.import_table import import_tables

    import_tables([str(table)], tmp_path / "to", Reporter(is_quiet=True))
    section = ReferenceSection.model_validate(
        {"samples": tmp_path / "to" / "samples.zarr", "classes": {"early": "beech"}}
    )
    names = LabelNames.of(section)
    assert names.drop == {"late"}
    write_label_names(tmp_path, names)
    assert read_label_names(tmp_path) == names
    assert [names.class_of(name, ("beech",)) for name in ("early", "late", "beech", "oak")] == [
        "beech", "", "beech", "",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[]", '{"classes": {"a": 1}, "drop": []}', '{"classes": {}}'])
def test_damaged_names_of_labels_are_refused(classifier: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "classifier"
    shutil.copytree(classifier, copy)
    (copy / "labels.json").write_text(text)
    with pytest.raises(ClassifierError, match=r"labels\.json does not say how labels are named"):
        predicted(copy, seasons(4), tmp_path)


def test_no_cell_of_the_table_runs_in_a_spreadsheet(classifier: Path, tmp_path: Path) -> None:
    new = seasons(4).astype({"id": object})
    new["id"] = new["id"].map({0: "=1+2", 1: "-7", 2: "@x", 3: "+cmd|x"})
    new["label"] = "=HYPERLINK(1)"
    found, _ = predicted(classifier, new, tmp_path)
    assert found["id"].tolist() == ["'=1+2", "-7", "'@x", "'+cmd|x"]
    assert set(found["label"]) == {"'=HYPERLINK(1)"}
    found, _ = predicted(classifier, new, tmp_path, "out.parquet")
    assert found["id"].tolist() == ["=1+2", "-7", "@x", "+cmd|x"]


def test_a_prediction_takes_no_words_that_would_do_nothing(
    classifier: Path, table: Path, tmp_path: Path, command: Command
) -> None:
    to = tmp_path / "out.csv"
    assert command("predict", classifier, table, "--to", to)[0] == 0
    for word in ("--bands", "--group-distance", "--block-degrees"):
        with pytest.raises(SystemExit):
            command("predict", classifier, table, "--to", to, word, "1")


def test_series_without_a_step_stay_in_the_table_without_a_class(
    classifier: Path, tmp_path: Path
) -> None:
    new = seasons(4)
    new.loc[new["id"] == 1, "NDVI"] = np.nan
    options = SeriesOptions(nodata=(float("nan"),))
    found, report = predicted(classifier, new, tmp_path, options=options)
    assert found["class"].isna().tolist() == [False, True, False, False]
    assert found["confidence"].isna().tolist() == [False, True, False, False]
    assert report["unclassified"] == 1


def test_other_bands_and_steps_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match="needs NDVI EVI; the table has EVI, lacks NDVI"):
        predicted(classifier, seasons(4).drop(columns="NDVI"), tmp_path)
    short = seasons(4)[lambda t: t["date"].str[5:7] != "03"]
    with pytest.raises(InputError, match="has 11 dates, the classifier reads 12 periods"):
        predicted(classifier, short, tmp_path)
    found, _ = predicted(classifier, short, tmp_path, is_placed=True)
    assert found["months_observed"].eq(11).all()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is no table of predictions; it is not overwritten"):
        predicted(classifier, seasons(4), tmp_path, "other.csv")
    with pytest.raises(InputError, match="has no known ending"):
        predicted(classifier, seasons(4), tmp_path, "out.xlsx")


def test_the_note_of_few_groups_says_whether_the_recipe_allows_them(tmp_path: Path) -> None:
    """Distance made the groups of near places few: allowed; a class of three series is not."""
    from pipelines.import_table import import_tables

    near = seasons(24).assign(longitude=lambda rows: 10 + 1e-3 * (rows["id"] % 3))
    rare = seasons(24)
    rare = rare[(rare["label"] != "late") | (rare["id"] < 6)]
    for name, rows, is_allowed in (("near", near, True), ("rare", rare, False)):
        path = tmp_path / f"{name}.csv"
        rows.to_csv(path, index=False)
        report = import_tables([str(path)], tmp_path / name, Reporter(is_quiet=True))
        [note] = [note for note in report["notes"] if "fewer groups" in note]
        assert ("the recipe allows it" in note) == is_allowed
        recipe = (tmp_path / name / "recipe.toml").read_text()
        assert ("audit_allow" in recipe) == is_allowed
