"""Stratified draws, and samples as tables and with folds: pandas, geopandas and counting by hand."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.periods import Period, periods_between
from cube.reference import Reference
from cube.sample import SampleOptions, draw_samples, thinned
from cube.samplestore import add_folds, open_samples, stored_folds, write_samples
from cube.sampletable import write_parquet
from cube.spec import CubeSpec
from cube.store import CubeBlocks, create_cube, write_region

GRID = GeoBox((40, 40), Affine(10, 0, 499_650, 0, -10, 5_200_170), "EPSG:32633")
MONTHS = periods_between(Period.of_month(2021, 11), Period.of_month(2022, 1))
BANDS = ("B02", "B8A")
RNG = np.random.default_rng(2)


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = tmp_path / "cube.zarr"
    spec = CubeSpec(geobox=GRID, periods=MONTHS, bands=BANDS, tile=32, chunk=16)
    create_cube(path, spec)
    for region in spec.regions():
        shape = (3, region.height, region.width)
        empty = CubeBlocks.empty(3, 2, region.height, region.width)
        seen = RNG.integers(0, 4, shape).astype(np.uint16)
        values = RNG.integers(100, 5000, (3, 2, *shape[1:])).astype(np.int16)
        values[:, 0][seen == 0] = values[:, 1][seen == 0] = -32768
        write_region(path, region, replace(empty, reflectance=values, clear_count=seen))
    return path


def reference(count: int = 120) -> Reference:
    cells = np.sort(RNG.permutation(1600)[:count])
    share = RNG.dirichlet([1, 1, 1], count).astype(np.float32)
    share = np.column_stack([share[:, :1], np.zeros(count, np.float32), share[:, 1:]])
    names = np.array(["beech", "elm", "fir", "oak"])
    return Reference(
        geobox=GRID,
        row=(cells // 40).astype(np.int32),
        column=(cells % 40).astype(np.int32),
        label=names[share.argmax(axis=1)],
        group=np.array([f"plot {k // 3}" for k in range(count)]),
        dropped={},
        dropped_names={"polygons that erosion leaves empty": ("a", "b")},
        region=np.array([f"region {k % 2}" for k in range(count)]),
        share=share,
        share_classes=tuple(names.tolist()),
    )


# --- stratified draws ---

sizes = st.lists(st.integers(1, 30), min_size=2, max_size=12)


@given(sizes, st.integers(1, 40), st.integers(0, 5), st.sampled_from(["group", "block"]))
@settings(deadline=None)
def test_a_quota_is_dealt_evenly_over_strata(
    sizes: list[int], most: int, seed: int, stratify: str
) -> None:
    stratum = np.repeat([f"s{n}" for n in range(len(sizes))], sizes)
    label = np.array(["a", "b"])[np.arange(stratum.size) % 2]
    options = SampleOptions(max_per_class=most, seed=seed, stratify=stratify)  # type: ignore[arg-type]
    everything = np.ones(stratum.size, dtype=bool)
    other = np.array(["one"] * stratum.size)
    group, block = (stratum, other) if stratify == "group" else (other, stratum)
    kept = thinned(label, group, everything, options, block=block)
    for name in ("a", "b"):
        is_class = label == name
        assert (kept & is_class).sum() == min(most, is_class.sum())
        taken = {s: int((kept & is_class & (stratum == s)).sum()) for s in set(stratum[is_class])}
        for s, number in taken.items():
            has_more = number < (is_class & (stratum == s)).sum()
            assert not has_more or number >= max(taken.values()) - 1
    np.testing.assert_array_equal(kept, thinned(label, group, everything, options, block=block))


def test_strata_are_drawn_at_random_and_blocks_are_needed() -> None:
    stratum = np.repeat([f"s{n}" for n in range(20)], 5)
    label = np.array(["a"] * 100)
    everything = np.ones(100, dtype=bool)
    seen = set()
    for seed in range(6):
        options = SampleOptions(max_per_class=7, seed=seed, stratify="group")
        kept = thinned(label, stratum, everything, options)
        assert len(set(stratum[kept])) == 7
        seen.add(tuple(np.flatnonzero(kept).tolist()))
    assert len(seen) == 6
    with pytest.raises(InputError, match="stratify = 'block' goes with a cube"):
        thinned(label, stratum, everything, replace(options, stratify="block"))


# --- what samples carry ---


def test_regions_years_and_shares_follow_their_samples(cube: Path) -> None:
    one = reference()
    samples = draw_samples(cube, one, SampleOptions(max_per_class=20))
    at = {(r, c): n for n, (r, c) in enumerate(zip(one.row, one.column, strict=True))}
    assert samples["class"].values.tolist() == ["beech", "fir", "oak"]  # no share of elm anywhere
    assert one.share is not None
    assert one.region is not None
    for n in range(samples.sizes["sample"]):
        sample = samples.isel(sample=n)
        source = at[int(sample["row"]), int(sample["column"])]
        np.testing.assert_array_equal(sample["share"], one.share[source][[0, 2, 3]])
        assert str(sample["region"].values) == one.region[source]
        assert int(sample["year"]) == 2021
    assert samples.attrs["canopycube"]["dropped_names"] == {
        "polygons that erosion leaves empty": ["a", "b"]
    }
    plain = draw_samples(cube, replace(one, region=None, share=None, share_classes=()))
    assert "share" not in plain
    assert "class" not in plain.variables
    assert "region" not in plain


def test_a_table_holds_every_value(cube: Path, tmp_path: Path) -> None:
    samples = draw_samples(cube, reference())
    folds = {"grouped": np.arange(samples.sizes["sample"]) % 5}
    samples = samples.assign(fold_grouped=("sample", folds["grouped"]))
    path = tmp_path / "deep" / "samples.parquet"
    write_parquet(path, samples)
    table = pd.read_parquet(path)
    assert len(table) == samples.sizes["sample"]
    assert table.columns[:4].tolist() == ["label", "group", "block", "region"]
    for t, month in enumerate(MONTHS):
        seen = table[f"clear_count_{month}"].to_numpy()
        np.testing.assert_array_equal(seen, samples["clear_count"][:, t])
        for b, band in enumerate(BANDS):
            column = table[f"{band}_{month}"]
            assert column.dtype == np.float32
            np.testing.assert_array_equal(column.to_numpy(), samples["reflectance"][:, t, b])
    nulls = pq.read_table(path)["B02_2021-11"].null_count
    assert nulls == int(np.isnan(samples["reflectance"][:, 0, 0]).sum()) > 0
    for name in ("label", "group", "block", "region", "year", "row", "x", "lat", "fold_grouped"):
        assert table[name].tolist() == samples[name].values.tolist()
    np.testing.assert_array_equal(table["share_fir"], samples["share"][:, 1])
    places = geopandas.read_parquet(path)
    assert places.crs.to_epsg() in (4326, None)
    assert places.crs.equals("OGC:CRS84")
    np.testing.assert_array_equal(places.geometry.x, samples["lon"])
    np.testing.assert_array_equal(places.geometry.y, samples["lat"])
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"canopycube"])["canopycube"]["bands"] == list(BANDS)
    assert [entry.name for entry in path.parent.iterdir()] == ["samples.parquet"]


def test_a_table_of_samples_without_places(cube: Path, tmp_path: Path) -> None:
    samples = draw_samples(cube, reference())
    bare = samples.drop_vars(["lon", "lat", "x", "y", "clear_count", "row", "column", "share"])
    write_parquet(tmp_path / "s.parquet", bare)
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert "geometry" not in table
    assert table.filter(like="B8A").shape == (samples.sizes["sample"], 3)
    half = samples.assign(lon=samples["lon"].where(np.arange(samples.sizes["sample"]) > 3))
    write_parquet(tmp_path / "h.parquet", half)
    assert geopandas.read_parquet(tmp_path / "h.parquet").geometry.isna().sum() == 4
    twice = samples.assign_coords(band=["B02", "B02"])
    with pytest.raises(InputError, match="would have column 'B02_2021-11' twice"):
        write_parquet(tmp_path / "t.parquet", twice)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_parquet(tmp_path / "file" / "t.parquet", samples)


def test_folds_are_stored_whole_or_not_at_all(
    cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = draw_samples(cube, reference())
    path, count = tmp_path / "samples.zarr", samples.sizes["sample"]
    write_samples(path, samples)
    folds = {"random": np.arange(count) % 5, "knndm": np.arange(count) % 3 - 1}
    add_folds(path, folds)
    stored = open_samples(path).load()
    xr.testing.assert_identical(stored.drop_vars(["fold_random", "fold_knndm"]), samples)
    for split, fold in stored_folds(stored).items():
        np.testing.assert_array_equal(fold, folds[split])
    add_folds(path, {"random": np.zeros(count, np.int64)})
    again = stored_folds(open_samples(path))
    assert not again["random"].any()
    np.testing.assert_array_equal(again["knndm"], folds["knndm"])

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cube.samplestore.zarr.consolidate_metadata", cut)
        with pytest.raises(KeyboardInterrupt):
            add_folds(path, {"random": np.ones(count, np.int64)})
    assert not stored_folds(open_samples(path))["random"].any()
    with pytest.raises(InputError, match=f"are {count}; the block split has 3 folds"):
        add_folds(path, {"block": np.zeros(3, np.int64)})


def test_samples_lost_between_two_renames_come_back(cube: Path, tmp_path: Path) -> None:
    samples = draw_samples(cube, reference())
    path = tmp_path / "samples.zarr"
    write_samples(path, samples)
    path.rename(tmp_path / ".samples.zarr.old")
    with pytest.raises(InputError, match="these are no samples"):
        write_samples(path, samples.drop_vars("label"))
    write_samples(path, samples)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cube.zarr", "samples.zarr"]


def test_series_without_a_cube_can_be_opened(tmp_path: Path) -> None:
    series = xr.Dataset(
        {
            "reflectance": (("sample", "time", "band"), np.full((3, 2, 1), 0.4, np.float32)),
            "label": ("sample", np.array(["a", "b", "a"])),
            "group": ("sample", np.array(["1", "2", "3"])),
            "block": ("sample", np.array(["1", "2", "3"])),
        },
        coords={
            "time": np.array(["2020-01-01", "2020-02-01"], "datetime64[D]"),
            "period": ("time", np.array(["2020-01", "2020-02"])),
            "band": np.array(["NDVI"]),
        },
        attrs={"canopycube": {"schema": 2, "kind": "samples", "dropped": {}}},
    )
    write_samples(tmp_path / "s.zarr", series)
    found = open_samples(tmp_path / "s.zarr").load()
    assert found["label"].values.tolist() == ["a", "b", "a"]
    np.testing.assert_array_equal(found["reflectance"], series["reflectance"])
    write_parquet(tmp_path / "s.parquet", found)
    assert pd.read_parquet(tmp_path / "s.parquet").columns.tolist() == [
        "label", "group", "block", "NDVI_2020-01", "NDVI_2020-02",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["lost", "cut", "other"])
@pytest.mark.parametrize("name", ["reflectance", "label", "fold_random"])
def test_damaged_samples_are_told(cube: Path, tmp_path: Path, damage: str, name: str) -> None:
    samples = draw_samples(cube, reference())
    path = tmp_path / "samples.zarr"
    write_samples(path, samples)
    add_folds(path, {"random": np.arange(samples.sizes["sample"]) % 5 + 1})
    chunk = next(one for one in (path / name / "c").rglob("*") if one.is_file())
    match damage:
        case "lost":
            chunk.unlink()
        case "cut":
            chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
        case _:
            chunk.write_bytes(chunk.read_bytes()[:-2] + b"!!")
    with pytest.raises(InputError, match=f"are damaged: '{name}' does not hold what was written"):
        open_samples(path)
