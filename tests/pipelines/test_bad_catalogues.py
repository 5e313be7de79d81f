"""Wrong and hostile catalogues by command: told in a line, or dropped with a reason; nothing left over."""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Answer, Asked, Fault, LoopbackServer
from rangeserver import RangeServer
from stacserver import front, served

from cube.cog import PIECES
from cube.forest import Forest
from cube.stac import read_scenes, write_scenes
from cube.stac.pixels import HEADERS
from cube.store import open_cube
from pipelines import build_cube as building
from pipelines import scenelock

Command = Callable[..., tuple[int, str, str]]
Item = dict[str, Any]
Change = Callable[[Item], object]

RECIPE = """
name = "Served forest"
bands = ["B02", "B04", "B08"]
[area]
file = "{area}"
[months]
first = "2022-05"
last = "2022-06"
[source]
kind = "stac"
catalogue = "{api}"
max_cloud_cover = 100
offset = "{offset}"
product_metadata = false
attempts = 1
timeout = 5.0
[composite]
tile = 128
chunk = 64
[cluster]
workers = 1
[outputs]
folder = "out"
"""


class Api(LoopbackServer):
    """Gives the same items to every question, however broken they are, on one page."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__(self._told)
        self.items = items

    def _told(self, asked: Asked) -> Answer:
        if asked.path == "/":
            return Answer.of_json(front(self.url))
        if asked.path == "/search":
            return Answer.of_json({"type": "FeatureCollection", "features": self.items})
        if asked.path == "/collections/sentinel-2-l2a":
            return Answer.of_json({"type": "Collection", "id": "sentinel-2-l2a"})
        return Answer(status=404)


@pytest.fixture
def files(forest: Forest) -> Iterator[RangeServer]:
    """Serve the forest's files."""
    with RangeServer(forest.folder) as server:
        yield server


@pytest.fixture
def good(forest: Forest, files: RangeServer) -> list[Item]:
    """Return the items of May and June."""
    items = []
    for path in sorted(forest.folder.glob("sentinel-2-l2a/*/*.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        if "2022-05" < item["properties"]["datetime"] < "2022-07":
            for asset in item["assets"].values():
                asset["href"] = str(path.parent / asset["href"])
            items.append(item)
    return served(items, files.url, root=str(forest.folder))


@pytest.fixture
def api(good: list[Item]) -> Iterator[Api]:
    """Serve the items; a test may break them."""
    with Api(copy.deepcopy(good)) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for answers of searches, and let nothing be waited for."""
    monkeypatch.setenv("CANOPYCUBE_CACHE", str(tmp_path / "cache"))
    patience = partial(scenelock.SearchPatience, sleep=lambda seconds: None)
    monkeypatch.setattr(scenelock, "SearchPatience", patience)
    monkeypatch.setattr(building, "_TILE_PAUSE", 0.01)
    HEADERS.forget()
    PIECES.forget()
    return tmp_path / "cache"


@pytest.fixture
def told(command: Command, forest: Forest, tmp_path: Path, api: Api, cache: Path) -> Command:
    """Return a function that runs a command on the recipe with some keys changed."""

    def run(*overrides: str, step: str = "build", offset: str = "metadata") -> tuple[int, str, str]:
        path = tmp_path / "work" / "recipe.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(RECIPE.format(area=forest.area, api=api.url, offset=offset))
        words = [word for override in overrides for word in ("--set", override)]
        code, printed, complaint = command(step, path, *words)
        assert len(complaint.splitlines()) <= 2
        assert len(complaint) < 1500
        assert "Traceback" not in complaint
        return code, printed, complaint

    return run


def left_over(tmp_path: Path) -> list[str]:
    """Return what a command left beside the recipe."""
    return sorted(
        str(path.relative_to(tmp_path / "work"))
        for path in (tmp_path / "work").rglob("*")
        if path.name != "recipe.toml"
    )


def dropped(tmp_path: Path) -> dict[str, str]:
    """Return the reasons of the lock file, but for older products of one granule."""
    found = read_scenes(tmp_path / "work" / "out" / "scenes.parquet").dropped
    return {one.id: one.reason for one in found if not one.reason.startswith("duplicate")}


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["source.collection=sentinel-9"], "is of collection 'sentinel-2-l2a', not 'sentinel-9'"),
        (["grid.crs=EPSG:4326"], "grid crs 'EPSG:4326' is not in metres; use 'utm'"),
        (["months.first='2090-01'", "months.last='2090-02'"], "2090-02 is still to come"),
        (["months.first='2015-01'", "months.last='2015-02'"], "from 2015-01 to 2015-02; look"),
        (["area={bbox=[-30.0,-30.0,-29.99,-29.99]}"], r"lon -30\.\d+..-29\.\d+, lat -30"),
        (["area={bbox=[179.99,0.0,-179.99,0.01]}"], r"no usable scene .* lon 179\.\d+..180\.\d+"),
        (["area={bbox=[0.0,89.9,10.0,90.0]}"], r"latitude 89\.95, where UTM is undefined"),
        (["grid.resolution=0.1"], "stored 10000 times; expected 1 m or more"),
        (["area={bbox=[0.0,0.0,40.0,40.0]}", "grid.crs=EPSG:3857"], "at most 1000000 fit: take a"),
        (["source.lost_scenes=-1"], "lost_scenes: found -1; expected greater than or equal to 0"),
        (["mask.model=nomodel"], "cloud model 'nomodel' is unknown; known are"),
        (["composite.method=max-ndvi", "bands=['B02','B04']"], "needs B04 and B08 or B8A"),
        (["gaps.method=nonsense"], "gaps.method: found 'nonsense'; expected 'linear'"),
        (["gaps.longest_gap=0"], "gaps.longest_gap: found 0"),
        (["gaps.smoothness=nan"], "gaps.smoothness: found nan; expected a finite number"),
        (["months.step=season"], "within a season .* begin at 2022-03 or 2022-06"),
        (["source.catalogue=planetary-cumputer"], "'planetary-cumputer' is unknown; expected an"),
        (["source.catalogue={folder}"], "is a folder; name the catalog.json in it"),
        (["source.catalogue={folder}/area.geojson"], "is a 'FeatureCollection'; expected the"),
        (["source.catalogue={folder}/labels.csv"], "answers something that is no JSON"),
    ],
)
def test_wrong_recipes(
    told: Command, forest: Forest, tmp_path: Path, cache: Path, overrides: list[str], text: str
) -> None:
    code, printed, complaint = told(*(o.replace("{folder}", str(forest.folder)) for o in overrides))
    assert re.search(text, complaint)
    assert (code, printed, left_over(tmp_path)) == (2, "", [])
    assert not cache.exists() or not list(cache.iterdir())


def test_acquisitions_are_not_trained_on(told: Command, forest: Forest, tmp_path: Path) -> None:
    reference = (f"reference.file={forest.labels}", "reference.group_column=stand")
    code, _, complaint = told("months.step=acquisition", *reference, step="run")
    assert code == 2
    assert "set months.step to periods of the calendar, or take [reference] out" in complaint


def test_a_catalogue_without_geometries_is_asked_again_once_it_is_mended(
    told: Command, api: Api, good: list[Item], tmp_path: Path, cache: Path
) -> None:
    for item in api.items:
        item["geometry"] = None
    code, _, complaint = told()
    assert code == 2
    assert "no usable scene" in complaint
    assert "dropped, e.g. item" in complaint
    assert "has no geometry, so where it lies is unknown" in complaint
    assert (left_over(tmp_path), list(cache.iterdir())) == ([], [])
    api.items = good
    assert told()[0] == 0


def test_missing_bands(told: Command, api: Api, good: list[Item], tmp_path: Path) -> None:
    for item in api.items[::2]:
        del item["assets"]["nir"]
    assert told(step="lock")[0] == 0
    assert set(dropped(tmp_path).values()) == {"has no asset for B08"}
    assert len(read_scenes(tmp_path / "work" / "out" / "scenes.parquet").scenes) > 2


def test_no_scene_has_all_bands(told: Command, api: Api, good: list[Item], tmp_path: Path) -> None:
    for item in api.items:
        del item["assets"]["nir"]
    code, _, complaint = told()
    assert (code, left_over(tmp_path)) == (2, [])
    assert "has no asset for B08" in complaint
    api.items = good
    assert told(step="lock")[0] == 0


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (Fault(kind="html"), 2, "answers something that is no JSON"),
        (Fault(kind="html", path="search"), 2, "answers something that is no JSON"),
        (Fault(kind="status", status=503), 1, "does not answer: tried 10 times, .* HTTP 503"),
        (Fault(kind="status", status=401), 2, "answers HTTP 401"),
        (Fault(kind="truncate", path="search"), 1, "does not answer"),
    ],
)
def test_apis_that_fail(
    told: Command, api: Api, tmp_path: Path, cache: Path, fault: Fault, code: int, text: str
) -> None:
    api.set_faults(fault)
    found, _, complaint = told()
    assert re.search(text, complaint)
    assert (found, left_over(tmp_path), cache.exists()) == (code, [], False)
    api.set_faults()
    assert told(step="lock")[0] == 0


def test_a_port_where_nobody_listens(told: Command, tmp_path: Path) -> None:
    code, _, complaint = told("source.catalogue='http://127.0.0.1:9/'")
    assert (code, left_over(tmp_path)) == (1, [])
    assert "http://127.0.0.1:9/ does not answer: tried 10 times" in complaint


def test_terminals_are_told_no_escape_sequence(told: Command, api: Api) -> None:
    api._answer = lambda asked: Answer(status=403, body=b"\x1b]0;title\x07\x1b[31mred\r\nsecond")
    code, _, complaint = told()
    assert code == 2
    assert "HTTP 403" in complaint
    assert complaint.rstrip("\n").isprintable()


def _properties(**changed: Any) -> Change:
    return lambda item: item["properties"].update(changed)


def _hrefs(address: str) -> Change:
    def change(item: Item) -> None:
        for asset in item["assets"].values():
            asset["href"] = address

    return change


def _geometry(found: Any) -> Change:
    return lambda item: item.update(geometry=found)


def _ring(*points: tuple[float, float]) -> Mapping[str, Any]:
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


ZIGZAG = [(107.6 + number * 1e-6, 33.6 + number % 2 * 0.2) for number in range(200_000)]

TANGLE = [
    (107.6 + number * 7919 % 1000 / 1e4, 33.6 + number * 104729 % 997 / 1e4)
    for number in range(1000)
]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_geometry(None), "has no geometry"),
        (_geometry("POLYGON"), "not a GeoJSON Polygon"),
        (_geometry(_ring((float("nan"), 0.0), (1.0, 0.0), (1.0, 1.0))), "geometry"),
        (_geometry(_ring((1e300, 0.0), (1.0, 0.0), (1.0, 1.0))), "not lon/lat"),
        (_geometry(_ring(*ZIGZAG)), "geometry has 200001 points"),
        (_geometry(_ring(*TANGLE)), "a line of 1001 points that crosses itself"),
        (_hrefs("file:///etc/passwd"), "a catalogue may not name local files"),
        (_hrefs("/vsicurl/http://127.0.0.1:9/a.tif"), "a catalogue may not name local files"),
        (_hrefs("<VRTDataset/>"), "a catalogue may not name local files"),
        (_hrefs("ftp://host/a.tif"), "a catalogue may not name local files"),
        (_hrefs("http://user:TOPSECRET@127.0.0.1:9/a.tif"), "carries a user name"),
        (_hrefs(""), "has the address '', which is none"),
        (_hrefs("http://["), "cannot be read"),
        (_properties(**{"eo:cloud_cover": float("nan")}), "holds a number that is none"),
        (_properties(**{"eo:cloud_cover": 1e300}), "is above 100 %"),
        (_properties(**{"eo:cloud_cover": "nonsense"}), "cannot be read"),
        (_properties(datetime=12), "cannot be read"),
        (_properties(datetime="9999-99"), "cannot be read"),
        (
            _properties(**{"s2:processing_baseline": None, "s2:product_uri": None}),
            "no processing baseline",
        ),
        (_properties(platform="x" * 5_000_000), "is of platform"),
        (lambda item: item.update(properties=[1]), "properties are list, no object"),
        (lambda item: item.update(assets=[1]), "cannot be read"),
        (lambda item: item["assets"].update(red="a"), "cannot be read"),
        (
            lambda item: item["assets"]["red"].update({"proj:shape": [1e300, 0.5]}),
            "not two positive whole numbers",
        ),
    ],
)
def test_items_that_cannot_be_used_are_dropped_with_a_reason(
    told: Command, api: Api, tmp_path: Path, cache: Path, change: Change, text: str
) -> None:
    broken = api.items[-1]
    change(broken)
    code, printed, complaint = told(step="lock")
    assert (code, complaint) == (0, "")
    assert text in dropped(tmp_path)[broken["id"]]
    lock = tmp_path / "work" / "out" / "scenes.parquet"
    assert lock.stat().st_size < 100_000
    kept = b"".join(path.read_bytes() for path in (lock, *cache.iterdir()))
    assert b"TOPSECRET" not in kept
    assert "TOPSECRET" not in printed


@pytest.mark.parametrize(
    "change",
    [
        _properties(junk="x" * 50_000_000),
        _properties(**{"s2:processing_baseline": "99.99", "s2:product_uri": None}),
    ],
    ids=["50 MB", "baseline 99.99"],
)
def test_what_no_one_asks_for_harms_nothing(
    told: Command, api: Api, tmp_path: Path, change: Change
) -> None:
    change(api.items[-1])
    code, _, complaint = told(step="lock")
    assert (code, complaint) == (0, "")
    assert (tmp_path / "work" / "out" / "scenes.parquet").stat().st_size < 100_000


def test_a_page_nested_beyond_reason(told: Command, api: Api, tmp_path: Path, cache: Path) -> None:
    api.items[-1]["properties"]["deep"] = json.loads("[" * 700 + "]" * 700)
    code, _, complaint = told()
    assert "answers something that is no JSON" in complaint
    assert (code, left_over(tmp_path), cache.exists()) == (2, [], False)


def test_two_items_with_one_id(told: Command, api: Api, tmp_path: Path, cache: Path) -> None:
    api.items.append(copy.deepcopy(api.items[0]))  # a page that came twice
    assert told(step="lock")[0] == 0
    assert dropped(tmp_path) == {}
    name = api.items[1]["id"] = api.items[2]["id"]
    found = []
    for _ in range(2):
        api.items.reverse()
        (tmp_path / "work" / "out" / "scenes.parquet").unlink()
        for answer in cache.iterdir():
            answer.unlink()
        assert told(step="lock")[0] == 0
        assert dropped(tmp_path) == {name: "another item has this id too"}
        found.append(read_scenes(tmp_path / "work" / "out" / "scenes.parquet").scenes)
    assert found[0] == found[1]


def test_signatures_are_kept_nowhere(told: Command, api: Api, tmp_path: Path, cache: Path) -> None:
    for item in api.items:
        for asset in item["assets"].values():
            asset["href"] += "?se=2030&sig=TOPSECRET"
    code, printed, complaint = told()
    assert code == 0
    for path in (*(tmp_path / "work").rglob("*"), *cache.rglob("*")):
        assert not path.is_file() or b"TOPSECRET" not in path.read_bytes(), path
    assert "TOPSECRET" not in printed + complaint


def test_a_period_without_scenes_is_nodata(told: Command, tmp_path: Path) -> None:
    code, printed, _ = told("months.last='2022-08'")
    assert code == 0
    assert "no clear look at all in 2022-07, 2022-08" in printed
    cube = open_cube(tmp_path / "work" / "out" / "cube.zarr")
    assert np.isnan(cube["reflectance"].sel(time="2022-08-01")).all()


@pytest.mark.parametrize(
    "address",
    ["/vsicurl/http://127.0.0.1:9/a.tif", "ftp://host/a.tif", "http://me:word@host/a.tif"],
)
def test_a_lock_edited_by_hand_leads_nowhere(told: Command, tmp_path: Path, address: str) -> None:
    assert told(step="lock")[0] == 0
    lock = tmp_path / "work" / "out" / "scenes.parquet"
    scenes = read_scenes(lock)
    first = scenes.scenes[0]
    asset = replace(first.assets["B02"], href=address)
    edited = replace(first, assets={**first.assets, "B02": asset})
    write_scenes(lock, replace(scenes, scenes=(edited, *scenes.scenes[1:])))
    for overrides in ((), ("source.reader=odc",)):
        code, _, complaint = told(*overrides)
        assert code == 2
        assert "only https, s3 and plain files" in complaint or "a user name" in complaint
        assert "me:word" not in complaint
    assert not (tmp_path / "work" / "out" / "cube.zarr").exists()
    assert told(step="lock")[0] == 0
    assert told()[0] == 0


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body>Back soon</body></html>",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>",
        b"II*\x00" + bytes(4),
        b"",
    ],
    ids=["html", "png", "vrt", "truncated", "empty"],
)
def test_files_that_are_no_raster_are_told(
    told: Command, api: Api, good: list[Item], files: RangeServer, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "B02.tif").write_bytes(content)
    with RangeServer(tmp_path / "other") as other:
        for item in api.items:
            item["assets"]["blue"]["href"] = f"{other.url}/B02.tif"
        code, _, complaint = told()
        assert code in (1, 2)
        assert f"asset B02: {other.url}/B02.tif cannot be read" in complaint
        assert left_over(tmp_path) == []
        assert {line.target for line in other.requests} == {"/B02.tif"}
    api.items = good
    for answer in (tmp_path / "cache").iterdir():
        answer.unlink()
    assert told(step="lock")[0] == 0
