"""`canopycube compare`: exit codes, thresholds by name and place, tables, labels of a classifier."""

import csv
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.bands import NODATA
from cube.ledger import Ledger
from cube.periods import Period
from cube.spec import CubeSpec
from cube.store import CubeBlocks, count_files, create_cube, decode, open_stored_cube, write_region
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.learn import train_classifier
from model.samples import Samples
from pipelines.recipe import Recipe

Command = Callable[..., tuple[int, str, str]]

BANDS = ("B02", "B04", "B08", "AOT")
MONTHS = ("2022-04", "2022-05", "2022-06")
GRID = GeoBox((40, 60), Affine(10, 0, 500_000, 0, -10, 5_300_000), "EPSG:32633")
SPEC = CubeSpec(
    geobox=GRID, periods=tuple(map(Period.parse, MONTHS)), bands=BANDS, tile=32, chunk=16
)


def ground(seed: int = 0) -> CubeBlocks:
    """Return two kinds of ground in stripes, with clouds."""
    random = np.random.default_rng(seed)
    times, bands, height, width = SPEC.shape
    blocks = CubeBlocks.empty(times, bands, height, width)
    kind = np.broadcast_to(np.arange(width) // 7 % 2, (height, width))
    level = np.array([[500, 900, 3000, 1000], [900, 400, 5000, 1300]])[kind]  # (y, x, band)
    blocks.reflectance[:] = np.moveaxis(level, -1, 0) + random.integers(-150, 150, SPEC.shape)
    blocks.clear_count[:] = random.integers(0, 4, (times, height, width))
    blocks.reflectance[np.broadcast_to((blocks.clear_count == 0)[:, None], SPEC.shape)] = NODATA
    return blocks


def store(path: Path, blocks: CubeBlocks, spec: CubeSpec = SPEC) -> Path:
    create_cube(path, spec)
    ledger = Ledger(store=path, inputs="these")
    ledger.prepare()
    for region in spec.regions():
        part = {name: b[..., region.rows, region.columns] for name, b in blocks.layers.items()}
        write_region(path, region, CubeBlocks(**part))
        ledger.record(region, {"files": count_files(path, region)})
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return cubes by what distinguishes them."""
    folder = tmp_path_factory.mktemp("stores")
    same, moved, clouded = ground(), ground(), ground()
    moved.reflectance[1, 2][moved.reflectance[1, 2] != NODATA] += 40  # May, B08
    moved.reflectance[0, 3][moved.reflectance[0, 3] != NODATA] += 9000  # April, AOT
    clouded.reflectance[2, :, :10] = NODATA
    clouded.clear_count[2, :10] = 0
    empty = CubeBlocks.empty(*SPEC.shape)
    noise = ground()
    random = np.random.default_rng(9)
    random.shuffle(noise.reflectance[0, 0].reshape(-1))
    cubes = {"same": same, "moved": moved, "clouded": clouded, "empty": empty, "noise": noise}
    (folder / "out").mkdir()
    made = {name: store(folder / f"{name}.zarr", blocks) for name, blocks in cubes.items()}
    return made | {"twin": store(folder / "out" / "cube.zarr", ground()), "folder": folder / "out"}


def test_equal_cubes_agree(command: Command, stores: dict[str, Path]) -> None:
    code, printed, complaint = command("compare", stores["same"], stores["folder"])
    assert (code, complaint) == (0, "")
    assert "agree     within all thresholds" in printed
    assert "shared    3 periods, 4 bands, 40 y x 60 x" in printed
    assert "only in" not in printed
    row = next(line for line in printed.splitlines() if line.startswith("B08"))
    assert row.split()[2:7] == ["+0.00000", "0.00000", "0.0000", "100.00%", "1.00000"]
    assert "not judged: AOT (no reflectance)" in printed
    assert len(printed.splitlines()) < 20


def test_what_exceeds_is_named_with_its_place(command: Command, stores: dict[str, Path]) -> None:
    code, printed, complaint = command("compare", stores["same"], stores["moved"])
    assert code == 1
    assert complaint == ("canopycube: the cubes differ: bias above 0.002: B08 2022-05 +0.004\n")
    assert "differ    bias above 0.002: B08 2022-05 +0.004" in printed
    assert re.search(r"^B08 .* 2022-05 0\.00400$", printed, re.MULTILINE)
    assert command("compare", stores["same"], stores["moved"], "--max-bias", "0.004")[0] == 0
    # B - A: the other way round it is the other sign
    other = command("compare", stores["moved"], stores["same"], "--max-rmse", "0.001")
    assert "bias above 0.002: B08 2022-05 -0.004" in other[2]
    assert "RMSE above 0.001: B08 2022-05 0.004 and 1 more" in other[2]


def test_other_clouds_and_no_relation(command: Command, stores: dict[str, Path]) -> None:
    code, _, complaint = command("compare", stores["same"], stores["clouded"])
    assert code == 1
    lost = (ground().reflectance[2, 0, :10] != NODATA).sum() / (40 * 60)
    assert f"clear difference above 0.01: 2022-06 {lost:.5g}\n" in complaint
    words = ("--max-clear-difference", "0.3")
    assert command("compare", stores["same"], stores["clouded"], *words)[0] == 0
    code, _, complaint = command("compare", stores["same"], stores["noise"], "--max-rmse", "1")
    assert code == 1
    assert "correlation below 0.95: B02 2022-04 0." in complaint or "B02 2022-04 -0." in complaint


def test_nothing_compared_is_no_agreement(command: Command, stores: dict[str, Path]) -> None:
    words = ("--max-clear-difference", "1")
    code, _, complaint = command("compare", stores["same"], stores["empty"], *words)
    assert code == 1
    assert "no pixel has a value in both cubes" in complaint


def test_machines_get_every_figure(command: Command, stores: dict[str, Path]) -> None:
    code, printed, complaint = command("compare", stores["same"], stores["moved"], "--json")
    assert code == 1
    found = json.loads(printed)
    assert found["exit"] == 1
    assert found["error"] in complaint
    assert [(one["threshold"], one["band"], one["period"]) for one in found["exceeded"]] == [
        ("max_bias", "B08", "2022-05")
    ]
    places = {(one["band"], one["period"]): one for one in found["by_band_and_period"]}
    assert len(places) == 12
    a = ground().reflectance
    assert places["B08", "2022-05"] == {
        "band": "B08", "period": "2022-05", "pixels": int((a[1, 2] != NODATA).sum()),
        "only_a": 0, "only_b": 0, "bias": 0.004, "rmse": 0.004, "largest": 0.004,
        "within_one": 0.0, "correlation": 1.0,
    }  # fmt: skip
    assert found["not_judged"]["bands"] == ["AOT"]
    assert found["labels"] is None
    assert found["thresholds"]["max_bias"] == 0.002
    code, printed, complaint = command("compare", stores["same"], stores["twin"], "--json")
    assert (code, complaint) == (0, "")
    assert json.loads(printed)["exceeded"] == []


def test_the_table_and_the_full_listing(
    command: Command, stores: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "all.csv"
    words = ("--csv", file, "--full")
    code, printed, _ = command("compare", stores["same"], stores["moved"], *words)
    assert code == 1
    with file.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert Counter(row["band"] for row in rows) == dict.fromkeys(BANDS, 4) | {"all": 3}
    may = next(row for row in rows if (row["band"], row["period"]) == ("B08", "2022-05"))
    assert float(may["bias"]) == 0.004
    assert may["clear_differs"] == ""
    assert [row["clear_differs"] for row in rows if row["band"] == "all"] == ["0.0"] * 3
    assert len(re.findall(r"^2022-05  B", printed, re.MULTILINE)) == 3
    before = file.read_bytes()
    assert command("compare", stores["same"], stores["moved"], *words)[0] == 1
    assert file.read_bytes() == before


def test_a_table_replaces_nothing_else(
    command: Command, stores: dict[str, Path], tmp_path: Path
) -> None:
    mine = tmp_path / "labels.csv"
    mine.write_text("plot,species\n1,oak\n")
    for place, text in {
        mine: "exists and is no table of a comparison; it is not overwritten",
        tmp_path: "cannot be used: Is a directory",
        tmp_path / "none" / "all.csv": "folder that does not exist",
    }.items():
        code, _, complaint = command("compare", stores["same"], stores["twin"], "--csv", place)
        assert code == 2
        assert text in complaint
    assert mine.read_text() == "plot,species\n1,oak\n"


def test_few_values_are_judged_together_only(
    command: Command, stores: dict[str, Path], tmp_path: Path
) -> None:
    a, b = ground(), ground()
    for blocks in (a, b):
        blocks.reflectance[0, :, 1:] = NODATA
        blocks.reflectance[0, :, 0, 20:] = NODATA
    b.reflectance[0][b.reflectance[0] != NODATA] += 3000
    one, two = store(tmp_path / "a.zarr", a), store(tmp_path / "b.zarr", b)
    code, printed, complaint = command("compare", one, two)
    assert code == 1
    assert "too few values to be judged alone: 2022-04\n" in printed
    assert "2022-04" not in complaint
    assert "RMSE above 0.01: " in complaint
    assert "all periods" in complaint


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_no_digit(command: Command, stores: dict[str, Path], workers: int) -> None:
    words = ("--json", "--workers", workers)
    found = json.loads(command("compare", stores["same"], stores["noise"], *words)[1])
    alone = json.loads(command("compare", stores["same"], stores["noise"], "--json")[1])
    assert found == alone


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learn the two kinds of ground."""
    blocks = ground(seed=5)
    series = decode(blocks.reflectance[:, :3]).reshape(3, 3, -1)  # (time, band, pixel)
    label = np.broadcast_to(np.arange(60) // 7 % 2, (40, 60)).ravel()
    pixels = np.moveaxis(series, -1, 0)  # (pixel, time, band)
    samples = Samples(
        reflectance=np.ascontiguousarray(pixels),
        bands=BANDS[:3],
        periods=MONTHS,
        label=label.astype(np.int64),
        classes=("larch, Japanese", "oak"),
        group=np.arange(2400) // 60,
        block=np.arange(2400) // 240,
    )
    config = TrainConfig.preset(
        "default", features=["B02", "B04", "B08"], hidden=8, epochs=6, learning_rate=1e-2
    )
    made = train_classifier(
        samples.with_clear_periods(config.features), config, colours=["#112233", "#445566"]
    )
    folder = tmp_path_factory.mktemp("trained") / "classifier"
    made.save(folder)
    return folder


def labels_of(path: Path, folder: Path) -> np.ndarray:
    """Classify a whole cube as samples."""
    stored = open_stored_cube(path)["reflectance"].values
    series = np.moveaxis(decode(stored).reshape(3, 4, -1), -1, 0)
    probability = SpeciesClassifier.load(folder).predict_samples(
        np.ascontiguousarray(series), BANDS
    )
    is_clear = np.isfinite(probability[:, 0])
    return np.where(is_clear, np.nan_to_num(probability).argmax(axis=1) + 1, 0)


def test_labels_are_compared(
    command: Command, stores: dict[str, Path], classifier: Path, tmp_path: Path
) -> None:
    swapped = ground()
    swapped.reflectance[:, :, :12] = np.roll(ground().reflectance, 7, axis=3)[:, :, :12]
    swapped.reflectance[:, :, 30:, :5] = NODATA
    other = store(tmp_path / "other.zarr", swapped)
    words = ("--classifier", classifier, "--json", "--min-agreement", "0.9")
    code, printed, _ = command("compare", stores["same"], other, *words)
    assert code == 1
    found = json.loads(printed)
    one, two = labels_of(stores["same"], classifier), labels_of(other, classifier)
    both = (one > 0) & (two > 0)
    labels = found["labels"]
    assert labels["both"] == both.sum()
    assert labels["equal"] == (one == two)[both].sum()
    assert labels["agreement"] == (one == two)[both].mean() < 0.9
    assert labels["only_a"] == ((one > 0) & (two == 0)).sum() > 0
    assert labels["only_b"] == ((one == 0) & (two > 0)).sum()
    assert labels["neither"] == ((one == 0) & (two == 0)).sum()
    names = ("larch, Japanese", "oak")
    expected = Counter(
        (names[a - 1], names[b - 1]) for a, b in zip(one[both], two[both], strict=True) if a != b
    )
    told = {(pair["a"], pair["b"]): pair["pixels"] for pair in labels["disagreements"]}
    assert told == dict(expected)
    assert list(told.values()) == sorted(told.values(), reverse=True)
    exceeded = [(one["threshold"], one["value"]) for one in found["exceeded"]]
    assert ("min_agreement", labels["agreement"]) in exceeded
    assert ("max_clear_difference", (labels["only_a"] + labels["only_b"]) / 2400) in exceeded
    _, printed, _ = command("compare", stores["same"], other, "--classifier", classifier)
    assert "larch, Japanese in A, oak in B" in printed
    assert f"{labels['agreement']:.3%} agree of {labels['both']:,} pixels" in printed


def test_no_label_in_both_is_no_agreement(
    command: Command, stores: dict[str, Path], classifier: Path
) -> None:
    words = ("--classifier", classifier, "--max-clear-difference", "1")
    code, printed, complaint = command("compare", stores["same"], stores["empty"], *words)
    assert code == 1
    assert "no pixel has a label in both cubes" in complaint
    assert "none can be compared of 0 pixels" in printed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("{same}", "{same}"), "A and B are the same cube"),
        (("{same}", "nowhere"), "there is no cube at 'nowhere'"),
        (("{same}", "x" * 300), "there is no cube at"),
        (("{same}", "{here}"), "is no Zarr store; expected a canopycube cube"),
        (("{same}", "{twin}", "--max-bias", "nan"), "--max-bias is nan; expected 0 or more"),
        (("{same}", "{twin}", "--max-bias=-1"), "--max-bias is -1.0; expected 0 or more"),
        (("{same}", "{twin}", "--min-agreement", "99"), "--min-agreement is 99.0; expected 0 to 1"),
        (("{same}", "{twin}", "--min-correlation", "2"), "is 2.0; expected -1 to 1"),
        (("{same}", "{twin}", "--workers", "0"), "--workers is 0; expected 1 or more"),
        (("{same}", "{twin}", "--min-months", "0"), "--min-months is 0"),
        (("{same}", "{twin}", "--classifier", "nowhere"), "there is no classifier at 'nowhere'"),
        (("{same}", "{twin}", "--classifier", "{here}"), "classifier"),
    ],
)
def test_wrong_input(
    command: Command, stores: dict[str, Path], tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    given = [word.format(here=tmp_path, **stores) for word in words]
    code, printed, complaint = command("compare", *given)
    assert (code, printed) == (2, "")
    assert text in complaint
    assert complaint.count("\n") == 1


def test_cubes_that_do_not_meet(
    command: Command, stores: dict[str, Path], classifier: Path, tmp_path: Path
) -> None:
    far = GeoBox((40, 60), Affine(10, 0, 900_000, 0, -10, 5_300_000), "EPSG:32633")
    other = store(tmp_path / "far.zarr", ground(), dataclasses.replace(SPEC, geobox=far))
    code, _, complaint = command("compare", stores["same"], other)
    assert code == 2
    assert "no pixel in common" in complaint
    fewer = dataclasses.replace(SPEC, bands=("B02", "B04", "B05", "AOT"))
    other = store(tmp_path / "fewer.zarr", ground(), fewer)
    code, printed, _ = command("compare", stores["same"], other)
    assert code == 0
    assert "only in A: bands B08" in printed
    assert "only in B: bands B05" in printed
    code, _, complaint = command("compare", stores["same"], other, "--classifier", classifier)
    assert code == 2
    assert "cube B: the classifier does not fit the cube" in complaint
    assert "lacks B08" in complaint


def test_an_incomplete_cube(command: Command, stores: dict[str, Path], tmp_path: Path) -> None:
    half = store(tmp_path / "half.zarr", ground())
    (half / "ledger" / "r0000c0001.json").unlink()
    code, _, complaint = command("compare", stores["same"], half)
    assert code == 2
    assert "is incomplete: 1 of its 4 tiles are not done" in complaint


def test_bytes_that_cannot_be_read(
    command: Command, stores: dict[str, Path], tmp_path: Path
) -> None:
    torn = store(tmp_path / "torn.zarr", ground())
    shard = torn / "clear_count" / "c" / "0" / "1" / "1"
    shard.write_bytes(shard.read_bytes()[:40])
    code, printed, complaint = command("compare", stores["same"], torn)
    assert (code, printed) == (2, "")
    assert "clear_count of 2022-04 at rows 0, columns 0 of cube B" in complaint


def test_recipes_name_their_cubes(
    command: Command, finished: tuple[Recipe, dict[str, Any]], tmp_path: Path
) -> None:
    """The forest's own run against a copy with one value changed, all by recipe."""
    recipe, _ = finished
    path = recipe.outputs.folder.parent / "recipe.toml"
    code, _, complaint = command("compare", path, recipe.outputs.folder)
    assert code == 2
    assert "are the same cube" in complaint
    (tmp_path / "recipe.toml").write_text(path.read_text())
    code, _, complaint = command("compare", path, tmp_path / "recipe.toml")
    assert code == 2
    assert "there is no cube at" in complaint


def test_a_classifier_that_is_none_and_a_threshold_without_one(
    command: Command, stores: dict[str, Path]
) -> None:
    words = ("compare", stores["same"], stores["moved"])
    code, _, complaint = command(*words, "--classifier", stores["same"].parent)
    assert code == 2
    assert "classifier" in complaint
    code, _, complaint = command(*words, "--min-agreement", "0.5")
    assert code == 2
    assert "--min-agreement goes with --classifier" in complaint
