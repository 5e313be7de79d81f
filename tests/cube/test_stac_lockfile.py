"""The lock file: every scene comes back as it was, and other programs can read it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stac_geoparquet.arrow import stac_table_to_items

from cube.bands import BANDS
from cube.errors import InputError
from cube.stac import Asset, DroppedScene, Scene, SceneList, difference, read_scenes, write_scenes
from cube.stac.scene import SCL
from cube.stac.sensors import SENSORS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(-1e7, 1e7)


@st.composite
def footprints(draw):
    """A square or two, which may run past the antimeridian."""
    squares = []
    for part in range(draw(st.integers(1, 2))):
        west, south = draw(st.floats(-180, 179.9)), draw(st.floats(-80, 70)) + 5 * part
        east, north = west + draw(st.floats(0.1, 2)), south + draw(st.floats(0.1, 2))
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        squares.append([ring])
    if len(squares) == 1:
        return {"type": "Polygon", "coordinates": squares[0]}
    return {"type": "MultiPolygon", "coordinates": squares}


# dictionaries: the type hook draws random numbers when it checks a dataclass, which strategies forbid
ASSETS = st.fixed_dictionaries(
    {
        "href": TEXT.map(lambda text: f"https://store.example/{quote(text)}"),
        "transform": st.none()
        | st.tuples(
            st.floats(1, 90), st.just(0.0), NUMBERS, st.just(0.0), st.floats(-90, -1), NUMBERS
        ),
        "shape": st.none() | st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
        "stamp": st.none() | TEXT,
    }
)
TIMES = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1))
SCENES = st.fixed_dictionaries(
    {
        "id": TEXT,
        "collection": TEXT,
        "time": TIMES.map(lambda time: time.replace(tzinfo=UTC)),
        "overpass": TIMES.map(lambda time: f"S2A_{time:%Y%m%dT%H%M%S}"),
        "tile": TEXT,
        "baseline": TEXT,
        "version": st.tuples(TEXT, TEXT),
        "epsg": st.integers(1024, 32767),
        "footprint": footprints(),
        "cloud_cover": st.none() | st.floats(0, 100),
        "assets": st.dictionaries(st.sampled_from([*BANDS, SCL]), ASSETS, max_size=4),
        "offset": st.sampled_from([0, -1000]),
        "offset_reason": TEXT,
        "updated": TEXT,
        "sensor": st.sampled_from(sorted(SENSORS)),
        "metadata_href": TEXT,
        "is_locked": st.booleans(),
        "lost": TEXT,
        "cost": st.dictionaries(TEXT, st.integers(0, 2**40), max_size=3),
    }
)
DROPPED = st.fixed_dictionaries({"id": TEXT, "reason": TEXT})


def made(facts):
    """Make a scene of drawn facts."""
    assets = {name: Asset(**asset) for name, asset in facts["assets"].items()}
    return Scene(**(facts | {"assets": assets}))


def scene(name="a", west=15.0, **changes):
    """A plain scene, one degree wide."""
    ring = [[west, 45.0], [west + 1, 45.0], [west + 1, 46.0], [west, 46.0], [west, 45.0]]
    facts = {
        "id": name,
        "collection": "sentinel-2-l2a",
        "time": datetime(2023, 8, 10, 10, 8, 11, 72_001, tzinfo=UTC),
        "overpass": "S2B_20230810T100031",
        "tile": "33TWL",
        "baseline": "05.09",
        "version": ("2023-08-10T12:00:00+00:00", "0"),
        "epsg": 32633,
        "footprint": {"type": "Polygon", "coordinates": [ring]},
        "cloud_cover": 12.5,
        "assets": {
            name: Asset(
                href=f"https://store.example/{name}.tif",
                transform=(10.0, 0.0, 499980.0, 0.0, -10.0, 5100000.0),
                shape=(10980, 10980),
            )
            for name in ("B02", "B8A", SCL)
        },
        "offset": -1000,
        "offset_reason": "baseline 05.09",
    }
    return Scene(**(facts | changes))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(scenes=st.lists(SCENES, max_size=4), dropped=st.lists(DROPPED, max_size=3), question=TEXT)
def test_what_is_written_comes_back(tmp_path, scenes, dropped, question):
    found = SceneList(
        scenes=tuple(made(facts) for facts in scenes),
        dropped=tuple(DroppedScene(**facts) for facts in dropped),
        question=question,
    )
    path = tmp_path / "scenes.parquet"
    write_scenes(path, found)
    again = read_scenes(path)
    assert again == found
    assert again.fingerprint == found.fingerprint
    assert [one.to_json() for one in again.scenes] == [one.to_json() for one in found.scenes]


def test_others_read_it(tmp_path):
    path = tmp_path / "scenes.parquet"
    across = scene("across", west=179.5)
    found = SceneList(
        scenes=(scene(), across, scene("bare", cloud_cover=None)),
        dropped=(DroppedScene(id="gone", reason="cloud cover 91 % is above 80 %"),),
    )
    write_scenes(path, found, question="which?")
    assert read_scenes(path) == replace(found, question="which?")

    frame = geopandas.read_parquet(path).set_index("id")
    assert frame.crs.to_string() == "OGC:CRS84"
    assert frame.loc["a"].geometry.equals(shapely.box(15, 45, 16, 46))
    halves = shapely.union(shapely.box(179.5, 45, 180, 46), shapely.box(-180, 45, -179.5, 46))
    assert frame.loc["across"].geometry.equals(halves)
    assert frame.loc["gone"].geometry.is_empty
    assert frame.loc["gone"]["canopycube:dropped"] == "cloud cover 91 % is above 80 %"
    assert frame.loc["a"]["datetime"].isoformat() == "2023-08-10T10:08:11.072001+00:00"

    first, second, third, last = stac_table_to_items(pq.read_table(path))
    assert first["bbox"] == [15.0, 45.0, 16.0, 46.0]
    assert first["geometry"]["type"] == "Polygon"
    assert second["bbox"] == [179.5, 45.0, -179.5, 46.0]
    assert set(first["assets"]) == {"B02", "B8A", "SCL"}
    assert first["assets"]["B02"]["href"] == "https://store.example/B02.tif"
    assert first["assets"]["B02"]["proj:transform"] == [10.0, 0.0, 499980.0, 0.0, -10.0, 5100000.0]
    properties = first["properties"]
    assert properties["platform"] == "sentinel-2b"
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["eo:cloud_cover"] == 12.5
    assert properties["s2:processing_baseline"] == "05.09"
    assert properties["canopycube:overpass"] == "S2B_20230810T100031"
    assert third["properties"].get("eo:cloud_cover") is None
    assert last["id"] == "gone"
    assert last["properties"]["canopycube:dropped"].startswith("cloud cover")


def test_every_file_has_the_same_columns(tmp_path):
    few, many = tmp_path / "few.parquet", tmp_path / "many.parquet"
    write_scenes(few, SceneList(scenes=()))
    write_scenes(many, SceneList(scenes=(scene(), scene("b", assets={}))))
    assert pq.read_schema(few).equals(pq.read_schema(many))
    assert read_scenes(few) == SceneList(scenes=())


def test_files_that_are_no_lock_file(tmp_path):
    path = tmp_path / "scenes.parquet"
    with pytest.raises(InputError, match=r"does not exist; run `canopycube lock RECIPE`"):
        read_scenes(path)
    write_scenes(path, SceneList(scenes=(scene(),)))
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:-100], whole[: len(whole) // 2], b"PAR1" + whole[40:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is damaged .*; run `canopycube lock RECIPE`"):
            read_scenes(path)
    table = pa.table({"id": ["a"]})
    pq.write_table(table, path)
    with pytest.raises(InputError, match=r"no scene list of this version .'canopycube scenes 3'"):
        read_scenes(path)
    old = json.dumps({"format": "canopycube scenes 2", "question": ""}).encode()
    pq.write_table(table.replace_schema_metadata({b"canopycube": old}), path)
    with pytest.raises(InputError, match="no scene list of this version"):
        read_scenes(path)
    now = json.dumps({"format": "canopycube scenes 3", "question": ""}).encode()
    pq.write_table(table.replace_schema_metadata({b"canopycube": now}), path)
    with pytest.raises(InputError, match="its columns are others"):
        read_scenes(path)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("canopycube:overpass", "yesterday", "scene record 'a' is damaged"),
        ("canopycube:offset", 17, "has offset 17, not 0 or -1000"),
        ("canopycube:sensor", "modis", "is of sensor 'modis'"),
        ("proj:code", None, "is damaged"),
        ("datetime", None, "is damaged"),
        ("geometry", b"\x01junk", "is damaged"),
        ("canopycube:footprint", "{", "is damaged"),
    ],
)
def test_rows_that_are_no_scene(tmp_path, column, value, text):
    path = tmp_path / "scenes.parquet"
    write_scenes(path, SceneList(scenes=(scene(),)))
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    changed = pa.array([value], table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), changed), path)
    with pytest.raises(InputError, match=text):
        read_scenes(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "scenes.parquet"
    kept = SceneList(scenes=(scene(),))
    write_scenes(path, kept)
    with pytest.raises(ValueError, match=r"scene 'b' has assets .'B99'. that are no bands"):
        write_scenes(path, SceneList(scenes=(scene("b", assets={"B99": Asset(href="x")}),)))
    assert read_scenes(path) == kept
    assert list(tmp_path.iterdir()) == [path]


def test_difference():
    def listed(*scenes):
        return SceneList(scenes=scenes)

    old = listed(scene("a"), scene("b"), scene("c"), scene("d"))
    moved = {
        name: replace(asset, href=f"https://mirror.example/{name}")
        for name, asset in scene().assets.items()
    }
    finer = scene().assets | {"B02": replace(scene().assets["B02"], shape=(5490, 5490))}
    new = listed(
        scene("a", assets=moved),
        scene("b", baseline="05.11", version=("2024-01-01T00:00:00+00:00", "0")),
        scene("c", assets=finer),
        scene("e"),
    )
    found = difference(old, new)
    assert found.added == ("e",)
    assert found.removed == ("d",)
    assert found.changed == {"b": ("baseline", "version"), "c": ("assets.B02.shape",)}
    assert difference(None, new).added == ("a", "b", "c", "e")
    assert difference(new, new) == difference(listed(), listed())


def test_a_year_of_a_country_is_small(tmp_path):
    path = tmp_path / "scenes.parquet"
    start = datetime(2023, 1, 1, tzinfo=UTC)
    wests = np.linspace(-179, 178, 500)
    found = SceneList(
        scenes=tuple(
            scene(str(n), west=float(wests[n]), time=start + timedelta(minutes=n))
            for n in range(500)
        )
    )
    write_scenes(path, found)
    assert read_scenes(path) == found
    assert path.stat().st_size < 200 * len(found.scenes)
