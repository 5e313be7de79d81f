"""Tiles of local shards, against Zarr's own reader; and files that are not what they say."""

import math
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import (
    BloscCodec,
    BloscShuffle,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
)

from cube.shard import decode_shard
from cube.spec import tile_regions
from cube.storedfiles import stored_files

NODATA = -32768


def _array(folder: Path, shape: tuple[int, ...], tile: int, chunk: int, **options: Any) -> Any:
    """Allocate reflectance (time, band, y, x) as a cube has it."""
    times, bands, _, _ = shape
    given = {
        "shards": (times, bands, tile, tile),
        "compressors": BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle),
        **options,
    }
    return zarr.create_array(
        str(folder), shape=shape, dtype="int16", chunks=(1, bands, chunk, chunk),
        fill_value=NODATA, overwrite=True, **given,
    )  # fmt: skip


def _file(array: Any, region: Any) -> Path:
    files = stored_files(array, region)
    assert files is not None
    return files[0]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_tile_is_what_zarr_reads(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    times, bands = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    chunk, per_tile = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    tile = chunk * per_tile
    array = _array(tmp_path_factory.mktemp("array"), (times, bands, height, width), tile, chunk)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = generator.integers(-99, 9999, array.shape).astype(np.int16)
    values[generator.random(times) < 0.3] = NODATA  # chunks that Zarr leaves out
    for region in tile_regions((height, width), tile):
        if generator.random() < 0.8:
            array[:, :, region.rows, region.columns] = values[:, :, region.rows, region.columns]
    whole = array[...]
    for region in tile_regions((height, width), tile):
        out = np.empty((times, bands, region.height, region.width), np.int16)
        found = decode_shard(array, _file(array, region), region, out=out)
        assert found is out
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, whole[:, :, region.rows, region.columns])


@pytest.mark.parametrize(
    "options",
    [
        {"shards": None},
        {"shards": None, "zarr_format": 2, "compressors": None},
        {"compressors": GzipCodec()},
        {"compressors": None},
        {"shards": (1, 2, 8, 8)},
        {"serializer": BytesCodec(endian="big")},
    ],
)
def test_other_layouts_are_left_to_zarr(tmp_path: Path, options: dict[str, Any]) -> None:
    array = _array(tmp_path, (2, 2, 16, 16), 8, 4, **options)
    array[...] = 7
    region = next(tile_regions((16, 16), 8))
    assert decode_shard(array, _file(array, region), region) is None


@pytest.mark.parametrize(
    "index_codecs", [[BytesCodec()], [BytesCodec(endian="big"), Crc32cCodec()]]
)
def test_another_index_is_left_to_zarr(tmp_path: Path, index_codecs: list[Any]) -> None:
    sharding = ShardingCodec(
        chunk_shape=(1, 2, 4, 4), codecs=[BytesCodec(), BloscCodec()], index_codecs=index_codecs
    )
    array = zarr.create(
        store=str(tmp_path), shape=(2, 2, 16, 16), chunks=(2, 2, 8, 8), dtype="int16",
        codecs=[sharding], fill_value=NODATA, zarr_format=3,
    )  # fmt: skip
    array[...] = 7
    region = next(tile_regions((16, 16), 8))
    assert decode_shard(array, _file(array, region), region) is None


def test_bytes_have_no_order(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path), shape=(16, 16), dtype="uint8", chunks=(4, 4), shards=(8, 8), fill_value=0,
        compressors=BloscCodec(cname="lz4"),
    )  # fmt: skip
    array[...] = np.arange(256, dtype=np.uint8).reshape(16, 16)
    region = next(tile_regions((16, 16), 8))
    found = decode_shard(array, _file(array, region), region)
    assert found is not None
    np.testing.assert_array_equal(found, array[:8, :8])


def test_what_is_no_whole_shard_is_left_to_zarr(tmp_path: Path) -> None:
    array = _array(tmp_path, (2, 2, 24, 24), 8, 4)
    array[...] = 7
    for tile in (4, 16, 24):
        for region in tile_regions((24, 24), tile):
            if (region.height, region.width) == (8, 8):
                continue  # a shard in the corner
            assert decode_shard(array, _file(array, region), region) is None


def _sign(content: bytearray, index: int) -> None:
    """Give a changed index its right checksum."""
    content[-4:] = google_crc32c.value(bytes(content[index:-4])).to_bytes(4, "little")


def _damaged(file: Path, damage: str, chunks: int) -> None:
    content = bytearray(file.read_bytes())
    index = len(content) - 4 - 16 * chunks
    if damage == "empty":
        content = bytearray()
    elif damage == "half":
        content = content[: len(content) // 2]
    elif damage == "beyond the end":
        content[index : index + 8] = (len(content) + 5).to_bytes(8, "little")
        _sign(content, index)
    elif damage == "too short":
        content[index + 8 : index + 16] = (9).to_bytes(8, "little")
        _sign(content, index)
    elif damage == "swapped":
        first, second = content[index : index + 16], content[index + 16 : index + 32]
        content[index : index + 32] = second + first
    elif damage == "checksum":
        content[-1] ^= 1
    elif damage == "a flipped bit":
        content[int.from_bytes(content[index : index + 8], "little")] ^= 0x80  # Blosc's version
    elif damage == "another size":
        content[4:8] = (2**31).to_bytes(4, "little")
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("empty", "is cut short"),
        ("half", r"is damaged|is cut short"),
        ("beyond the end", r"chunk \(0, 0, 0, 0\) of shard .* is damaged"),
        ("too short", r"chunk \(0, 0, 0, 0\) of shard .* is damaged"),
        ("another size", r"chunk \(0, 0, 0, 0\) of shard .* is damaged"),
        ("swapped", r"the index of shard .* is damaged"),
        ("checksum", r"the index of shard .* is damaged"),
        ("a flipped bit", r"chunk \(0, 0, 0, 0\) of shard .* is damaged"),
    ],
)
def test_a_damaged_shard_is_told(tmp_path: Path, damage: str, words: str) -> None:
    array = _array(tmp_path, (2, 2, 16, 16), 8, 4)
    array[...] = np.random.default_rng(0).integers(0, 999, array.shape)
    region = next(tile_regions((16, 16), 8))
    _damaged(_file(array, region), damage, math.prod((2, 1, 2, 2)))
    with pytest.raises(ValueError, match=words):
        decode_shard(array, _file(array, region), region)
