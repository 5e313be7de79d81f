"""Exported tiles: which file belongs to a window, and what is refused of it."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.bands import NODATA
from cube.cog import FileUnreachableError
from cube.earthengine import Access, exported
from cube.earthengine.errors import PassingError
from cube.earthengine.exported import ExportedSource, TileFiles, exported_bands
from cube.earthengine.source import EarthEngineSource
from cube.errors import InputError, WorkFailedError
from cube.periods import Period
from cube.source import SeriesSource
from cube.spec import CubeSpec

GRID = GeoBox((70, 50), Affine(10, 0, 300000, 0, -10, 5000000), "EPSG:32633")
PERIODS = tuple(Period.of_month(2022, month) for month in (5, 6, 7))
BANDS = ("B04", "B08")


class Computed(EarthEngineSource):
    """Says that there are two looks in May and one in July, without a lock file."""

    def passes_by_period(self, periods, window):
        from types import SimpleNamespace as Seen

        found = {
            PERIODS[0]: [(Seen(id="a"), Seen(id="b")), (Seen(id="c"),)],
            PERIODS[2]: [(Seen(id="d"),)],
        }
        return {period: found.get(period, []) for period in periods}


@pytest.fixture
def source(tmp_path):
    computed = Computed(scenes=tmp_path / "scenes.parquet", access=Access(project="my-project"))
    spec = CubeSpec(geobox=GRID, periods=PERIODS, bands=BANDS, tile=32, chunk=16)
    return ExportedSource(
        computed=computed, spec=spec, files=TileFiles(name="forest", folder=tmp_path)
    )


def write(source, region, *, window=None, names=None, dtype="int16"):
    """Write a tile as Earth Engine would: May has 2 looks, July 1, everything clear but a corner."""
    window = window or region.window(GRID)
    names = names or [*exported_bands(0, BANDS), *exported_bands(2, BANDS)]
    path = source.files.folder / f"{source.files.stem(region)}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype=dtype, count=len(names), crs=str(window.crs),
        height=window.shape[0], width=window.shape[1], transform=window.transform, nodata=NODATA,
    ) as file:  # fmt: skip
        for number, name in enumerate(names, 1):
            looks = 2 if name.startswith("t000") else 1
            value = {"clear_count": looks, "seen_count": looks, "day_offset": 9}.get(
                name[5:], number
            )
            layer = np.full(window.shape, value, dtype)
            layer[0, 0] = 0 if name.endswith(("clear_count", "day_offset")) else layer[0, 0]
            layer[0, 0] = NODATA if name[5:] in BANDS else layer[0, 0]
            file.write(layer, number)
            file.set_band_description(number, name)


def test_each_tile_has_its_own_file_and_each_period_its_bands(source):
    assert isinstance(source, SeriesSource)
    for region in source.spec.regions():
        write(source, region)
    for region in source.spec.regions():
        window = region.window(GRID)
        may, june, july = source.series(PERIODS, window, BANDS)
        assert may.reflectance.shape == (2, *window.shape)
        assert may.reflectance[:, 1, 1].tolist() == [1, 2]
        assert july.reflectance[:, 1, 1].tolist() == [6, 7]
        assert may.reflectance[:, 0, 0].tolist() == [NODATA, NODATA]
        assert may.clear_count[1, 1] == may.seen_count[0, 0] == 2
        assert (may.clear_count[0, 0], may.mean_day[0, 0]) == (0, 0)
        assert may.mean_day[1, 1] == 121 + 9  # 1 May and nine days
        assert may.scenes == ("a+b", "c")
        assert (june.reflectance == NODATA).all()
        assert june.scenes == ()
    alone = source.composite(PERIODS[2], window, BANDS)
    assert np.array_equal(alone.reflectance, july.reflectance)


def test_a_window_that_is_no_tile_is_refused(source):
    with pytest.raises(InputError, match="is no tile of the cube"):
        next(source.series(PERIODS, GRID[3:35, 0:32], BANDS))


def test_files_that_are_not_what_was_exported_are_refused(source):
    region, *_, other = source.spec.regions()

    def read():
        return list(source.series(PERIODS, region.window(GRID), BANDS))

    with pytest.raises(WorkFailedError, match=r"forest-r0000c0000.tif is not there: run"):
        read()
    write(source, region, window=other.window(GRID))
    with pytest.raises(WorkFailedError, match="has another grid than the tile"):
        read()
    moved = region.window(GRID).translate_pix(1, 0)
    write(source, region, window=moved)
    with pytest.raises(WorkFailedError, match="has another grid than the tile"):
        read()
    write(source, region, names=[*exported_bands(0, BANDS)])
    with pytest.raises(WorkFailedError, match="has no band 't002_B04'"):
        read()
    write(source, region, dtype="int32")
    with pytest.raises(WorkFailedError, match="holds int32, not int16"):
        read()
    path = source.files.folder / "forest-r0000c0000.tif"
    write(source, region)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WorkFailedError, match="cannot be read"):
        read()
    path.write_text("<html>")
    with pytest.raises(WorkFailedError, match="cannot be read"):
        read()


def test_a_token_that_cannot_be_had_now_is_no_bug(source, monkeypatch):
    class NoToken:
        def headers(self, url, *, is_denied=False):
            raise PassingError("no token: Google's token server does not answer")

    monkeypatch.setattr(exported, "_account", lambda access: NoToken())
    bucket = replace(source, files=TileFiles(name="forest", bucket="my-bucket"))
    region = bucket.spec.regions()[0]
    with pytest.raises(WorkFailedError, match=r"gs://my-bucket/forest-r0000c0000\.tif cannot be"):
        next(bucket.series(PERIODS, region.window(GRID), BANDS))
    signer = exported._StorageSigner(access=source.computed.access)
    with pytest.raises(FileUnreachableError, match="no token"):
        signer.url("https://storage.googleapis.com/my-bucket/x.tif", is_retry=False)


def test_errors_name_the_tile_to_export_anew_within_what_a_build_shows(source):
    region, other, *_ = source.spec.regions()
    again = "`canopycube export RECIPE --again r0000c0000` exports it anew"
    write(source, region, window=other.window(GRID))
    path = source.files.folder / "forest-r0000c0000.tif"

    def told():
        with pytest.raises(WorkFailedError) as caught:
            list(source.series(PERIODS, region.window(GRID), BANDS))
        assert len(str(caught.value)) < 280
        return str(caught.value)

    assert again in told()
    write(source, region, names=[*exported_bands(0, BANDS)])
    assert again in told()
    write(source, region, dtype="int32")
    assert again in told()
    path.write_text("<html>")
    assert again in told()
    path.unlink()
    assert "--again r0000c0000" in told()


def test_a_file_is_looked_at_without_its_pixels(source):
    region, other, *_ = source.spec.regions()
    path = source.files.folder / "forest-r0000c0000.tif"
    assert "is not there" in source.problem(region)
    write(source, region)
    assert source.problem(region) == ""
    path.write_bytes(path.read_bytes()[:-1])
    assert "ends after" in source.problem(region)
    path.write_bytes(b"")
    assert "cannot be read" in source.problem(region)
    write(source, region, names=[*exported_bands(0, BANDS)])
    assert "has no band 't002_B04'" in source.problem(region)
    write(source, region, dtype="int32")
    assert "holds int32" in source.problem(region)
    write(source, region, window=other.window(GRID))
    assert "has another grid" in source.problem(region)
