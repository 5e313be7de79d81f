"""The table of a map, against rasterio and pyproj on the published GeoTIFF, pandas and csv."""

import csv
import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import rasterio.transform
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cube.errors import InputError, WorkFailedError
from cube.export import write_map_cog
from cube.mapstore import MapClass, create_map, write_map_region
from cube.spec import tile_regions
from pipelines.map_table import check_table, write_map_table
from pipelines.progress import Reporter
from pipelines.recipe import Recipe

Command = Callable[..., tuple[int, str, str]]

NAMES = ["larch, Japanese", 'the "other" oak', "two\nlines", "落叶松", "\r", " =1+1 ", "very " * 60]
CLASSES = tuple(
    MapClass(value=n * 3 + 1, name=name, colour="#112233") for n, name in enumerate(NAMES)
)
QUIET = Reporter(is_quiet=True)


def make_map(
    path: Path,
    shape: tuple[int, int] = (60, 90),
    *,
    corner: tuple[float, float] = (560_000, 3_740_000),
    crs: str = "EPSG:32648",
    pixel: float = 10,
) -> np.ndarray:
    species = np.random.default_rng(0).choice([0, *(item.value for item in CLASSES)], shape)
    species = species.astype(np.uint8)
    grid = GeoBox(shape, Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), crs)
    create_map(path, geobox=grid, classes=CLASSES, tile=32, chunk=16)
    for region in tile_regions(shape, 32):
        write_map_region(path, region, {"species": species[region.rows, region.columns]})
    return species


def by_rasterio(path: Path) -> Counter[tuple[str, str, str]]:
    """Return the rows of a map as rasterio and pyproj see its GeoTIFF, pixel by pixel."""
    tiff = path.with_name("map.tif")
    write_map_cog(path, tiff, CLASSES)
    names = {item.value: item.name for item in CLASSES}
    with rasterio.open(tiff) as file:
        values = file.read(1)
        to_degrees = pyproj.Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True)
        found: Counter[tuple[str, str, str]] = Counter()
        for row, column in zip(*np.nonzero(values), strict=True):
            longitude, latitude = to_degrees.transform(*file.xy(row, column))
            found[f"{latitude:.7f}", f"{longitude:.7f}", names[values[row, column]]] += 1
    return found


def rows_of(path: Path) -> Counter[tuple[str, str, str]]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["latitude", "longitude", "predicted_class"]
    return Counter((latitude, longitude, name) for latitude, longitude, name in rows)


@pytest.mark.parametrize("name", ["map.csv", "map.csv.gz", "map.CSV"])
def test_rows_are_the_pixels_of_the_geotiff(tmp_path: Path, name: str) -> None:
    species = make_map(tmp_path / "map.zarr")
    told = write_map_table(tmp_path / "map.zarr", tmp_path / name, QUIET)
    found = rows_of(tmp_path / name)
    assert found == by_rasterio(tmp_path / "map.zarr")
    assert told["rows"] == found.total() == (species > 0).sum()
    assert told["path"] == str(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, "map.tif", "map.tif.aux.xml", "map.zarr"]
    )


@pytest.mark.parametrize(
    ("crs", "corner"),
    [
        ("EPSG:32630", (831_800, 10_000)),  # over Greenwich and the equator, both signs
        ("EPSG:32718", (300_000, 4_000_000)),  # south and west
        ("EPSG:32601", (204_600, 7_700_000)),  # both sides of 180 degrees
        ("EPSG:3035", (4_321_000, 3_210_000)),  # another axis order, no UTM
    ],
)
def test_every_corner_of_the_world(tmp_path: Path, crs: str, corner: tuple[float, float]) -> None:
    make_map(tmp_path / "map.zarr", (24, 21), corner=corner, crs=crs, pixel=900)
    write_map_table(tmp_path / "map.zarr", tmp_path / "map.csv", QUIET)
    assert rows_of(tmp_path / "map.csv") == by_rasterio(tmp_path / "map.zarr")


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    make_map(tmp_path / "map.zarr")
    write_map_table(tmp_path / "map.zarr", tmp_path / "map.parquet", QUIET)
    write_map_table(tmp_path / "map.zarr", tmp_path / "map.csv", QUIET)
    packed = pd.read_parquet(tmp_path / "map.parquet")
    plain = pd.read_csv(tmp_path / "map.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(packed, plain, check_exact=True)


def test_pieces_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_map(tmp_path / "map.zarr")
    write_map_table(tmp_path / "map.zarr", tmp_path / "whole.csv.gz", QUIET)
    first = (tmp_path / "whole.csv.gz").read_bytes()
    write_map_table(tmp_path / "map.zarr", tmp_path / "whole.csv.gz", QUIET)
    assert (tmp_path / "whole.csv.gz").read_bytes() == first
    monkeypatch.setattr("pipelines.map_table._PIECE", 17)
    write_map_table(tmp_path / "map.zarr", tmp_path / "cut.parquet", QUIET)
    write_map_table(tmp_path / "map.zarr", tmp_path / "cut.csv", QUIET)
    assert rows_of(tmp_path / "cut.csv") == rows_of(tmp_path / "whole.csv.gz")
    assert (
        pq.read_metadata(tmp_path / "cut.parquet").num_rows == rows_of(tmp_path / "cut.csv").total()
    )


NUMBERS = st.one_of(
    st.integers(-1_800_000_000, 1_800_000_000),
    st.sampled_from([0, 1, -1, 9_999_999, 10_000_000, -99_999_999, 100_000_000, 999_999_999]),
)


@given(numbers=st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from(CLASSES)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_text_of_any_number(numbers: list[tuple[int, int, MapClass]]) -> None:
    import io

    from pipelines.map_table import Rows, _csv_writer

    file = io.BytesIO()
    write = _csv_writer(file, {item.value: item.name for item in CLASSES})
    write(
        Rows(
            latitude=np.array([one for one, _, _ in numbers], np.int64),
            longitude=np.array([two for _, two, _ in numbers], np.int64),
            value=np.array([item.value for _, _, item in numbers], np.uint8),
        )
    )
    lines = ["latitude,longitude,predicted_class"]
    for one, two, item in numbers:
        signs = ["-" if number < 0 else "" for number in (one, two)]
        digits = [f"{abs(n) // 10**7}.{abs(n) % 10**7:07d}" for n in (one, two)]
        name = item.name.replace('"', '""')
        is_quoted = any(letter in name for letter in ',"\r\n')
        quoted = f'"{name}"' if is_quoted else name
        lines.append(f"{signs[0]}{digits[0]},{signs[1]}{digits[1]},{quoted}")
    assert file.getvalue().decode() == "".join(f"{line}\n" for line in lines)


def test_a_map_without_a_class_gives_a_table_without_rows(tmp_path: Path) -> None:
    grid = GeoBox((5, 5), Affine(10, 0, 560_000, 0, -10, 3_740_000), "EPSG:32648")
    create_map(tmp_path / "map.zarr", geobox=grid, classes=CLASSES, tile=16, chunk=16)
    for name in ("map.csv", "map.parquet"):
        assert write_map_table(tmp_path / "map.zarr", tmp_path / name, QUIET)["rows"] == 0
    assert (tmp_path / "map.csv").read_text() == "latitude,longitude,predicted_class\n"
    assert pq.read_schema(tmp_path / "map.parquet").names == [
        "latitude", "longitude", "predicted_class",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["map.csv", "map.csv.gz", "map.parquet"])
def test_an_older_table_stays_unless_the_new_one_is_whole(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "map.zarr", tmp_path / name
    make_map(source)
    write_map_table(source, target, QUIET)
    before = target.read_bytes()
    species = zarr.open_group(source, mode="r+")["species"]
    assert isinstance(species, zarr.Array)
    species[59, 89] = 200
    with pytest.raises(WorkFailedError, match="holds value 200, which its legend does not name"):
        write_map_table(source, target, QUIET)
    assert target.read_bytes() == before
    species[59, 89] = 0
    write_map_table(source, target, QUIET)
    assert target.read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["map.zarr", name])


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_map(tmp_path / "map.zarr")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.map_table.flush_files", full)
    with pytest.raises(WorkFailedError, match=r"map.csv' could not be written: .*No space left"):
        write_map_table(tmp_path / "map.zarr", tmp_path / "map.csv", QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Path]]:
    (tmp_path / "labels.csv").write_text("id,species\n")
    (tmp_path / "short.csv").write_text("lat")
    (tmp_path / "no.csv.gz").write_text("latitude,longitude,predicted_class\n")
    (tmp_path / "no.parquet").write_bytes(bytes(50))
    pd.DataFrame({"latitude": [1.0]}).to_parquet(tmp_path / "mine.parquet")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("labels.csv")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    yield {path.name: path for path in tmp_path.iterdir()}
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_no_table_is_not_overwritten(places: dict[str, Path], tmp_path: Path) -> None:
    for path in places.values():
        with pytest.raises(InputError, match="exists and is no table of a map; it is not over"):
            check_table(path)
    with pytest.raises(InputError, match=r"no known ending; expected one of .csv, .csv.gz, .parq"):
        check_table(tmp_path / "map.tif")
    with pytest.raises(InputError, match="lies in a folder that does not exist"):
        check_table(tmp_path / "none" / "map.csv")
    with pytest.raises(InputError, match="cannot be used: File name too long"):
        check_table(tmp_path / f"{'x' * 300}.csv")
    check_table(tmp_path / "map.csv")
    with pytest.raises(InputError, match="there is no map"):
        write_map_table(tmp_path / "nowhere.zarr", tmp_path / "map.csv", QUIET)
    assert not (tmp_path / "map.csv").exists()


@pytest.fixture
def run_folder(finished: tuple[Recipe, dict[str, Any]], tmp_path: Path) -> Path:
    """Return the outputs of a finished run, in a copy that may be changed."""
    recipe, _ = finished
    shutil.copytree(recipe.outputs.folder.parent, tmp_path / "run")
    return tmp_path / "run" / recipe.outputs.folder.name


def test_map_writes_its_table(command: Command, run_folder: Path, tmp_path: Path) -> None:
    """A finished run, mapped again for its table alone: in its folder, and where it is told."""
    folder = run_folder
    path = folder.parent / "recipe.toml"
    code, _, complaint = command("map", path, "--table", tmp_path / "map.xlsx")
    assert code == 2
    assert "no known ending" in complaint
    code, printed, complaint = command("map", path, "--table")
    assert code == 0, complaint
    told = json.loads((folder / "report.json").read_text())["map"]["table"]
    assert told["path"] == str(folder / "map_table.csv")
    assert f"{told['rows']:,} rows in {told['path']}" in printed
    assert f"{told['rows']:,} rows in" in (folder / "report.md").read_text()
    table = pd.read_csv(folder / "map_table.csv")
    assert len(table) == told["rows"]
    with rasterio.open(folder / "map.tif") as tiff:
        values = tiff.read(1)
        assert len(table) == (values > 0).sum()
        back = pyproj.Transformer.from_crs("EPSG:4326", tiff.crs, always_xy=True)
        x, y = back.transform(table["longitude"].values, table["latitude"].values)
        rows, columns = rasterio.transform.rowcol(tiff.transform, x, y)
    stored = zarr.open_group(folder / "map.zarr", mode="r").attrs["canopycube"]
    assert isinstance(stored, dict)
    names = {item["value"]: item["name"] for item in stored["classes"]}  # type: ignore
    assert len(set(zip(rows, columns, strict=True))) == len(table)
    expected = [names[value] for value in values[rows, columns]]
    assert table["predicted_class"].tolist() == expected
    code, printed, _ = command("map", path, "--json", "--table", tmp_path / "all.parquet")
    assert code == 0
    assert (
        json.loads(printed)["table"]["rows"]
        == told["rows"]
        == len(pd.read_parquet(tmp_path / "all.parquet"))
    )
    assert "table" not in json.loads(command("map", path, "--json")[1])


def test_a_damaged_map_gives_no_table(command: Command, run_folder: Path, tmp_path: Path) -> None:
    folder = run_folder
    shard = folder / "map.zarr" / "species" / "c" / "1" / "1"
    shard.unlink()
    path, table = folder.parent / "recipe.toml", tmp_path / "map.csv"
    code, _, complaint = command("map", path, "--table", table)
    assert code == 1
    assert "tiles r0001c0001 of the map are lost or damaged" in complaint
    assert not table.exists()
    assert command("map", path, "--table", table)[0] == 0
    assert len(pd.read_csv(table)) > 0
