"""Catalogues on disk and behind a STAC API: what is found, what is dropped, what is refused."""

import copy
import json
import shutil
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from affine import Affine
from loopback import Answer, Fault, LoopbackServer
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rangeserver import RangeServer
from stacserver import StacServer, front

from cube.cog import FileBrokenError
from cube.errors import InputError, WorkFailedError
from cube.periods import Period, looks_by_period, periods_between
from cube.stac import (
    SceneDeniedError,
    SceneList,
    SceneQuery,
    SceneReadError,
    SceneUnreachableError,
    SearchCache,
    SearchPatience,
    find_scenes,
    lock_scenes,
    read_scenes,
    scene_from_item,
    search_area,
    write_scenes,
)
from cube.stac.files import file_stamp, read_error
from cube.stac.overpass import overpasses, without_duplicates

AUGUST = Period.of_month(2023, 8)
PLACE = (15.2, 45.2, 16.2, 45.8)


@pytest.fixture
def catalogue(shared_data, tmp_path):
    """A copy of the real static catalogue that a test may break; its rasters are links."""
    root = tmp_path / "catalogue"

    def link(source, target):
        if source.endswith(".json"):
            shutil.copy(source, target)
        else:
            (root / target).symlink_to(source)

    shutil.copytree(shared_data / "earth-search-33TWL", root, copy_function=link)
    for path in root.rglob("*.json"):
        path.chmod(0o644)
    return root


def query(root, **changes):
    asked = {
        "catalogue": str(root / "catalog.json"),
        "collection": "sentinel-2-l2a",
        "periods": (AUGUST,),
        "bbox": PLACE,
    }
    return SceneQuery(**(asked | changes))


def item_paths(root):
    return sorted((root / "sentinel-2-l2a").glob("*/S2*.json"))


def edit(path, change):
    path.parent.chmod(0o755)
    item = json.loads(path.read_text())
    change(item)
    path.write_text(json.dumps(item))


def test_static_catalogue(catalogue):
    found = find_scenes(query(catalogue))
    assert [scene.time.day for scene in found.scenes] == [10, 13, 15, 18, 20]
    assert found.dropped == ()
    blue = found.scenes[0].assets["B02"].href
    assert blue == str(catalogue / "sentinel-2-l2a" / "S2B_33TWL_20230810_0_L2A" / "B02.tif")
    assert found.scenes[0].assets["B05"].href.startswith("https://sentinel-cogs.s3")


def test_clouds_months_and_area(catalogue):
    clear = find_scenes(query(catalogue, max_cloud_cover=20.0))
    assert [scene.time.day for scene in clear.scenes] == [13, 15, 20]
    assert sorted(d.reason.split(" % ")[1] for d in clear.dropped) == ["is above 20 %"] * 2
    square = {
        "type": "Polygon",
        "coordinates": [[[15.2, 45.2], [15.3, 45.2], [15.3, 45.3], [15.2, 45.2]]],
    }
    assert len(find_scenes(query(catalogue, bbox=None, geometry=square)).scenes) == 5
    with pytest.raises(
        InputError, match="no usable scene of 'sentinel-2-l2a' in the area from 2023-09"
    ):
        find_scenes(query(catalogue, periods=(Period.of_month(2023, 9),)))
    with pytest.raises(InputError, match="no usable scene"):
        find_scenes(query(catalogue, bbox=(100.0, 45.0, 101.0, 46.0)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bbox": None}, "either as bbox or as geometry"),
        ({"geometry": {"type": "Polygon"}}, "either as bbox or as geometry"),
        ({"bbox": (15.0, 46.0, 16.0, 45.0)}, "is not .west, south, east, north. in degrees"),
        ({"bbox": (5e5, 45.0, 6e5, 46.0)}, "in degrees"),
        ({"bbox": None, "geometry": {"type": "Point", "coordinates": [1, 2]}}, "the area: "),
        ({"periods": ()}, "no period"),
        ({"max_cloud_cover": 101.0}, "expected 0..100"),
    ],
)
def test_bad_questions(tmp_path, changes, text):
    with pytest.raises(InputError, match=text):
        query(tmp_path, **changes)


def test_broken_items_are_dropped_with_their_reason(catalogue):
    first, second, third, *_ = item_paths(catalogue)
    edit(first, lambda item: item.update(geometry=None))
    edit(second, lambda item: item["assets"]["blue"].update(href="/vsicurl/http://x/a.tif"))
    edit(third, lambda item: item["properties"].update({"s2:processing_baseline": "99.99"}))
    found = find_scenes(query(catalogue))
    assert len(found.scenes) == 2
    reasons = {drop.id: drop.reason for drop in found.dropped}
    assert "has no geometry" in reasons[first.stem]
    assert "only https, s3 and plain files" in reasons[second.stem]
    assert "99.99" in reasons[third.stem]


def test_catalogues_that_are_none(catalogue, tmp_path):
    with pytest.raises(InputError, match="no collection 'sentinel-1'; it has: sentinel-2-l2a"):
        find_scenes(query(catalogue, collection="sentinel-1"))
    with pytest.raises(InputError, match=r"no file .*nowhere"):
        find_scenes(query(catalogue, catalogue=str(tmp_path / "nowhere.json")))
    page = tmp_path / "page.json"
    page.write_text("<html>")
    with pytest.raises(InputError, match="something that is no JSON"):
        find_scenes(query(catalogue, catalogue=str(page)))
    page.write_text('{"hello": "world"}')
    with pytest.raises(InputError, match="is no STAC"):
        find_scenes(query(catalogue, catalogue=str(page)))
    edit(
        catalogue / "sentinel-2-l2a" / "collection.json",
        lambda c: c["links"].append({"rel": "item", "href": "./gone.json"}),
    )
    with pytest.raises(InputError, match=r"no file .*gone.json"):
        find_scenes(query(catalogue))


def test_a_catalogue_that_goes_in_circles(catalogue):
    edit(
        catalogue / "sentinel-2-l2a" / "collection.json",
        lambda c: c["links"].append({"rel": "child", "href": "../catalog.json"}),
    )
    assert len(find_scenes(query(catalogue)).scenes) == 5


# --- areas ---


def square(west, east, south=59.5, north=60.5):
    """A footprint as providers write it; west > east jumps over the antimeridian."""
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


PLACES = {
    "west of it": square(178.9, 179.7),
    "across": square(179.6, -179.6),
    "east of it": square(-179.7, -178.9),
    "too far west": square(177.0, 178.0),
    "too far east": square(-178.0, -177.0),
    "Greenwich": square(-1.0, 1.0),
    "too far north": square(179.6, -179.6, 62.0, 63.0),
}


@pytest.mark.parametrize(("zone", "easting"), [(32601, 280_000), (32660, 615_000)])
def test_a_grid_across_the_antimeridian(catalogue, zone, easting):
    grid = GeoBox((30, 120), Affine(1000, 0, easting, 0, -1000, 6_675_000), f"EPSG:{zone}")
    corners = grid.extent.to_crs("EPSG:4326").geom.exterior.coords
    assert {lon > 0 for lon, _ in corners} == {True, False}
    area = search_area(grid)
    assert area["type"] == "MultiPolygon"
    longitudes = [lon for part in area["coordinates"] for lon, _ in part[0]]
    assert {-180.0, 180.0} <= set(longitudes)
    assert all(178 < abs(lon) <= 180 for lon in longitudes)
    path = catalogue / "sentinel-2-l2a"
    first = item_paths(catalogue)[0]
    item = json.loads(first.read_text())
    links = []
    for number, (name, footprint) in enumerate(PLACES.items()):
        placed = item | {"id": name, "geometry": footprint}
        properties = item["properties"] | {"datetime": f"2023-08-10T10:{number:02d}:00Z"}
        (path / f"{number}.json").write_text(json.dumps(placed | {"properties": properties}))
        links.append({"rel": "item", "href": f"./{number}.json"})
    edit(path / "collection.json", lambda node: node.update(links=links))
    found = find_scenes(query(catalogue, bbox=None, geometry=area))
    assert {scene.id for scene in found.scenes} == {"west of it", "across", "east of it"}
    assert found.dropped == ()


def test_areas_away_from_the_antimeridian():
    grid = GeoBox((500, 400), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    area = search_area(grid)
    assert area["type"] == "Polygon"
    to_lon_lat = Transformer.from_crs(32633, 4326, always_xy=True)
    corners = [to_lon_lat.transform(x, y) for x in (500_000, 504_000) for y in (4_995_000, 5e6)]
    ring = np.array(area["coordinates"][0])
    for corner in corners:
        assert np.abs(ring - corner).sum(axis=1).min() < 1e-9
    np.testing.assert_allclose(ring.min(axis=0), np.min(corners, axis=0), atol=1e-6)
    np.testing.assert_allclose(ring.max(axis=0), np.max(corners, axis=0), atol=1e-6)
    beyond = GeoBox((10, 40), Affine(1, 0, 160, 0, -1, 10), "EPSG:4326")  # 160 … 200 degrees
    parts = search_area(beyond)["coordinates"]
    spans = {(min(lon for lon, _ in part[0]), max(lon for lon, _ in part[0])) for part in parts}
    assert spans == {(160.0, 180.0), (-180.0, -160.0)}


# --- duplicates ------------------------------------------------------------------------------


def test_a_newer_product_without_a_band_does_not_replace_a_whole_one(catalogue):
    first = item_paths(catalogue)[0]
    newer = json.loads(first.read_text())
    newer["id"] = "newer"
    newer["properties"]["s2:processing_baseline"] = "05.11"
    del newer["properties"]["s2:product_uri"]
    del newer["assets"]["red"]
    first.parent.chmod(0o755)
    (first.parent / "newer.json").write_text(json.dumps(newer))
    collection = first.parents[1] / "collection.json"
    link = {"rel": "item", "href": f"./{first.parent.name}/newer.json"}
    edit(collection, lambda node: node["links"].append(link))
    found = find_scenes(query(catalogue, bands=("B02", "B04")))
    assert first.stem in {scene.id for scene in found.scenes}
    assert [(drop.id, drop.reason) for drop in found.dropped] == [("newer", "has no asset for B04")]
    blue = find_scenes(query(catalogue, bands=("B02",)))
    assert "newer" in {scene.id for scene in blue.scenes}
    assert [drop.id for drop in blue.dropped] == [first.stem]
    with pytest.raises(InputError, match=r"no usable scene .* 6 dropped, e\.g\. "):
        find_scenes(query(catalogue, bands=("B10",), leave_out=("newer",)))


def test_newest_product_of_a_granule_wins(catalogue):
    item = json.loads(item_paths(catalogue)[0].read_text())
    base = str(item_paths(catalogue)[0])

    def product(name, baseline, made, sequence, shift=0):
        changed = copy.deepcopy(item)
        changed["id"] = name
        properties = changed["properties"]
        del properties["s2:product_uri"]
        properties["s2:processing_baseline"] = baseline
        properties["s2:generation_time"] = made
        properties["s2:sequence"] = sequence
        properties["datetime"] = f"2023-08-18T10:08:{11 + shift:02d}.072000Z"
        return scene_from_item(changed, base=base)

    old = product("old", "04.00", "2024-01-01T00:00:00Z", "3")
    new = product("new", "05.10", "2023-12-01T00:00:00Z", "0")
    again = product("again", "05.10", "2023-12-01T00:00:00Z", "1")
    for order in ((old, new, again), (again, new, old), (new, again, old)):
        found = without_duplicates(order)
        assert [scene.id for scene in found.scenes] == ["again"]
        assert {drop.id for drop in found.dropped} == {"old", "new"}
        assert "duplicate of again (baseline 05.10" in found.dropped[0].reason
    half = product("half", "05.10", "2023-12-01T00:00:00Z", "0", shift=9)
    assert len(without_duplicates([again, half]).scenes) == 2  # another part of the same pass
    part = dict(again.footprint)
    part["coordinates"] = [[[15.0, 45.1], [15.2, 45.1], [15.2, 45.3], [15.0, 45.1]]]
    small = replace(new, id="small", footprint=part, baseline="05.11")
    assert len(without_duplicates([again, small]).scenes) == 2  # it would lose ground
    elsewhere = replace(old, tile="33TWM")
    assert len(without_duplicates([again, elsewhere]).scenes) == 2

    neighbour = replace(again, id="neighbour", epsg=32632, baseline="05.11")
    ((*passed,),) = overpasses([neighbour, old, again], epsg=32633)
    assert [scene.id for scene in passed] == ["again", "old", "neighbour"]


# --- locking ---------------------------------------------------------------------------------


def test_lock_file_survives_and_needs_no_catalogue(catalogue, tmp_path):
    found = find_scenes(query(catalogue, max_cloud_cover=20.0))
    seen = []
    locked = lock_scenes(found, bands=("B02", "B04"), on_scene=lambda *n: seen.append(n))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    path = tmp_path / "new" / "folder" / "scenes.parquet"
    write_scenes(path, locked)
    assert read_scenes(path) == locked
    assert locked.question == ""
    write_scenes(path, locked, question='which "scenes"?')
    asked = read_scenes(path)
    assert asked == replace(locked, question='which "scenes"?')
    assert asked.fingerprint == locked.fingerprint != found.fingerprint
    write_scenes(path, asked)
    assert read_scenes(path).question == 'which "scenes"?'
    assert list(path.parent.iterdir()) == [path]
    assert asked.dropped[0].reason.startswith("cloud cover")


def one_local_scene(root):
    """Lock the first scene, with one band."""
    found = find_scenes(query(root))
    (locked,) = lock_scenes(replace(found, scenes=found.scenes[:1]), bands=("B02",)).scenes
    return locked


def test_identity_follows_the_pixels_and_not_the_place(catalogue, tmp_path):
    first = one_local_scene(catalogue)
    assert json.loads(json.dumps(first.identity)) == first.identity
    kept = tmp_path / "kept.parquet"
    write_scenes(kept, SceneList(scenes=(first,)))
    assert read_scenes(kept).scenes[0].identity == first.identity

    moved = catalogue.rename(tmp_path / "elsewhere")
    again = one_local_scene(moved)
    assert again.assets["B02"].href != first.assets["B02"].href
    assert again.identity == first.identity
    fingerprints = {SceneList(scenes=(scene,)).fingerprint for scene in (first, again)}
    assert len(fingerprints) == 2, "a list with other addresses is another list"
    edit(
        item_paths(moved)[2], lambda item: item["properties"].update(updated="2031-01-01T00:00:00Z")
    )
    assert one_local_scene(moved).identity == first.identity, "files speak for themselves"

    blue = moved / "sentinel-2-l2a" / first.id / "B02.tif"
    with rasterio.open(blue) as file:
        profile, pixels = file.profile, file.read()
    blue.unlink()  # a link
    pixels[0, 400, 400] += 1
    with rasterio.open(blue, "w", **profile) as file:
        file.write(pixels)
    changed = one_local_scene(moved)
    assert changed.identity != first.identity
    assert changed.assets["SCL"] == again.assets["SCL"]


def test_identity_of_remote_scenes_follows_the_item(catalogue):
    path = item_paths(catalogue)[0]

    def identity(**properties):
        edit(path, lambda item: item["properties"].update(properties))
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = f"https://store.example/{asset['href'].rsplit('/')[-1]}"
        return scene_from_item(item, base="https://store.example/item.json").identity

    found = [
        identity(created="2024-01-01T00:00:00Z", updated=None),
        identity(created="2024-02-01T00:00:00Z"),
        identity(updated="2024-03-01T00:00:00Z"),
        identity(**{"s2:generation_time": "2024-04-01T00:00:00Z"}),
    ]
    assert all(a != b for a, b in pairwise(found))
    assert identity(created="2025-01-01T00:00:00Z") == found[-1], "it was updated later"


def test_stamps_see_both_ends_and_the_size(tmp_path):
    path = tmp_path / "a.tif"
    content = np.random.default_rng(0).bytes(300_000)
    versions = [
        content,
        content[:-1],
        content + b"x",
        b"\0" + content[1:],
        content[:65_535] + b"\0\0" + content[65_537:],
        content[:-65_536] + b"\0\0" + content[-65_534:],
        content[:-1] + b"\0",
        content[:65_536],
        content[:70_000],
        content[:69_999] + b"\0",
        b"",
    ]
    stamps = []
    for version in versions:
        path.write_bytes(version)
        stamps.append(file_stamp(str(path)))
        assert stamps[-1] == file_stamp(str(path))
    assert len(set(stamps)) == len(versions)
    assert file_stamp("https://store.example/a.tif") is None
    with pytest.raises(FileNotFoundError):
        file_stamp(str(tmp_path / "none.tif"))


def test_bands_that_are_not_there(catalogue):
    edit(item_paths(catalogue)[0], lambda item: item["assets"].pop("red"))
    found = find_scenes(query(catalogue))
    locked = lock_scenes(found, bands=("B02", "B04"))
    assert len(locked.scenes) == 4
    assert locked.dropped[0].reason == "has no asset for B04"
    with pytest.raises(InputError, match=r"bands .'B10'. are not known"):
        lock_scenes(found, bands=("B10",))
    alone = SceneList(scenes=tuple(s for s in found.scenes if "B04" not in s.assets))
    with pytest.raises(InputError, match="none of 1 scenes has all of B04, SCL"):
        lock_scenes(alone, bands=("B04",))


def test_a_lying_flag_is_found_on_the_pixels(catalogue):
    def lie(item):
        item["properties"]["earthsearch:boa_offset_applied"] = False

    path = item_paths(catalogue)[1]
    edit(path, lie)
    found = find_scenes(query(catalogue))
    liar = next(scene for scene in found.scenes if scene.id == path.stem)
    assert liar.offset == -1000
    with pytest.raises(
        InputError, match=f"'{path.stem}'.*add -1000.*applied; set source.offset = 'verify'"
    ):
        lock_scenes(found, bands=("B04",))
    by_setting = {
        setting: {s.id: s for s in lock_scenes(found, bands=("B04",), offset=setting).scenes}
        for setting in ("verify", "metadata")
    }
    assert by_setting["verify"][path.stem].offset == 0
    assert "pixels say applied, against metadata" in by_setting["verify"][path.stem].offset_reason
    assert by_setting["metadata"][path.stem].offset == -1000
    # bands that are not dark: others of the scene are asked, and not kept
    found = SceneList(scenes=(_without_remote(liar),))
    (asked,) = lock_scenes(found, bands=("B08",), offset="verify").scenes
    assert asked.offset == 0
    assert set(asked.assets) == {"B08", "SCL"}


def _without_remote(scene):
    local = {name: asset for name, asset in scene.assets.items() if asset.href.startswith("/")}
    return replace(scene, assets=local)


def rewritten(scene, name, path, pixels, **profile):
    base = {
        "driver": "GTiff",
        "count": 1,
        "dtype": pixels.dtype.name,
        "nodata": 0,
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(120, 0, 499980, 0, -120, 5100000),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }
    with rasterio.open(path, "w", **(base | profile)) as file:
        file.write(pixels, 1)
    assets = dict(scene.assets)
    assets[name] = replace(assets[name], href=str(path))
    return replace(scene, assets=assets)


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"crs": "EPSG:32632"}, "several CRS"),
        ({"crs": None}, "no CRS with an EPSG code"),
        ({"nodata": 65535}, "nodata is 65535"),
        ({"dtype": "float32", "nodata": None}, "1 bands of float32"),
    ],
)
def test_files_that_are_not_what_a_product_has(catalogue, tmp_path, profile, text):
    scene = find_scenes(query(catalogue)).scenes[0]
    pixels = np.ones((9, 9), profile.get("dtype", "uint16"))
    bad = rewritten(scene, "B02", tmp_path / "bad.tif", pixels, **profile)
    with pytest.raises(InputError, match=f"{scene.id}.*{text}"):
        lock_scenes(SceneList(scenes=(bad,)), bands=("B02",), offset="metadata")


def test_files_that_lead_elsewhere_or_nowhere(catalogue, tmp_path):
    scene = find_scenes(query(catalogue)).scenes[0]

    def lock(href):
        assets = scene.assets | {"B02": replace(scene.assets["B02"], href=str(href))}
        lock_scenes(SceneList(scenes=(replace(scene, assets=assets),)), bands=("B02",))

    vrt = tmp_path / "B02.tif"
    vrt.write_text(
        '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{scene.assets['SCL'].href}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(InputError, match=f"{scene.id}', asset B02: .*not recognized"):
        lock(vrt)
    with pytest.raises(InputError, match=r"every one of 1 scenes .*asset B02.*No such file"):
        lock(tmp_path / "gone.tif")


def test_a_footprint_that_lies(catalogue):
    def move(item):
        ring = item["geometry"]["coordinates"][0]
        item["geometry"]["coordinates"][0] = [[x, y - 9] for x, y in ring]

    edit(item_paths(catalogue)[0], move)
    found = find_scenes(query(catalogue, bbox=(15.0, 36.0, 16.0, 46.0)))
    with pytest.raises(InputError, match="its footprint is not where its pixels are"):
        lock_scenes(found, bands=("B02",))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("HTTP response code: 404", SceneReadError),
        ("HTTP response code: 503", SceneUnreachableError),
        ("HTTP response code : 429", SceneUnreachableError),
        ("Operation timed out after 60000 milliseconds", SceneUnreachableError),
        ("TIFFReadEncodedTile() failed", SceneReadError),
    ],
)
def test_errors_tell_permanent_from_passing_and_hide_signatures(text, kind):
    href = "https://store.example/B02.tif?sig=secret"
    found = read_error(OSError(f"{href}: {text}"), scene_id="S", band="B02", href=href)
    assert type(found) is kind
    assert str(found).startswith(
        "scene 'S', asset B02: https://store.example/B02.tif cannot be read"
    )
    assert "secret" not in str(found)


def test_errors_hide_signatures_of_addresses_nobody_knows():
    text = "redirected to 'https://other.example/B02.tif?st=1&sig=secret': HTTP response code: 404"
    href = "/vsicurl/https://store.example/B02.tif"
    found = read_error(OSError(text), scene_id="S", band="B02", href=href)
    assert "secret" not in str(found)
    assert "to 'https://other.example/B02.tif': HTTP response code: 404" in str(found)


def test_a_refusal_of_a_blob_is_about_the_access():
    blob = "https://account.blob.core.windows.net/container/B02.tif"
    for error in (FileBrokenError("HTTP 403"), OSError("HTTP response code: 403")):
        found = read_error(error, scene_id="S", band="B02", href=f"{blob}?sig=secret")
        assert type(found) is SceneDeniedError
        assert "secret" not in str(found)
    gone = read_error(FileBrokenError("HTTP 404"), scene_id="S", band="B02", href=blob)
    assert type(gone) is SceneReadError
    elsewhere = blob.replace(".net", ".net.evil.example")
    other = read_error(FileBrokenError("HTTP 403"), scene_id="S", band="B02", href=elsewhere)
    assert type(other) is SceneReadError


# --- catalogues behind HTTP --------------------------------------------------------------------


class Clock:
    """Time that passes only by waiting."""

    def __init__(self):
        self.now = 1_700_000_000.0
        self.waits = []

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    def patience(self, **changes):
        told = {"sleep": self.sleep, "clock": lambda: self.now, "draw": lambda: 1.0}
        return SearchPatience(**(told | changes))


JUNE_JULY = periods_between(Period.of_month(2020, 6), Period.of_month(2020, 7))


@pytest.fixture(scope="module")
def items(shared_data):
    """Thirteen real items of Planetary Computer."""
    path = shared_data / "stac-items" / "planetary-computer" / "site2-2020_jun_jul-35MNM.geojson"
    return json.loads(path.read_text())["features"]


def asked(url, **changes):
    facts = {
        "catalogue": url,
        "collection": "sentinel-2-l2a",
        "periods": JUNE_JULY,
        "bbox": (27.1, -8.1, 27.9, -7.3),
    }
    return SceneQuery(**(facts | changes))


def search(url, *, cache=None, clock=None, limits=None, **changes):
    patience = (clock or Clock()).patience(**(limits or {}))
    return find_scenes(asked(url, **changes), cache=cache, patience=patience)


@pytest.mark.parametrize("methods", [("POST",), ("GET",)])
def test_api(items, methods):
    hostile = copy.deepcopy(items[0])
    hostile["id"] = "hostile"
    hostile["assets"]["B02"]["href"] = "file:///etc/passwd"
    broken = copy.deepcopy(items[1])
    broken["id"] = "half a pair \ud800"
    clock = Clock()
    with StacServer([*items, hostile, broken], page=2, methods=methods) as server:
        found = search(server.url, clock=clock, query={"eo:cloud_cover": {"lt": 99}})
    assert len(server.searches) == 8
    assert server.searches[0]["collections"] == ["sentinel-2-l2a"]
    assert server.searches[0]["datetime"] == "2020-05-31T00:00:00Z/2020-08-02T00:00:00Z"
    assert server.searches[0]["query"] == {"eo:cloud_cover": {"lt": 99}}
    assert len(found.scenes) == 13
    starts = [scene.overpass_start for scene in found.scenes]
    assert set(looks_by_period(JUNE_JULY, starts)) == set(JUNE_JULY)
    reasons = {drop.id: drop.reason for drop in found.dropped}
    assert "may not name local files" in reasons["hostile"]
    assert "text that is no Unicode" in reasons["half a pair \\ud800"]
    assert clock.waits == pytest.approx([0.1] * (len(server.requests) - 1)), "its pace"


def misery(share):
    """Faults of every passing kind that together hit `share` of all requests."""
    part = {"share": share / 6}
    return [
        Fault(kind="status", status=503, **part),
        Fault(kind="status", status=429, retry_after="2", **part),
        Fault(kind="status", status=500, **part),
        Fault(kind="html", **part),
        Fault(kind="truncate", **part),
        Fault(kind="reset", **part),
    ]


@pytest.mark.parametrize("methods", [("POST",), ("GET",)])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_server_that_fails_often_gives_the_same_scenes(items, methods, share):
    with StacServer(items, page=2, methods=methods) as server:
        quiet = search(server.url)
        kinds = set()
        for seed in range(4):
            server.set_faults(*misery(share), seed=seed)
            server.clear()
            assert search(server.url).scenes == quiet.scenes
            kinds |= server.faults.keys()
    assert {"", "status", "html"} <= kinds


def test_a_server_that_hangs(items):
    with StacServer(items) as server:
        server.set_faults(Fault(kind="hang", seconds=5, first=1, path="search"))
        found = search(server.url, limits={"timeout": 0.2})
    assert len(found.scenes) == 13
    assert server.faults["hang"] == 1


def test_waits_grow_and_servers_may_ask_for_longer_ones(items):
    clock = Clock()
    with StacServer(items) as server:
        server.set_faults(Fault(kind="status", status=503, first=4))
        search(server.url, clock=clock)
        assert [wait for wait in clock.waits if wait != pytest.approx(0.1)] == [0.5, 1.0, 2.0, 4.0]
        for told, waited in [
            ("7", 7.0),
            (formatdate(clock.now + 90, usegmt=True), 90.0),
            ("soon", 0.5),
            (formatdate(clock.now - 90, usegmt=True), 0.5),
            ("-5", 0.5),
        ]:
            clock = Clock()
            server.set_faults(Fault(kind="status", status=429, retry_after=told, first=1))
            search(server.url, clock=clock)
            assert max(clock.waits) == pytest.approx(waited, abs=10)
        server.set_faults(Fault(kind="status", status=429, retry_after="301"))
        with pytest.raises(WorkFailedError, match="asks to wait 301 s, longer than the 300 s"):
            search(server.url)


@pytest.mark.parametrize(
    ("fault", "error", "text", "requests"),
    [
        ({"kind": "status", "status": 503}, WorkFailedError, "tried 10 times, .*HTTP 503", 10),
        ({"kind": "reset"}, WorkFailedError, "does not answer: tried 10 times", 10),
        ({"kind": "status", "status": 404}, InputError, "catalogue http.* answers HTTP 404", 1),
        ({"kind": "status", "status": 401}, InputError, "catalogue http.* answers HTTP 401", 1),
        ({"kind": "status", "status": 408}, WorkFailedError, "tried 10 times, .*HTTP 408", 10),
        (
            {"kind": "status", "status": 404, "path": "search"},
            WorkFailedError,
            "does not answer: HTTP 404",
            4,
        ),
        ({"kind": "html"}, InputError, "answers something that is no JSON", 5),
        ({"kind": "html", "path": "search"}, InputError, "something that is no JSON", 13),
    ],
)
def test_servers_that_never_recover(items, fault, error, text, requests):
    with StacServer(items, faults=[Fault(**fault)]) as server:
        with pytest.raises(error, match=text):
            search(server.url)
        assert len(server.requests) == requests


def test_errors_do_not_show_what_the_address_carries():
    with pytest.raises(WorkFailedError, match="does not answer") as raised:
        search("http://127.0.0.1:9/stac?token=secret", limits={"tries": 2})
    assert "secret" not in str(raised.value)


def test_apis_that_page_for_ever(items):
    def pages(answer):
        def respond(request):
            if request.path == "/search":
                return Answer.of_json(answer(len(server.requests)))
            return Answer.of_json(front(server.url))

        return LoopbackServer(respond)

    def endless(features):
        link = {"rel": "next", "method": "POST", "href": f"{server.url}/search", "body": {}}
        return {"type": "FeatureCollection", "features": features, "links": [link]}

    for answer, error, text in [
        (lambda _: endless(items[:2]), WorkFailedError, "repeats a page of 2 items after 2"),
        (lambda n: endless([items[0] | {"id": str(n)}]), WorkFailedError, "has given 7 pages and"),
        (lambda n: endless(items[:1] if n < 9 else []), WorkFailedError, "repeats a page of 1"),
        (lambda _: endless([]), InputError, "no usable scene"),
        (lambda _: {"code": "BadRequest"}, WorkFailedError, r"no page of items: .*BadRequest"),
        (lambda _: endless([17]), WorkFailedError, "no page of items"),
    ]:
        with pages(answer) as server, pytest.raises(error, match=text):
            search(server.url, limits={"most_pages": 7})


def test_questions_without_an_answer(items):
    with StacServer(items) as server:
        with pytest.raises(InputError, match="has no collection 'sentinel-9'"):
            search(server.url, collection="sentinel-9")
        future = (Period.of_month(2150, 1),)
        with pytest.raises(
            InputError, match=r"no usable scene .*2150-01; 2150-01 is still to come"
        ):
            search(server.url, periods=future)
        server.items = [item | {"geometry": None} for item in items]
        with pytest.raises(InputError, match=r"13 dropped, e.g. item .* has no geometry"):
            search(server.url)


def test_cache(items, tmp_path):
    items = copy.deepcopy(items)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = f"{asset['href'].partition('?')[0]}?se=2020&sig=secret"
    items[0]["assets"]["B02"]["href"] = "https://me:secret@store.example/B02.tif"
    clock = Clock()
    cache = SearchCache(folder=tmp_path / "cache", clock=lambda: clock.now)
    with StacServer(items) as server:
        first = search(server.url, cache=cache)
        assert {drop.id for drop in first.dropped} == {items[0]["id"]}
        assert "carries a user name" in first.dropped[0].reason
        (entry,) = cache.folder.iterdir()
        assert "secret" not in entry.read_text()
        server.clear()
        assert search(server.url, cache=cache) == first
        cloudless = search(server.url, cache=cache, max_cloud_cover=20.0)
        assert len(cloudless.scenes) < len(first.scenes)
        assert server.requests == ()

        search(server.url, cache=cache, periods=JUNE_JULY[:1])
        assert server.requests, "another question"
        whole = entry.read_text()
        for damage in ("", "{", "[]", whole[:-50], whole.replace("search 1", "search 0")):
            entry.write_text(damage)
            server.clear()
            assert search(server.url, cache=cache) == first
            assert server.requests
        clock.now += 24 * 3600 + 1
        server.clear()
        assert search(server.url, cache=cache) == first
        assert server.requests, "it is a day old"
        clock.now -= 3600
        server.clear()
        assert search(server.url, cache=cache) == first
        assert server.requests, "it comes from the future"

        (tmp_path / "file").write_text("")
        blocked = SearchCache(folder=tmp_path / "file" / "cache")
        assert search(server.url, cache=blocked) == first
    with pytest.raises(WorkFailedError, match="does not answer"):
        search(server.url, limits={"tries": 1})
    assert search(server.url, cache=cache) == first, "the server is gone"


def test_static_catalogues_are_not_cached(catalogue, tmp_path):
    cache = SearchCache(folder=tmp_path / "cache")
    assert len(find_scenes(query(catalogue), cache=cache).scenes) == 5
    assert not cache.folder.exists()


def test_a_catalogue_of_the_network_may_not_lead_to_local_files(catalogue):
    root = {
        "type": "Catalog",
        "id": "remote",
        "links": [{"rel": "child", "href": f"file://{catalogue}/sentinel-2-l2a/collection.json"}],
    }
    with (
        LoopbackServer(lambda _: Answer.of_json(root)) as server,
        pytest.raises(InputError, match="may not name local"),
    ):
        find_scenes(query(catalogue, catalogue=f"{server.url}/catalog.json"))


def test_static_catalogue_over_http(catalogue):
    with RangeServer(catalogue, faults=misery(0.3)) as server:
        found = find_scenes(
            query(catalogue, catalogue=f"{server.url}/catalog.json"), patience=Clock().patience()
        )
    assert len(found.scenes) == 5
    address = f"{server.url}/sentinel-2-l2a/S2B_33TWL_20230810"
    assert found.scenes[0].assets["B02"].href.startswith(address)
