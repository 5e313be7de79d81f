"""Tiles that are written again: at no moment is one without its pixels, and old damage is no matter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from cube.spec import Region
from cube.storedfiles import stored_files, write_whole

SHAPE, TILE = (3, 24, 20), 16


@pytest.fixture(name="array", params=["shards", "chunks", "format 2"])
def _array(request: pytest.FixtureRequest, tmp_path: Path) -> zarr.Array[Any]:
    """Return an array (time, y, x) that tiles of 16 do not divide."""
    layout: dict[str, Any] = {"chunks": (3, TILE // 2, TILE // 2)}
    if request.param == "shards":
        layout["shards"] = (3, TILE, TILE)
    return zarr.create_array(
        tmp_path / "store",
        shape=SHAPE,
        dtype="int16",
        fill_value=-1,
        zarr_format=2 if request.param == "format 2" else 3,
        **layout,
    )


def _tile(row: int, column: int) -> Region:
    top, left = row * TILE, column * TILE
    height, width = (min(TILE, size - at) for size, at in zip(SHAPE[1:], (top, left), strict=True))
    return Region(row=row, column=column, top=top, left=left, height=height, width=width)


TILES = [_tile(row, column) for row in (0, 1) for column in (0, 1)]


def _pixels(region: Region, seed: int) -> np.ndarray:
    shape = (SHAPE[0], region.height, region.width)
    return np.random.default_rng(seed).integers(0, 99, shape, dtype=np.int16)


def _bytes(array: zarr.Array[Any]) -> dict[str, bytes]:
    root = array.store_path.store.root  # type: ignore[attr-defined] - a local store has one
    return {
        str(file): file.read_bytes() for file in sorted(Path(root).rglob("*")) if file.is_file()
    }


def test_what_is_there_stays_until_it_is_replaced(
    array: zarr.Array[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for region in TILES:
        write_whole(array, region, _pixels(region, 1))
    before, seen = _bytes(array), []
    put = LocalStore.set

    async def looking(store: LocalStore, key: str, value: Any) -> None:
        seen.append(key)
        assert set(_bytes(array)) == set(before), "a file is gone before the new one is there"
        await put(store, key, value)

    async def refused(store: LocalStore, key: str) -> None:
        raise AssertionError(f"{key} is deleted")

    monkeypatch.setattr(LocalStore, "set", looking)
    monkeypatch.setattr(LocalStore, "delete", refused)
    for region in TILES:
        write_whole(array, region, _pixels(region, 1))
    assert seen
    assert _bytes(array) == before


def test_other_pixels_replace_the_old_ones_and_no_others(array: zarr.Array[Any]) -> None:
    expected = np.full(SHAPE, -1, np.int16)
    for number, region in enumerate([*TILES, *reversed(TILES), TILES[3]]):
        pixels = _pixels(region, number)
        expected[:, region.rows, region.columns] = pixels
        write_whole(array, region, pixels)
        np.testing.assert_array_equal(array[:], expected)


def test_pixels_that_are_all_nodata_replace_the_old_ones(array: zarr.Array[Any]) -> None:
    for region in TILES:
        write_whole(array, region, _pixels(region, 1))
        write_whole(array, region, np.full((3, region.height, region.width), -1, np.int16))
        assert not [file for file in stored_files(array, region) if file.exists()]
    assert (array[:] == -1).all()


@pytest.mark.parametrize("damage", [b"", b"half", bytes(5000)])
def test_damage_is_replaced_without_a_look_at_it(array: zarr.Array[Any], damage: bytes) -> None:
    for region in TILES:
        write_whole(array, region, _pixels(region, 1))
    before = _bytes(array)
    for region in TILES:
        for file in stored_files(array, region):
            assert isinstance(file, Path)
            file.write_bytes(damage)
        write_whole(array, region, _pixels(region, 1))
    assert _bytes(array) == before
