"""The search against a real STAC API on a real database: the same scenes as from the items alone."""

import json
import tempfile
from pathlib import Path

import pytest
from pgstac import NEEDS, is_there, pgstac_server
from stacserver import StacServer

from cube.errors import InputError
from cube.periods import Period, periods_between
from cube.stac import SceneQuery, find_scenes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_there(), reason=NEEDS),
]


@pytest.fixture(scope="module")
def items(shared_data):
    path = shared_data / "stac-items" / "planetary-computer" / "site2-2020_jun_jul-35MNM.geojson"
    return json.loads(path.read_text())["features"]


@pytest.fixture(scope="module")
def address(items):
    collection = {
        "type": "Collection",
        "id": "sentinel-2-l2a",
        "stac_version": "1.0.0",
        "description": "of a test",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]},
        },
        "links": [],
    }
    # a short path, open to the database's user: sockets allow 100 characters
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        pgstac_server(Path(folder), items, collection) as url,
    ):
        yield url


def asked(url, **changes):
    facts = {
        "catalogue": url,
        "collection": "sentinel-2-l2a",
        "periods": periods_between(Period.of_month(2020, 6), Period.of_month(2020, 7)),
        "bbox": (27.1, -8.1, 27.9, -7.3),
    }
    return SceneQuery(**(facts | changes))


def test_the_same_scenes_as_the_servers_of_the_tests(items, address):
    square = [[27.1, -8.1], [27.9, -8.1], [27.9, -7.3], [27.1, -7.3], [27.1, -8.1]]
    area = {"bbox": None, "geometry": {"type": "Polygon", "coordinates": [square]}}
    with StacServer(items, page=3) as server:
        for changes in ({}, area, {"query": {"eo:cloud_cover": {"lt": 40}}}):
            ours = find_scenes(asked(server.url, **changes))
            assert find_scenes(asked(address, **changes)).scenes == ours.scenes
    assert len(find_scenes(asked(address)).scenes) == 13


def test_questions_without_an_answer(address):
    with pytest.raises(InputError, match="has no collection 'sentinel-9'"):
        find_scenes(asked(address, collection="sentinel-9"))
    with pytest.raises(InputError, match="no usable scene"):
        find_scenes(asked(address, bbox=(100.0, 45.0, 101.0, 46.0)))
