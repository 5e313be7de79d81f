"""Windows of GeoTIFFs read directly, against rasterio; broken and strange files."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from cube.cog import (
    Fetcher,
    FileBrokenError,
    Headers,
    NotDirectError,
    pieces,
    read_header,
    read_window,
)

GRID = Affine(10, 0, 500000, 0, -10, 5100000)


def written(path, pixels, **options):
    """Write a GeoTIFF; tiled in blocks of 64 unless told otherwise."""
    profile = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"} | options
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype,
        crs="EPSG:32633",
        transform=GRID,
        **profile,
    ) as file:
        file.write(pixels, 1)
    return str(path)


def some_pixels(shape=(203, 150), dtype="uint16"):
    random = np.random.default_rng(3)
    return random.integers(0, 200, shape).cumsum(axis=1).astype(dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "none"},
        {"compress": "deflate"},
        {"compress": "deflate", "predictor": 2},
        {"compress": "lzw"},
        {"compress": "lzw", "predictor": 2},
        {"compress": "zstd", "predictor": 2},
        {"compress": "deflate", "predictor": 2, "endianness": "big"},
        {"compress": "deflate", "bigtiff": "yes"},
        {"compress": "deflate", "nodata": 0},
        {"blockxsize": 128, "blockysize": 32},
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8"])
def test_every_encoding_gives_the_pixels_of_rasterio(tmp_path, options, dtype):
    pixels = some_pixels(dtype=dtype)
    path = written(tmp_path / "a.tif", pixels, **options)
    header = read_header(path, Fetcher())
    assert (header.epsg, header.transform) == (32633, GRID)
    assert header.levels[0].shape == (203, 150)
    assert header.nodata == options.get("nodata")
    found = read_window(header, path, slice(0, 203), slice(0, 150), fetcher=Fetcher())
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.fixture(scope="module")
def cog(tmp_path_factory):
    """(path, pixels) of a cloud-optimised GeoTIFF with overviews and unwritten blocks."""
    folder = tmp_path_factory.mktemp("cog")
    pixels = np.kron(some_pixels((60, 80)), np.ones((8, 8), np.uint16))
    pixels[:256, 256:512] = 0
    plain = written(folder / "plain.tif", pixels, nodata=0)
    path = str(folder / "cog.tif")
    copy_raster(
        plain,
        path,
        driver="COG",
        BLOCKSIZE=128,
        OVERVIEW_RESAMPLING="AVERAGE",
        COMPRESS="DEFLATE",
        PREDICTOR="YES",
        SPARSE_OK="TRUE",
    )
    return path, pixels


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_window_of_any_level(cog, data):
    path, _ = cog
    header = read_header(path, Fetcher())
    level = data.draw(st.integers(0, len(header.levels) - 1))
    height, width = header.levels[level].shape
    top = data.draw(st.integers(0, height - 1))
    left = data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    found = read_window(
        header, path, slice(top, bottom), slice(left, right), level=level, fetcher=Fetcher()
    )
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    with rasterio.open(path, **options) as file:
        expected = file.read(1, window=Window(left, top, right - left, bottom - top))
        assert np.allclose(header.grid(level).transform[:6], file.transform[:6])
    np.testing.assert_array_equal(found, expected)


def test_the_level_for_a_pixel_size(cog):
    header = read_header(cog[0], Fetcher())
    assert [level.shape for level in header.levels] == [
        (480, 640),
        (240, 320),
        (120, 160),
        (60, 80),
    ]
    sizes = {5.0: 0, 10.0: 0, 19.9: 0, 20.0: 1, 39.0: 1, 40.0: 2, 1000.0: 3}
    assert {size: header.level_for(size) for size in sizes} == sizes


def test_a_piece_joins_neighbours_and_unwritten_blocks_cost_nothing(cog):
    path, _ = cog
    header = read_header(path, Fetcher())
    level = header.levels[0]
    assert pieces(level, slice(0, 128), slice(256, 512)) == []
    (one,) = pieces(level, slice(0, 480), slice(0, 640))
    written_blocks = int((level.sizes > 0).sum())
    assert len(one.blocks) == written_blocks < level.sizes.size
    stored = int(level.sizes.sum())
    assert stored <= one.stop - one.start <= stored + 8 * written_blocks


def test_a_file_in_strips_and_other_formats_are_for_gdal(tmp_path):
    strips = written(
        tmp_path / "a.tif", some_pixels(), tiled=False, blockxsize=None, blockysize=None
    )
    with pytest.raises(NotDirectError, match="strips"):
        read_header(strips, Fetcher())
    page = tmp_path / "b.tif"
    page.write_bytes(b"\xff\x4f\xff\x51" + bytes(100))
    headers = Headers()
    for _ in range(2):
        with pytest.raises(NotDirectError):
            headers.get(str(page), Fetcher())
    floats = written(tmp_path / "c.tif", some_pixels().astype("float32"))
    with pytest.raises(NotDirectError, match="float32"):
        read_header(floats, Fetcher())


def test_a_file_that_was_cut_off_is_broken(tmp_path):
    path = tmp_path / "a.tif"
    written(path, some_pixels())
    whole = path.read_bytes()
    for kept in (6, 40, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises((FileBrokenError, NotDirectError)) as error:
            read_header(str(path), Fetcher())
        if kept > 200:
            assert "the file ends at" in str(error.value)
    path.write_bytes(b"")
    with pytest.raises(NotDirectError):
        read_header(str(path), Fetcher())
    with pytest.raises(FileBrokenError, match="No such file"):
        read_header(str(tmp_path / "none.tif"), Fetcher())


@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), min_size=1, max_size=20))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_header_is_an_error_of_ours_or_harmless(tmp_path, changes):
    path = tmp_path / "a.tif"
    if not path.exists():
        written(path, some_pixels())
        (tmp_path / "whole").write_bytes(path.read_bytes())
    body = bytearray((tmp_path / "whole").read_bytes())
    for place, value in changes:
        body[place % len(body)] = value
    path.write_bytes(body)
    try:
        header = read_header(str(path), Fetcher())
        rows, columns = (min(size, 500) for size in header.levels[0].shape)
        read_window(header, str(path), slice(0, rows), slice(0, columns), fetcher=Fetcher())
    except (FileBrokenError, NotDirectError):
        return


def test_blocks_that_do_not_unpack_are_broken(tmp_path):
    path = tmp_path / "a.tif"
    written(path, some_pixels())
    header = read_header(str(path), Fetcher())
    place = int(header.levels[0].starts[0, 0])
    body = bytearray(path.read_bytes())
    body[place : place + 40] = bytes(40)
    path.write_bytes(body)
    with pytest.raises(FileBrokenError, match="a block"):
        read_window(header, str(path), slice(0, 10), slice(0, 10), fetcher=Fetcher())


def test_real_bands_and_their_overviews(shared_data):
    folder = shared_data / "cog-product-29RKH"
    files = sorted(folder.glob("**/B*.tif"))
    assert len(files) == 12
    for path in files:
        header = read_header(str(path), Fetcher())
        with rasterio.open(path) as file:
            assert (header.epsg, header.transform) == (file.crs.to_epsg(), file.transform)
            expected = file.read(1)
            coarse = file.read(1, out_shape=header.levels[-1].shape, resampling=Resampling.nearest)
        rows, columns = (slice(0, size) for size in expected.shape)
        found = read_window(header, str(path), rows, columns, fetcher=Fetcher())
        np.testing.assert_array_equal(found, expected)
        last = len(header.levels) - 1
        rows, columns = (slice(0, size) for size in coarse.shape)
        found = read_window(header, str(path), rows, columns, level=last, fetcher=Fetcher())
        np.testing.assert_array_equal(found, coarse)
