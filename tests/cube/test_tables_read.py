"""Reading tables: columns, lines, points and values, against pandas and json."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.bands import NODATA
from cube.errors import InputError
from cube.tables.columns import recognise_columns, same_bands
from cube.tables.dark import DarkRows
from cube.tables.geojson import points_of
from cube.tables.lines import line_blocks
from cube.tables.read import read_rows, table_columns

HEADER = "B4,B2,AOT,B8,EVI,image_date,patch_id,longitude,latitude"
ROW = "300,200,120,4000,0.5,2022-01-04,p,107.6,33.7"


def table(folder: Path, *rows: str, header: str = HEADER, end: str = "\n") -> Path:
    path = folder / "table.csv"
    path.write_bytes("".join(line + end for line in (header, *rows)).encode())
    return path


def read(path: Path, **options: float) -> pd.DataFrame:
    """Return the rows of a file as one frame, with a column a band."""
    columns = table_columns(path)
    parts = []
    for rows in read_rows(path, columns, **options):
        frame = pd.DataFrame(rows.values, columns=list(columns.bands))
        for key in ("lon", "lat", "day", "label", "number"):
            frame[key] = getattr(rows, key)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def complaint(path: Path, **options: float) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_columns_come_in_any_order_and_spelling() -> None:
    names = ["WVP", ".geo", "B8A", "b12", "TCI_R", "image_date", "B1", "Class", "NDVI", "month"]
    found = recognise_columns(names, file="a.csv")
    assert found.bands == {"B01": "B1", "B8A": "B8A", "B12": "b12", "WVP": "WVP"}
    assert list(found.bands) == ["B01", "B8A", "B12", "WVP"]
    assert (found.point, found.label, found.is_truth, found.is_raw) == (
        (".geo",),
        "Class",
        True,
        True,
    )
    assert found.checks == {"NDVI": "NDVI"}
    assert found.left_out == ("TCI_R", "NDVI", "month")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("a,b,c", "'t.csv' lacks the columns image_date, .geo (or longitude and latitude), bands"),
        ("B2,date,.geo", "lacks the column image_date (there is 'date')"),
        ("B2,image_date,longitude", "lacks the column .geo (or longitude and latitude)"),
        ("image_date,.geo,EVI", "lacks the column bands such as B2"),
        ("id,day_of_look,label,lon,lat,NDVI", "known to hold dates; name it with --date"),
        ("id,scene_date,label,NDVI", "known to hold dates (there is 'scene_date'); name it with"),
        ("B2,B02,image_date,.geo", "has band B02 twice, as 'B2' and 'B02'"),
        ("B2,B2,image_date,.geo", "has the column 'B2' 2 times"),
        ("B2;image_date;.geo", "lacks the columns"),
        ("B2,image_date,.geo,Class,class", "has the columns 'Class' and 'class', which differ in"),
        ("B2,image_date,.geo,note,Image_Date", "has the columns 'image_date' and 'Image_Date', wh"),
    ],
)
def test_other_columns_are_told(names: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        recognise_columns(names.split(","), file="t.csv")
    assert text in str(caught.value)


def test_tables_with_other_bands_are_told() -> None:
    one = recognise_columns(["B2", "B3", "image_date", ".geo"], file="one.csv")
    two = recognise_columns(["B3", "image_date", ".geo"], file="two.csv")
    with pytest.raises(InputError, match=r"'two.csv' lacks B02, which 'one.csv' has"):
        same_bands({"one.csv": one, "two.csv": two})
    with pytest.raises(InputError, match=r"'two.csv' lacks B02, which 'one.csv' has"):
        same_bands({"two.csv": two, "one.csv": one})


def test_values_are_those_that_pandas_reads(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    bands = {name: random.integers(0, 9000, 500) for name in ("B4", "B2", "AOT", "B8")}
    frame = pd.DataFrame(bands)
    frame.loc[random.random(500) < 0.2, "B4"] = -999
    frame["image_date"] = [f"2022-{month:02d}-09" for month in random.integers(1, 13, 500)]
    frame["longitude"] = 107 + random.random(500)
    frame["latitude"] = 33 + random.random(500)
    path = tmp_path / "a.csv"
    frame.to_csv(path, index=False)
    found = read(path)
    for band, name, factor in (("B04", "B4", 1), ("B08", "B8", 1), ("AOT", "AOT", 10)):
        wanted = (frame[name] * factor).clip(upper=32767).where(frame[name] != -999, NODATA)
        assert (found[band] == wanted).all()
    assert (found["lon"] == frame["longitude"]).all()
    assert (found["lat"] == frame["latitude"]).all()
    days = pd.to_datetime(frame["image_date"])
    assert (found["day"] == (days - pd.Timestamp(0)).dt.days).all()
    assert (found["number"] == np.arange(2, 502)).all()


@pytest.mark.parametrize("form", ["csv.gz", "gzip named csv", "parquet", "windows", "bom", "float"])
def test_every_form_of_a_table_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    rows = [ROW, "-999,-999,-999,-999,,2022-02-04,p,107.6,33.7", "1,2,3,4,,2022-03-04,p,107.7,33.8"]
    path = table(tmp_path, *rows)
    wanted = read(path)
    assert len(wanted) == 2  # one is masked
    if form == "parquet":
        frame = pd.read_csv(path)
        path = tmp_path / "b.parquet"
        frame.to_parquet(path)
        wanted["number"] -= 1  # there is no header row
    elif form.endswith("gz") or form.startswith("gzip"):
        content = gzip.compress(path.read_bytes())
        path = tmp_path / ("b.csv.gz" if form == "csv.gz" else "b.csv")
        path.write_bytes(content)
    elif form == "windows":
        path = table(tmp_path, *rows, end="\r\n")
    elif form == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    else:
        path = table(tmp_path, *[row.replace("300,200", "300.0,2e2") for row in rows])
    pd.testing.assert_frame_equal(read(path), wanted)


def test_parquet_may_hold_dates_and_text(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    columns = {
        "B2": pa.array(["200", "300"]),
        "image_date": pa.array(np.array(["2022-01-04", "2022-02-04"], "M8[ns]")),
        ".geo": pa.array(['{"type":"Point","coordinates":[1.5,2.5]}'] * 2).dictionary_encode(),
        "Class": pa.array(["a", "b"]).dictionary_encode(),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    found = read(path)
    assert found["B02"].tolist() == [200, 300]
    assert found["label"].tolist() == ["a", "b"]
    assert found["lon"].tolist() == [1.5, 1.5]
    assert found["day"].tolist() == [18996, 19027]


DAYS = ["2022-01-04T23:30", "2022-02-04T00:10"]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (pa.timestamp("ms"), ["2022-01-04", "2022-02-04"]),
        (pa.timestamp("us", "UTC"), ["2022-01-04", "2022-02-04"]),
        (pa.timestamp("ns", "Asia/Shanghai"), ["2022-01-04", "2022-02-04"]),
        (pa.timestamp("s", "America/New_York"), ["2022-01-04", "2022-02-04"]),
        (pa.date32(), ["2022-01-04", "2022-02-04"]),
        (pa.date64(), ["2022-01-04", "2022-02-04"]),
    ],
)
def test_days_in_parquet_are_those_of_utc(
    tmp_path: Path, kind: pa.DataType, wanted: list[str]
) -> None:
    times = np.array(DAYS, "M8[s]") if pa.types.is_timestamp(kind) else np.array(wanted, "M8[D]")
    dates = pa.array(times)
    if pa.types.is_timestamp(kind):
        dates = dates.cast(pa.timestamp(kind.unit)).view(kind)  # the instants stay, as in pandas
    else:
        dates = dates.cast(kind)
    pyarrow.parquet.write_table(parquet_with(dates), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found["day"].to_numpy().astype("M8[D]").astype(str).tolist() == wanted
    assert found["number"].tolist() == [1, 2]  # there is no row with a header


@pytest.mark.parametrize(
    ("dates", "text"),
    [
        (pa.array([19000, 19001], pa.int32()), "column 'image_date' holds int32, no dates; expec"),
        (pa.array([1.6e12, 1.6e12]), "column 'image_date' holds double, no dates; expected are"),
        (pa.array([20220104, 20220105]), "column 'image_date' holds int64, no dates; expected"),
        (
            pa.array([19000, 2_000_000_000], pa.int32()).cast(pa.date32()),
            "row 2: image_date = 5477",
        ),
        (
            pa.array([1_650_000_000, -(10**11)]).cast(pa.timestamp("s")),
            "row 2: image_date = -1199-",
        ),
    ],
)
def test_what_is_no_day_in_parquet_is_told(tmp_path: Path, dates: pa.Array, text: str) -> None:
    pyarrow.parquet.write_table(parquet_with(dates), tmp_path / "a.parquet")
    found = complaint(tmp_path / "a.parquet")
    assert found.startswith("'a.parquet'")
    assert text in found


def parquet_with(dates: pa.Array) -> pa.Table:
    """Return a table of two rows with these dates."""
    columns = {"B2": [200, 300], "longitude": [107.6] * 2, "latitude": [33.7] * 2}
    return pa.table(columns).append_column("image_date", dates)


def test_blocks_hold_whole_lines_of_any_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [b"header"] + [b"x" * length for length in (0, 3, 90, 1, 40)]
    path.write_bytes(b"\n".join(lines[:3]) + b"\r\n" + b"\n".join(lines[3:]))
    for size in (1, 7, 64, 10_000):
        blocks = list(line_blocks(path, block_bytes=size))
        assert blocks[0].lines == [b"header"]
        assert [line for block in blocks for line in block.lines] == lines
        for block in blocks[1:]:
            assert block.lines == lines[block.first - 1 :][: block.count]
        assert [block.is_open for block in blocks] == [False] * (len(blocks) - 1) + [True]


POINT = '{"geodesic":false,"type":"Point","coordinates":[%s,%s]}'


@pytest.mark.parametrize(
    "form",
    [
        POINT,
        '{"type":"Point","coordinates":[%s,%s]}',
        '{"coordinates":[%s,%s],"type":"Point","geodesic":true}',
        '{ "type" : "Point" , "coordinates" : [ %s , %s ] }',
        '{"type":"Point","coordinates":[%s,%s,812.5]}',
    ],
)
def test_points_are_read_as_json_reads_them(form: str) -> None:
    places = [(107.6, 33.7), (-0.5, 1e-7), (179.123456789012345, -89), (5, 6)]
    texts = [form % place for place in places]
    lon, lat = points_of(pa.array(texts))
    for text, one, other in zip(texts, lon, lat, strict=True):
        assert [one, other] == json.loads(text)["coordinates"][:2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_points_of_two_forms_in_one_column(places: list[tuple[float, float, bool]]) -> None:
    forms = (POINT, '{"coordinates":[%s,%s],"type":"Point"}')
    texts = [forms[form] % (repr(lon), repr(lat)) for lon, lat, form in places]
    lon, lat = points_of(pa.array(texts))
    assert lon.tolist() == [place[0] for place in places]
    assert lat.tolist() == [place[1] for place in places]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        "[1,2]",
        '{"type":"Point","coordinates":[1]}',
        '{"type":"Point","coordinates":["1",2]}',
        '{"type":"Point","coordinates":[true,2]}',
        '{"type":"Polygon","coordinates":[1,2]}',
        '{"type":"Point","coordinates":[1,2',
        '{"geodesic":false,"type":"Point","coordinates":[1,2}',
        '{"geodesic":false,"type":"Point","coordinates":[1,2]]}',
        '{"geodesic":false,"type":"Point","coordinates":[,2]}',
        '{"geodesic":false,"type":"Point","coordinates":]}',
        "[" * 900,
        '{"type":"Point","coordinates":[1' + "0" * 400 + ",2]}",
    ],
)
def test_what_is_no_point_has_no_coordinates(text: str | None) -> None:
    for texts in ([text, POINT % (1, 2)], [POINT % (1, 2), text]):
        lon, lat = points_of(pa.array(texts, pa.string()))
        right = texts.index(POINT % (1, 2))
        assert (lon[right], lat[right]) == (1, 2)
        assert np.isnan(lon[1 - right])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (ROW.replace("2022-01-04", "04/01/2022"), "image_date = '04/01/2022'; expected YYYY-MM-DD"),
        (ROW.replace("2022-01-04", "2022-01-04T03:21"), "image_date = '2022-01-04T03:21'"),
        (ROW.replace("2022-01-04", "2022-13-04"), "image_date = '2022-13-04'"),
        (ROW.replace("2022-01-04", "20220104"), "image_date = '20220104'"),
        (ROW.replace("2022-01-04", ""), "has no image_date"),
        (ROW.replace("2022-01-04", "2002-01-10"), "image_date = 2002-01-10; Sentinel-2 has looked"),
        (ROW.replace("2022-01-04", "1500-01-01"), "image_date = 1500-01-01; Sentinel-2 has looked"),
        (ROW.replace("2022-01-04", "9999-12-31"), "image_date = 9999-12-31; Sentinel-2 has looked"),
        (ROW.replace("300", "many"), "B4 = 'many' is no number"),
        (ROW.replace("300", "3_0"), "B4 = '3_0' is no number"),
        (ROW.replace("300", "300,5"), "10 values, the header names 9"),
        (ROW.replace("33.7", "93.7"), "is no place on Earth"),
        (ROW.replace("33.7", "inf"), "is no place on Earth"),
        (ROW.replace("33.7", ""), "is no place on Earth"),
        ('300,"200' + ROW[7:], "no CSV"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, text: str) -> None:
    path = table(tmp_path, *[ROW] * 40, row, *[ROW] * 40)
    found = complaint(path)
    assert found.startswith("'table.csv', row 42")
    assert text in found


def test_a_wrong_row_after_blank_lines_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, ROW, "", ROW, "", ROW.replace("33.7", "99"))
    assert complaint(path).startswith("'table.csv', row 6:")
    assert read(table(tmp_path, ROW, "", ROW, ""))["number"].tolist() == [2, 4]


def test_a_broken_geo_is_named(tmp_path: Path) -> None:
    geo = '"{""type"":""Point"",""coordinates"":[107.6,33.7]}"'
    rows = [f"2,2022-01-04,{geo}"] * 3
    path = table(tmp_path, *rows, f'2,2022-01-04,{geo[:-3]}"', header="B2,image_date,.geo")
    found = complaint(path)
    assert found.startswith('\'table.csv\', row 5: \'{"type":"Point","coordinates":[107.6,33.7\'')
    assert "is no GeoJSON point; expected longitude" in found


def test_a_class_is_needed_in_every_row_of_ground_truth(tmp_path: Path) -> None:
    path = table(tmp_path, ROW + ",a", ROW + ", ", header=HEADER + ",Class")
    assert complaint(path) == (
        "'table.csv', row 3 has no Class; a table of ground truth needs one in every row"
    )


def test_a_class_is_a_name(tmp_path: Path) -> None:
    rows = [f"{ROW},{name}" for name in ("oak", "o" * 100, "x" * 30_000, "oak")]
    assert complaint(table(tmp_path, *rows, header=HEADER + ",Class")) == (
        f"'table.csv', row 4: Class = '{'x' * 40}'… has 30,000 characters; a class has at most 100"
    )
    found = read(table(tmp_path, *rows[:2], header=HEADER + ",Class"))
    assert found["label"].tolist() == ["oak", "o" * 100]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty (0 bytes)"),
        (
            b"\n<!DOCTYPE html><html>429 Too Many Requests</html>\n",
            "is a web page saved as a table",
        ),
        (HEADER.encode("utf-16"), "is UTF-16 or binary"),
        (b"PK\x03\x04\x00\x00\x00\x00", "is UTF-16 or binary"),
        (f"{HEADER}\n{ROW}\r{ROW}\n".encode(), "row 2 has a line end of its own kind"),
        (f"{HEADER}\r\r\n{ROW}\r\r\n".encode(), "row 1 has a line end of its own kind"),
        (f"{HEADER}\n{ROW}\n{ROW[:-8]}".encode(), "row 3 (the last) is cut off"),
        (f"{HEADER}\n{ROW}\n{ROW[:-1]}".encode(), "row 3 (the last) is cut off or lacks its line"),
        (f"{HEADER}\n{ROW}\n{ROW}".encode(), "9 of 9 values; if they are whole, adding a line end"),
        (f"{HEADER}\n{ROW}\n{ROW[:12]}".encode(), "4 of 9 values; export the table again"),
        (f"{HEADER}\n{ROW}\n{ROW}\n{ROW[:12]}\n".encode(), "row 4: 4 values, the header names 9"),
        (
            f"{HEADER},Class\n{ROW},".encode() + "落叶松\n".encode("gbk"),
            "row 2: bytes that are no UTF-8",
        ),
        (HEADER.encode() + b"\n" + b"1" * 2_000_000, "row 2 is longer than a megabyte"),
        (gzip.compress(f"{HEADER}\n{ROW}\n".encode() * 3000)[:-20], "ends before its gzip data do"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    found = complaint(path)
    assert text in found
    assert found.startswith("'table.csv'")


def test_damaged_gzip_and_parquet_are_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(f"{HEADER}\n".encode() + f"{ROW}\n".encode() * 3000))
    packed[40:60] = bytes(20)
    (tmp_path / "a.csv").write_bytes(packed)
    assert "has damaged gzip data" in complaint(tmp_path / "a.csv")
    buffer = io.BytesIO()
    pd.read_csv(io.StringIO(f"{HEADER}\n{ROW}\n")).to_parquet(buffer)
    for content in (b"", b"PAR1", buffer.getvalue()[:-30]):
        (tmp_path / "b.parquet").write_bytes(content)
        assert "cannot be read as Parquet, or was cut off" in complaint(tmp_path / "b.parquet")


def test_a_whole_last_point_needs_no_line_end(tmp_path: Path) -> None:
    geo = '"{""type"":""Point"",""coordinates"":[107.6,33.7]}"'
    path = tmp_path / "table.csv"
    path.write_text(f"B2,image_date,.geo\n2,2022-01-04,{geo}")
    assert len(read(path)) == 1
    path.write_text(f"B2,image_date,.geo\n2,2022-01-04,{geo[:-4]}")
    assert "row 2 (the last) is cut off" in complaint(path)


def test_values_that_are_no_counts(tmp_path: Path) -> None:
    path = table(tmp_path, ROW.replace("300,200", "0.03,0.02").replace("4000", "0.4"))
    assert complaint(path) == (
        "'table.csv', row 2: B02 = 0.02 looks like reflectance 0..1, where counts 0..10000 are "
        "expected; give --scale 1"
    )
    found = read(path, scale=1.0)
    assert found[["B02", "B04", "B08", "AOT"]].values.tolist() == [[200, 300, 4000, 1200]]
    rows = [ROW, ROW.replace("300", "70000"), ROW.replace("300", "-5"), ROW.replace("300", "299.6")]
    path = table(tmp_path, *rows)
    assert read(path)["B04"].tolist() == [300, NODATA, NODATA, 300]
    facts = next(read_rows(path, table_columns(path))).facts
    assert (facts["outside"], facts["rounded"], facts["missing B04"]) == (2, 1, 2)


def test_infinite_values_are_counted_as_outside(tmp_path: Path) -> None:
    rows = [ROW.replace("300", text) for text in ("inf", "-inf", "1e400", "NaN", "", "-999", "7")]
    path = table(tmp_path, *rows)
    assert read(path)["B04"].tolist() == [NODATA] * 6 + [7]
    facts = next(read_rows(path, table_columns(path))).facts
    assert (facts["outside"], facts["missing B04"]) == (3, 6)
    reflectance = table(tmp_path, *[row.replace("200", "0.02") for row in rows])
    assert "row 2: B02 = 0.02 looks like reflectance" in complaint(reflectance)
    reflectance = table(tmp_path, *[ROW.replace("300", text) for text in ("inf", "0.03")])
    assert "row 3: B04 = 0.03 looks like reflectance" in complaint(reflectance)


def test_rows_without_data_are_counted(tmp_path: Path) -> None:
    masked = "-999,-999,-999,-999,,2022-02-04,p,107.6,33.7"
    nothing = ",NaN,,nan,,2022-02-04,p,107.6,33.7"
    zero = "0,0,0,0,,2022-02-04,p,107.6,33.7"
    path = table(tmp_path, ROW, masked, nothing, zero, ROW.replace("200", "-999"))
    (rows,) = read_rows(path, table_columns(path))
    assert (rows.read, len(rows)) == (5, 2)
    assert rows.dropped == {"masked in every band": 2, "zero in every band": 1}
    assert rows.facts["missing B02"] == 1


def test_indices_computed_on_counts_are_found_out(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    blue, red, near = random.integers(200, 4000, (3, 200)).astype(float)
    for scale, is_on_counts in ((1.0, True), (1e-4, False)):
        b, r, n = blue * scale, red * scale, near * scale
        evi = 2.5 * (n - r) / (n + 6 * r - 7.5 * b + 1)
        rows = [
            f"{int(a[0])},{int(a[1])},1,{int(a[2])},{a[3]!r},2022-01-04,p,107.6,33.7"
            for a in zip(red, blue, near, evi.tolist(), strict=True)
        ]
        path = table(tmp_path, *rows)
        check = next(read_rows(path, table_columns(path))).indices["EVI"]
        assert check.is_on_counts is is_on_counts
        right = 2.5 * (near - red) / (near + 6 * red - 7.5 * blue + 1e4)
        assert check.mean_difference == pytest.approx(np.abs(evi - right).mean(), abs=1e-9)


def test_an_index_that_is_no_number_is_not_compared(tmp_path: Path) -> None:
    path = table(tmp_path, ROW, ROW.replace("0.5", "high"))
    (rows,) = read_rows(path, table_columns(path))
    assert (len(rows), rows.indices) == (2, {})


def test_values_that_no_index_has_are_counted(tmp_path: Path) -> None:
    right = 2.5 * (0.4 - 0.03) / (0.4 + 6 * 0.03 - 7.5 * 0.02 + 1)
    texts = ("1e308", "-1e308", "inf", "-inf", "2e6", "", "NaN", "-999", repr(right))
    path = table(tmp_path, *[ROW.replace("0.5", text) for text in texts])
    check = next(read_rows(path, table_columns(path))).indices["EVI"]
    assert (check.rows, check.impossible) == (1, 5)
    assert check.mean_difference == pytest.approx(0, abs=1e-9)
    path = table(tmp_path, ROW.replace("0.5", "1e308"))
    check = next(read_rows(path, table_columns(path))).indices["EVI"]
    assert (check.rows, check.impossible, check.mean_difference) == (0, 1, 0)


@pytest.mark.parametrize(
    ("added", "day", "kind", "expected"),
    [
        (1000, "2022-03-04", "forest", True),
        (0, "2022-03-04", "forest", False),
        (1000, "2022-01-24", "forest", False),
        (0, "2022-03-04", "sand", False),
    ],
)
def test_counts_that_hold_the_offset_are_found_out(
    added: int, day: str, kind: str, expected: bool
) -> None:
    random = np.random.default_rng(3)
    bands = ("B02", "B03", "B04", "B08", "B12")
    levels = {"forest": (200, 400, 250, 3000, 900), "sand": (1100, 1500, 1900, 2300, 3500)}[kind]
    values = np.array(levels) + random.integers(0, 200, (5000, 5)) + added
    values[::7] = NODATA
    days = np.full(5000, np.datetime64(day).astype(int), np.int32)
    rows = DarkRows(bands)
    for part in np.array_split(np.arange(5000), 7):
        rows.add(days[part], values[part].astype(np.int16))
    assert rows.has_offset() is expected
    few = DarkRows(bands)
    few.add(days[:100], values[:100].astype(np.int16))
    assert few.has_offset() is False
    blind = DarkRows(bands[:2])
    blind.add(days, values[:, :2].astype(np.int16))
    assert blind.has_offset() is False


GEO_ROWS = "".join(
    f'{300 + n},{200 + n},-999,2022-0{1 + n % 9}-04,oak,"{{""type"":""Point"",""coordinates"":'
    f'[107.{n},33.7]}}"\n'
    for n in range(9)
)
WHOLE = f"B4,B2,AOT,image_date,Class,.geo\n{GEO_ROWS}".encode()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_broken_is_told_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes replaced, taken out, put in or cut off give rows or an `InputError`, nothing else."""
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.sampled_from([0, 1, 1, 2, 30]))
        put = data.draw(
            st.sampled_from([b"", b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"9", b"-"])
        )
        content[at : at + length] = put
    path = tmp_path_factory.getbasetemp() / "broken.csv"
    path.write_bytes(content if data.draw(st.booleans()) else gzip.compress(content))
    try:
        found = read(path)
    except InputError as error:
        if not str(error).startswith("'broken.csv'"):
            raise
        return
    assert (found["lon"].abs() <= 180).all()
    assert (found["label"] != "").all() or (found["label"] == "").all()  # no column Class
    assert found["number"].is_monotonic_increasing
