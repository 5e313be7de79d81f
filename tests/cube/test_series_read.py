"""Tables of labelled series, long and wide: against pandas, and every way in which they are wrong."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from cube.errors import InputError
from cube.series import SeriesOptions, is_series_table, read_series
from cube.series.dates import parse_day
from cube.series.names import listed
from cube.series.observations import Observations


def long_table(series: int = 6, steps: int = 5, *, seed: int = 0) -> pd.DataFrame:
    """Return series of two bands and three classes; those of odd number begin a year later."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "id": f"s{one}",
            "longitude": 10.5 + one % 50,
            "latitude": 50 - one / 20,
            "label": ("oak", "beech", "larch")[one % 3],
            "date": str(pd.Timestamp(2018 + one % 2, 3, 5) + pd.Timedelta(days=16 * step))[:10],
            "NDVI": round(float(random.uniform(0.1, 0.9)), 4),
            "EVI": round(float(random.uniform(0.1, 0.9)), 4),
        }
        for one in range(series)
        for step in range(steps)
    ]
    return pd.DataFrame(rows)


def written(folder: Path, table: pd.DataFrame, name: str = "table.csv") -> Path:
    path = folder / name
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def read(path: Path, **options: object) -> Observations:
    return read_series([path], SeriesOptions(**options))  # type: ignore[arg-type]


def complaint(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    text = str(caught.value)
    assert path.name in text
    assert text.count("\n") <= 1
    return text


def as_frame(found: Observations) -> pd.DataFrame:
    """Return observations as pandas holds a long table."""
    frame = pd.DataFrame(
        {
            "id": found.id[found.series],
            "date": found.day.astype("M8[D]").astype(str),
            "label": None if found.label is None else found.label[found.series],
        }
    )
    return frame.assign(**{band: found.value[:, at] for at, band in enumerate(found.bands)})


def test_a_long_table_is_what_pandas_reads(tmp_path: Path) -> None:
    table = long_table()
    found = as_frame(read(written(tmp_path, table)))
    expected = table[["id", "date", "label", "NDVI", "EVI"]]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


def test_rows_of_series_may_be_mixed_and_columns_in_any_order(tmp_path: Path) -> None:
    table = long_table()
    mixed = table.sort_values("date", kind="stable")[list(reversed(table.columns))]
    found = as_frame(read(written(tmp_path, mixed)))
    for name, expected in table.groupby("id"):
        series = found[found["id"] == name]
        assert series["date"].tolist() == expected["date"].tolist()
        np.testing.assert_allclose(series["NDVI"], expected["NDVI"], rtol=1e-6)


@pytest.mark.parametrize(
    "form", ["csv", "csv.gz", "parquet", "bom", "utf-16", "semicolon", "comma", "crlf", "cp1252"]
)
def test_every_form_of_a_table_gives_the_same_series(tmp_path: Path, form: str) -> None:
    table = long_table().replace({"label": {"larch": "Lärche"}})
    text = table.to_csv(index=False)
    path = tmp_path / ("t." + (form if form in ("csv.gz", "parquet") else "csv"))
    match form:
        case "parquet":
            table.assign(date=pd.to_datetime(table["date"])).to_parquet(path)
        case "csv.gz":
            path.write_bytes(gzip.compress(text.encode()))
        case "bom":
            path.write_bytes(text.encode("utf-8-sig"))
        case "utf-16" | "cp1252":
            path.write_bytes(text.encode(form))
        case "semicolon":
            table.to_csv(path, index=False, sep=";")
        case "comma":
            table.to_csv(path, index=False, sep=";", decimal=",")
        case "crlf":
            path.write_bytes(text.replace("\n", "\r\n").encode())
        case _:
            path.write_text(text)
    found = read(path)
    expected = table[["id", "date", "label", "NDVI", "EVI"]]
    pd.testing.assert_frame_equal(as_frame(found), expected, check_dtype=False, rtol=1e-6)
    assert any("Windows-1252" in note for note in found.notes) == (form == "cp1252")


WIDE = {
    "dates": lambda band, step, day: f"{band}_{day}",
    "compact dates first": lambda band, step, day: f"{day.replace('-', '')}_{band}",
    "counted": lambda band, step, day: f"{band}_ts{step}",
    "as archives count": lambda band, step, day: f"OPTICAL-{band}-ts{step}-10m",
    "plain numbers": lambda band, step, day: f"{band}.{step + 1}",
}


@pytest.mark.parametrize("form", WIDE)
def test_a_wide_table_gives_what_the_long_one_does(tmp_path: Path, form: str) -> None:
    table = long_table()
    table = table[table["id"].isin(["s0", "s2", "s4"])]  # of one year, as dates in names are
    steps = table.groupby("id").cumcount()
    names = [
        {b: WIDE[form](b, s, d) for b in ("NDVI", "EVI")}
        for s, d in zip(steps, table["date"], strict=False)
    ]
    rows = {}
    for (_, row), name in zip(table.iterrows(), names, strict=False):
        wide = rows.setdefault(row["id"], dict(row[["id", "label", "longitude", "latitude"]]))
        wide |= {name[band]: row[band] for band in ("NDVI", "EVI")}
    path = written(tmp_path, pd.DataFrame(rows.values()))
    found = read(path, start="2018-03-05", step=16)
    expected = table[["id", "date", "label", "NDVI", "EVI"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(as_frame(found), expected, check_dtype=False, rtol=1e-6)


def test_steps_between_two_days_are_months_half_months_or_ten_days(tmp_path: Path) -> None:
    ends = {12: "2017-11-01", 24: "2017-11-16", 36: "2017-11-21"}
    for steps, end in ends.items():
        table = pd.DataFrame({"id": [1, 2], "label": ["a", "b"], "start_date": "2016-12-01"})
        table["end_date"] = end
        table = table.assign(**{f"NDVI_ts{step}": [0.1, 0.2] for step in range(steps)})
        found = read(written(tmp_path, table, f"t{steps}.csv"))
        days = [str(day) for day in found.day[:steps].astype("M8[D]")]
        assert days[0] == "2016-12-01"
        assert days[-1] == end
        assert len(set(days)) == steps


def test_a_pattern_names_columns_that_nobody_could_guess(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": [1, 2], "label": ["a", "b"]})
    table = table.assign(
        **{f"v{day}of{band}x": 0.5 for band in "PQ" for day in (20180301, 20180401)}
    )
    path = written(tmp_path, table)
    assert "--date or --wide" in complaint(path)
    assert read(path, wide="v{date}of{band}x").bands == ("P", "Q")
    with pytest.raises(InputError, match="is no pattern"):
        read(path, wide="v{date}x")


def test_attributes_are_no_observations(tmp_path: Path) -> None:
    table = long_table().assign(elevation=300, doy=lambda t: range(len(t)), aspect2=7.0, soil="x")
    table["texture"] = np.random.default_rng(0).random(len(table))
    found = read(written(tmp_path, table))
    assert found.bands == ("NDVI", "EVI", "texture")
    assert set(found.not_imported) == {"elevation", "doy", "aspect2", "soil"}
    assert read(written(tmp_path, table), bands=("EVI", "aspect2")).bands == ("EVI", "aspect2")


def test_sentinel_2_is_recognised_however_it_is_called(tmp_path: Path) -> None:
    table = long_table().rename(columns={"NDVI": "S2-L2A-B8A", "EVI": "b2"})
    assert read(written(tmp_path, table)).bands == ("B02", "B8A")


@pytest.mark.parametrize("form", ["wkt", "geojson", "wkb", "columns", "projected"])
def test_places_are_read_from_whatever_holds_them(tmp_path: Path, form: str) -> None:
    table = long_table()
    points = shapely.points(table["longitude"], table["latitude"])
    options: dict[str, object] = {}
    match form:
        case "wkt":
            table["geom"] = shapely.to_wkt(points)
        case "geojson":
            table["geometry"] = shapely.to_geojson(points)
        case "wkb":
            table["geometry"] = shapely.to_wkb(points)
    expected = table.groupby("id")[["longitude", "latitude"]].first()
    if form in ("wkt", "geojson", "wkb"):
        table = table.drop(columns=["longitude", "latitude"])
    if form == "projected":
        import geopandas

        moved = geopandas.GeoSeries(points, crs=4326).to_crs(3035)
        table = table.drop(columns=["longitude", "latitude"]).assign(x=moved.x, y=moved.y)
        options["crs"] = "EPSG:3035"
    found = read(written(tmp_path, table, "t.parquet" if form == "wkb" else "t.csv"), **options)
    np.testing.assert_allclose(found.lon, expected["longitude"], atol=1e-6)
    np.testing.assert_allclose(found.lat, expected["latitude"], atol=1e-6)


def test_codes_are_classes(tmp_path: Path) -> None:
    table = long_table()
    table["label"] = table["label"].map({"oak": 1101060000, "beech": 20, "larch": 3})
    assert set(read(written(tmp_path, table)).label) == {"1101060000", "20", "3"}
    as_float = table.assign(label=table["label"].astype(float))
    assert set(read(written(tmp_path, as_float, "t.parquet")).label) == {"1101060000", "20", "3"}


def test_counts_of_sentinel_2_become_reflectance(tmp_path: Path) -> None:
    table = long_table().rename(columns={"NDVI": "B04"})
    table["B04"] = (table["B04"] * 10000).round().astype(int)
    found = read(written(tmp_path, table))
    np.testing.assert_allclose(found.value[:, 0], table["B04"] * 1e-4, rtol=1e-6)
    np.testing.assert_allclose(found.value[:, 1], table["EVI"], rtol=1e-6)  # is none
    assert any("whole counts" in note for note in found.notes)


def test_a_scale_is_asked_for_and_used(tmp_path: Path) -> None:
    table = long_table().assign(VV=-12.5)
    table["VV"] += np.arange(len(table)) / 10
    table["NDVI"] = (table["NDVI"] * 10000).round()
    path = written(tmp_path, table)
    assert "say --scale 0.0001" in complaint(path)
    found = read(path, scale=1e-4)
    by_band = dict(zip(found.bands, found.value.T, strict=False))
    np.testing.assert_allclose(by_band["NDVI"], table["NDVI"] * 1e-4, rtol=1e-6)
    np.testing.assert_allclose(by_band["EVI"], table["EVI"], rtol=1e-6)
    np.testing.assert_allclose(by_band["VV"], table["VV"], rtol=1e-6)


@pytest.mark.parametrize("fill", [-999, -9999, 65535, -32768, -28672])
def test_fill_values_are_told_until_they_are_declared(tmp_path: Path, fill: float) -> None:
    table = long_table()
    table.loc[[3, 7, 8], "EVI"] = fill
    path = written(tmp_path, table)
    told = complaint(path)
    assert "line 5" in told
    assert f"EVI is {fill}" in told
    assert f"--nodata {fill}" in told
    for found in (read(path, nodata=(float(fill),)), read(path, finds_nodata=True)):
        expected = table["EVI"].where(table["EVI"] != fill)
        np.testing.assert_allclose(found.value[:, 1], expected, rtol=1e-6)


def test_files_of_unlike_labels_are_named_whole(tmp_path: Path) -> None:
    names = [f"forest_inventory_{year}_{part}.csv" for year in (2018, 2019) for part in "abc"]
    for name in names:
        number_or_word = (
            {"oak": "4", "beech": "5", "larch": "6"} if name.endswith("9_c.csv") else {}
        )
        table = long_table()
        table["label"] = table["label"].replace(number_or_word)
        table.to_csv(tmp_path / name, index=False)
    with pytest.raises(InputError) as caught:
        read_series([tmp_path / name for name in names], SeriesOptions())
    assert str(caught.value).startswith(
        f"'{names[0]}, {names[1]} and 4 more': 'label' mixes numbers such as '4' with words such as"
    )


def test_lists_of_names_are_cut_between_names() -> None:
    assert listed(["a", "bb", "ccc"]) == "a, bb, ccc"
    assert listed(["a", "bb", "ccc"], 6) == "a, bb and 1 more"
    assert listed(["abcdefgh", "i"], 6) == "abcde… and 1 more"
    assert listed([]) == ""


def index_table(path: Path, values: np.ndarray) -> Path:
    """Write monthly NDVI of twenty series."""
    assert len(values) == 240
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(20), 12),
            "date": [f"2018-{month:02d}-01" for _ in range(20) for month in range(1, 13)],
            "label": np.repeat(["oak", "beech"] * 10, 12),
            "NDVI": values,
        }
    )
    frame.to_csv(path, index=False)
    return path


def test_fill_that_was_mixed_into_an_index_is_not_observed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-0.15, 0.95, 240).round(4)
    values[[5, 6, 7]] = 65535, 3.1, 1.5
    told = complaint(index_table(tmp_path / "t.csv", values))
    assert "NDVI is 65535" in told
    found = read(tmp_path / "t.csv", finds_nodata=True)
    assert np.flatnonzero(np.isnan(found.value[:, 0])).tolist() == [5, 6, 7]
    assert (
        "2 values of NDVI are beyond 1, as resampling makes them beside fill values"
        in "\n".join(found.notes)
    )
    # without fill beside it nothing says what such a value is
    values[5] = values[6] = 0.5
    found = read(index_table(tmp_path / "t.csv", values), finds_nodata=True)
    assert found.value[7, 0] == np.float32(1.5)


def test_the_scaled_fill_of_modis_is_found_where_it_stands_alone(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-0.15, 0.95, 240).round(4)
    values[:4] = -0.3
    path = index_table(tmp_path / "t.csv", values)
    told = "4 values of NDVI are -0.3, the scaled fill value of MODIS, and no other is below -0.2"
    found = read(path)
    assert f"{told}, so nothing was observed there: say --nodata -0.3 (or auto)" in found.notes
    assert not np.isnan(found.value).any()
    found = read(path, finds_nodata=True)
    assert f"{told}: they were taken as not observed" in found.notes
    assert np.isnan(found.value[:4, 0]).all()
    assert np.isfinite(found.value[4:]).all()
    values[10] = -0.25
    found = read(index_table(path, values), finds_nodata=True)
    assert not np.isnan(found.value).any()
    assert any(note.endswith("if they are that, say --nodata -0.3") for note in found.notes)


def test_empty_cells_are_told_until_they_are_declared(tmp_path: Path) -> None:
    table = long_table()
    table.loc[[4, 9], "NDVI"] = np.nan
    for name in ("t.csv", "t.parquet"):
        path = written(tmp_path, table, name)
        assert "NDVI is empty or NaN, as are 2 of 60 values" in complaint(path)
        found = read(path, nodata=(float("nan"),))
        np.testing.assert_allclose(found.value[:, 0], table["NDVI"], rtol=1e-6)


def test_a_band_without_data_is_left_out(tmp_path: Path) -> None:
    table = long_table().assign(B8A=65535)
    found = read(written(tmp_path, table), finds_nodata=True)
    assert found.bands == ("NDVI", "EVI")
    assert any("B8A was left out" in note for note in found.notes)


def broken(change: str) -> pd.DataFrame:
    """Return a table with one thing wrong."""
    table = long_table().astype({"label": object, "id": object, "date": object})
    match change:
        case "blank label":
            table.loc[table["id"] == "s1", "label"] = "  "
        case "label nan":
            table.loc[table["id"] == "s1", "label"] = "nan"
        case "labels in case":
            table.loc[table["id"] == "s3", "label"] = "Oak"
        case "labels in blanks":
            table.loc[table["id"] == "s3", "label"] = "oak "
        case "mixed labels":
            table.loc[table["id"] == "s1", "label"] = "17"
        case "two labels":
            table.loc[7, "label"] = "oak"
        case "one class":
            table["label"] = "oak"
        case "infinite":
            table.loc[6, "EVI"] = np.inf
        case "word":
            table["EVI"] = table["EVI"].astype(object)
            table.loc[6, "EVI"] = "n/k"
        case "unsorted":
            table.loc[[1, 2], "date"] = table.loc[[2, 1], "date"].to_numpy()
        case "duplicate date":
            table.loc[2, "date"] = table.loc[1, "date"]
        case "ids again":
            table = pd.concat([table, table.assign(label=table["label"].map(_NEXT))])
        case "two places":
            table.loc[6, "longitude"] = 33.3
        case "far place":
            table["latitude"] += 100
        case "no date":
            table.loc[6, "date"] = "2018-02-30"
        case "day first":
            table["date"] = pd.to_datetime(table["date"]).dt.strftime("%d/%m/%Y")
        case "blank id":
            table.loc[6, "id"] = ""
        case "no label":
            table = table.drop(columns="label")
        case "no id":
            table = table.drop(columns="id")
        case "no values":
            table = table.drop(columns=["NDVI", "EVI"])
        case "no rows":
            table = table.iloc[:0]
        case "many classes":
            table = long_table(900, 2)
            table["label"] = table["id"] + "x"
    return table


_NEXT = {"oak": "beech", "beech": "larch", "larch": "oak"}

COMPLAINTS = {
    "blank label": "line 7: 'label' holds '  ', no class, as do 5 rows",
    "label nan": "line 7: 'label' holds 'nan', no class",
    "labels in case": "the classes 'Oak' and 'oak', which differ in blanks or case only",
    "labels in blanks": "the classes 'oak' and 'oak ', which differ in blanks or case only",
    "mixed labels": "mixes numbers such as '17' with words such as 'beech'",
    "two labels": "lines 7 and 9: series 's1' has two labels, 'beech' and 'oak'",
    "one class": "has one class only, 'oak'",
    "infinite": "line 8: EVI is inf",
    "word": "line 8: column 'EVI' holds 'n/k', no number",
    "unsorted": "line 4: series 's0' has date 2018-03-21 after 2018-04-06 (line 3)",
    "duplicate date": "line 4: series 's0' has date 2018-03-21 twice (first line 3)",
    "ids again": "after 2018-05-08",
    "two places": "lines 7 and 8: series 's1' has two places, '11",
    "far place": "line 2: longitude and latitude hold '10.5, 150.0'",
    "no date": "line 8: column 'date' holds '2018-02-30', no date",
    "day first": "line 2: column 'date' holds '05/03/2018', no date that can be read one way only",
    "blank id": "line 8: column 'id' is empty in 1 rows",
    "no label": "no column that is known to be the class; name it with --label",
    "no id": "no column that says which rows are one series; name it with --id",
    "no values": "no column of numbers that vary within a series",
    "no rows": "has no row below its header",
    "many classes": "has 900 classes, more than 254",
}


@pytest.mark.parametrize("change", COMPLAINTS)
def test_a_wrong_table_is_told_with_its_line(tmp_path: Path, change: str) -> None:
    assert COMPLAINTS[change] in complaint(written(tmp_path, broken(change)))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\n \n", "is empty"),
        (b"id,date,id,NDVI\n1,2018-01-01,1,0.2\n", "has the column 'id' 2 times"),
        (b"id,date,label,NDVI\n1,2018-01-01,a\n", "cannot be read as a table"),
        (b"id,date\0,label\n", "holds zero bytes"),
        (b"\x1f\x8bnot gzip", "is damaged gzip"),
        (b"PAR1 cut", "has no column"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert text in complaint(path)


def test_a_damaged_parquet_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, long_table(), "t.parquet")
    path.write_bytes(path.read_bytes()[:-30])
    assert "cannot be read as Parquet, or was cut off" in complaint(path)


def test_dates_are_sorted_and_duplicates_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    table = long_table(4, 4)
    again = table.iloc[[1, 6]].assign(NDVI=[0.0, 0.5])
    path = written(tmp_path, pd.concat([table, again]).sample(frac=1, random_state=3))
    expected = pd.read_csv(path).groupby(["id", "date"])["NDVI"]
    for how in ("first", "mean"):
        found = as_frame(read(path, sorts=True, duplicates=how))
        series = found.set_index(["id", "date"])["NDVI"].sort_index()
        np.testing.assert_allclose(series, getattr(expected, how)(), rtol=1e-6)


def test_ids_that_begin_again_every_year(tmp_path: Path) -> None:
    table = long_table()
    later = table.assign(
        date=[f"{int(day[:4]) + 2}{day[4:]}" for day in table["date"]],
        label=table["label"].map(_NEXT),
    )
    both = pd.concat([table.assign(season=1), later.assign(season=2)])
    path = written(tmp_path, both)
    assert "--year" in complaint(path)
    found = read(path, year="season")
    assert len(found) == 12
    assert set(found.id) == {f"s{n} {season}" for n in range(6) for season in (1, 2)}


def test_ids_count_within_their_file(tmp_path: Path) -> None:
    one = written(tmp_path, long_table(), "a.csv")
    other = written(
        tmp_path, long_table(seed=1)[["EVI", "NDVI", *long_table().columns[:5]]], "b.csv"
    )
    found = read_series([one, other], SeriesOptions())
    assert len(found) == 12
    np.testing.assert_allclose(found.value[30:, 0], long_table(seed=1)["NDVI"], rtol=1e-6)


def test_tables_with_other_bands_are_told(tmp_path: Path) -> None:
    one = written(tmp_path, long_table(), "a.csv")
    other = written(tmp_path, long_table().rename(columns={"EVI": "SAVI"}), "b.csv")
    with pytest.raises(InputError, match="tables have other bands: 'EVI' is in one of 'a"):
        read_series([one, other], SeriesOptions())


def test_a_table_to_predict_needs_no_labels(tmp_path: Path) -> None:
    path = written(tmp_path, long_table().drop(columns="label"))
    assert read(path, needs_labels=False).label is None


@pytest.mark.parametrize(
    ("header", "is_series"),
    [
        ("id,date,label,NDVI", True),
        ("sample_id,timestamp,ewoc_code,B02", True),
        ("sample_id,label,B02_2018-01-01,B02_2018-02-01", True),
        ("system:index,B2,image_date,month,Class,.geo", False),
        ("B2,B3,image_date,patch_id,longitude,latitude", False),
        ("B2,B3,image_date,longitude,latitude,Class", False),
        ("id,image_date,label,NDVI", True),
    ],
)
def test_columns_tell_series_from_exports(tmp_path: Path, header: str, is_series: bool) -> None:
    path = tmp_path / "t.csv"
    path.write_text(header + "\n")
    assert is_series_table(path, SeriesOptions()) == is_series


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2018-09-14", "2018-09-14"),
        ("2018-09-14T10:20:30Z", "2018-09-14"),
        ("2018-09-14 23:30:00.5-05:00", "2018-09-15"),
        ("2018-09-14T00:30+0200", "2018-09-13"),
        ("2018-09-14 10", "2018-09-14"),
        ("2018-09-14 garbage", None),
        ("2018-09-14T25:00:00Z", None),
        ("20180914", "2018-09-14"),
        ("2018/9/4", "2018-09-04"),
        ("14.09.2018", "2018-09-14"),
        ("2018-09", "2018-09-01"),
        ("14/09/2018", None),
        ("2018-13-01", None),
        ("0018-01-01", None),
        ("yesterday", None),
    ],
)
def test_days_are_read_one_way_only(text: str, day: str | None) -> None:
    found = parse_day(text)
    assert (found and str(found)) == day


@pytest.mark.parametrize(
    "name",
    ["obs_id", "Unnamed: 0", "system:time_start", "epoch", "week_of_year", "sza", "view_zenith_mean",
     "sun_angle", "rowid", "id_2", "julian_day"],
)  # fmt: skip
def test_columns_of_time_and_order_are_no_values_by_their_name(tmp_path: Path, name: str) -> None:
    table = long_table()
    table[name] = np.random.default_rng(0).random(len(table))
    found = read(written(tmp_path, table))
    assert found.bands == ("NDVI", "EVI")
    assert name in found.not_imported
    assert read(written(tmp_path, table), bands=("NDVI", name)).bands == ("NDVI", name)


def test_columns_that_count_rows_are_no_values_whatever_they_are_called(tmp_path: Path) -> None:
    """With rows sorted by class, they would tell the class."""
    table = long_table(40).sort_values("label", kind="stable", ignore_index=True)
    random = np.random.default_rng(0)
    table["entry"] = np.arange(len(table)) * 3.5
    table["ticket"] = 7000 + random.permutation(len(table))
    table["moisture"] = random.random(len(table))
    found = read(written(tmp_path, table))
    assert set(found.bands) == {"NDVI", "EVI", "moisture"}
    assert any("'entry', 'ticket' numbers the rows" in note for note in found.notes)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (("oak", "Oak"), "the classes 'Oak' and 'oak', which differ in blanks or case only"),
        (("1", "01"), "the classes '01' and '1', which are the same number"),
        (("oak", "7"), "mixes numbers such as '7' with words such as 'beech'"),
    ],
)
def test_classes_are_written_alike_in_all_files(
    tmp_path: Path, labels: tuple[str, str], text: str
) -> None:
    paths = []
    for number, label in enumerate(labels):
        other = "beech" if label.isalpha() or "7" in label else "2"
        names = [label, other] if label != "7" else ["7", "8"]
        table = long_table(4)
        table["label"] = [names[int(one[1:]) % 2] for one in table["id"]]
        paths.append(written(tmp_path, table, f"{number}.csv"))
    with pytest.raises(InputError) as caught:
        read_series(paths, SeriesOptions())
    assert text in str(caught.value)
    assert "0.csv, 1.csv" in str(caught.value)


def test_two_columns_of_one_date_are_told(tmp_path: Path) -> None:
    header = "id,label,NDVI_2018-01-01,NDVI_2018-02-01,NDVI_20180101"
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\na,oak,0.1,0.2,0.3\nb,beech,0.1,0.2,0.3\n")
    told = complaint(path)
    assert "'NDVI_2018-01-01' and 'NDVI_20180101' are both NDVI of step 2018-01-01" in told


def test_text_of_two_encodings_and_a_missing_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + long_table().to_csv(index=False).encode() + b"\xe4,1\n")
    assert "begins as UTF-8, but byte" in complaint(path)
    with pytest.raises(InputError, match=r"'none.parquet' does not exist"):
        read(tmp_path / "none.parquet")


def test_empty_text_in_parquet_is_an_empty_cell(tmp_path: Path) -> None:
    table = long_table()
    table["EVI"] = table["EVI"].astype(str)
    table.loc[6, "EVI"] = " "
    path = written(tmp_path, table, "t.parquet")
    assert "row 7: EVI is empty" in complaint(path)
    assert np.isnan(read(path, finds_nodata=True).value[6, 1])


def test_values_beyond_single_precision_are_told(tmp_path: Path) -> None:
    table = long_table()
    table["moisture"] = np.random.default_rng(0).random(len(table))
    table.loc[6, "moisture"] = 1e300
    assert "line 8: moisture is inf" in complaint(written(tmp_path, table))


@pytest.mark.parametrize("crs", ["EPSG:5703", "EPSG:4978", "EPSG:4979", "EPSG:99999"])
def test_a_crs_without_x_and_y_on_the_ground_is_told(tmp_path: Path, crs: str) -> None:
    path = written(tmp_path, long_table())
    with pytest.raises(InputError, match=r"which has no x and y on the ground|is not known"):
        read(path, crs=crs)


def test_places_of_a_series_may_differ_by_ten_metres_in_any_unit(tmp_path: Path) -> None:
    table = long_table().drop(columns=["longitude", "latitude"])
    table["x"], table["y"] = 900_000.0, 100_000.0
    table.loc[1, "x"] += 30  # US survey feet: 9 m
    path = written(tmp_path, table)
    assert read(path, crs="EPSG:2263").lon is not None
    assert "has two places" in complaint(path, crs="EPSG:32633")


def test_shapes_that_are_none_are_told(tmp_path: Path) -> None:
    table = long_table().drop(columns=["longitude", "latitude"])
    table["geometry"] = [{"type": "Point"}] * len(table)
    path = written(tmp_path, table, "t.parquet")
    assert "no shapes; expected WKT, WKB or GeoJSON" in complaint(path)
