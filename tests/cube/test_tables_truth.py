"""Ground truth as samples: medians, groups, labels and what a recipe takes, against pandas."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from scipy import ndimage

from cube.errors import InputError
from cube.periods import Period, parse_month
from cube.sample import SampleOptions
from cube.samplestore import open_samples, write_samples
from cube.tables.calendar import Calendar
from cube.tables.choose import SampleChoice, choose_samples, classes_of
from cube.tables.groups import count_mixed, groups_of
from cube.tables.lattice import crs_of, joined, place
from cube.tables.read import read_rows, table_columns
from cube.tables.spill import spill_rows
from cube.tables.truth import TruthFacts, make_samples

MONTHS = tuple(Period.of_month(2022, month) for month in range(1, 13))
LEFT, TOP = 740_000, 3_730_000
TO_LON_LAT = Transformer.from_crs(32648, 4326, always_xy=True)


def pixels(*cells: tuple[int, int, str], dates: tuple[str, ...] = ("2022-01-04",)) -> pd.DataFrame:
    """Return rows at the centres of cells (row, column, class) of a grid of 10 m."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame(
        [(*cell, date) for date in dates for cell in cells],
        columns=["row", "column", "Class", "image_date"],
    )
    x, y = LEFT + 10 * frame["column"] + 5, TOP - 10 * frame["row"] - 5
    frame["longitude"], frame["latitude"] = TO_LON_LAT.transform(x.to_numpy(), y.to_numpy())
    frame["B2"] = random.integers(100, 3000, len(frame))
    frame["B8"] = random.integers(100, 3000, len(frame))
    return frame


def sampled(folder: Path, *frames: pd.DataFrame, block_size: float = 1000) -> TruthFacts:
    folder.mkdir(exist_ok=True)
    spills = []
    for index, frame in enumerate(frames):
        path = folder / f"{index}.csv"
        frame.drop(columns=["row", "column"]).to_csv(path, index=False)
        columns = table_columns(path)
        spills.append(
            spill_rows(
                read_rows(path, columns),
                path.with_suffix(".rows"),
                name=path.name,
                columns=columns,
            )
        )
    crs = crs_of(spills, "EPSG:32648")
    tables = [place(spill, crs) for spill in spills]
    return make_samples(
        tables,
        crs=crs,
        extent=joined([table.extent for table in tables]),
        bands=("B02", "B08"),
        calendar=Calendar(periods=MONTHS),
        options=SampleOptions(block_size=block_size),
    )


def test_a_month_is_the_median_of_its_dates(tmp_path: Path) -> None:
    dates = ("2022-01-04", "2022-01-14", "2022-01-30", "2022-03-01", "2022-03-31", "2022-12-31")
    cells = [(row, column, "larch") for row in (0, 1, 7) for column in (0, 1, 9)]
    frame = pixels(*cells, dates=dates)
    frame = frame.sample(frac=0.7, random_state=2)
    found = sampled(tmp_path, frame)
    samples = found.samples
    assert samples["reflectance"].dims == ("sample", "time", "band")
    month = pd.to_datetime(frame["image_date"]).dt.month
    wanted = frame.groupby(["row", "column", month])[["B2", "B8"]].median()
    count = frame.groupby(["row", "column", month]).size()
    first = (frame["row"].min(), frame["column"].min())
    for sample in range(samples.sizes["sample"]):
        cell = (
            int(samples["row"][sample]) + first[0],
            int(samples["column"][sample]) + first[1],
        )
        for at in range(12):
            values = samples["reflectance"].values[sample, at]
            looks = count.get((*cell, at + 1), 0)
            assert samples["clear_count"].values[sample, at] == looks
            if not looks:
                assert np.isnan(values).all()
            else:
                exact = np.rint(wanted.loc[(*cell, at + 1)].to_numpy())  # halves to even
                assert values == pytest.approx(exact * 1e-4, abs=1e-7)
    assert found.months_with_data == tuple(number in (1, 3, 12) for number in range(1, 13))
    assert sum(found.looks_by_month.values()) == len(count)
    assert found.by_file["0.csv"]["kept"] == len(frame)


def test_places_are_those_of_the_pixels(tmp_path: Path) -> None:
    cells = [(3, 4, "a"), (250, 17, "b"), (90, 130, "a")]
    samples = sampled(tmp_path, pixels(*cells), block_size=500).samples
    in_order = sorted(cells)
    assert samples["label"].values.tolist() == [cell[2] for cell in in_order]
    assert (samples["x"].values == [LEFT + 10 * cell[1] + 5 for cell in in_order]).all()
    assert (samples["y"].values == [TOP - 10 * cell[0] - 5 for cell in in_order]).all()
    x, y = samples["x"].values // 500, samples["y"].values // 500
    blocks = [f"e{int(e):04d}n{int(n):04d}" for e, n in zip(x, y, strict=True)]
    assert samples["block"].values.tolist() == blocks
    lon, lat = TO_LON_LAT.transform(samples["x"].values, samples["y"].values)
    assert np.allclose(samples["lon"], lon)
    assert np.allclose(samples["lat"], lat)


def test_a_group_is_the_patch_round_a_point(tmp_path: Path) -> None:
    square = [(0, 0), (0, 1), (1, 0), (1, 1)]
    points = {"larch": (10, 10), "oak": (10, 40), "fir": (11, 42), "ash": (50, 9), "elm": (52, 8)}
    cells = [
        (row + down, column + across, name)
        for name, (row, column) in points.items()
        for down, across in square
    ]
    found = sampled(tmp_path, pixels(*cells))
    groups = found.samples.to_dataframe().reset_index()
    groups = groups.drop_duplicates("sample").groupby("group")["label"].unique()
    together = sorted(sorted(names) for names in groups)
    # oak and fir stand side by side, ash and elm touch at a corner
    assert together == [["ash", "elm"], ["fir", "oak"], ["larch"]]
    assert found.mixed_groups == 2


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 0.95))
def test_groups_are_those_that_scipy_finds(
    seed: int, height: int, width: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    is_there = random.random((height, width)) < share
    is_there[0, 0] = True
    row, column = (axis.astype(np.int64) for axis in np.nonzero(is_there))
    member = groups_of(row, column)
    wanted, count = ndimage.label(is_there, structure=np.ones((3, 3)))
    numbers = wanted[row, column]
    assert np.unique(member).size == count
    for first, number in {*zip(member.tolist(), numbers.tolist(), strict=True)}:
        assert ((member == first) == (numbers == number)).all()
        assert np.flatnonzero(member == first)[0] == first
    label = random.integers(0, 3, row.size).astype(np.int32)
    mixed = sum(np.unique(label[numbers == one]).size > 1 for one in range(1, count + 1))
    assert count_mixed(member, label) == mixed


def test_rows_that_repeat_or_contradict_are_counted(tmp_path: Path) -> None:
    cells = [(0, 0, "a"), (0, 9, "b"), (9, 0, "a")]
    frame = pixels(*cells, dates=("2022-01-04", "2022-02-04"))
    other = frame[frame["column"] == 9].assign(B2=1)
    found = sampled(tmp_path, frame, pd.concat([frame.head(2), other]))
    assert found.by_file["0.csv"]["kept"] == 6
    assert found.by_file["1.csv"]["duplicates"] == 2
    assert found.by_file["1.csv"]["contradictions"] == 2
    assert found.samples.attrs["canopycube"]["dropped"] == {
        "rows that are duplicates": 2,
        "rows that are contradictions": 2,
    }
    alone = sampled(tmp_path / "alone", frame)
    xr.testing.assert_equal(found.samples, alone.samples)


def test_a_pixel_with_two_classes_is_left_out(tmp_path: Path) -> None:
    frame = pixels((0, 0, "a"), (0, 9, "b"), dates=("2022-01-04", "2022-02-04"))
    wrong = frame.head(1).assign(Class="b", image_date="2022-05-04")
    found = sampled(tmp_path, pd.concat([frame, wrong]))
    assert found.disputed == 1
    assert found.samples["label"].values.tolist() == ["b"]
    assert found.by_file["0.csv"]["of pixels with several classes"] == 3
    with pytest.raises(InputError, match="every labelled pixel is given several classes"):
        sampled(tmp_path / "b", frame[frame["column"] == 0], wrong)


def test_a_masked_look_is_no_look(tmp_path: Path) -> None:
    frame = pixels((0, 0, "a"), (0, 9, "b"), dates=("2022-01-04", "2022-01-14"))
    frame.loc[0, "B8"] = -999
    found = sampled(tmp_path, frame)
    assert found.samples["clear_count"].values[:, 0].tolist() == [1, 2]
    assert found.samples["reflectance"].values[0, 0, 0] == pytest.approx(frame["B2"][2] * 1e-4)
    assert found.by_file["0.csv"]["without data in some bands"] == 1


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Store samples of three classes: 40 a in pairs, 20 b, 6 c."""
    cells = [(row * 5, column, "a") for row in range(20) for column in (0, 1)]
    cells += [(row * 5, 30, "b") for row in range(20)] + [(row * 5, 60, "c") for row in range(6)]
    frame = pixels(*cells, dates=("2022-01-04", "2022-02-04", "2022-06-04"))
    frame = frame.drop(frame.index[(frame["Class"] == "c") & (frame["image_date"] > "2022-02")])
    path = tmp_path / "samples.zarr"
    write_samples(path, sampled(tmp_path / "tables", frame).samples)
    return path


def test_all_samples_are_taken_as_they_are(stored: Path) -> None:
    choice = SampleChoice(path=stored, bands=("B08", "B02"), periods=MONTHS)
    assert classes_of(choice) == ("a", "b", "c")
    found, whole = choose_samples(choice), open_samples(stored)
    assert found["band"].values.tolist() == ["B08", "B02"]
    assert found.attrs["canopycube"]["bands"] == ["B08", "B02"]
    xr.testing.assert_equal(
        found.sel(band=["B02", "B08"]).drop_vars("block"), whole.drop_vars("block")
    )
    again = stored.with_name("again.zarr")
    write_samples(again, found)
    xr.testing.assert_equal(open_samples(again), found)


def test_samples_are_thinned_and_renamed(stored: Path) -> None:
    choice = SampleChoice(
        path=stored,
        bands=("B02",),
        periods=MONTHS,
        classes={"a": "larch", "b": "larch", "c": "oak"},
        options=SampleOptions(max_per_class=9, max_per_group=1, block_size=100),
    )
    found = choose_samples(choice)
    labels = found["label"].values.tolist()
    assert (labels.count("larch"), labels.count("oak"), len(labels)) == (9, 6, 15)
    assert len(set(found["group"].values.tolist())) == 15
    assert found.attrs["canopycube"]["dropped"] == {
        "samples beyond the most per group or class": 51
    }
    x = found["x"].values
    assert found["block"].values[0].startswith(f"e{int(x[0] // 100):04d}")
    xr.testing.assert_equal(choose_samples(choice), found)
    few = replace(
        choice, options=SampleOptions(min_clear_months=2), drop=frozenset({"b"}), classes={}
    )
    with pytest.raises(
        InputError, match="samples of two classes or more are needed; all 40 are 'a'"
    ):
        choose_samples(few)
    dropped = choose_samples(replace(few, drop=frozenset())).attrs["canopycube"]["dropped"]
    assert dropped == {"samples with too few clear periods": 6}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bands": ("B02", "B11")}, "lack B11, which the recipe's bands name; they have B02, B08"),
        ({"periods": MONTHS[2:]}, "only the samples have 2022-01, 2022-02; set months as"),
        (
            {"periods": (*MONTHS, parse_month("2023-01"))},
            "have other periods than the recipe: only the recipe has 2023-01",
        ),
        ({"classes": {"oak": "x"}}, "name 'oak', a class that samples 'samples.zarr' do not have"),
        ({"drop": frozenset({"oak"})}, "they have a, b, c"),
    ],
)
def test_samples_that_do_not_fit_are_told(
    stored: Path, change: dict[str, object], text: str
) -> None:
    choice = replace(SampleChoice(path=stored, bands=("B02",), periods=MONTHS), **change)
    for ask in (classes_of, choose_samples):
        with pytest.raises(InputError) as caught:
            ask(choice)
        assert text in str(caught.value)


def test_shares_are_renamed_before_labels_are_counted(stored: Path) -> None:
    """Merged minorities may be the largest, and a class that is nowhere the largest has a name."""
    whole = open_samples(stored).load()
    count = whole.sizes["sample"]
    share = np.tile(np.array([0.4, 0.3, 0.3], np.float32), (count, 1))
    share[: count // 2] = [0.8, 0.2, 0.0]
    mixed = whole.assign(
        label=("sample", np.full(count, "a")), share=(("sample", "class"), share)
    ).assign_coords({"class": np.array(["a", "b", "c"])})
    write_samples(stored, mixed)
    choice = SampleChoice(path=stored, classes={"a": "larch", "b": "oak", "c": "oak"})
    assert classes_of(choice) == ("larch", "oak")
    found = choose_samples(choice)
    assert found["class"].values.tolist() == ["larch", "oak"]
    expected = ["larch"] * (count // 2) + ["oak"] * (count - count // 2)
    assert found["label"].values.tolist() == expected
    np.testing.assert_allclose(found["share"].values[-1], [0.4, 0.6], rtol=1e-6)
    few = choose_samples(replace(choice, options=SampleOptions(max_per_class=5)))
    assert sorted(few["label"].values.tolist()) == ["larch"] * 5 + ["oak"] * 5
    with pytest.raises(InputError, match=f"all {count} are 'b'"):
        choose_samples(replace(choice, classes={}, drop=frozenset({"a"})))
    with pytest.raises(InputError, match="name 'd', a class that samples"):
        choose_samples(replace(choice, classes={"d": "x"}))
    with pytest.raises(InputError, match="give 'a' a blank name"):
        SampleChoice(path=stored, classes={"a": " "})
