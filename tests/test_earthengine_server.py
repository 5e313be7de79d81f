"""The Earth Engine of the tests, asked by the real client: catalogue, requests, faults, exports."""

import gzip
import io
import json
import math
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import ee
import numpy as np
import pytest
import rasterio
from earthengine import EarthEngineServer, EngineFault
from earthengine_catalogue import CLOUD_SCORE, SENTINEL, cloud_score, index_of
from earthengine_client import (
    LEFT,
    NATIVE,
    NEIGHBOUR,
    SCENES,
    SPEC,
    TOP,
    grid,
    one,
    open_client,
    pixels,
    scene_image,
    stored,
)
from loopback import Fault
from pyproj import Transformer
from scipy.ndimage import gaussian_filter

from cube.forest import true_scene


@pytest.fixture(scope="module")
def forest(written):
    return written(SPEC)


@pytest.fixture(scope="module")
def running(forest):
    with EarthEngineServer(forest) as server:
        yield server


@pytest.fixture
def server(running):
    open_client(running)
    running.clear()
    yield running
    running.set_faults()
    running.pixel_limit = None
    ee.Reset()


# ---------------------------------------------------------------- the catalogue


def test_images_and_their_properties(server, forest):
    found = ee.ImageCollection(SENTINEL).getInfo()["features"]
    assert [image["properties"]["system:index"] for image in found] == sorted(SCENES)
    for image in found:
        told, scene = image["properties"], SCENES[image["properties"]["system:index"]]
        item = forest.folder / "sentinel-2-l2a" / scene.id / f"{scene.id}.json"
        asset = json.loads(item.read_text())
        assert image["id"] == f"{SENTINEL}/{told['system:index']}"
        assert told["CLOUDY_PIXEL_PERCENTAGE"] == asset["properties"]["eo:cloud_cover"]
        assert told["DATATAKE_IDENTIFIER"] == asset["properties"]["s2:datatake_id"]
        assert told["DATATAKE_IDENTIFIER"].startswith(f"GS2{scene.platform[-1]}_")
        assert told["MGRS_TILE"] == scene.tile
        assert told["PROCESSING_BASELINE"] == scene.baseline
        assert told["system:footprint"]["coordinates"] == asset["geometry"]["coordinates"][0]
        seconds = told["system:time_start"] / 1000
        assert np.datetime64(round(seconds), "s") == np.datetime64(scene.time, "s")
    bands = {band["id"]: band for band in found[0]["bands"]}
    assert list(bands)[:9] == ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A"]
    assert {"B9", "B11", "B12", "AOT", "WVP", "SCL", "TCI_R", "QA60"} < set(bands)
    assert "B10" not in bands
    assert bands["B5"]["crs_transform"] == [20, 0, LEFT, 0, -20, TOP]
    assert bands["B2"]["data_type"] == {
        "type": "PixelType",
        "precision": "int",
        "min": 0,
        "max": 65535,
    }
    assert bands["B2"]["dimensions"] == [120, 120]


@pytest.mark.parametrize("name", ["B01", "B02", "B8A", "B12", "AOT", "SCL"])
def test_pixels_are_those_of_the_files(server, forest, name):
    for scene in (NATIVE, next(s for s in SCENES.values() if s.offset_in_pixels)):
        counts, transform = stored(forest, scene, name)
        offset = 1000 if scene.offset_in_pixels and name not in ("AOT", "SCL") else 0
        expected = np.maximum(counts.astype(int) - offset, 0)
        size = round(transform.a)
        image = scene_image(scene).select(name.replace("B0", "B"))
        native = one(image, grid(*reversed(counts.shape), size=size))
        assert native.dtype == counts.dtype
        np.testing.assert_array_equal(native, np.where(counts == 0, 0, expected))
        mask = one(image.mask(), grid(*reversed(counts.shape), size=size))
        np.testing.assert_array_equal(mask, (counts != 0).astype(float))
        fine = one(image)  # at 10 m
        step = size // 10
        np.testing.assert_array_equal(fine, native.repeat(step, 0).repeat(step, 1))


def test_another_zone_is_taken_at_the_nearest_pixel(server, forest):
    counts, transform = stored(forest, NEIGHBOUR, "B08")
    offset = 1000 if NEIGHBOUR.offset_in_pixels else 0
    found = one(scene_image(NEIGHBOUR).select("B8").unmask(7, False))
    there = Transformer.from_crs(32648, 32649, always_xy=True)
    for row in range(0, 120, 7):
        for column in range(0, 120, 5):
            x, y = there.transform(LEFT + 10 * column + 5, TOP - 10 * row - 5)
            i, j = math.floor((transform.f - y) / 10), math.floor((x - transform.c) / 10)
            is_inside = 0 <= i < counts.shape[0] and 0 <= j < counts.shape[1]
            count = int(counts[i, j]) if is_inside else 0
            assert found[row, column] == (max(count - offset, 0) if count else 7)


def test_cloud_score_follows_the_truth(server):
    scene = next(s for s in SCENES.values() if 0.2 < s.cloud_cover < 0.5 and s.epsg == 32648)
    truth = true_scene(SPEC, scene.id)
    found = pixels(ee.Image(f"{CLOUD_SCORE}/{index_of(scene)}"))
    hidden = gaussian_filter(1 - np.maximum(truth.cloud, truth.shadow), sigma=2)
    np.testing.assert_allclose(found["cs"], hidden, atol=1e-6)
    assert found.dtype == [("cs", "<f4"), ("cs_cdf", "<f4")]
    is_clear = (truth.cloud == 0) & (truth.shadow == 0)
    assert found["cs_cdf"][is_clear].mean() > 0.9 > 0.4 > found["cs_cdf"][truth.cloud > 0.9].mean()
    assert cloud_score(SPEC, scene) is cloud_score(SPEC, scene)


def test_qa60(server, forest):
    cloudy = next(s for s in SCENES.values() if s.cloud_cover > 0.9)
    image = scene_image(cloudy).select("QA60")
    assert one(image, grid(20, 20, size=60)).max() == 0
    region = ee.Geometry.Rectangle([LEFT, TOP - 1200, LEFT + 1200, TOP], "EPSG:32648", False)
    reduced = image.reduceRegion(ee.Reducer.max(), region, 60)
    assert reduced.getInfo() == {"QA60": 0}
    scl = stored(forest, cloudy, "SCL")[0]
    with EarthEngineServer(forest, qa60="scl") as other:
        open_client(other)
        told = one(scene_image(cloudy).select("QA60"), grid(20, 20, size=60))
        for row in range(20):
            for column in range(20):
                nine = scl[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
                opaque, cirrus = np.isin(nine, (8, 9)).any(), (nine == 10).any()
                assert told[row, column] == 1024 * opaque + 2048 * cirrus
    with EarthEngineServer(forest, qa60="absent") as other:
        open_client(other)
        with pytest.raises(ee.EEException, match="Band pattern 'QA60' did not match any bands"):
            pixels(scene_image(cloudy).select("QA60"))


# ---------------------------------------------------------------- requests for pixels


def test_limits(server):
    image = ee.Image(1).toDouble()
    with pytest.raises(ee.EEException, match=r"Total request size \(50360648 bytes\) must be"):
        pixels(image, grid(2509, 2509))
    with pytest.raises(ee.EEException, match=r"\(32769x1\) must be less than or equal to 32768"):
        pixels(image, grid(32_769, 1))
    many = ee.Image.constant([1] * 1025)
    with pytest.raises(ee.EEException, match=r"Too many bands \(1025\)"):
        pixels(many, grid(1, 1))
    server.pixel_limit = 100
    assert one(image, grid(10, 10)).shape == (10, 10)
    with pytest.raises(ee.EEException, match=r"^User memory limit exceeded\.$"):
        pixels(image, grid(10, 11))


def test_a_request_may_be_too_long(server):
    text = ee.Image(1).set("text", "x" * 10_485_760)
    with pytest.raises(ee.EEException, match="Request payload size exceeds the limit: 10485760"):
        pixels(text, grid(1, 1))


def test_too_many_requests_at_once(server):
    server.set_faults(Fault(kind="delay", seconds=1, first=1))
    server.most_allowed = 1
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, server)
            while not server.faults and not server.pixel_requests:
                time.sleep(0.01)
            assert post(server)[0] == 429
            assert first.result()[0] == 200
    finally:
        server.most_allowed = None


def test_nothing_is_left_to_defaults(server):
    image = scene_image(NATIVE).select("B2")
    whole = grid()
    with pytest.raises(ee.EEException, match="wants a grid"):
        ee.data.computePixels({"expression": image, "fileFormat": "NPY"})
    for key, text in {
        "crsCode": "crsCode",
        "dimensions": "width",
        "affineTransform": "scaleX",
    }.items():
        part = {name: value for name, value in whole.items() if name != key}
        with pytest.raises(ee.EEException, match=f"wants a whole grid; {text}"):
            pixels(image, part)
    with pytest.raises(ee.EEException, match="fileFormat 'PNG' is not known"):
        ee.data.computePixels({"expression": image, "grid": whole, "fileFormat": "PNG"})
    with pytest.raises(ee.EEException, match=r"Band\(s\) B7 not found"):
        pixels(image, bandIds=["B7"])


def test_requests_are_kept(server):
    found = pixels(scene_image(NATIVE), grid(3, 2), bandIds=["B4", "B2"])
    assert found.dtype.names == ("B4", "B2")
    (body,) = server.pixel_requests
    assert body["grid"] == grid(3, 2)
    assert body["bandIds"] == ["B4", "B2"]
    assert body["fileFormat"] == "NPY"
    (node,) = body["expression"]["values"].values()
    assert node["functionInvocationValue"]["functionName"] == "Image.load"
    server.set_faults(EngineFault(kind="memory"))
    with pytest.raises(ee.EEException):
        pixels(scene_image(NATIVE), grid(3, 3))
    assert server.pixel_requests[1]["grid"]["dimensions"] == {"width": 3, "height": 3}
    server.set_faults()
    assert ee.Number(1).add(2).getInfo() == 3
    assert len(server.value_requests) == 1


def test_a_geotiff(server):
    image = scene_image(NATIVE).select(["B2", "B3"])
    where = grid(30, 20, column=5, row=7)
    content = ee.data.computePixels({"expression": image, "fileFormat": "GEO_TIFF", "grid": where})
    with rasterio.open(io.BytesIO(content)) as file:
        assert file.crs.to_epsg() == 32648
        assert tuple(file.transform)[:6] == (10, 0, LEFT + 50, 0, -10, TOP - 70)
        assert file.descriptions == ("B2", "B3")
        np.testing.assert_array_equal(file.read(2), pixels(image, where)["B3"])
    mixed = image.addBands(ee.Image(0.5))
    with pytest.raises(ee.EEException, match="inconsistent types: uint16 and float64"):
        ee.data.computePixels({"expression": mixed, "fileFormat": "GEO_TIFF", "grid": where})


# ---------------------------------------------------------------- faults


def post(server, *, squeezed=False):
    """(status, headers, body) of a small request for pixels."""
    values = {
        "0": {
            "functionInvocationValue": {
                "functionName": "Image.constant",
                "arguments": {"value": {"constantValue": 5}},
            }
        }
    }
    body = {
        "expression": {"result": "0", "values": values},
        "grid": grid(4, 3),
        "fileFormat": "NPY",
    }
    content, headers = json.dumps(body).encode(), {}
    if squeezed:
        content, headers = gzip.compress(content), {"Content-Encoding": "gzip"}
    url = f"{server.url}/v1/projects/test-project/image:computePixels"
    request = urllib.request.Request(url, data=content, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def array_of(body):
    return np.load(io.BytesIO(body))


def test_a_squeezed_request(server):
    assert post(server, squeezed=True)[2] == post(server)[2]
    assert len(server.pixel_requests) == 2


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("memory", 400, "User memory limit exceeded."),
        ("timeout", 400, "Computation timed out."),
        ("busy", 429, "Too Many Requests"),
        ("internal", 500, "internal error"),
        ("expired", 401, "invalid authentication credentials"),
        ("unregistered", 403, "'projects/test-project' is not registered"),
    ],
)
def test_errors_as_wished(server, kind, status, text):
    server.set_faults(EngineFault(kind=kind, first=1))
    code, headers, body = post(server)
    told = json.loads(body)["error"]
    assert (code, told["code"]) == (status, status)
    assert text in told["message"]
    assert headers["Retry-After"] is None
    assert server.faults[kind] == 1
    assert (array_of(post(server)[2])["constant"] == 5).all()


def test_spoiled_pixels(server):
    server.set_faults(EngineFault(kind="shape", first=1), EngineFault(kind="dtype", first=1))
    assert array_of(post(server)[2]).shape == (2, 4)
    assert array_of(post(server)[2]).dtype == [("constant", "f8")]
    assert array_of(post(server)[2]).dtype == [("constant", "u1")]
    server.set_faults(Fault(kind="html", first=1), EngineFault(kind="busy", retry_after="3"))
    assert post(server)[2].startswith(b"<!DOCTYPE html>")
    assert post(server)[1]["Retry-After"] == "3"


def test_faults_follow_from_the_seed(server):
    def statuses(seed):
        server.set_faults(EngineFault(kind="busy", share=0.3), seed=seed)
        return [post(server)[0] for _ in range(20)]

    assert statuses(1) == statuses(1) != statuses(2)
    assert 0 < statuses(1).count(429) < 20


# ---------------------------------------------------------------- exports


@pytest.fixture
def exporting(forest, tmp_path):
    with EarthEngineServer(forest, exports=tmp_path) as server:
        open_client(server)
        yield server
    ee.Reset()


def export(image, where, **changes):
    target = {"cloudStorageDestination": {"bucket": "b", "filenamePrefix": "p/q"}}
    options = {"fileFormat": "GEO_TIFF", **target, "geoTiffOptions": changes.pop("tiff", {})}
    request = {
        "expression": image,
        "description": "a test",
        "grid": where,
        "fileExportOptions": options | changes.pop("options", {}),
    }
    return ee.data.exportImage(changes.pop("request_id", "R1"), request | changes)


def states(operation, times=3):
    return [ee.data.getOperation(operation["name"])["metadata"]["state"] for _ in range(times)]


def test_an_export(exporting, tmp_path):
    image = scene_image(NATIVE).select(["B2", "B3"]).toInt16()
    masked = image.updateMask(image.select("B2").gt(300))
    operation = export(masked, grid(50, 40), tiff={"noData": {"floatValue": -32768}})
    assert operation["metadata"]["state"] == "PENDING"
    assert export(masked, grid(50, 40))["name"] == operation["name"]  # sent again
    assert not (tmp_path / "b").exists()
    assert states(operation) == ["RUNNING", "SUCCEEDED", "SUCCEEDED"]
    assert ee.data.getOperation(operation["name"])["done"] is True
    assert [one["name"] for one in ee.data.listOperations()] == [operation["name"]]
    with rasterio.open(tmp_path / "b" / "p" / "q.tif") as file:
        assert file.nodata == -32768
        assert file.descriptions == ("B2", "B3")
        np.testing.assert_array_equal(
            file.read(1), pixels(masked.unmask(-32768), grid(50, 40))["B2"]
        )
    assert len(exporting.export_requests) == 2


def test_an_export_in_several_files(exporting, tmp_path):
    part = {"tileDimensions": {"width": 256, "height": 256}, "cloudOptimized": True}
    image = ee.Image(7).toInt16()
    states(export(image, grid(300, 260), tiff=part))
    names = sorted(path.name for path in (tmp_path / "b" / "p").iterdir())
    assert names == [
        "q-0000000000-0000000000.tif",
        "q-0000000000-0000000256.tif",
        "q-0000000256-0000000000.tif",
        "q-0000000256-0000000256.tif",
    ]
    with rasterio.open(tmp_path / "b" / "p" / names[3]) as file:
        assert file.shape == (4, 44)
        assert (file.transform.c, file.transform.f) == (LEFT + 2560, TOP - 2560)
    with pytest.raises(ee.EEException, match="multiple of shardSize"):
        export(image, grid(9, 9), tiff={"tileDimensions": {"width": 100, "height": 256}})


def test_exports_of_the_clients_own(exporting, tmp_path):
    transform = [10, 0, LEFT, 0, -10, TOP]
    options = {"crs": "EPSG:32648", "crsTransform": transform, "description": "x"}
    image = scene_image(NATIVE).select("B2")
    ee.batch.Export.image.toCloudStorage(
        image=image, bucket="b", fileNamePrefix="own", dimensions="64x32", **options
    ).start()
    region = ee.Geometry.Rectangle([LEFT, TOP - 300, LEFT + 200, TOP], "EPSG:32648", False)
    task = ee.batch.Export.image.toDrive(
        image=image, folder="d", fileNamePrefix="own", region=region, **options
    )
    task.start()
    assert [task.status()["state"] for _ in range(2)] == ["RUNNING", "COMPLETED"]
    ee.data.listOperations()
    ee.data.listOperations()
    for path, width, height in (("b/own.tif", 64, 32), ("d/own.tif", 20, 30)):
        with rasterio.open(tmp_path / path) as file:
            assert (file.width, file.height, tuple(file.transform)[:6]) == (
                width,
                height,
                tuple(transform),
            )
            np.testing.assert_array_equal(file.read(1), one(image, grid(width, height)))


def test_exports_that_fail(exporting, tmp_path):
    image = ee.Image(7).toInt16()
    exporting.export_error = "User memory limit exceeded."
    operation = export(image, grid(9, 9))
    assert states(operation, 2) == ["RUNNING", "FAILED"]
    assert ee.data.getOperation(operation["name"])["error"]["message"] == exporting.export_error
    exporting.export_error = ""
    late = export(image.select("constant").divide(2).addBands(image), grid(9, 9), request_id="R2")
    assert states(late, 2) == ["RUNNING", "FAILED"]
    assert "inconsistent types" in ee.data.getOperation(late["name"])["error"]["message"]
    stopped = export(image, grid(9, 9), request_id="R3")
    ee.data.cancelOperation(stopped["name"])
    assert states(stopped, 2) == ["CANCELLED", "CANCELLED"]
    assert not any(tmp_path.rglob("*.tif"))
    with pytest.raises(ee.EEException, match=r"Export too large: specified 81 pixels \(max: 80\)"):
        export(image, grid(9, 9), maxPixels="80")
    escape = {"cloudStorageDestination": {"bucket": "b", "filenamePrefix": "../../q"}}
    with pytest.raises(ee.EEException, match="wants a bucket or folder"):
        export(image, grid(9, 9), options=escape)
    with pytest.raises(ee.EEException, match="'nothing' not found"):
        ee.data.getOperation("projects/test-project/operations/nothing")


def test_stored_objects(exporting, tmp_path):
    def get(path, **headers):
        request = urllib.request.Request(f"{exporting.url}/storage/{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""

    states(export(ee.Image(7).toInt16(), grid(9, 9)))
    content = (tmp_path / "b" / "p" / "q.tif").read_bytes()
    assert get("b/p/q.tif") == (200, content)
    assert get("b/p%2Fq.tif", Range="bytes=4-7") == (206, content[4:8])
    assert get("b/p/r.tif")[0] == 404
    assert get(f"b/%2e%2e/%2e%2e/{tmp_path.name}/b/p/q.tif")[0] == 404
    exporting.token = "letmein"
    assert get("b/p/q.tif")[0] == 401
    assert get("b/p/q.tif", Authorization="Bearer other")[0] == 401
    assert get("b/p/q.tif", Authorization="Bearer letmein")[0] == 200


# ---------------------------------------------------------------- another client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_xee_reads_the_same(server):
    import xarray

    scene = scene_image(NATIVE)
    images = ee.ImageCollection([scene.select(["B2", "B5"])])
    found = xarray.open_dataset(
        images,
        engine="ee",
        crs="EPSG:32648",
        crs_transform=(10, 0, LEFT, 0, -10, TOP),
        shape_2d=(120, 120),
        chunks={"time": 1, "x": 60, "y": 60},
    ).compute()
    own = pixels(scene.select(["B2", "B5"]))
    for name in ("B2", "B5"):
        values = found[name].isel(time=0).transpose("y", "x").to_numpy()
        np.testing.assert_array_equal(np.nan_to_num(values), own[name])
    np.testing.assert_allclose(found.x, LEFT + 5 + 10 * np.arange(120))
