"""Cube and map on another's S3 server, moto: what only that one knows, and the whole chain."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from motoserver import NEEDS, is_there, moto_server
from odc.geo.geobox import GeoBox

from cube.lease import Lease
from cube.periods import parse_month
from cube.place import Place, RemoteFolder, files_below, move_store
from cube.spec import CubeSpec
from cube.store import CubeBlocks, count_files, create_cube, read_region, write_region
from pipelines.progress import Reporter
from pipelines.recipe import Recipe
from pipelines.run import open_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not is_there(), reason=NEEDS)]

HOME = RemoteFolder("s3://maps/region/year")


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with moto_server(["maps"]) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        patch.setenv("AWS_REGION", "eu-central-1")
        yield


def contents(place: Place) -> dict[str, bytes]:
    return {
        name: (place / name).read_bytes()
        for name, _ in files_below(place)
        if not name.startswith("ledger/")
    }


def test_objects_that_go_up_in_parts(tmp_path: Path) -> None:
    """More than 5 MiB are sent as several parts, and copied and read as one object."""
    geobox = GeoBox.from_bbox((0, 0, 5120, 5120), "EPSG:32633", resolution=10)
    months = tuple(parse_month(f"2022-{month:02d}") for month in range(1, 13))
    spec = CubeSpec(geobox=geobox, periods=months, bands=("B02", "B08"), tile=512, chunk=256)
    region = spec.regions()[0]
    blocks = CubeBlocks.empty(12, 2, 512, 512)
    blocks.reflectance[:] = np.random.default_rng(1).integers(0, 9999, blocks.reflectance.shape)
    places: list[Place] = [HOME / "large.zarr", tmp_path / "large.zarr"]
    for place in places:
        create_cube(place, spec)
        write_region(place, region, blocks)
        assert count_files(place, region) == 1
        np.testing.assert_array_equal(read_region(place, region), blocks.reflectance)
    assert max(size for _, size in files_below(places[0])) > 5 * 2**20
    move_store(places[0], HOME / "moved.zarr")
    assert not places[0].exists()
    assert contents(HOME / "moved.zarr") == contents(places[1])


def test_a_lease() -> None:
    first, second = Lease(HOME), Lease(HOME)
    first.acquire()
    first.refuse_lost()
    first.release()
    second.acquire()
    assert second.mark.number == 2
    second.release()


def test_the_chain(
    finished: tuple[Recipe, dict[str, Any]],
    forest_recipe: Callable[..., Recipe],
    reporter: Reporter,
) -> None:
    done, report = finished
    recipe = forest_recipe("cluster.kind='local'", "cluster.workers=2", f"outputs.stores='{HOME}'")
    with open_run(recipe, reporter) as run:
        run.build()
        shutil.copytree(done.outputs.folder / "classifier", run.layout.classifier)
        found = json.loads(json.dumps(run.map()))
        run.publish()
    folder = done.outputs.folder
    for name in ("cube.zarr", "map.zarr"):
        assert contents(HOME / name) == contents(folder / name)
    assert found["digest"] == report["map"]["digest"]
    assert (recipe.outputs.folder / "map.tif").read_bytes() == (folder / "map.tif").read_bytes()
