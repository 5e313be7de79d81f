"""The reference workflow's own tables, as they are, through the audit: each visible fault is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from changqing import Export, ExportSpec, write_export
from labelled_series import SeriesSpec, simulated_series

from cube.errors import InputError
from cube.series import SeriesOptions
from pipelines.__main__ import main
from pipelines.audit_rows import read_plain_rows
from pipelines.audit_table import audit_tables
from pipelines.audit_text import AuditReport, report_lines, write_rows

FEW_PATCHES: Any = {"patches": (1, 1), "samples": (4, 4)}

VISIBLE = {
    "split-canary",  # (1) a random split by pixel, points on both sides
    "same-pixel",
    "single-look",  # (2) the first image of the month
    "padded-end",  # (3) padded with the last row, ordered by date
    "uneven-dates",
    "fill-value",  # (5) -999
    "index-on-counts",  # (7) EVI on counts
    "coordinates-spelt",  # (8) coordinates grouped by their text
    "cloud-inside",  # (9) a mask that does nothing
    "class-by-aot",  # AOT tells place and date
}
"""What the raw table shows of the known faults. (4) shows once it is cleaned; (6), no scaling, and
(10), the order of classes, leave no trace in a table; (11) is slowness."""


def by_code(report: AuditReport) -> dict[str, Any]:
    return {one.code: one for one in reversed(report.findings)}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return write_export(tmp_path_factory.mktemp("audit") / "raw", ExportSpec(**FEW_PATCHES))


@pytest.fixture(scope="module")
def report(export: Export) -> AuditReport:
    return audit_tables([str(export.ground_truth)])


def test_every_fault_that_a_raw_table_shows_is_told(report: AuditReport) -> None:
    assert set(by_code(report)) >= VISIBLE
    grave = {one.code for one in report.findings if one.severity == "severe"}
    assert grave >= {"split-canary", "same-pixel", "padded-end", "fill-value", "coordinates-spelt"}
    assert "scaled" in report.not_seen[0]


def test_grouped_and_block_splits_of_the_table_do_not_leak(report: AuditReport) -> None:
    leaking = [one.what for one in report.findings if one.code in ("split-canary", "same-pixel")]
    assert leaking
    assert all(what.startswith("the random split") for what in leaking)


def test_cleaned_table_shows_what_was_filled_down(
    tmp_path: Path, export: Export, report: AuditReport
) -> None:
    # the same rows as the workflow cleans them: masked values take the row above's
    raw = pd.read_csv(export.ground_truth)
    bands = raw.columns[1:21]
    raw[bands] = raw[bands].replace(-999, np.nan).ffill()
    raw.to_csv(tmp_path / "filled.csv", index=False)
    found = by_code(audit_tables([str(tmp_path / "filled.csv")]))
    rows = export.rows[export.ground_truth]
    at = np.flatnonzero((rows["hole"] == "all") & (rows["row"].diff() != 0))
    assert found["filled-down"].count >= 0.8 * len(at) > 20
    assert found["filled-down"].severity == "severe"
    assert "fill-value" not in found


def test_counts_agree_with_pandas(export: Export, report: AuditReport) -> None:
    rows = export.rows[export.ground_truth]
    found = by_code(report)
    pixels = rows[["longitude", "latitude"]].round(6).apply(tuple, axis=1)
    texts = rows["longitude_text"] + rows["latitude_text"]
    assert found["coordinates-spelt"].count == (texts.groupby(pixels).nunique() > 1).sum()
    sequences = texts + rows["class"]
    assert report.samples == sequences.nunique()
    assert found["padded-end"].count <= report.samples
    sizes = sequences.value_counts()
    assert f"{sizes.min()} to {sizes.max()} dates" in found["uneven-dates"].what


def test_rows_to_look_at_are_rows_of_the_file(export: Export, report: AuditReport) -> None:
    table = pd.read_csv(export.ground_truth)
    # the pixel of the row that is named has a masked value at some date
    sequence = by_code(report)["fill-value"].rows[0]
    row = int(report.names["row"][sequence]) - 2
    assert table.loc[row, "Class"] == report.names["label"][sequence]
    same = table[table[".geo"] == table.loc[row, ".geo"]]
    assert (same == -999).any(axis=None)


@pytest.mark.slow
def test_faults_that_an_export_has_not_are_not_told(tmp_path: Path) -> None:
    spec = ExportSpec(
        is_first_of_month=False,
        is_qa60_empty=False,
        is_evi_on_counts=False,
        is_masked=False,
        has_gaps=False,
        uneven_spelling=0.0,
        **FEW_PATCHES,
    )
    made = write_export(tmp_path, spec)
    table = pd.read_csv(made.ground_truth)
    whole = table[~(table == -999).any(axis=1)]  # clouds that were masked, dropped as they should
    whole.to_csv(tmp_path / "whole.csv", index=False)
    found = by_code(audit_tables([str(tmp_path / "whole.csv")]))
    gone = {"index-on-counts", "fill-value", "coordinates-spelt", "cloud-inside", "single-look"}
    assert not gone & set(found)


def test_class_with_fewer_dates_is_told(tmp_path: Path, export: Export) -> None:
    table = pd.read_csv(export.ground_truth)
    table[".geo"] = [
        json.dumps({"type": "Point", "coordinates": [round(float(a), 7) for a in place]})
        for place in table[".geo"].map(lambda text: json.loads(text)["coordinates"])
    ]
    late = table["image_date"] > "2022-06-30"
    table[~(late & (table["Class"] == "deci_broad"))].to_csv(tmp_path / "t.csv", index=False)
    found = by_code(audit_tables([str(tmp_path / "t.csv")]))
    assert found["class-by-date-count"].severity == "severe"
    assert "deci_broad" in found["class-by-date-count"].what
    assert "class-by-dates" in found


# --- labelled series --------------------------------------------------------------------------


def series_table(**spec: Any) -> pd.DataFrame:
    """Return simulated series as a long table; each pixel has a longitude and latitude."""
    samples = simulated_series(SeriesSpec(seed=2, classes=4, groups=100, **spec))
    assert samples.place is not None
    count, steps, bands = samples.reflectance.shape
    table = pd.DataFrame(samples.reflectance.reshape(-1, bands), columns=list(samples.bands))
    table.insert(0, "id", np.repeat(np.arange(count), steps))
    table.insert(1, "date", np.tile([f"{month}-15" for month in samples.periods], count))
    table.insert(2, "label", np.repeat(np.array(samples.classes)[samples.label], steps))
    table.insert(3, "longitude", np.repeat(10 + (samples.place[:, 0] - 5e5) / 71_700, steps))
    table.insert(4, "latitude", np.repeat(50 + (samples.place[:, 1] - 5e5) / 111_200, steps))
    return table


@pytest.fixture(scope="module")
def series() -> pd.DataFrame:
    return series_table(gap=0.0).dropna()


@pytest.mark.parametrize("name", ["series.csv", "series.csv.gz", "series.parquet"])
def test_series_are_read_as_they_are(tmp_path: Path, series: pd.DataFrame, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        series.to_parquet(path, index=False)
    else:
        series.to_csv(path, index=False)
    rows, unlabelled = read_plain_rows([path])
    assert not rows.is_export
    assert unlabelled == ()
    np.testing.assert_allclose(rows.values, series[list(rows.bands)].to_numpy(), rtol=1e-6)
    np.testing.assert_array_equal(rows.label, series["label"].to_numpy())
    days = pd.to_datetime(series["date"]).to_numpy().astype("datetime64[D]").astype(int)
    np.testing.assert_array_equal(rows.day, days)


def test_counts_in_series_become_reflectance(tmp_path: Path, series: pd.DataFrame) -> None:
    counts = series.copy()
    bands = [name for name in series.columns if name[0] == "B"]
    counts[bands] = (counts[bands] * 1e4).round().astype(int)
    counts.to_csv(tmp_path / "s.csv", index=False)
    rows, _ = read_plain_rows([tmp_path / "s.csv"])
    np.testing.assert_allclose(rows.values, series[bands].to_numpy(), atol=1e-4)


def test_clean_series_have_no_severe_finding(tmp_path: Path, series: pd.DataFrame) -> None:
    series.to_csv(tmp_path / "s.csv", index=False)
    report = audit_tables([str(tmp_path / "s.csv")])
    assert [one for one in report.findings if one.severity == "severe"] == []
    assert by_code(report)["split-canary"].severity == "note"
    assert report.splits == ("random", "grouped", "block")


def test_date_that_is_there_twice_is_told(tmp_path: Path, series: pd.DataFrame) -> None:
    pd.concat([series, series.iloc[:3]]).to_csv(tmp_path / "s.csv", index=False)
    found = by_code(audit_tables([str(tmp_path / "s.csv")]))
    assert found["duplicate-date"].count == 3


def test_several_files_are_audited_together(tmp_path: Path, series: pd.DataFrame) -> None:
    half = series["id"] % 2 == 0
    series[half].to_csv(tmp_path / "a.csv", index=False)
    series[~half].to_csv(tmp_path / "b.csv", index=False)
    series.drop(columns="label").to_csv(tmp_path / "c.csv", index=False)
    report = audit_tables([str(tmp_path)])
    assert report.samples == series["id"].nunique()
    assert "c.csv: tables without labels are passed over" in report.not_seen[-1]
    assert {name.split(" of ")[1] for name in report.names["row"]} == {"a.csv", "b.csv"}


def test_equal_ids_of_two_files_are_two_sequences(tmp_path: Path, series: pd.DataFrame) -> None:
    for name in ("a.csv", "b.csv"):
        series.to_csv(tmp_path / name, index=False)
    report = audit_tables([str(tmp_path)])
    assert report.samples == 2 * series["id"].nunique()
    assert "duplicate-date" not in by_code(report)
    assert {name.split(" of ")[1] for name in report.names["id"]} == {"a.csv", "b.csv"}


def test_infinite_values_are_told(tmp_path: Path, series: pd.DataFrame) -> None:
    broken = series.copy()
    broken.iloc[30, broken.columns.get_loc("B04")] = np.inf
    broken.to_csv(tmp_path / "s.csv", index=False)
    found = by_code(audit_tables([str(tmp_path / "s.csv")]))
    assert (found["fill-value"].count, found["fill-value"].severity) == (1, "severe")


def test_empty_parquet_is_refused(tmp_path: Path, series: pd.DataFrame) -> None:
    series.iloc[:0].to_parquet(tmp_path / "s.parquet", index=False)
    with pytest.raises(InputError, match=r"'s\.parquet' has a header but no row"):
        audit_tables([str(tmp_path / "s.parquet")])


@pytest.mark.parametrize("name", ["s.csv", "s.parquet"])
def test_too_many_rows_and_too_long_sequences_are_refused(
    tmp_path: Path, series: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    series.to_csv(path, index=False) if path.suffix == ".csv" else series.to_parquet(path)
    monkeypatch.setattr("pipelines.audit_table._MOST_VALUES", 1000)
    with pytest.raises(InputError, match="values, more than 1,000; audit them in parts"):
        audit_tables([str(path)])
    monkeypatch.setattr("pipelines.audit_rows._MOST_ROWS", 50)
    with pytest.raises(InputError, match="more than 50 rows; audit it in parts"):
        audit_tables([str(path)])


def test_rows_hold_nothing_a_spreadsheet_runs(tmp_path: Path, series: pd.DataFrame) -> None:
    broken = series.assign(label='=cmd|"/c calc"!A1 ' + series["label"])
    broken.loc[broken.index[3], "B04"] = -0.0999
    broken.loc[broken.index[:3], "B04"] = -9999
    broken.to_csv(tmp_path / "s.csv", index=False)
    write_rows(tmp_path / "rows.csv", audit_tables([str(tmp_path / "s.csv")]))
    written = pd.read_csv(tmp_path / "rows.csv")
    assert len(written)
    assert written["label"].str.startswith("'=cmd").all()


def test_names_of_files_hold_nothing_a_terminal_obeys(tmp_path: Path, series: pd.DataFrame) -> None:
    series.to_csv(tmp_path / "s.csv", index=False)
    series.drop(columns="label").to_csv(tmp_path / "a\x1b[31m.csv", index=False)
    assert "\x1b" not in "\n".join(report_lines(audit_tables([str(tmp_path)])))


# --- the command ------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["audit", *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_severe_findings_fail_the_command_unless_allowed(
    tmp_path: Path, export: Export, report: AuditReport, command: Command
) -> None:
    code, out, err = command(export.ground_truth)
    assert code == 1
    assert "severe    fill-value: " in out
    assert "look at row " in out
    assert "mend it, or go on in spite of it with --allow" in err
    grave = sorted({one.code for one in report.findings if one.severity == "severe"})
    rows = tmp_path / "rows.csv"
    code, out, err = command(export.ground_truth, "--allow", *grave, "--rows", rows)
    assert (code, err) == (0, "")
    assert "allowed   fill-value: " in out
    written = pd.read_csv(rows)
    assert len(written) == sum(len(one.rows) for one in report.findings)
    assert list(written.columns) == ["code", "severity", "sample", "row", "label", "lon", "lat"]


def test_json_has_every_finding_also_when_it_fails(export: Export, command: Command) -> None:
    code, out, _ = command(export.ground_truth, "--json", "--allow", "split-canary")
    found = json.loads(out)
    assert code == found["exit"] == 1
    assert {one["code"] for one in found["findings"]} >= VISIBLE
    allowed = {one["code"] for one in found["findings"] if one["allowed"]}
    assert allowed == {"split-canary"}
    assert found["severe"] == len(
        [one for one in found["findings"] if one["severity"] == "severe" and not one["allowed"]]
    )


def test_series_are_read_with_the_words_of_import_table(
    tmp_path: Path, series: pd.DataFrame, command: Command
) -> None:
    """Renamed columns, a declared fill value and a wide form give the findings of the plain table."""
    series.to_csv(tmp_path / "plain.csv", index=False)
    plain = read_plain_rows([tmp_path / "plain.csv"])[0]
    other = series.rename(columns={"id": "parcel", "date": "seen", "label": "crop_2020"})
    other.to_csv(tmp_path / "other.csv", index=False)
    for words, wanted in (
        ((), "are named with --id, --date, --label"),
        (("--date", "seen"), "name it with --id"),
        (("--date", "seen", "--id", "parcel"), "name it with --label"),
        (("--date", "no"), "has no column 'no' (--date)"),
    ):
        code, _, complaint = command(tmp_path / "other.csv", *words)
        assert code == 2
        assert wanted in complaint
    options = SeriesOptions(date="seen", id="parcel", label="crop_2020")
    read = read_plain_rows([tmp_path / "other.csv"], options)[0]
    np.testing.assert_array_equal(read.key, plain.key)
    np.testing.assert_array_equal(read.day, plain.day)
    np.testing.assert_array_equal(read.label, plain.label)
    at = [read.bands.index(band) for band in plain.bands]
    np.testing.assert_allclose(read.values[:, at], plain.values, rtol=1e-6)
    band = plain.bands[0]
    lowest = float(str(series[band].iloc[0]))
    lost = read_plain_rows([tmp_path / "other.csv"], replace(options, nodata=(lowest,)))[0]
    is_lost = np.isnan(lost.values[:, lost.bands.index(band)])
    np.testing.assert_array_equal(is_lost, (series[band] == lowest).to_numpy())


def test_a_wide_table_is_its_steps(tmp_path: Path) -> None:
    wide = pd.DataFrame(
        {
            "id": ["a", "b"],
            "species": ["oak", "beech"],
            **{f"NDVI_2020-0{month}-01": [0.1 * month, 0.05 * month] for month in (1, 2, 3)},
        }
    )
    wide.to_csv(tmp_path / "wide.csv", index=False)
    rows = read_plain_rows([tmp_path / "wide.csv"])[0]
    assert rows.key.tolist() == ["a"] * 3 + ["b"] * 3
    assert rows.label.tolist() == ["oak"] * 3 + ["beech"] * 3
    assert rows.number.tolist() == ["2"] * 3 + ["3"] * 3
    assert rows.day.astype("M8[D]").astype(str).tolist()[:3] == [
        "2020-01-01", "2020-02-01", "2020-03-01",
    ]  # fmt: skip
    np.testing.assert_allclose(rows.values[:, 0], [0.1, 0.2, 0.3, 0.05, 0.1, 0.15], rtol=1e-6)


def test_labels_that_are_written_in_several_ways_are_told(
    tmp_path: Path, series: pd.DataFrame
) -> None:
    name = str(series["label"].iloc[0])
    odd = series["id"] == series["id"].iloc[0]
    series.assign(label=series["label"].mask(odd, f"{name} ")).to_csv(tmp_path / "s.csv")
    found = by_code(audit_tables([str(tmp_path / "s.csv")]))["labels-spelt"]
    assert (found.severity, found.count) == ("severe", int(odd.sum()))
    assert repr(f"{name} ") in found.what
    series.assign(label=series["label"].mask(odd, "7")).to_csv(tmp_path / "s.csv")
    found = by_code(audit_tables([str(tmp_path / "s.csv")]))["labels-mixed"]
    assert found.count == int(odd.sum())
    series.to_csv(tmp_path / "s.csv")
    assert not {"labels-spelt", "labels-mixed"} & set(
        by_code(audit_tables([str(tmp_path / "s.csv")]))
    )


def test_options_of_series_go_with_tables_of_series(
    tmp_path: Path, export: Export, command: Command
) -> None:
    code, _, complaint = command(export.ground_truth, "--nodata", "0")
    assert (code, "is an export of pixels" in complaint) == (2, True)
    code, _, complaint = command(tmp_path / "recipe.toml", "--label", "crop")
    assert (code, "go with tables; " in complaint) == (2, True)


@pytest.mark.parametrize("name", ["private_extractions_dummy", "prometheo", "test_public"])
def test_worldcereal_tables_are_audited(shared_data: Path, name: str, command: Command) -> None:
    [file] = (shared_data / "worldcereal-tables").glob(f"{name}*.parquet")
    code, out, complaint = command(file, "--json")
    assert code in (0, 1), complaint
    assert json.loads(out)["samples"] > 10


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("id,date,B02\n1,2022-01-01,3\n", "has no column Class or label; an audit needs labelled"),
        ("id,date,label,B02\n1,soon,oak,3\n", "column 'date' holds what is no date"),
        ("id,date,label,B02\n1,2022-01-01,oak,much\n", "'t.csv' cannot be read"),
        ("id,date,label,B02\n1,2022-01-01,,3\n", "row 2 has no label; give every row a class"),
        ("a,b\n1,2\n", "lacks the columns image_date"),
        ("id,date,label\n1,2022-01-01,oak\n", "has no column with values beside"),
        ("id,date,label,B02\n", "has a header but no row"),
        ("id,date,label,B02\n1,2022-01-01,oak,3\n,2022-01-01,oak,3\n", "row 3 has no id"),
        (
            f"id,date,label,B02\n1,2022-01-01,oak,3\n2,2022-01-01,{'x' * 900_000},3\n",
            "row 3: label has 900,000 characters; 300 are the most",
        ),
        (
            "id,date,label,lon,lat,B02\n1,2022-01-01,oak,500,2,3\n",
            "row 2: coordinates are no longitude and latitude",
        ),
    ],
)
def test_what_is_no_labelled_table_is_refused_in_one_line(
    tmp_path: Path, command: Command, content: str, text: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    code, _, err = command(path)
    assert code == 2
    assert text in err
    assert err.count("\n") == 1


def test_wrong_words_of_the_command_are_told(tmp_path: Path, command: Command) -> None:
    code, _, err = command(tmp_path / "none.csv")
    assert (code, "is no file" in err) == (2, True)
    (tmp_path / "t.csv").write_text("id,date,label,B02\n1,2022-01-01,oak,3\n")
    code, _, err = command(tmp_path / "t.csv", "--allow", "spilt-canary")
    assert code == 2
    assert "--allow 'spilt-canary' is no code of a finding; codes are class-by-aot" in err


def test_lines_hold_nothing_a_terminal_obeys(tmp_path: Path, series: pd.DataFrame) -> None:
    named = series.assign(label="a\x1b[31m" + series["label"])
    named.loc[named["id"] < 3, "label"] = "\x1b]0;rare"
    named.to_csv(tmp_path / "s.csv", index=False)
    assert "\x1b" not in "\n".join(report_lines(audit_tables([str(tmp_path / "s.csv")])))


def test_two_tables_of_other_bands_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,date,label,B02\n1,2022-01-01,oak,3\n")
    (tmp_path / "b.csv").write_text("id,date,label,B03\n1,2022-01-01,oak,3\n")
    with pytest.raises(
        InputError, match=r"'b\.csv' has other bands than 'a\.csv': B03 against B02"
    ):
        audit_tables([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
