"""Stored samples through the audit: by function, by path and by recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from labelled_series import SeriesSpec, simulated_series

from cube.samplestore import write_samples
from cube.zarrstore import SCHEMA
from model.samples import Samples
from model.split import Folds, make_folds
from pipelines.audit_samples import AuditOptions, audit_run, audit_samples
from pipelines.audit_text import findings_json
from pipelines.learning_samples import samples_of

Command = Callable[..., tuple[int, str, str]]


def dataset_of(samples: Samples, *, dropped: dict[str, int] | None = None) -> xr.Dataset:
    """Return samples as `draw_samples` gives them."""
    assert samples.place is not None
    x, y = samples.place.T
    column, row = np.floor((x - x.min()) / 10), np.floor((y.max() - y) / 10)
    seen = np.isfinite(samples.reflectance).any(axis=2)
    return xr.Dataset(
        {
            "reflectance": (("sample", "time", "band"), samples.reflectance),
            "clear_count": (("sample", "time"), seen.astype(np.uint16)),
            "label": ("sample", np.array(samples.classes)[samples.label]),
            "group": ("sample", np.array([f"stand {group}" for group in samples.group])),
            "block": ("sample", np.array([f"block {block}" for block in samples.block])),
            "row": ("sample", row.astype(np.int32)),
            "column": ("sample", column.astype(np.int32)),
            "x": ("sample", x),
            "y": ("sample", y),
            "year": ("sample", np.full(len(samples), 2022, np.int32)),
        },
        coords={
            "time": np.array([f"{month}-01" for month in samples.periods], "datetime64[ns]"),
            "period": ("time", np.array(samples.periods)),
            "band": np.array(samples.bands),
        },
        attrs={
            "canopycube": {
                "schema": SCHEMA,
                "kind": "samples",
                "dropped": dropped or {},
                "bands": list(samples.bands),
                "periods": list(samples.periods),
            }
        },
    )


@pytest.fixture(scope="module")
def clean() -> xr.Dataset:
    return dataset_of(simulated_series(SeriesSpec(seed=2, classes=4, groups=100)))


def with_fill(dataset: xr.Dataset) -> xr.Dataset:
    values = dataset["reflectance"].values.copy()
    values[::7, 3] = -0.0999
    return dataset.assign(reflectance=(dataset["reflectance"].dims, values))


def test_dataset_and_samples_have_the_same_findings(clean: xr.Dataset) -> None:
    broken = with_fill(clean)
    samples = samples_of(broken)
    folds = [make_folds(samples, "grouped", seed=1)]
    found = audit_samples(broken, folds)
    assert found == audit_samples(samples, folds)
    assert [one.code for one in found] == ["fill-value"]
    assert found[0].rows == tuple(range(0, len(samples), 7))
    assert findings_json(found)[0]["rows"] == list(range(0, 7 * 60, 7))


def test_pixel_that_was_drawn_twice_is_told(clean: xr.Dataset) -> None:
    samples = samples_of(clean)
    folds = make_folds(samples, "grouped", seed=1)
    held, trained = folds.held_out(0)[0], folds.trained_on(0)[0]
    row, column = clean["row"].values.copy(), clean["column"].values.copy()
    row[held], column[held] = row[trained], column[trained]
    found = audit_samples(clean.assign(row=("sample", row), column=("sample", column)), [folds])
    by_code = {one.code: one for one in found}
    assert by_code["same-pixel"].severity == "severe"
    assert set(by_code["same-pixel"].rows) == {held, trained}


def test_labels_that_gave_no_sample_are_told(clean: xr.Dataset) -> None:
    dropped = {
        "points outside the cube": 4,
        "patch cells outside the cube": 3,
        "observations outside the calendar": 5,
        "cells claimed by different classes": 2,
        "cells beyond the most per group or class": 9,
    }
    broken = clean.assign_attrs(canopycube={**clean.attrs["canopycube"], "dropped": dropped})
    report = audit_run(broken)
    told = {one.code: one for one in report.findings}
    assert told["label-outside"].count == 4
    assert told["label-conflict"].count == 2


@pytest.mark.parametrize("value", [-999.0, np.inf])
def test_values_that_no_model_takes_are_told_and_counted(clean: xr.Dataset, value: float) -> None:
    values = clean["reflectance"].values.copy()
    values[3, 4, 5] = value
    report = audit_run(clean.assign(reflectance=(clean["reflectance"].dims, values)))
    told = [one for one in report.findings if one.severity == "severe"]
    assert [(one.code, one.count, one.rows) for one in told] == [("fill-value", 1, (3,))]


def test_samples_that_training_leaves_out_are_told_and_not_split(
    clean: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = with_fill(clean)["reflectance"].values.copy()
    values[:9, :, 2] = np.nan
    counted: list[int] = []

    def remembered(samples: Samples, split: Any, **more: Any) -> Folds:
        counted.append(len(samples))
        return make_folds(samples, split, **more)

    monkeypatch.setattr("pipelines.audit_samples.make_folds", remembered)
    report = audit_run(clean.assign(reflectance=(clean["reflectance"].dims, values)))
    told = {one.code: one for one in report.findings}
    assert set(counted) == {clean.sizes["sample"] - 9}
    assert told["empty-sequence"].rows == tuple(range(9))
    # rows are those of the stored samples
    assert told["fill-value"].rows == tuple(range(14, clean.sizes["sample"], 7))


def test_no_buffer_lies_round_samples_of_the_random_split_only(
    clean: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, tuple[float, object]] = {}

    def remembered(samples: Samples, split: Any, **more: Any) -> Folds:
        asked[split] = more["buffer"], more["prediction"]
        return make_folds(samples, split, **more)

    monkeypatch.setattr("pipelines.audit_samples.make_folds", remembered)
    places = np.zeros((3, 2))
    audit_run(clean, AuditOptions(buffer=20.0, splits=("year",), prediction=places))
    # as model.crossvalidate.compare_splits asks for them
    assert {split: buffer for split, (buffer, _) in asked.items()} == {
        "random": 0.0, "grouped": 20.0, "block": 20.0, "year": 20.0,
    }  # fmt: skip
    assert all(prediction is places for _, prediction in asked.values())


def test_atmosphere_is_severe_only_where_the_network_sees_it() -> None:
    samples = simulated_series(SeriesSpec(seed=2, classes=4, groups=100, has_atmosphere=True))
    values = samples.reflectance.copy()
    values[samples.label == 0, :, -1] += np.float32(0.05)
    dataset = dataset_of(samples)
    broken = dataset.assign(reflectance=(dataset["reflectance"].dims, values))
    for features, severity in (
        (None, "warning"),
        (("B02", "wvp"), "severe"),
        (("B02", "band:WVP"), "severe"),
        (("B02", "log:wvp"), "severe"),
    ):
        report = audit_run(broken, AuditOptions(features=features))
        told = [(one.code, one.severity) for one in report.findings if "class-by" in one.code]
        assert told == [("class-by-wvp", severity)]


def test_split_that_cannot_be_made_is_told(clean: xr.Dataset) -> None:
    report = audit_run(clean.assign(block=("sample", np.full(clean.sizes["sample"], "one"))))
    assert report.splits == ("random", "grouped")
    told = [one for one in report.findings if one.code == "split-impossible"]
    assert "the block split finds" in told[0].what


def test_more_splits_are_looked_at(clean: xr.Dataset) -> None:
    region = np.where(clean["x"] > clean["x"].median(), "east", "west")
    report = audit_run(
        clean.assign(region=("sample", region)), AuditOptions(splits=("region",), buffer=50.0)
    )
    assert report.splits == ("random", "grouped", "block", "region")
    assert [one.severity for one in report.findings if one.code == "split-canary"] == ["note"]


def test_command_takes_stored_samples(tmp_path: Path, clean: xr.Dataset, command: Command) -> None:
    write_samples(tmp_path / "samples.zarr", clean)
    code, out, _ = command("audit", tmp_path / "samples.zarr")
    assert code == 0
    assert "note      split-canary: the random split" in out
    assert "found     0 severe, 0 warnings, 1 note" in out
    write_samples(tmp_path / "samples.zarr", with_fill(clean))
    code, out, err = command("audit", tmp_path / "samples.zarr", "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == found["exit"] == 1
    assert found["severe"] == 1
    assert "found fill-value; mend it, or go on in spite of it with --allow fill-value" in err
    assert command("audit", tmp_path / "samples.zarr", "--allow", "fill-value")[0] == 0


def test_command_takes_a_recipe(tmp_path: Path, clean: xr.Dataset, command: Command) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "Series"\n[reference]\nsamples = "drawn.zarr"\n[training]\nfolds = 3\n'
        '[outputs]\nfolder = "out"\n'
    )
    write_samples(tmp_path / "drawn.zarr", with_fill(clean))
    code, _, err = command("audit", recipe)
    assert code == 2
    assert "there are no samples for this recipe yet; run `canopycube sample` first" in err
    assert command("sample", recipe)[0] == 0
    code, out, _ = command("audit", recipe, "--json")
    assert code == 1
    assert json.loads(out)["audited"] == str(recipe)
    # what the recipe allows need not be allowed again
    code, out, _ = command("audit", recipe, "--set", 'training.audit_allow=["fill-value"]')
    assert code == 0
    assert "allowed   fill-value" in out
    # a slip of the pen allows nothing
    code, _, err = command("audit", recipe, "--set", 'training.audit_allow=["fill-valu"]')
    assert code == 2
    assert "training.audit_allow 'fill-valu' is no code of a finding" in err
    # samples of another recipe are not audited as this one's
    code, _, err = command("audit", recipe, "--set", "sampling.max_per_class=5")
    assert code == 2
    assert "run `canopycube sample` first" in err
    code, _, err = command("audit", recipe, "other.csv")
    assert (code, "one recipe or tables" in err) == (2, True)
