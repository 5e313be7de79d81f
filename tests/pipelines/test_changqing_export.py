"""The simulated Changqing export through import, training and map: each fault of it, one by one.

The faults are those known of the published workflow and its exports, numbered (1) to (11); a
test's name says whether the fault is corrected or reported. Oracles are the forest's truth, pandas
on the generator's own rows, and rasterio.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from changqing import Export, ExportSpec, write_export
from changqing_full_size import DATES, write_full_size
from changqing_images import FEATURES, INDICES, MASKED

from cube import open_cube
from cube.bands import canonical_band
from cube.forest import FOREST_CLASSES
from cube.samplestore import open_samples
from model.classifier import SpeciesClassifier
from model.features import REFERENCE_FEATURES, FeatureSet
from model.split import SPLITS
from pipelines.__main__ import main
from pipelines.progress import Reporter
from pipelines.recipe import read_recipe
from pipelines.run import open_run

Command = Callable[..., tuple[int, str, str]]

BANDS = {name: canonical_band(name) for name in FEATURES if name[0] in "BAW"}
"""The export's name of each band, and ours."""

QUICK = (
    "training.hidden=64",
    "training.epochs=30",
    'training.baselines=["lda"]',
    "training.importance=false",
    "training.folds=3",
    "composite.tile=64",
    "composite.chunk=32",
)
"""What makes a run on 64 x 112 pixels quick."""


def run_import(source: Path, to: Path) -> dict[str, Any]:
    """Import tables and return the report."""
    assert main(["import-table", str(source), "--to", str(to)]) == 0
    report: dict[str, Any] = json.loads((to / "import.json").read_text())
    return report


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Write 28 patches and the ground truth, with every fault."""
    return write_export(tmp_path_factory.mktemp("changqing") / "exports", ExportSpec())


@pytest.fixture(scope="session")
def imported(export: Export) -> tuple[Path, dict[str, Any]]:
    """Import all of them: the folder and the report."""
    folder = export.folder.parent / "imported"
    return folder, run_import(export.folder, folder)


@pytest.fixture(scope="session")
def mapped(imported: tuple[Path, dict[str, Any]], reporter: Reporter) -> tuple[Path, Any]:
    """Carry out the recipe that the import wrote: the folder of its outputs and the report."""
    recipe = read_recipe(imported[0] / "recipe.toml", QUICK)
    with open_run(recipe, reporter) as run:
        return recipe.outputs.folder, json.loads(json.dumps(run.all()))


def scenes_on(export: Export, folder: Path) -> xr.Dataset:
    """Return the imported dated stack, with the row and column of the export's pixels."""
    scenes = xr.open_zarr(folder / "scenes.zarr", mask_and_scale=False)
    grid = export.geobox.affine
    column = (scenes["x"].values - grid.c) / 10 - 0.5
    row = (grid.f - scenes["y"].values) / 10 - 0.5
    for places in (row, column):
        np.testing.assert_array_equal(places, np.rint(places))  # on Sentinel-2's own lattice
    return scenes.assign_coords(row=("y", row.astype(int)), column=("x", column.astype(int)))


def stored_truth(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a pixel and date with bands in stored units, where all bands have data."""
    bands = rows[list(BANDS)].astype(float).where(lambda counts: counts != MASKED)
    bands["AOT"] *= 10
    places = rows[["date", "row", "column"]]
    looks = pd.concat([places, bands.rename(columns=BANDS)], axis=1).dropna()
    # a date may have two images of one pixel, such as a product made anew: the first counts
    return looks.drop_duplicates(["date", "row", "column"]).set_index(["date", "row", "column"])


def of_pixels(scenes: xr.Dataset, band: str, truth: pd.DataFrame) -> np.ndarray:
    """Return what a stack holds at the pixels and dates of `truth`; NaN for nodata."""
    dates, rows, columns = (truth.index.get_level_values(level) for level in range(3))
    times = pd.to_datetime(scenes["time"].values).date
    place = (
        np.searchsorted(times, np.asarray(dates)),
        rows - scenes["row"].values[0],
        columns - scenes["column"].values[0],
    )
    found = scenes[band].values[place].astype(float)
    return np.where(found == -32768, np.nan, found)


def test_every_sample_stands_on_its_own_pixel_and_date(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    scenes, truth = scenes_on(export, imported[0]), stored_truth(export.patch_rows)
    assert len(truth) > 50_000
    for band in BANDS.values():
        np.testing.assert_array_equal(of_pixels(scenes, band, truth), truth[band].values)
    # and nothing beside them
    seen = sum(int((scenes[band] != -32768).sum()) for band in BANDS.values())
    assert seen == truth.size


def sampled_rows(export: Export, samples: xr.Dataset) -> pd.DataFrame:
    """Return row, column and point of each sample, by its coordinates alone."""
    grid = export.geobox.affine
    places = pd.DataFrame(
        {
            "row": np.floor((grid.f - samples["y"].values) / 10).astype(int),
            "column": np.floor((samples["x"].values - grid.c) / 10).astype(int),
        }
    )
    once = export.rows[export.ground_truth].drop_duplicates(["row", "column"])
    return places.merge(once[["row", "column", "point", "class"]], how="left", validate="1:1")


def test_1_neighbours_of_one_point_are_one_group_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    samples = open_samples(imported[0] / "samples.zarr")
    places = sampled_rows(export, samples).assign(group=samples["group"].values)
    assert places["point"].notna().all()
    assert (places.groupby("point")["group"].nunique() == 1).all()
    # patches of two points that touch become one group; few do
    points, groups = places["point"].nunique(), places["group"].nunique()
    assert 0.8 * points < groups <= points


def test_1_the_random_score_never_stands_alone_reported(mapped: tuple[Path, Any]) -> None:
    entries = mapped[1]["training"]["scores"]["entries"]
    assert {entry["split"] for entry in entries} == set(SPLITS)


def test_2_months_of_one_image_are_reported(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    report = imported[1]
    assert report["checks"]["is_one_date_a_month"]
    assert {file["most_dates_in_a_month"] for file in report["files"]} == {1}
    assert report["stack"]["dates"] == [image.date.isoformat() for image in export.images]
    assert any("first image of each month" in advice for advice in report["advice"])


def test_2_a_month_of_several_images_is_their_median_corrected(
    tmp_path: Path, reporter: Reporter
) -> None:
    """With all images exported: whole months, of which the first image is no more than one."""
    spec = ExportSpec(is_first_of_month=False, max_cloud_cover=0.6, patches=(2, 1))
    every = write_export(tmp_path / "exports", spec)
    report = run_import(every.folder, tmp_path / "imported")
    assert not report["checks"]["is_one_date_a_month"]
    rows = stored_truth(every.patch_rows)
    months = [date.month for date in rows.index.get_level_values("date")]
    truth = rows.groupby([months, "row", "column"]).median()
    assert (rows.groupby([months, "row", "column"]).size() >= 3).mean() > 0.2
    recipe = read_recipe(tmp_path / "imported" / "recipe.toml", QUICK)
    with open_run(recipe, reporter) as run:
        run.build()
    cube = open_cube(recipe.outputs.folder / "cube.zarr")["reflectance"].load()
    place = place_of(every, cube, truth.index)
    for band in BANDS.values():
        found = cube.sel(band=band).values[place] * 1e4
        np.testing.assert_allclose(found, truth[band].values, atol=0.51)
    assert int(cube.notnull().sum()) == truth.size


def place_of(
    export: Export, pixels: xr.DataArray | xr.Dataset, index: pd.MultiIndex
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where (month, row, column) lie in arrays (time, y, x) of a year."""
    months, rows, columns = (index.get_level_values(level).to_numpy() for level in range(3))
    grid = export.geobox.affine
    top = round((grid.f - float(pixels["y"].values[0])) / 10 - 0.5)
    left = round((float(pixels["x"].values[0]) - grid.c) / 10 - 0.5)
    return months - 1, rows - top, columns - left


def test_3_a_missing_month_shifts_no_other_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]], mapped: tuple[Path, Any]
) -> None:
    cube = open_cube(mapped[0] / "cube.zarr")["reflectance"].load()
    assert cube.sizes["time"] == 12
    months = {image.date.month for image in export.images}
    assert months == {2, 3, 4, 5, 6, 9, 10, 11, 12}
    for month in {1, 7, 8}:
        assert cube[month - 1].isnull().all()
    rows = stored_truth(export.patch_rows).reset_index()
    rows["date"] = [date.month for date in rows["date"]]
    truth = rows.set_index(["date", "row", "column"])
    place = place_of(export, cube, truth.index)
    found = cube.sel(band="B08").values[place] * 1e4
    np.testing.assert_allclose(found, truth["B08"].values, atol=0.01)
    # the same of the ground truth, whose pixels lack about an eighth of the dates each
    samples = open_samples(imported[0] / "samples.zarr")
    assert samples["period"].values.tolist() == [f"2022-{month:02d}" for month in range(1, 13)]
    rows = stored_truth(export.rows[export.ground_truth])["B08"].reset_index()
    rows["date"] = [date.month for date in rows["date"]]
    table = rows.pivot(index=["row", "column"], columns="date", values="B08")
    places = sampled_rows(export, samples)
    truth_of_samples = table.reindex(
        index=pd.MultiIndex.from_frame(places[["row", "column"]]), columns=range(1, 13)
    ).to_numpy()
    found = samples["reflectance"].sel(band="B08").values * 1e4
    assert len(found) == len(table)
    assert np.isnan(found).any(axis=1).all()
    np.testing.assert_allclose(found, truth_of_samples, atol=0.01)


def test_3_missing_months_are_reported(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    report = imported[1]
    for part, rows in (("stack", export.patch_rows), ("samples", export.rows[export.ground_truth])):
        found = report[part]
        assert found["months_without_data"] == ["2022-01", "2022-07", "2022-08"]
        looks = stored_truth(rows).groupby(["row", "column"]).size()  # one a month
        expected = {str(months): count for months, count in looks.value_counts().items()}
        assert found["pixels_by_months_with_data"] == expected
        assert found["share_of_pixels_missing_a_month"] == 1


def test_4_what_is_masked_stays_empty_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    """Also where only the 60 m bands are masked: a look has all bands, or is none."""
    scenes, rows = scenes_on(export, imported[0]), export.patch_rows
    for hole in ("all", "coarse"):
        masked = rows[rows["hole"] == hole].drop_duplicates(["row", "column", "date"])
        places = masked.set_index(["date", "row", "column"])
        assert len(places) > 100
        for band in BANDS.values():
            assert np.isnan(of_pixels(scenes, band, places)).all()
    # an index without a value takes nothing from the bands
    places = rows[rows["hole"] == "indices"].set_index(["date", "row", "column"])
    assert len(places) > 10
    assert np.isfinite(of_pixels(scenes, "B08", places)).all()


def test_4_values_filled_down_by_the_cleaning_reported(export: Export, tmp_path: Path) -> None:
    cleaned = write_export(tmp_path / "exports", export.spec, form="cleaned")
    report = run_import(cleaned.folder, tmp_path / "imported")
    for file in report["files"]:
        rows = cleaned.rows[cleaned.folder / file["name"]]
        values = rows[list(BANDS)]
        filled = values.where(values != MASKED).ffill()
        pixels = rows[["row", "column", "date"]]
        is_other = (pixels != pixels.shift()).any(axis=1)
        repeats = (filled == filled.shift()).all(axis=1) & is_other
        assert file["rows_repeating_the_row_before"] == int(repeats.sum())
    assert report["checks"]["rows_repeating_the_row_before"] > 1000
    assert any("filled" in advice for advice in report["advice"])


def test_5_no_999_reaches_the_network_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]], mapped: tuple[Path, Any]
) -> None:
    assert (export.patch_rows[list(FEATURES)] == MASKED).any().all()
    cube = open_cube(mapped[0] / "cube.zarr")["reflectance"].values
    samples = open_samples(imported[0] / "samples.zarr")["reflectance"].values
    for values in (cube, samples):
        assert np.nanmin(values) > 0


def test_5_every_row_that_is_dropped_is_reported(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    assert len(imported[1]["files"]) == len(export.rows) == 29
    for file in imported[1]["files"]:
        rows = export.rows[export.folder / file["name"]]
        looks = stored_truth(rows)
        is_masked = rows[list(BANDS)] == MASKED
        whole, some = is_masked.all(axis=1), is_masked.any(axis=1)
        expected = {
            "masked in every band": int(whole.sum()),
            "without data in some bands": int((some & ~whole).sum()),
        }
        dropped = {reason: file["dropped"].get(reason, 0) for reason in expected}
        assert dropped == expected
        assert file["rows"] == len(rows) == file["kept"] + sum(file["dropped"].values())
        if file["kind"] == "ground truth":
            assert file["kept"] == len(looks)
            assert file["dropped"]["duplicates"] == int((~some).sum()) - len(looks)
    # a pixel of two patches is kept of the first
    kept = sum(file["kept"] for file in imported[1]["files"] if file["kind"] == "patch")
    assert kept == len(stored_truth(export.patch_rows))


def test_6_features_are_scaled_corrected(mapped: tuple[Path, Any]) -> None:
    classifier = SpeciesClassifier.load(mapped[0] / "classifier")
    preparation = classifier.fitted.preparation
    samples = open_samples(mapped[0] / "samples.zarr")["reflectance"]
    needed = list(classifier.required_bands)
    clear = samples.where(samples.sel(band=needed).notnull().all("band"))
    for place, name in enumerate(preparation.features.names):
        if name in needed:
            values = clear.sel(band=name)
            assert preparation.mean[place] == pytest.approx(float(values.mean()), rel=0.1)
            assert preparation.deviation[place] == pytest.approx(float(values.std()), rel=0.1)


def test_7_indices_are_made_from_reflectance_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    samples = open_samples(imported[0] / "samples.zarr")
    bands = tuple(samples["band"].values.tolist())
    found = FeatureSet(names=INDICES).compute(samples["reflectance"].values, bands)
    blue, red, infrared = (
        samples["reflectance"].sel(band=band).values for band in ("B02", "B04", "B08")
    )
    under = infrared + 6 * red - 7.5 * blue + 1
    is_usual = under > 0.2  # else a cloud: no index
    expected = 2.5 * (infrared - red) / under
    assert is_usual.mean() > 0.5
    np.testing.assert_allclose(found[..., 0][is_usual], expected[is_usual].clip(-2, 2), rtol=1e-4)
    # what the table held is another thing
    rows = export.rows[export.ground_truth]
    assert (rows["EVI"] > 1.5).mean() > 0.1 > (expected[is_usual] > 1.5).mean()


def test_7_indices_on_counts_are_reported(
    export: Export, imported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    for of_file in imported[1]["checks"]["indices"].values():
        assert of_file["EVI"]["is_on_counts"]
        assert of_file["NDVI"]["share_right"] == 1
    assert any("EVI" in advice and "on counts" in advice for advice in imported[1]["advice"])
    right = write_export(
        tmp_path / "exports", ExportSpec(is_evi_on_counts=False, patches=(1, 1), samples=(8, 8))
    )
    report = run_import(right.folder, tmp_path / "imported")
    for of_file in report["checks"]["indices"].values():
        assert not of_file["EVI"]["is_on_counts"]
        assert of_file["EVI"]["share_right"] == 1
    assert not any("EVI" in advice for advice in report["advice"])


def test_8_a_pixel_of_several_spellings_is_one_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    rows = export.rows[export.ground_truth]
    pixels = len(rows[["row", "column"]].drop_duplicates())
    by_text = len(rows[["longitude_text", "latitude_text"]].drop_duplicates())
    assert by_text > 1.1 * pixels  # what grouping by text would make of them
    samples = open_samples(imported[0] / "samples.zarr")
    looks = stored_truth(rows).reset_index()
    assert samples.sizes["sample"] == len(looks[["row", "column"]].drop_duplicates())


def test_8_other_spellings_are_reported(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    found = {
        file["name"]: file["rows_with_coordinates_spelled_otherwise"]
        for file in imported[1]["files"]
    }
    expected = _spelled_otherwise(export.rows[export.ground_truth], ["row", "column", "date"])
    assert expected > 100
    assert found[export.ground_truth.name] == expected
    # of patches the first sample of a pixel may be one of the patch before
    first: dict[tuple[int, int], tuple[float, float]] = {}
    for file in imported[1]["files"]:
        if file["kind"] == "patch":
            count = _count_in_turn(export.rows[export.folder / file["name"]], first)
            assert found[file["name"]] == count
    assert sum(found.values()) - expected > 1000


def _count_in_turn(rows: pd.DataFrame, first: dict[tuple[int, int], tuple[float, float]]) -> int:
    """Count, row by row, those that spell otherwise the place that a pixel in `first` came with."""
    count = 0
    rows = rows[~(rows[list(BANDS)] == MASKED).any(axis=1)]
    columns = (rows[name].tolist() for name in ("row", "column", "longitude", "latitude"))
    for row, column, lon, lat in zip(*columns, strict=True):
        opening = first.setdefault((row, column), (lon, lat))
        count += 0 < max(abs(lon - opening[0]), abs(lat - opening[1])) < 1e-6
    return count


def _spelled_otherwise(rows: pd.DataFrame, order: list[str]) -> int:
    """Count rows whose coordinates differ by less than 0.1 m from the first ones of their pixel."""
    rows = rows[~(rows[list(BANDS)] == MASKED).any(axis=1)].sort_values(order, kind="stable")
    first = rows.groupby(["row", "column"])[["longitude", "latitude"]].transform("first")
    apart = (rows[["longitude", "latitude"]] - first).abs().max(axis=1)
    return int(((apart > 0) & (apart < 1e-6)).sum())


def test_9_clouds_that_qa60_left_in_are_reported(
    export: Export, imported: tuple[Path, dict[str, Any]]
) -> None:
    """Brightness in blue stands for cloud or snow, which such rows are by the forest's truth."""
    for file in imported[1]["files"]:
        rows = export.rows[export.folder / file["name"]]
        assert file["rows_bright_in_blue"] == int((rows["B2"] > 2500).sum())
    rows = export.patch_rows
    assert (rows["is_cloud"] | rows["is_snow"])[rows["B2"] > 2500].mean() > 0.99
    assert imported[1]["checks"]["bright_share"] > 0.03
    advice = next(advice for advice in imported[1]["advice"] if "QA60" in advice)
    assert "composite.outliers" in advice


def test_9_clouds_that_are_masked_are_no_clouds(tmp_path: Path) -> None:
    spec = ExportSpec(is_qa60_empty=False, patches=(4, 2))
    masked = write_export(tmp_path / "exports", spec)
    assert (masked.patch_rows["hole"] == "cloud").mean() > 0.1
    report = run_import(masked.folder, tmp_path / "imported")
    assert not any("QA60" in advice for advice in report["advice"])


def test_10_classes_are_the_tables_in_any_number_and_order_corrected(
    export: Export, imported: tuple[Path, dict[str, Any]], mapped: tuple[Path, Any], tmp_path: Path
) -> None:
    everything = {forest_class.name for forest_class in FOREST_CLASSES}
    classifier = SpeciesClassifier.load(mapped[0] / "classifier")
    assert set(classifier.classes) == everything
    # three classes, the rows turned round
    table = pd.read_csv(export.ground_truth, dtype=str)
    three = table[table["Class"].isin(["shrubland", "larch_CN", "ever_coni"])][::-1]
    three.to_csv(tmp_path / "three.csv", index=False)
    run_import(tmp_path / "three.csv", tmp_path / "imported")
    found = open_samples(tmp_path / "imported" / "samples.zarr")
    whole = open_samples(imported[0] / "samples.zarr")
    is_kept = np.isin(whole["label"].values, ["shrubland", "larch_CN", "ever_coni"])
    for samples in (found, whole.isel(sample=is_kept)):
        assert set(samples["label"].values.tolist()) == {"shrubland", "larch_CN", "ever_coni"}
    assert found.sizes["sample"] == is_kept.sum()


def test_11_rows_and_columns_may_come_in_any_order_corrected(
    export: Export, tmp_path: Path
) -> None:
    """No row is looked for by its neighbours in the table, no pixel is a table of its own."""
    generator = np.random.default_rng(0)
    for folder in ("ordered", "mixed"):
        (tmp_path / folder).mkdir()
    for path in (export.ground_truth, export.patches[1, 2], export.patches[1, 3]):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.to_csv(tmp_path / "ordered" / path.name, index=False)
        mixed = table.iloc[generator.permutation(len(table)), generator.permutation(table.shape[1])]
        mixed.to_csv(tmp_path / "mixed" / path.name, index=False)
    for folder in ("ordered", "mixed"):
        run_import(tmp_path / folder, tmp_path / f"{folder} imported")
    ordered, mixed = (tmp_path / f"{folder} imported" for folder in ("ordered", "mixed"))
    xr.testing.assert_equal(
        *(xr.open_zarr(folder / "scenes.zarr").load() for folder in (ordered, mixed))
    )
    xr.testing.assert_equal(
        *(open_samples(folder / "samples.zarr").load() for folder in (ordered, mixed))
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, which Linux has")
def test_11_memory_does_not_grow_with_the_rows_corrected(tmp_path: Path) -> None:
    """One date of a real patch's size, and eight of them, each imported by its own process."""
    peaks = []
    for count in (1, 8):
        path = tmp_path / f"{count}.csv"
        write_full_size(path, dates=DATES[:count])
        peaks.append(_peak_of_import(path, tmp_path / f"{count} imported"))
    assert peaks[1] < peaks[0] + 100


def _peak_of_import(source: Path, to: Path) -> int:
    """Return the megabytes that a process had at most while it imported a table."""
    text = (
        "import pathlib, sys; from pipelines.__main__ import main; code = main(sys.argv[1:]);"
        "print(pathlib.Path('/proc/self/status').read_text()); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "import-table", str(source), "--to", str(to)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    # ru_maxrss would begin with what this process has: Linux hands it on
    found = re.search(r"^VmHWM:\s+(\d+) kB$", done.stdout, flags=re.MULTILINE)
    assert found
    return int(found[1]) // 1024


def test_the_reference_recipe_learns_from_the_exports(
    imported: tuple[Path, dict[str, Any]], tmp_path: Path, reporter: Reporter
) -> None:
    """Its samples are the imported ones, as the recipe's comment says; no cube is needed yet."""
    shipped = Path(__file__).parents[2] / "pipelines" / "recipes" / "changqing.toml"
    lines = [
        line.removeprefix("# ") if line.startswith("# samples = ") else line
        for line in shipped.read_text().splitlines()
        if not line.startswith(("file = ", "class_column = ", "patch = "))
    ]
    (tmp_path / "changqing.toml").write_text("\n".join(lines))
    (tmp_path / "imported").symlink_to(imported[0])
    recipe = read_recipe(
        tmp_path / "changqing.toml",
        (*QUICK[2:], "training.epochs=2", "training.hidden=8"),
    )
    with open_run(recipe, reporter) as run:
        found = run.sample()
        trained = run.train()
    five = ["deci_broad", "ever_coni", "larch_CN", "larch_JP", "shrubland"]
    assert list(found["by_class"]) == trained["classes"] == five
    whole = imported[1]["samples"]["by_class"]
    assert found["by_class"] == {name: whole[name] for name in five}
    classifier = SpeciesClassifier.load(recipe.outputs.folder / "classifier")
    assert classifier.fitted.preparation.features == REFERENCE_FEATURES
    assert classifier.fitted.preparation.limit is None  # unscaled, as the workflow had it


def test_the_map_lies_where_the_forest_is(export: Export, mapped: tuple[Path, Any]) -> None:
    """A map that is off by a pixel agrees less with the truth."""
    outputs, report = mapped
    classifier = SpeciesClassifier.load(outputs / "classifier")
    number_of = {forest_class.name: forest_class.number for forest_class in FOREST_CLASSES}
    numbers = np.array([0, *(number_of[name] for name in classifier.classes)])
    with rasterio.open(report["published"]["map"]) as file:
        assert file.crs.to_epsg() == 32648
        assert (file.transform.a, file.transform.e) == (10, -10)
        mapped_classes = numbers[file.read(1)]
        left, top = file.transform.c, file.transform.f
    grid = export.geobox.affine
    column, row = (left - grid.c) / 10, (grid.f - top) / 10
    assert column.is_integer()
    assert row.is_integer()
    rows = export.patch_rows
    assert (row, column) == (rows["row"].min(), rows["column"].min())
    assert mapped_classes.shape == (
        rows["row"].max() - row + 1,
        rows["column"].max() - column + 1,
    )
    is_mapped = mapped_classes > 0

    def agreement(down: int, across: int) -> float:
        height, width = mapped_classes.shape
        top, left = int(row) + down, int(column) + across
        truth = np.pad(export.classes, 1)[top + 1 : top + 1 + height, left + 1 : left + 1 + width]
        return float((truth == mapped_classes)[is_mapped].mean())

    here = agreement(0, 0)
    assert here > 0.7
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            if (down, across) != (0, 0):
                assert agreement(down, across) < here
    # every pixel that was sampled with data is mapped, and no other
    sampled = np.zeros(mapped_classes.shape, bool)
    looks = stored_truth(rows).reset_index()
    sampled[looks["row"] - int(row), looks["column"] - int(column)] = True
    np.testing.assert_array_equal(is_mapped, sampled)


def test_a_sixth_of_the_samples_repeat_a_pixel_reported(tmp_path: Path) -> None:
    """The real patch's size, one date."""
    path = tmp_path / "LarchCN_256x256_2022_monthly_patch_0_0.csv"
    rows = write_full_size(path, dates=DATES[1:2])
    repeats = 1 - len(rows[["row", "column"]].drop_duplicates()) / len(rows)
    assert repeats == pytest.approx(1 / 6, abs=0.01)
    report = run_import(path, tmp_path / "imported")
    assert report["checks"]["duplicates_share"] == pytest.approx(repeats, abs=1e-6)


def test_the_same_spec_gives_the_same_tables(tmp_path: Path) -> None:
    spec = ExportSpec(patches=(1, 2), samples=(5, 5))
    first, second = (write_export(tmp_path / name, spec) for name in ("first", "second"))
    for path in first.rows:
        assert path.read_bytes() == (second.folder / path.name).read_bytes()
