"""Patches on the grid: place, date, duplicates and the stack that is read back, against loops."""

import errno
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio.transform
import xarray as xr
from pyproj import Transformer

from cube.bands import BANDS
from cube.errors import InputError, WorkFailedError
from cube.periods import Period, parse_month
from cube.stack import StackSource
from cube.tables.calendar import Calendar, calendar_of
from cube.tables.lattice import PlacedTable, crs_of, place, refuse_too_wide
from cube.tables.read import read_rows, table_columns
from cube.tables.spill import spill_rows
from cube.tables.stack import StackFacts, write_stack

STEP = 10 / 111_319.49079327358
"""Degrees of one sample: 10 m on the equator, as sampling in EPSG:4326 takes them."""

YEAR = Calendar(periods=tuple(Period.of_month(2022, month) for month in range(1, 13)))


def patch(west: float, north: float, shape: tuple[int, int], dates: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a patch, whose values say which pixel and date they are of."""
    rows, columns = shape
    lon = west + STEP * np.arange(columns)
    lat = north - STEP * np.arange(rows)
    places = pd.DataFrame(
        [(x, y) for y in lat for x in lon], columns=["longitude", "latitude"], dtype=float
    )
    frame = pd.concat([places.assign(image_date=date) for date in dates], ignore_index=True)
    x, y = Transformer.from_crs(4326, 32648, always_xy=True).transform(
        frame["longitude"], frame["latitude"]
    )
    day = pd.to_datetime(frame["image_date"]).dt.dayofyear
    frame["B2"] = (np.floor(x / 10) % 97 * 20 + day).astype(int)
    frame["B8"] = (np.floor(y / 10) % 101 * 20 + day).astype(int)
    frame["AOT"] = (frame["B2"] % 300).astype(int)
    frame["WVP"] = (frame["B8"] % 1500).astype(int)
    return frame


def placed(folder: Path, *frames: pd.DataFrame, crs: str | None = None) -> list[PlacedTable]:
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    spills = []
    for index, frame in enumerate(frames):
        path = folder / f"{index}.csv"
        frame.to_csv(path, index=False)
        columns = table_columns(path)
        spills.append(
            spill_rows(
                read_rows(path, columns),
                folder / "scratch" / f"{index}.rows",
                name=path.name,
                columns=columns,
            )
        )
    return [place(spill, crs_of(spills, crs)) for spill in spills]


def stacked(
    folder: Path, *frames: pd.DataFrame, calendar: Calendar = YEAR
) -> tuple[StackFacts, xr.Dataset]:
    tables = placed(folder, *frames)
    facts = write_stack(
        folder / "scenes.zarr",
        tables,
        crs=crs_of([table.spill for table in tables], None),
        bands=tuple(tables[0].spill.columns.bands),
        calendar=calendar,
        scratch=folder / "scratch",
    )
    return facts, xr.open_zarr(folder / "scenes.zarr", chunks=None, mask_and_scale=False)


DATES = ["2022-01-04", "2022-03-05", "2022-03-30"]


def test_each_sample_lies_in_the_pixel_that_holds_it(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (30, 37), DATES)
    facts, stack = stacked(tmp_path, frame)
    assert stack["B02"].dims == ("time", "y", "x")
    assert stack["time"].values.astype("M8[D]").astype(str).tolist() == DATES
    x, y = Transformer.from_crs(4326, 32648, always_xy=True).transform(
        frame["longitude"].to_numpy(), frame["latitude"].to_numpy()
    )
    row, column = rasterio.transform.rowcol(facts.geobox.transform, x, y)
    wanted = np.full((3, *facts.geobox.shape), -32768)
    again = Counter[bool]()
    for at, line in enumerate(frame.itertuples()):
        where = DATES.index(line.image_date), row[at], column[at]
        again[wanted[where] != -32768] += 1
        wanted[where] = line.B2
    assert (stack["B02"].values == wanted).all()
    assert facts.by_file["0.csv"]["kept"] == again[False]
    assert facts.by_file["0.csv"]["duplicates"] == again[True]
    assert 0.1 < again[True] / again.total() < 0.2
    transform = facts.geobox.transform
    assert (transform.a, transform.e, transform.c % 10, transform.f % 10) == (10, -10, 0, 0)
    assert facts.pixels == (wanted[0] != -32768).sum()
    assert (stack["x"].values[0], stack["y"].values[0]) == (transform.c + 5, transform.f - 5)


def test_the_stack_source_reads_it_as_it_is(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (12, 12), DATES)
    facts, stack = stacked(tmp_path, frame)
    source = StackSource(files=(str(tmp_path / "scenes.zarr"),), bands={})
    bands = ("B02", "AOT", "WVP")
    assert source.native_geobox(bands) == facts.geobox
    looks = source.looks(parse_month("2022-03"), facts.geobox, bands)
    assert looks.reflectance.shape[:2] == (2, 3)
    for look, time in enumerate((1, 2)):
        for index, band in enumerate(bands):
            assert (looks.reflectance[look, index] == stack[band].values[time]).all()
    # stored units are those of every cube: aerosol has ten a count
    near = frame[frame["image_date"] == DATES[0]]
    found = set(np.unique(stack["AOT"].values[0]).tolist()) - {-32768}
    assert found == set((near["AOT"] * BANDS["AOT"].stored_per_count).tolist())
    physical = xr.open_zarr(tmp_path / "scenes.zarr", chunks=None)
    assert float(physical["B02"].max()) == pytest.approx(frame["B2"].max() * 1e-4)


def test_many_tables_in_any_order_are_one_mosaic(tmp_path: Path) -> None:
    parts = [
        patch(107.6 + 14 * STEP * column, 33.7 - 11 * STEP * row, (12, 16), dates)
        for row in range(2)
        for column, dates in enumerate((DATES, DATES[1:]))
    ]
    facts, stack = stacked(tmp_path / "a", *parts)
    shuffled = [part.sample(frac=1, random_state=3) for part in reversed(parts)]
    _, other = stacked(tmp_path / "b", *shuffled)
    whole = pd.concat(parts, ignore_index=True)
    _, single = stacked(tmp_path / "c", whole)
    xr.testing.assert_identical(stack, other)
    xr.testing.assert_identical(stack, single)
    assert sum(counts["contradictions"] for counts in facts.by_file.values()) == 0


def test_small_parts_give_what_one_part_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = patch(107.6, 33.7, (20, 20), DATES)
    facts, stack = stacked(tmp_path / "a", frame)
    monkeypatch.setattr("cube.tables.spill._ROWS", 7)
    monkeypatch.setattr("cube.tables.stack._CHUNK", 4)  # windows of 4 x 16 pixels
    pieces, other = stacked(tmp_path / "b", frame)
    xr.testing.assert_identical(stack, other)
    assert vars(facts) == vars(pieces)


def test_of_rows_that_contradict_the_first_counts(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (4, 4), DATES[:1])
    twice = pd.concat([frame, frame.assign(B2=7), frame.head(3)], ignore_index=True)
    facts, stack = stacked(tmp_path, twice)
    assert 7 not in stack["B02"].values
    pixels = facts.pixels
    assert facts.by_file["0.csv"] == Counter(
        {
            "kept": pixels,
            "duplicates": 16 - pixels + 3,
            "contradictions": 16,
            "pixels": pixels,
            "without data in some bands": 0,
            "outside the calendar": 0,
            "filled down": 0,
            "spelled otherwise": 0,
        }
    )


def test_a_date_stays_where_it_is_and_a_gap_stays_open(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (6, 6), ["2022-02-03", "2022-11-30", "2023-01-01"])
    frame.loc[(frame.index % 5 == 0) & (frame["image_date"] == "2022-11-30"), "B8"] = -999
    facts, stack = stacked(tmp_path, frame)
    assert [str(time)[:10] for time in stack["time"].values] == ["2022-02-03", "2022-11-30"]
    assert facts.by_file["0.csv"]["outside the calendar"] == 36
    assert facts.by_file["0.csv"]["without data in some bands"] == (frame["B8"] == -999).sum()
    masked = (stack["B02"].values == -32768) & (stack["B02"].values[0] != -32768)
    assert masked[1].any()
    assert (stack["B08"].values[masked] == -32768).all()
    assert [month for month, has in enumerate(facts.months_with_data, 1) if has] == [2, 11]
    assert facts.pixels_by_months == Counter(
        {2: facts.pixels - masked[1].sum(), 1: masked[1].sum()}
    )
    assert facts.looks_by_month == Counter({1: 2 * facts.pixels - masked[1].sum()})


def test_values_carried_on_are_counted(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (6, 6), DATES).drop_duplicates(["B2", "B8"])
    carried = frame.copy()
    bands = ["B2", "B8", "AOT", "WVP"]
    gaps = carried.index[(carried.index % 7 == 3)]
    carried.loc[gaps, bands] = np.nan
    carried[bands] = carried[bands].ffill().astype(int)
    facts, _ = stacked(tmp_path / "a", carried)
    assert facts.by_file["0.csv"]["filled down"] == len(gaps)
    padded = frame[frame["image_date"] == DATES[0]]
    padded = pd.concat([padded, padded.assign(image_date=DATES[1])])
    facts, _ = stacked(tmp_path / "b", padded)
    assert facts.repeated_next_date == facts.pixels
    facts, _ = stacked(tmp_path / "c", frame)
    assert (facts.by_file["0.csv"]["filled down"], facts.repeated_next_date) == (0, 0)


def test_other_spellings_of_a_coordinate_are_counted(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (6, 6), DATES)
    later = frame["image_date"] == DATES[2]
    frame.loc[later, "longitude"] += 1e-9
    facts, stack = stacked(tmp_path, frame)
    first: dict[tuple[int, int], tuple[float, float]] = {}
    expected = 0
    x, y = Transformer.from_crs(4326, 32648, always_xy=True).transform(
        frame["longitude"].to_numpy(), frame["latitude"].to_numpy()
    )
    for at, here in enumerate(zip(frame["longitude"], frame["latitude"], strict=True)):
        opening = first.setdefault((int(x[at] // 10), int(y[at] // 10)), here)
        expected += 0 < max(abs(one - two) for one, two in zip(here, opening, strict=True)) < 1e-6
    assert expected > 0.7 * later.sum()
    assert facts.by_file["0.csv"]["spelled otherwise"] == expected
    assert facts.by_file["0.csv"]["kept"] == 3 * facts.pixels
    assert (stack["B02"].values != -32768).sum() == 3 * facts.pixels


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = patch(107.6, 33.7, (6, 6), DATES)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tables = placed(tmp_path, frame)
    with monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        with pytest.raises(WorkFailedError) as caught:
            stacked(tmp_path, frame)
    for text in ("scratch'", "(No space left on device)", "GB are needed there", "GB are free"):
        assert text in str(caught.value)
    rows = read_rows(tmp_path / "0.csv", tables[0].spill.columns)
    with pytest.raises(WorkFailedError, match=r"'/dev' cannot be written \(No space left"):
        spill_rows(rows, Path("/dev/full"), name="0.csv", columns=tables[0].spill.columns)


def test_everything_that_is_filled_was_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is written through a map without it would end the process on a full disk."""
    held: set[int] = set()
    reserve = os.posix_fallocate

    def watched(handle: int, start: int, size: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "values":
            held.update(range(start, start + size))
        reserve(handle, start, size)

    monkeypatch.setattr("os.posix_fallocate", watched)
    frames = (patch(west, 33.7, (20, 30), DATES) for west in (107.6, 107.61))
    facts, _ = stacked(tmp_path, *frames)
    values = np.fromfile(tmp_path / "scratch" / "values", np.uint8)
    assert set(np.flatnonzero(values).tolist()) <= held < set(range(values.size))
    assert facts.pixels > 900


def test_pixels_without_a_sample_are_counted(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (9, 12), DATES[:1])
    facts, stack = stacked(tmp_path / "a", frame)
    assert facts.missed == 0
    middle = (stack.sizes["y"] // 2, stack.sizes["x"] // 2)
    value = (stack["B02"].values[0][middle], stack["B08"].values[0][middle])
    hole = (frame["B2"] == value[0]) & (frame["B8"] == value[1])
    assert hole.any()
    facts, _ = stacked(tmp_path / "b", frame[~hole])
    assert facts.missed == 1


def test_the_zone_is_that_of_the_middle_or_the_one_asked_for(tmp_path: Path) -> None:
    tables = placed(tmp_path / "a", patch(107.9998, 33.7, (3, 3), DATES[:1]))
    assert crs_of([tables[0].spill], None).epsg == 32648
    assert crs_of([tables[0].spill], "EPSG:32649").epsg == 32649
    south = placed(tmp_path / "b", patch(-63.1, -31.7, (3, 3), DATES[:1]))
    assert crs_of([south[0].spill], None).epsg == 32720
    with pytest.raises(InputError, match="--crs 'EPSG:4326' is not in metres"):
        crs_of([tables[0].spill], "EPSG:4326")


def test_a_place_far_away_is_told_with_its_row(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (5, 5), DATES[:1])
    frame.loc[7, ["longitude", "latitude"]] = [10.76, 33.7]
    tables = placed(tmp_path, patch(107.6, 33.6, (5, 5), DATES[:1]), frame, crs="EPSG:32648")
    with pytest.raises(InputError) as caught:
        refuse_too_wide(tables)
    text = str(caught.value)
    assert "longitude 10.76000 to 107.6" in text
    assert "Farthest out is row 9 of '1.csv'" in text


def test_a_place_outside_the_projection_is_told(tmp_path: Path) -> None:
    frame = patch(107.6, 33.7, (5, 5), DATES[:1])
    frame.loc[7, ["longitude", "latitude"]] = [-162.4, 0.0]
    with pytest.raises(InputError, match=r"'0.csv', row 9: .* has no coordinates in the grid's"):
        placed(tmp_path, frame, crs="EPSG:32648")


def found_on(*days: str) -> dict[int, str]:
    """Return days since 1970 with where each was found."""
    return {
        int(np.datetime64(day, "D").astype(int)): f"'a.csv', row {row}"
        for row, day in enumerate(days)
    }


def test_the_calendar_is_whole_years_or_what_is_asked_for() -> None:
    days = found_on("2021-12-31", "2022-06-01")
    every = [str(period) for period in calendar_of(days).periods]
    assert (every[0], every[-1], len(every)) == ("2021-01", "2022-12", 24)
    some = calendar_of(days, first=parse_month("2022-03"))
    assert [str(period) for period in some.periods][::9] == ["2022-03", "2022-12"]
    with pytest.raises(InputError, match=r"no row lies in the months 2020-01 to 2020-02; the ta"):
        calendar_of(days, first=parse_month("2020-01"), last=parse_month("2020-02"))
    far = found_on("2016-01-01", "2032-06-02", "2016-05-01")
    with pytest.raises(
        InputError,
        match=r"go from 2016-01-01 to 2032-06-02; is 2032-06-02 wrong, first in 'a.csv', row 1\?",
    ):
        calendar_of(far)
    far = found_on("2016-01-01", "2022-06-01", "2032-06-02")
    asked = calendar_of(far, first=parse_month("2022-01"), last=parse_month("2022-12"))
    assert len(asked.periods) == 12
