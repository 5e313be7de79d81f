"""Samples are the cube's own values at the labelled cells, whatever the chunks: plain loops."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.bands import NODATA
from cube.blocks import spatial_blocks
from cube.errors import InputError
from cube.periods import Period, periods_between
from cube.reference import Reference
from cube.sample import SampleOptions, draw_samples
from cube.samplestore import open_samples, write_samples
from cube.spec import CubeSpec
from cube.store import CubeBlocks, create_cube, write_region

GRID = GeoBox((50, 70), Affine(10, 0, 499_650, 0, -10, 5_200_170), "EPSG:32633")
MONTHS = periods_between(Period.of_month(2021, 11), Period.of_month(2022, 2))
BANDS = ("B02", "B8A", "B11")
RNG = np.random.default_rng(11)
CLEAR = RNG.integers(0, 3, (4, 50, 70)).astype(np.uint16)
STORED = np.where(
    CLEAR[:, None] == 0, NODATA, RNG.integers(-200, 9000, (4, 3, 50, 70))
).astype(np.int16)  # fmt: skip


def make_cube(
    path: Path,
    *,
    tile: int = 32,
    chunk: int = 16,
    sharded: bool = True,
    zarr_format: Literal[2, 3] = 3,
) -> Path:
    spec = CubeSpec(
        geobox=GRID,
        periods=MONTHS,
        bands=BANDS,
        tile=tile,
        chunk=chunk,
        sharded=sharded,
        zarr_format=zarr_format,
    )
    create_cube(path, spec)
    for region in spec.regions():
        write_region(
            path,
            region,
            CubeBlocks(
                reflectance=STORED[:, :, region.rows, region.columns],
                clear_count=CLEAR[:, region.rows, region.columns],
                clear_share=np.full((4, region.height, region.width), 50, np.uint8),
                mean_day=np.ones((4, region.height, region.width), np.uint16),
                is_filled=np.zeros((4, region.height, region.width), np.uint8),
            ),
        )
    return path


def make_reference(cells: np.ndarray, *, classes: int = 3) -> Reference:
    row, column = (part.astype(np.int32) for part in np.divmod(cells, 70))
    return Reference(
        geobox=GRID,
        row=row,
        column=column,
        label=np.array([f"c{k % classes}" for k in range(cells.size)]),
        group=np.array([f"#{k // 5}" for k in range(cells.size)]),
        dropped={"blank labels": 2},
    )


REFERENCE = make_reference(np.sort(RNG.permutation(3500)[:400]))


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    return make_cube(tmp_path / "cube.zarr")


def test_samples_are_the_pixels_of_the_cube(cube: Path) -> None:
    samples = draw_samples(cube, REFERENCE)
    to_lon_lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    kept = 0
    for row, column, label, group in zip(
        REFERENCE.row.tolist(),
        REFERENCE.column.tolist(),
        REFERENCE.label,
        REFERENCE.group,
        strict=True,
    ):
        if not (CLEAR[:, row, column] > 0).any():
            continue
        one = samples.isel(sample=kept)
        kept += 1
        assert (int(one["row"]), int(one["column"])) == (row, column)
        assert (str(one["label"].values), str(one["group"].values)) == (label, group)
        for t in range(4):
            assert int(one["clear_count"][t]) == CLEAR[t, row, column]
            for b in range(3):
                stored, value = STORED[t, b, row, column], float(one["reflectance"][t, b])
                assert (
                    np.isnan(value)
                    if stored == NODATA
                    else value == pytest.approx(stored * 1e-4, rel=1e-6)
                )
        x, y = 499_655 + 10 * column, 5_200_165 - 10 * row
        assert (float(one["x"]), float(one["y"])) == (x, y)
        np.testing.assert_allclose((one["lon"], one["lat"]), to_lon_lat.transform(x, y))
    assert kept == samples.sizes["sample"] < 400
    assert samples["reflectance"].dims == ("sample", "time", "band")
    assert samples["reflectance"].dtype == np.float32
    assert samples["clear_count"].dtype == np.uint16
    assert samples["band"].values.tolist() == list(BANDS)
    assert samples["time"].values.astype("datetime64[D]").astype(str).tolist() == [
        "2021-11-01", "2021-12-01", "2022-01-01", "2022-02-01",
    ]  # fmt: skip
    about = samples.attrs["canopycube"]
    assert about["dropped"] == {"blank labels": 2, "cells with too few clear periods": 400 - kept}
    assert about["periods"] == ["2021-11", "2021-12", "2022-01", "2022-02"]


@pytest.mark.parametrize(
    ("tile", "chunk", "sharded"),
    [(16, 16, False), (21, 7, True), (64, 64, True), (128, 128, False)],
)
def test_samples_do_not_depend_on_chunks(
    cube: Path, tmp_path: Path, tile: int, chunk: int, sharded: bool
) -> None:
    other = make_cube(tmp_path / "other.zarr", tile=tile, chunk=chunk, sharded=sharded)
    options = SampleOptions(max_per_class=50, max_per_group=3)
    first, second = draw_samples(cube, REFERENCE, options), draw_samples(other, REFERENCE, options)
    xr.testing.assert_equal(first, second)
    assert first.attrs["canopycube"]["cube"] != second.attrs["canopycube"]["cube"]


def test_blocks_are_dealt_in_turn_as_they_are_named(cube: Path) -> None:
    options = SampleOptions(block_size=130, stratify="block", max_per_class=40)
    samples = draw_samples(cube, REFERENCE, options)
    everything = draw_samples(cube, REFERENCE, SampleOptions(block_size=130))
    for name in ("c0", "c1", "c2"):
        taken, there = (
            dict(
                zip(*np.unique(one["block"][one["label"] == name], return_counts=True), strict=True)
            )
            for one in (samples, everything)
        )
        assert sum(taken.values()) == 40
        for block, count in there.items():
            assert taken.get(block, 0) >= min(count, max(taken.values()) - 1)


def test_a_cube_of_zarr_format_2_gives_the_same_samples(cube: Path, tmp_path: Path) -> None:
    other = make_cube(tmp_path / "other.zarr", sharded=False, zarr_format=2)
    xr.testing.assert_equal(draw_samples(cube, REFERENCE), draw_samples(other, REFERENCE))


def test_the_order_of_the_reference_does_not_matter(cube: Path) -> None:
    turned = Reference(
        geobox=GRID,
        row=REFERENCE.row[::-1],
        column=REFERENCE.column[::-1],
        label=REFERENCE.label[::-1],
        group=REFERENCE.group[::-1],
        dropped=REFERENCE.dropped,
    )
    options = SampleOptions(max_per_class=20, seed=3)
    xr.testing.assert_identical(
        draw_samples(cube, turned, options), draw_samples(cube, REFERENCE, options)
    )


def test_each_chunk_is_read_once_and_only_where_samples_are(
    cube: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = REFERENCE.column < 16
    reference = Reference(
        geobox=GRID,
        row=REFERENCE.row[near],
        column=REFERENCE.column[near],
        label=REFERENCE.label[near],
        group=REFERENCE.group[near],
        dropped={},
    )
    reads: list[tuple[str, int, int]] = []
    plain = zarr.Array.__getitem__

    def counting(array: zarr.Array, selection: tuple) -> object:
        *_, rows, columns = selection
        assert rows.stop - rows.start <= 16
        assert columns.stop - columns.start <= 16
        months = selection[0]
        reads.extend(
            (f"{array.basename} {t}", rows.start, columns.start)
            for t in range(months.start, min(months.stop, 4))
        )
        return plain(array, selection)

    monkeypatch.setattr(zarr.Array, "__getitem__", counting)
    monkeypatch.setattr("cube.chunkreads._READ_BYTES", 2 * 3 * 16 * 16 * 2)  # two months at a time
    found = draw_samples(cube, reference)
    assert len(reads) == len(set(reads)) == 2 * 4 * 4
    assert {column for *_, column in reads} == {0}
    monkeypatch.undo()
    xr.testing.assert_identical(found, draw_samples(cube, reference))


def test_thinning_keeps_the_most_allowed_and_follows_the_seed(cube: Path) -> None:
    options = SampleOptions(max_per_group=3, max_per_class=30, min_clear_months=2)
    samples = draw_samples(cube, REFERENCE, options)
    is_clear = (CLEAR[:, REFERENCE.row, REFERENCE.column] > 0).sum(axis=0) >= 2
    groups, counts = np.unique(samples["group"].values, return_counts=True)
    assert counts.max() <= 3
    assert np.unique(samples["label"].values, return_counts=True)[1].tolist() == [30, 30, 30]
    assert ((samples["clear_count"] > 0).sum("time") >= 2).all()
    dropped = samples.attrs["canopycube"]["dropped"]
    assert dropped["cells with too few clear periods"] == (~is_clear).sum()
    assert dropped["cells beyond the most per group or class"] == is_clear.sum() - 90
    # without a limit per class every group keeps what it has, up to three
    ungrouped = draw_samples(cube, REFERENCE, SampleOptions(max_per_group=3, min_clear_months=2))
    expected = {
        g: min(3, int(is_clear[REFERENCE.group == g].sum())) for g in np.unique(REFERENCE.group)
    }
    found = dict(zip(*np.unique(ungrouped["group"].values, return_counts=True), strict=True))
    assert found == {g: n for g, n in expected.items() if n}
    assert set(groups) <= set(found)
    xr.testing.assert_identical(samples, draw_samples(cube, REFERENCE, options))
    other = draw_samples(
        cube,
        REFERENCE,
        SampleOptions(max_per_group=3, max_per_class=30, min_clear_months=2, seed=1),
    )
    assert not np.array_equal(other["row"], samples["row"])


def test_blocks_are_counted_from_the_origin_of_the_crs() -> None:
    x = np.array([0.0, 99.9, 100.0, -0.1, 501_365.0])
    y = np.array([0.0, 0.0, 0.0, 250.0, 5_629_675.0])
    assert spatial_blocks(x, y, 100).tolist() == [
        "e0000n0000", "e0000n0000", "e0001n0000", "e-001n0002", "e5013n56296",
    ]  # fmt: skip


def test_blocks_of_samples_hold_the_places_they_say(cube: Path) -> None:
    samples = draw_samples(cube, REFERENCE, SampleOptions(block_size=200))
    blocks: dict[str, set[tuple[int, int]]] = {}
    for x, y, block in zip(
        samples["x"].values, samples["y"].values, samples["block"].values, strict=True
    ):
        blocks.setdefault(str(block), set()).add((int(x // 200), int(y // 200)))
    assert all(len(places) == 1 for places in blocks.values())
    assert len(blocks) == len(set.union(*blocks.values())) > 10


def test_samples_survive_the_store(cube: Path, tmp_path: Path) -> None:
    samples = draw_samples(
        cube, REFERENCE, SampleOptions(seed=5), tile_digests={"r0000c0000": "ab"}
    )
    path = tmp_path / "deep" / "samples.zarr"
    write_samples(path, samples)
    xr.testing.assert_identical(open_samples(path).load(), samples)
    assert open_samples(path).attrs["canopycube"]["options"]["seed"] == 5
    few = draw_samples(cube, REFERENCE, SampleOptions(max_per_class=4))
    write_samples(path, few)
    xr.testing.assert_identical(open_samples(path).load(), few)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["samples.zarr"]
    assert zarr.open_group(path, mode="r").metadata.zarr_format == 3
    assert samples.attrs["canopycube"]["cube"] != few.attrs["canopycube"]["cube"]


def test_text_of_any_script_and_an_interrupted_write_survive(
    cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = draw_samples(cube, REFERENCE, SampleOptions(max_per_class=2))
    odd = samples.assign(
        label=(
            "sample",
            np.array(["落叶松", 'a"<&', "x\ny", "", "é", "z" * 300]),
            samples["label"].attrs,
        )
    )
    path = tmp_path / "samples.zarr"
    write_samples(path, odd)
    assert open_samples(path)["label"].values.tolist() == odd["label"].values.tolist()

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cube.samplestore.zarr.consolidate_metadata", cut)
        with pytest.raises(KeyboardInterrupt):
            write_samples(path, samples)
    xr.testing.assert_identical(open_samples(path).load(), odd)
    write_samples(path, samples)
    xr.testing.assert_identical(open_samples(path).load(), samples)
    assert [
        entry.name for entry in tmp_path.iterdir() if "draft" in entry.name or "old" in entry.name
    ] == []


def test_what_cannot_be_sampled_is_refused(cube: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no cube at .*none.zarr"):
        draw_samples(tmp_path / "none.zarr", REFERENCE)
    with pytest.raises(
        InputError,
        match=r"no sample is left: 2 blank labels, 400 cells .*; lower sampling.min_clear_months, "
        r"which is 9$",
    ):
        draw_samples(cube, REFERENCE, SampleOptions(min_clear_months=9))
    one = make_reference(np.arange(30), classes=1)
    with pytest.raises(InputError, match=r"two classes or more are needed; all \d+ are 'c0'"):
        draw_samples(cube, one)
    shifted = Reference(
        geobox=GRID.translate_pix(1, 0),
        row=one.row,
        column=one.column,
        label=one.label,
        group=one.group,
        dropped={},
    )
    with pytest.raises(InputError, match="the reference is on another grid"):
        draw_samples(cube, shifted)
    for options, match in (
        ({"max_per_class": 0}, "max_per_class = 0; expected 1 or more"),
        ({"max_per_group": -1}, "max_per_group = -1; expected 1 or more"),
        ({"min_clear_months": -1}, "min_clear_months = -1; expected 0 or more"),
        ({"block_size": 0}, "block_size = 0; expected metres above 0"),
        ({"seed": -1}, "seed = -1; expected 0 or more"),
    ):
        with pytest.raises(InputError, match=match):
            SampleOptions(**options)  # type: ignore[arg-type]


def test_the_samples_store_refuses_other_stores(cube: Path) -> None:
    with pytest.raises(InputError, match="is cube; expected a canopycube samples"):
        write_samples(cube, draw_samples(cube, REFERENCE))
    with pytest.raises(InputError, match="expected a canopycube samples"):
        open_samples(cube)
    with pytest.raises(InputError, match="these are no samples: variables label"):
        write_samples(cube.with_name("s.zarr"), draw_samples(cube, REFERENCE).drop_vars("label"))
    assert not cube.with_name("s.zarr").exists()
