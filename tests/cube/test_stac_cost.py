"""What a lock foretells of requests and bytes, against what a server then counts."""

from dataclasses import replace

import pytest
from rangeserver import RangeServer

from cube.cog import PIECES
from cube.composite import SceneComposites
from cube.forest import ForestSpec, write_forest
from cube.mask import ClearMask
from cube.periods import Period, periods_between
from cube.spec import CubeSpec
from cube.stac import (
    SceneQuery,
    StacSource,
    cost,
    find_scenes,
    lock_scenes,
    search_area,
    write_scenes,
)
from cube.stac.cost import Reading, ReadingCost, total_cost
from cube.stac.overpass import overpasses
from cube.stac.pixels import HEADERS

YEAR = periods_between(Period.parse("2022-01"), Period.parse("2022-12"))
BANDS = ("B02", "B04", "B8A", "B11")


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    return write_forest(tmp_path_factory.mktemp("cost") / "forest", ForestSpec(seed=5, scale=0.25))


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize(
    ("tile", "resolution", "buffer"), [(256, 10, 0.0), (64, 10, 60.0), (64, 40, 0.0)]
)
def test_a_build_takes_what_the_lock_foretold(
    forest, tmp_path, monkeypatch, tile, resolution, buffer, keeps
):
    if not keeps:
        monkeypatch.setattr(cost, "KEPT_BYTES", 0)
        monkeypatch.setattr(PIECES, "_most", 0)
    grid = forest.spec.geobox.zoom_out(resolution / 10)
    spec = CubeSpec(geobox=grid, periods=YEAR, bands=BANDS, tile=tile, chunk=64)
    mask = ClearMask(buffer=buffer)
    lock = tmp_path / "scenes.parquet"
    source = StacSource(scenes=lock, mask=mask)
    with RangeServer(forest.folder) as server:
        found = find_scenes(
            SceneQuery(
                catalogue=f"{server.url}/catalog.json",
                collection="sentinel-2-l2a",
                periods=YEAR,
                geometry=search_area(grid),
            )
        )
        reader = source.pixels()
        reading = Reading(spec=spec, bands=BANDS, mask=mask, reader=reader)
        locked = lock_scenes(found, bands=BANDS, offset="verify", reader=reader, reading=reading)
        write_scenes(lock, locked)
        told = total_cost(overpasses(locked.scenes, epsg=spec.crs.epsg), at_once=1)
        HEADERS.forget()
        PIECES.forget()
        server.clear()
        composites = SceneComposites(catalogue=source)
        for region in spec.regions():
            for period in YEAR:
                composites.composite(period, region.window(grid), BANDS)
        assert told.requests == pytest.approx(len(server.requests), rel=0.1)
        assert told.received == pytest.approx(server.sent, rel=0.1)
        assert len({line.target for line in server.requests}) == pytest.approx(
            told.headers, rel=0.1
        )


def test_a_granule_that_others_cover_costs_its_classes_only(forest):
    found = find_scenes(
        SceneQuery(
            catalogue=str(forest.catalogue),
            collection="sentinel-2-l2a",
            periods=YEAR,
            geometry=search_area(forest.spec.geobox),
        )
    )
    spec = CubeSpec(geobox=forest.spec.geobox, periods=YEAR, bands=BANDS, tile=256, chunk=64)
    reader = StacSource(scenes=forest.folder / "none").pixels()
    reading = Reading(spec=spec, bands=BANDS, mask=ClearMask(), reader=reader)
    locked = lock_scenes(found, bands=BANDS, offset="verify", reader=reader, reading=reading)
    native = [scene for scene in locked.scenes if scene.epsg == 32648]
    clear = next(scene for scene in native if scene.cost["band_requests"])
    again = replace(clear, id="again", epsg=32649)
    alone, both = (total_cost(overpasses(some, epsg=32648)) for some in ([clear], [clear, again]))
    assert both.band_requests == alone.band_requests
    assert both.mask_requests == 2 * alone.mask_requests
    assert both.headers == alone.headers + 1


def test_an_overcast_scene_costs_its_classes_only(forest):
    found = find_scenes(
        SceneQuery(
            catalogue=str(forest.catalogue),
            collection="sentinel-2-l2a",
            periods=YEAR,
            geometry=search_area(forest.spec.geobox),
        )
    )
    spec = CubeSpec(geobox=forest.spec.geobox, periods=YEAR, bands=BANDS, tile=256, chunk=64)
    water = ClearMask(classes=(6,))  # there is none
    reader = StacSource(scenes=forest.folder / "none").pixels()
    reading = Reading(spec=spec, bands=BANDS, mask=water, reader=reader)
    locked = lock_scenes(found, bands=BANDS, offset="verify", reader=reader, reading=reading)
    assert all(scene.cost["band_requests"] == 0 for scene in locked.scenes)
    assert all(scene.cost["headers"] == 1 < scene.cost["mask_bytes"] for scene in locked.scenes)


def test_costs_add_up():
    large = 10**9
    one = ReadingCost(headers=1, header_bytes=2, mask_requests=3, mask_bytes=4, once_requests=2)
    two = ReadingCost(band_requests=5, band_bytes=6, once_bytes=7)
    assert (one + two).requests == 1 + 2  # a process can keep 7 bytes
    assert (one + two).received == 2 + 7
    three = ReadingCost(once_bytes=large)
    assert (one + two + three).requests == 9
    assert (one + two + three).received == 12
