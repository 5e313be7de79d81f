"""`canopycube import-table`: what it makes, what it refuses, and the run that goes on from it."""

import errno
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from pyproj import Transformer

from cube import open_cube
from cube.errors import InputError
from cube.samplestore import open_samples, write_samples
from pipelines.import_place import import_place
from pipelines.import_table import find_tables
from pipelines.recipe import read_recipe

Command = Callable[..., tuple[int, str, str]]

STEP = 10 / 111_319.49079327358
BANDS = ("B2", "B4", "B8", "B11")
CLASSES = ("deci_broad", "larch_JP")
DATES = tuple(f"2022-{month:02d}-{month + 9:02d}" for month in range(1, 13) if month != 6)

QUICK = (
    *("--set", "training.hidden=8"),
    *("--set", "training.epochs=30"),
    *("--set", 'training.baselines=["lda"]', "--set", "training.importance=false"),
    *("--set", "training.folds=2"),
    # pixels of the chess board repeat each other, which an audit rightly does not believe
    *("--set", "training.audit=tell"),
    *("--set", "sampling.block_size=80"),
    *("--set", "composite.tile=32"),
    *("--set", "composite.chunk=16"),
)


def place(lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of a lattice of 10 m, rows counted to the south."""
    x, y = Transformer.from_crs(4326, 32648, always_xy=True).transform(lon, lat)
    return -np.floor(y / 10).astype(int), np.floor(x / 10).astype(int)


def class_at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return 0 or 1: squares of 6 pixels like a chess board."""
    return (row // 6 + column // 6) % 2


def rows_of(lon: np.ndarray, lat: np.ndarray, dates: tuple[str, ...] = DATES) -> pd.DataFrame:
    """Return what an export holds of samples of a forest of two species."""
    row, column = place(lon, lat)
    parts = []
    for number, date in enumerate(dates):
        grown = class_at(row, column) * (400 + 90 * number)
        noise = (row * 31 + column * 17 + number * 7) % 50
        part = pd.DataFrame({name: 300 + 200 * at + grown + noise for at, name in enumerate(BANDS)})
        near, red, blue = (part[name].astype(float) for name in ("B8", "B4", "B2"))
        part["EVI"] = 2.5 * (near - red) / (near + 6 * red - 7.5 * blue + 1)
        part["image_date"] = date
        part["lon"], part["lat"] = lon, lat
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def write(path: Path, frame: pd.DataFrame, *, is_raw: bool = True) -> Path:
    """Write rows as an export has them, or as they are cleaned."""
    frame = frame.copy()
    lon, lat = frame.pop("lon"), frame.pop("lat")
    if is_raw:
        frame.insert(0, "system:index", [f"0_{number}" for number in range(len(frame))])
        frame[".geo"] = [
            f'{{"geodesic":false,"type":"Point","coordinates":[{x!r},{y!r}]}}'
            for x, y in zip(lon.tolist(), lat.tolist(), strict=True)
        ]
    else:
        frame["longitude"], frame["latitude"] = lon, lat
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def patch(row: int, column: int, size: int = 24) -> pd.DataFrame:
    lon = 107.6 + STEP * (size * column + np.arange(size))
    lat = 33.7 - STEP * (size * row + np.arange(size))
    return rows_of(*(axis.ravel() for axis in np.meshgrid(lon, lat)))


def ground_truth(points: int = 26) -> pd.DataFrame:
    """Return patches of 2 x 2 samples round points, each within a square of one class."""
    random = np.random.default_rng(4)
    frames = []
    while len(frames) < points:
        at = random.integers(0, 46, 2)
        lon = 107.6 + STEP * (at[0] + np.array([0, 1, 0, 1]))
        lat = 33.7 - STEP * (at[1] + np.array([0, 0, 1, 1]))
        row, column = place(lon, lat)
        if len(set(class_at(row, column).tolist())) == 1:
            frame = rows_of(lon, lat)
            frame["Class"] = CLASSES[class_at(row, column)[0]]
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four patches and ground truth."""
    folder = tmp_path_factory.mktemp("tables") / "exports"
    for row in range(2):
        for column in range(2):
            write(folder / f"patch_{row}_{column}.csv", patch(row, column))
    write(folder / "ground_truth.csv", ground_truth())
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Write one small patch."""
    return write(tmp_path / "in" / "patch_0_0.csv", patch(0, 0, size=5))


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "import.json").read_text())
    return report


def content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith("import.")
    }


def refused(command: Command, *words: str | Path) -> str:
    code, out, complaint = command("import-table", *words)
    assert (code, out) == (2, "")
    assert complaint.startswith("canopycube: ")
    assert complaint.count("\n") == 1
    return complaint


def test_tables_become_a_map(exports: Path, tmp_path: Path, command: Command) -> None:
    """Import, then run the recipe that came with it: the map is the forest, on its pixels."""
    to = tmp_path / "imported"
    code, out, _ = command("import-table", exports, "--to", to)
    assert code == 0
    assert {file.name for file in to.iterdir()} == {
        *("scenes.zarr", "samples.zarr", "recipe.toml", "import.json", "import.md")
    }
    assert out.splitlines()[0].startswith("rows      ")
    code, _, complaint = command("run", to / "recipe.toml", *QUICK, "--set", "name=Chess")
    assert (code, complaint.count("Traceback")) == (0, 0)
    with rasterio.open(to / "run" / "map.tif") as file:
        mapped, transform = file.read(1), file.transform
        assert file.crs.to_epsg() == 32648
    down, across = np.indices(mapped.shape)
    row = -int(transform.f / 10) + 1 + down
    column = int(transform.c / 10) + across
    is_mapped = mapped > 0
    assert is_mapped.mean() > 0.9
    assert (mapped == 1 + class_at(row, column))[is_mapped].mean() > 0.99
    cube = open_cube(to / "run" / "cube.zarr")
    assert not np.isfinite(cube["reflectance"].sel(time="2022-06").values).any()
    july = cube["reflectance"].sel(time="2022-07", band="B02").values.squeeze()
    grown = class_at(row, column) * (400 + 90 * 5)
    wanted = 300 + grown + (row * 31 + column * 17 + 5 * 7) % 50
    # rows here count from the pole of the lattice as in `place`
    assert np.allclose(july[is_mapped], wanted[is_mapped] * 1e-4, atol=1e-7)


def test_samples_are_trained_on_without_a_cube(
    exports: Path, tmp_path: Path, command: Command
) -> None:
    to = tmp_path / "imported"
    assert command("import-table", exports / "ground_truth.csv", "--to", to)[0] == 0
    recipe = read_recipe(to / "recipe.toml")
    assert recipe.source.kind == "stac"
    assert recipe.area is not None
    samples = open_samples(to / "samples.zarr")
    left, bottom, right, top = recipe.area.bbox or (0, 0, 0, 0)
    assert left < samples["lon"].min() < samples["lon"].max() < right
    assert bottom < samples["lat"].min() < samples["lat"].max() < top
    for step in ("sample", "train"):
        assert command(step, to / "recipe.toml", *QUICK)[0] == 0
    report = json.loads((to / "run" / "report.json").read_text())
    assert report["samples"]["by_class"] == report_of(to)["samples"]["by_class"]
    assert report["training"]["classes"] == list(CLASSES)
    assert not (to / "run" / "cube.zarr").exists()


def test_the_report_counts_what_pandas_counts(
    exports: Path, tmp_path: Path, command: Command
) -> None:
    code, out, _ = command("import-table", exports, "--to", tmp_path / "to", "--json")
    assert code == 0
    report = json.loads(out)
    assert report == report_of(tmp_path / "to")
    whole = []
    for file in report["files"]:
        frame = pd.read_csv(exports / file["name"])
        point = frame[".geo"].map(json.loads).map(lambda geo: geo["coordinates"])
        frame["row"], frame["column"] = place(*np.array(point.tolist()).T)
        pixels = frame.drop_duplicates(["row", "column"])
        kept = frame.drop_duplicates(["row", "column", "image_date"])
        assert file["rows"] == len(frame)
        assert file["pixels"] == len(pixels)
        assert file["dates"] == list(DATES)
        assert file["form"] == "raw"
        assert file["most_dates_in_a_month"] == 1
        assert file["kind"] == ("ground truth" if "Class" in frame else "patch")
        assert file["columns_not_imported"] == ["system:index", "EVI"]
        whole.append(frame)
    patches = pd.concat([frame for frame in whole if "Class" not in frame])
    kept = patches.drop_duplicates(["row", "column", "image_date"])
    truth = next(frame for frame in whole if "Class" in frame)
    kept_truth = truth.drop_duplicates(["row", "column", "image_date"])
    rows = report["rows"]
    assert rows["read"] == len(patches) + len(truth)
    assert rows["kept"] == len(kept) + len(kept_truth)
    assert rows["dropped"] == {"duplicates": rows["read"] - rows["kept"]}
    checks = report["checks"]
    assert checks["duplicates_share"] == pytest.approx(1 - rows["kept"] / rows["read"])
    assert checks["is_one_date_a_month"] is True
    assert checks["bright_share"] == 0
    assert all(check["EVI"]["is_on_counts"] for check in checks["indices"].values())
    stack = report["stack"]
    assert stack["pixels"] == len(kept) / len(DATES)
    assert stack["months_without_data"] == ["2022-06"]
    assert stack["share_of_pixels_missing_a_month"] == 1
    assert stack["pixels_by_months_with_data"] == {"11": stack["pixels"]}
    assert stack["pixel_months_by_dates"] == {"1": len(kept)}
    samples = report["samples"]
    classes = kept_truth[kept_truth["image_date"] == DATES[0]]["Class"].value_counts()
    assert samples["by_class"] == classes.sort_index().to_dict()
    assert report["months"] == {"first": "2022-01", "last": "2022-12"}
    told = (tmp_path / "to" / "import.md").read_text()
    assert "| ground_truth.csv | ground truth | raw |" in told
    assert "first image of each month" in told
    assert "EVI of the tables was computed on counts" in told
    assert "no data in 2022-06" in told


def test_every_form_gives_the_same_import(exports: Path, tmp_path: Path, command: Command) -> None:
    names = ["patch_0_0.csv", "ground_truth.csv"]
    files = [exports / name for name in names]
    assert command("import-table", *files, "--to", tmp_path / "raw")[0] == 0
    cleaned = tmp_path / "cleaned"
    frames = {name: pd.read_csv(exports / name) for name in names}
    for name, frame in frames.items():
        point = np.array([json.loads(geo)["coordinates"] for geo in frame.pop(".geo")])
        frame = frame.drop(columns="system:index").assign(lon=point[:, 0], lat=point[:, 1])
        write(cleaned / name.replace(".csv", "_cleaned.csv"), frame, is_raw=False)
    assert command("import-table", cleaned, "--to", tmp_path / "one")[0] == 0
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "patch_0_0.csv.gz").write_bytes(gzip.compress(files[0].read_bytes()))
    pd.read_csv(files[1]).to_parquet(packed / "ground_truth.parquet")
    assert command("import-table", f"{packed}/*", "--to", tmp_path / "two")[0] == 0
    wanted = content(tmp_path / "raw")
    assert content(tmp_path / "one") == wanted
    assert content(tmp_path / "two") == wanted


def test_months_crs_and_scale_can_be_asked_for(one: Path, tmp_path: Path, command: Command) -> None:
    to = tmp_path / "to"
    words = ("--first", "2022-03", "--last", "2022-04", "--crs", "EPSG:32649")
    assert command("import-table", one, "--to", to, *words)[0] == 0
    report = report_of(to)
    assert report["crs"] == "EPSG:32649"
    assert report["stack"]["dates"] == ["2022-03-12", "2022-04-13"]
    assert report["rows"]["dropped"]["outside the calendar"] == 9 * 25
    assert read_recipe(to / "recipe.toml").months.last.start == np.datetime64("2022-04-01", "ns")
    frame = pd.read_csv(one)
    frame[list(BANDS)] = frame[list(BANDS)] / 10_000
    frame.to_csv(one, index=False)
    assert "looks like reflectance 0..1" in refused(command, one, "--to", tmp_path / "scaled")
    assert command("import-table", one, "--to", tmp_path / "scaled", "--scale", "1")[0] == 0
    assert "expected the reflectance of one count" in refused(
        command, one, "--to", tmp_path / "x", "--scale", "0"
    )


def test_a_band_that_no_row_has_is_left_out(one: Path, tmp_path: Path, command: Command) -> None:
    frame = pd.read_csv(one)
    frame["B11"] = -999
    frame.to_csv(one, index=False)
    assert command("import-table", one, "--to", tmp_path / "to")[0] == 0
    report = report_of(tmp_path / "to")
    assert (report["bands"], report["bands_without_data"]) == (["B02", "B04", "B08"], ["B11"])
    assert any("B11: missing in every row" in text for text in report["advice"])
    frame[list(BANDS)] = -999
    frame.to_csv(one, index=False)
    assert "has no data in any of its 275 rows" in refused(command, one, "--to", tmp_path / "b")


BREAKING: dict[str, Callable[[bytes], bytes]] = {
    'row 30: \'{"geodesic"': lambda text: text.replace(b"]}", b"}", 29).replace(b"}", b"]}", 28),
    "row 2: image_date = '10.01.2022'": lambda text: text.replace(b"2022-01-10", b"10.01.2022"),
    "row 276 (the last) is cut off": lambda text: text[:-20],
    "row 276: 3 values": lambda text: b"\n".join([*text.split(b"\n")[:-2], b"1,2,3", b""]),
    "is a web page": lambda text: b"<html>" + text,
    "is empty (0 bytes)": lambda text: b"",
    "lacks the column image_date": lambda text: text.replace(b"image_date", b"day"),
    "row 2 has a line end of its own": lambda text: text.replace(b"\n", b"\r").replace(
        b"\r", b"\n", 1
    ),
    "ends before its gzip data do": lambda text: gzip.compress(text)[:-9],
}


@pytest.mark.parametrize("text", BREAKING)
def test_nothing_is_half_imported(one: Path, tmp_path: Path, command: Command, text: str) -> None:
    good = write(one.parent / "patch_0_1.csv", patch(0, 1, size=5))
    to = tmp_path / "to"
    assert command("import-table", good, "--to", to)[0] == 0
    before = content(to)
    one.write_bytes(BREAKING[text](one.read_bytes()))
    for folder in (to, tmp_path / "new"):
        complaint = refused(command, good, one, "--to", folder)
        assert text in complaint
        assert "'patch_0_0.csv'" in complaint
    assert content(to) == before
    assert {file.name for file in tmp_path.iterdir()} == {"in", "to"}


def test_lines_may_end_either_way(one: Path, tmp_path: Path, command: Command) -> None:
    assert command("import-table", one, "--to", tmp_path / "a")[0] == 0
    lines = one.read_bytes().split(b"\n")
    one.write_bytes(b"\r\n".join(lines[:40]) + b"\n" + b"\n".join(lines[40:]))
    assert command("import-table", one, "--to", tmp_path / "b")[0] == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_tables_are_found_by_name_folder_and_pattern(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", "c.csv.gz", "d.parquet", "notes.txt", ".hidden.csv"):
        (tmp_path / name).write_text("x")
    every = [tmp_path / name for name in ("a.CSV", "b.csv", "c.csv.gz", "d.parquet")]
    assert find_tables([str(tmp_path)]) == tuple(every)
    assert find_tables([f"{tmp_path}/[ab].*", str(tmp_path / "b.csv")]) == tuple(every[:2])
    for name in ("none.csv", "x*.csv", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=f"{name.replace('*', '.')}' is no file, no folder"):
            find_tables([str(tmp_path / name)])


@pytest.mark.parametrize("other", ["a_cleaned.csv", "a.csv.gz", "a.parquet"])
def test_one_table_in_two_forms_is_told(tmp_path: Path, other: str) -> None:
    for name in ("a.csv", other):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="look like the same table twice"):
        find_tables([str(tmp_path)])


def test_cleaned_tables_of_another_folder_are_told(tmp_path: Path) -> None:
    for name in ("2021/a.csv", "2022/a.csv", "cleaned/a_cleaned.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    years = [str(tmp_path / "2021"), str(tmp_path / "2022")]
    assert len(find_tables(years)) == 2
    with pytest.raises(InputError, match=r"2022/a.csv' and '.*/a_cleaned.csv' look like the same"):
        find_tables([*years, str(tmp_path / "cleaned")])


def test_only_an_import_is_replaced(one: Path, tmp_path: Path, command: Command) -> None:
    to = tmp_path / "to"
    to.mkdir()
    assert command("import-table", one, "--to", to)[0] == 0  # an empty folder is nobody's
    assert command("import-table", one, "--to", to)[0] == 0
    (to / "run").mkdir()
    complaint = refused(command, one, "--to", to)
    assert "holds 'run' beside an import, such as the outputs of a run; move it away" in complaint
    (to / "run").rmdir()
    with (to / "recipe.toml").open("a") as recipe:
        recipe.write("# mine\n")
    assert "is no import, or its recipe was edited" in refused(command, one, "--to", to)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for other in (tmp_path / "mine", one):
        assert "exists and is no import" in refused(command, one, "--to", other)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_import_that_is_stopped_leaves_nothing(
    one: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    assert command("import-table", one, "--to", to)[0] == 0
    before = content(to)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for step in (
        "import_table.write_stack",
        "import_table.write_import_report",
        "import_place.flush_files",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"pipelines.{step}", stopped)
            assert command("import-table", one, "--to", to)[0] == 130
        assert content(to) == before
        assert {file.name for file in tmp_path.iterdir()} == {"in", "to"}
    assert "cannot be written: Not a directory" in refused(command, one, "--to", one / "to")


KILLED = """
import os, pathlib, signal, sys
from pipelines.__main__ import main
rename = pathlib.Path.rename
def killed(self, to):
    if self.name == "draft":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, to)
pathlib.Path.rename = killed
main(sys.argv[1:])
"""


def test_an_import_that_is_killed_costs_nothing(
    one: Path, tmp_path: Path, command: Command
) -> None:
    """Between two renames there is neither the old import nor the new one, until the next start."""
    to, beside = tmp_path / "to", tmp_path / ".to.import"
    assert command("import-table", one, "--to", to)[0] == 0
    before = content(to)
    words = [sys.executable, "-c", KILLED, "import-table", str(one), "--to", str(to), "--json"]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not to.exists()
    assert {file.name for file in beside.iterdir()} == {".lock", "draft", "old", "scratch"}
    refused(command, tmp_path / "nothing.csv", "--to", to)
    assert content(to) == before
    assert not beside.exists()
    # what somebody put there meanwhile stays, and so does the import
    beside.mkdir()
    to.rename(beside / "old")
    to.mkdir()
    (to / "thesis.txt").write_text("x")
    assert "since an import was ended; move one of them away" in refused(command, one, "--to", to)
    assert content(beside / "old") == before
    (to / "thesis.txt").unlink()
    assert command("import-table", one, "--to", to)[0] == 0
    assert content(to) == before
    assert {file.name for file in tmp_path.iterdir()} == {"in", "to"}


def test_a_disk_that_fills_up_is_told(
    one: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    to = tmp_path / "to"
    for step in ("import_table.write_stack", "import_place.flush_files"):
        with monkeypatch.context() as patched:
            patched.setattr(f"pipelines.{step}", full)
            code, _, complaint = command("import-table", one, "--to", to)
        assert code == 1
        assert "/to' is full (No space left on device); make room, or choose" in complaint
        assert {file.name for file in tmp_path.iterdir()} == {"in"}


def test_one_import_at_a_time(one: Path, tmp_path: Path, command: Command) -> None:
    to = tmp_path / "to"
    with import_place(to) as place:
        (place.draft / "mine").write_text("x")
        assert "is at work; wait for it, or choose" in refused(command, one, "--to", to)
        assert (place.draft / "mine").exists()
    assert command("import-table", one, "--to", to)[0] == 0


def test_names_of_files_may_be_anything(one: Path, tmp_path: Path, command: Command) -> None:
    odd = Path(os.fsdecode(os.fsencode(one.parent) + b"/a\xff\x1b[2J.csv"))
    one.rename(odd)
    to = tmp_path / "to"
    code, _, complaint = command("import-table", odd, "--to", to)
    assert (code, complaint.count("Traceback")) == (0, 0)
    told = (to / "import.md").read_text()
    assert report_of(to)["files"][0]["name"] == "a\\xff\x1b[2J.csv"
    assert "| a\\xff [2J.csv | patch |" in told
    assert "\x1b" not in told
    assert "cannot be read: File name too long" in refused(
        command, one.with_name("x" * 300), "--to", tmp_path / "b"
    )


def test_more_classes_than_can_be_mapped_are_told(
    one: Path, tmp_path: Path, command: Command
) -> None:
    pd.read_csv(one).assign(Class=lambda frame: frame.index.map("c{}".format)).to_csv(
        one, index=False
    )
    complaint = refused(command, one, "--to", tmp_path / "to")
    assert "column 'Class' makes it 275 classes, more than 60, e.g. 'c0'" in complaint


def test_a_table_without_data_among_others_is_told(
    one: Path, tmp_path: Path, command: Command
) -> None:
    good = pd.read_csv(one)
    good.assign(**dict.fromkeys(BANDS, -999)).to_csv(one.with_name("masked.csv"), index=False)
    good.assign(B11=-999).to_csv(one.with_name("narrow.csv"), index=False)
    good.head(0).to_csv(one.with_name("none.csv"), index=False)
    (one.parent / "notes.txt").write_text("x")
    (one.parent / "older").mkdir()
    to = tmp_path / "to"
    assert command("import-table", one.parent, "--to", to)[0] == 0
    report = report_of(to)
    assert report["rows"]["read"] == 3 * 275
    assert [file["kept"] for file in report["files"]] == [0, 0, 0, report["rows"]["kept"]]
    assert report["checks"]["is_one_date_a_month"] is True
    assert report["passed_over"] == {"files": 1, "folders": 1}
    told = (to / "import.md").read_text()
    for text in (
        "masked.csv: none of 275 rows was kept (275 masked in every band)",
        "narrow.csv: none of 275 rows was kept (275 without data in some bands)",
        "none.csv: none of 0 rows was kept; nothing of it",
        "B11: missing in 275 rows of narrow.csv that have other bands",
        "1 files and 1 folders in the folders that were named are no tables",
    ):
        assert text in told
    assert command("import-table", one, "--to", tmp_path / "alone")[0] == 0
    assert content(tmp_path / "alone") == content(to)
    words = [one.with_name("masked.csv"), one.with_name("none.csv"), "--to", tmp_path / "b"]
    assert "the tables have no data in any of their 275 rows" in refused(command, *words)


def test_every_count_is_told(one: Path, tmp_path: Path, command: Command) -> None:
    frame = pd.read_csv(one).astype(dict.fromkeys(BANDS, float))
    frame.loc[0, "B2"] = np.inf
    frame.loc[1, "B4"] = 70000
    frame.loc[2, "B8"] = 40000
    frame.loc[3, "B8"] = 299.6
    frame.loc[4, "B2"] = 2600
    frame.loc[5, "EVI"] = 1e308
    frame.loc[25, ".geo"] = frame.loc[0, ".geo"].replace("107.6,", "107.6000000001,")
    frame.to_csv(one, index=False)
    to = tmp_path / "to"
    assert command("import-table", one, "--to", to)[0] == 0
    told = (to / "import.md").read_text()
    for text in (
        "2 values outside 0..65535 (or infinite) taken as missing",
        "1 values beyond 32767 stored as 32767",
        "1 values that are no whole counts rounded",
        "1 rows brighter than 0.25 in blue",
        "rows whose coordinates differ by rounding only",
        "1 values of EVI that no index has",
        "1 rows without B02",
    ):
        assert text in told


@pytest.mark.parametrize(
    ("repeats", "is_raw", "words"),
    [
        (1, False, None),
        (9, False, "may have been filled down the table. They are imported as they are; import"),
        (9, True, "may have been filled down the table. They are imported as they are."),
        (150, False, "were filled down the table. They are imported as they are; import the raw"),
    ],
)
def test_values_filled_down_are_told_unless_chance_explains_them(
    tmp_path: Path, command: Command, repeats: int, is_raw: bool, words: str | None
) -> None:
    frame = patch(0, 0, size=12)
    frame["B2"] = 300 + np.arange(len(frame))
    at = 1 + 2 * np.arange(repeats)
    frame.loc[at, list(BANDS)] = frame.loc[at - 1, list(BANDS)].to_numpy()
    table = write(tmp_path / "in" / "a.csv", frame, is_raw=is_raw)
    assert command("import-table", table, "--to", tmp_path / "to")[0] == 0
    report = report_of(tmp_path / "to")
    found = [text for text in report["advice"] if "repeat every band of the row before" in text]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
    assert words is None or ("raw table" in found[0]) is not is_raw


def test_counts_that_hold_the_offset_are_told(one: Path, tmp_path: Path, command: Command) -> None:
    frame = pd.read_csv(one)
    frame["B4"], frame["B8"] = 250 + frame.index % 30, 3000
    frame[["B4", "B8", "B2", "B11"]] += 1000
    frame.to_csv(one, index=False)
    assert command("import-table", one, "--to", tmp_path / "to")[0] == 0
    told = [text for text in report_of(tmp_path / "to")["advice"] if "S2_SR_HARMONIZED" in text]
    assert len(told) == 1
    assert told[0].startswith("patch_0_0.csv: from 2022-01-25 on the darkest vegetation has counts")
    frame[["B4", "B8", "B2", "B11"]] -= 1000
    frame.to_csv(one, index=False)
    assert command("import-table", one, "--to", tmp_path / "to")[0] == 0
    assert not any("HARMONIZED" in text for text in report_of(tmp_path / "to")["advice"])


def test_single_looks_and_contradictions_are_told(tmp_path: Path, command: Command) -> None:
    frame = patch(0, 0, size=12)
    late = frame.assign(image_date=frame["image_date"].str[:8] + "28")
    folder = tmp_path / "in"
    write(folder / "a.csv", frame)
    write(folder / "b.csv", late[late["lon"] > late["lon"].median()])
    # where patches overlap pixels have two dates, although each patch has one
    assert command("import-table", folder, "--to", tmp_path / "one")[0] == 0
    report = report_of(tmp_path / "one")
    assert report["checks"]["is_one_date_a_month"] is True
    assert report["stack"]["pixel_months_by_dates"].keys() == {"1", "2"}
    write(folder / "b.csv", pd.concat([late, frame.head(3).assign(B4=9)]))
    assert command("import-table", folder, "--to", tmp_path / "two")[0] == 0
    report = report_of(tmp_path / "two")
    assert report["checks"]["is_one_date_a_month"] is False
    assert report["rows"]["dropped"]["contradictions"] == 3
    assert any(text.startswith("3 rows give a pixel and date other") for text in report["advice"])


def test_columns_that_nobody_knows_are_told(one: Path, tmp_path: Path, command: Command) -> None:
    pd.read_csv(one).assign(species="oak", month=3).to_csv(one, index=False)
    assert command("import-table", one, "--to", tmp_path / "to")[0] == 0
    told = [text for text in report_of(tmp_path / "to")["advice"] if "not known" in text]
    assert told == [
        "Columns species are not known and not imported; the class of ground truth is expected in a "
        "column Class."
    ]


def test_clouds_are_told_and_the_recipe_says_what_to_do(
    one: Path, tmp_path: Path, command: Command
) -> None:
    frame = pd.read_csv(one)
    frame.loc[frame.index % 10 == 0, "B2"] = 4000
    frame.to_csv(one, index=False)
    assert command("import-table", one, "--to", tmp_path / "to")[0] == 0
    report = report_of(tmp_path / "to")
    assert report["checks"]["bright_share"] == pytest.approx(0.1, abs=0.01)
    assert any("composite.outliers = true" in text for text in report["advice"])
    recipe = tmp_path / "to" / "recipe.toml"
    assert read_recipe(recipe).composite.outliers is False
    recipe.write_text(recipe.read_text().replace("# [comp", "[comp").replace("# out", "out"))
    assert read_recipe(recipe).composite.outliers is True


def test_tables_with_other_bands_are_told(one: Path, tmp_path: Path, command: Command) -> None:
    other = one.with_name("other.csv")
    pd.read_csv(one).drop(columns="B11").to_csv(other, index=False)
    complaint = refused(command, one, other, "--to", tmp_path / "to")
    assert "'other.csv' lacks B11, which 'patch_0_0.csv' has" in complaint


def test_absurd_places_are_told(one: Path, tmp_path: Path, command: Command) -> None:
    text = one.read_text().splitlines(keepends=True)
    text[12] = text[12].replace("[107.6", "[7.6")
    one.write_text("".join(text))
    complaint = refused(command, one, "--to", tmp_path / "to")
    assert "too large" in complaint
    assert "longitude 7.6" in complaint
    assert "row 13 of 'patch_0_0.csv'" in complaint


@pytest.fixture(scope="session")
def truth(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import the ground truth alone."""
    from pipelines.__main__ import main

    to = tmp_path_factory.mktemp("truth") / "imported"
    assert main(["import-table", str(exports / "ground_truth.csv"), "--to", str(to)]) == 0
    return to


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (("reference.file='recipe.toml'",), "reference: give either file or samples"),
        (("reference.erode=5",), "reference: erode goes with file"),
        (("reference.samples='nothing'",), "reference.samples: there are no samples at"),
        (("reference.samples='.'",), "is no Zarr store"),
        (("sampling.patch=2",), "sampling.patch = 2 goes with reference.file"),
        (("months.last=2022-11",), "only the samples have 2022-12"),
        (("months.step=season", "months.first=2022-03", "months.last=2022-11"), "other periods"),
        (("months.step=acquisition",), "months.step = 'acquisition' gives dates"),
        (("bands=['B02','B05']",), "lack B05, which the recipe's bands name"),
        (("reference.drop=['oak']",), "reference classes or drop name 'oak'"),
        (("reference.colours.oak='#112233'",), "reference.colours names 'oak'"),
        (("reference.drop=['larch_JP']",), "samples of two classes or more are needed"),
    ],
)
def test_samples_that_do_not_fit_a_recipe_are_told(
    truth: Path, tmp_path: Path, command: Command, overrides: tuple[str, ...], text: str
) -> None:
    sets = [word for override in overrides for word in ("--set", override)]
    folder = f"outputs.folder='{tmp_path / 'run'}'"
    code, _, complaint = command("sample", truth / "recipe.toml", "--set", folder, *sets)
    assert code == 2
    assert text in complaint


def test_imported_samples_are_never_overwritten(
    truth: Path, tmp_path: Path, command: Command
) -> None:
    before = content(truth / "samples.zarr")
    (tmp_path / "link").symlink_to(truth)
    for folder in (truth, tmp_path / "link"):
        words = ("--set", f"outputs.folder='{folder}'", "--set", "sampling.max_per_class=5")
        code, _, complaint = command("sample", truth / "recipe.toml", *words)
        assert code == 2
        assert "holds an import, whose samples a run would replace" in complaint
    assert content(truth / "samples.zarr") == before
    # nor are samples without an import round them
    shutil.copytree(truth / "samples.zarr", tmp_path / "alone" / "samples.zarr")
    words = ("--set", f"outputs.folder='{tmp_path / 'alone'}'", "--set", "sampling.max_per_class=5")
    words += ("--set", f"reference.samples='{tmp_path / 'alone' / 'samples.zarr'}'")
    code, _, complaint = command("sample", truth / "recipe.toml", *words)
    assert code == 2
    assert "in place of those that reference.samples names" in complaint
    assert content(tmp_path / "alone" / "samples.zarr") == before


def test_samples_are_taken_again_when_they_or_the_recipe_change(
    truth: Path, tmp_path: Path, command: Command
) -> None:
    kept = open_samples(truth / "samples.zarr").load()
    own = tmp_path / "own.zarr"
    write_samples(own, kept)
    words = (truth / "recipe.toml", "--set", f"outputs.folder='{tmp_path / 'run'}'")
    words += ("--set", f"reference.samples='{own}'", "--json")

    def samples(*more: str) -> dict[str, Any]:
        code, out, _ = command("sample", *words, *more)
        assert code == 0
        found: dict[str, Any] = json.loads(out)
        return found

    first = samples()
    assert samples() == first
    few = samples("--set", "sampling.max_per_class=5")
    assert few["by_class"] == dict.fromkeys(CLASSES, 5)
    renamed = samples("--set", "reference.classes={larch_JP='larch',deci_broad='oak'}")
    assert list(renamed["by_class"]) == ["larch", "oak"]
    assert samples()["by_class"] == first["by_class"]
    write_samples(own, kept.isel(sample=slice(1, None)))
    assert samples()["samples"] == first["samples"] - 1
