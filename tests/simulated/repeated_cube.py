"""One tile's pixels in, a finished cube that repeats them out, with all that `canopycube map` asks.

The cube is made without its scenes: what a build would have written is copied, tile by tile, or
linked, so that a cube of a hundred megapixels takes the disk of one tile. The recipe's source is a
store of scenes that holds nothing; a plan looks at its grid and dates only.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from cube.bands import NODATA, SCALE
from cube.ledger import Ledger, digest, sealed
from cube.mapstore import create_map
from cube.spec import Region
from cube.store import CubeBlocks, count_files, create_cube, write_region
from model.config import TrainConfig
from model.learn import train_classifier
from model.samples import Samples
from pipelines.map_species import plan_map
from pipelines.map_tile import MapJob
from pipelines.plan import CubePlan, plan_cube
from pipelines.recipe import Recipe, read_recipe

LEFT, TOP, PIXEL = 500_000.0, 5_000_000.0, 10.0
"""Corner of the cube in EPSG:32633 and edge of a pixel, in metres."""


def write_cube(
    folder: Path,
    year: np.ndarray,  # (time, band, y, x) int16 stored units; its edge is the tile's
    bands: tuple[str, ...],
    *,
    tiles: int,
    links: bool = False,
    extra: str = "",
) -> Recipe:
    """Write a cube of `tiles` x `tiles` times `year` into `folder`; return its recipe.

    Months are those of 2022 from January on. With `links` tiles are hard links to the first one.
    `extra` is added to the recipe, `folder/recipe.toml`. The classifier belongs to
    `folder/out/classifier`.
    """
    times, _, tile, _ = year.shape
    _write_grid(folder / "scenes.zarr", times, bands, tiles * tile)
    (folder / "recipe.toml").write_text(_recipe(times, bands, tile, extra))
    recipe = read_recipe(folder / "recipe.toml")
    plan = plan_cube(recipe)
    _write_tiles(folder / "out" / "cube.zarr", plan, year, os.link if links else shutil.copyfile)
    return recipe


def _recipe(times: int, bands: tuple[str, ...], tile: int, extra: str) -> str:
    return f"""name = "Repeated"
bands = {json.dumps(list(bands))}
[months]
first = "2022-01"
last = "2022-{times:02d}"
[source]
kind = "stack"
files = ["scenes.zarr"]
[composite]
tile = {tile}
chunk = {tile // 2}
[outputs]
folder = "out"
{extra}"""


def _write_grid(path: Path, times: int, bands: tuple[str, ...], edge: int) -> None:
    """Write a store of scenes that has coordinates and no pixel."""
    group = zarr.create_group(path, zarr_format=2, attributes={"crs": "EPSG:32633"})
    days = np.array([f"2022-{month + 1:02d}-15" for month in range(times)], "datetime64[ns]")
    xr.Dataset(
        coords={
            "time": days,
            "y": TOP - PIXEL * (np.arange(edge) + 0.5),
            "x": LEFT + PIXEL * (np.arange(edge) + 0.5),
        },
        attrs={"crs": "EPSG:32633"},
    ).to_zarr(path, mode="w", zarr_format=2, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    for band in bands:
        group.create_array(
            band,
            shape=(times, edge, edge),
            chunks=(1, edge, edge),
            dtype="uint16",
            fill_value=0,
            attributes={"_ARRAY_DIMENSIONS": ["time", "y", "x"]},
        )
    zarr.consolidate_metadata(path, zarr_format=2)


def _write_tiles(
    path: Path, plan: CubePlan, year: np.ndarray, copy: Callable[[Path, Path], object]
) -> None:
    create_cube(path, plan.spec)
    ledger = Ledger(store=path, inputs=plan.tile_inputs)
    ledger.prepare()
    first, *others = plan.spec.regions()
    blocks = CubeBlocks.empty(year.shape[0], year.shape[1], first.height, first.width)
    blocks.reflectance[:] = year
    blocks.clear_count[:] = (year != -32768).all(axis=1)
    write_region(path, first, blocks)
    ledger.record(
        first,
        {
            "digest": digest(*blocks.layers.values()),
            "reflectance_digest": digest(blocks.reflectance),
            "files": count_files(path, first),
            "scenes": {},
            "lost": [],
        },
    )
    record = ledger.record_of(first)
    shards = [file for file in (path / "reflectance").rglob("0") if file.is_file()]
    shards += [
        file
        for name in blocks.layers
        if name != "reflectance"
        for file in (path / name).rglob("0")
        if file.is_file()
    ]
    for region in others:
        for shard in shards:
            copy(shard, _place(shard, region))
        own = {**record, "tile": region.id, "inputs": plan.tile_inputs[region.id]}
        # not by the ledger, which waits for the disk with every record
        (path / "ledger" / f"{region.id}.json").write_text(sealed(own))


def _place(shard: Path, region: Region) -> Path:
    """Return where the shard of another tile lies, which ends in row and column."""
    place = shard.parents[1] / str(region.row) / str(region.column)
    place.parent.mkdir(exist_ok=True)
    return place


def empty_map(recipe: Recipe, path: Path | None = None, **options: Any) -> MapJob:
    """Return the job of a map of a recipe's cube, planned with `options`; its map is made, and empty.

    It lies at `path`, by default where `canopycube map` has it, in place of what was there.
    """
    out = recipe.outputs.folder
    job = plan_map(
        out / "cube.zarr",
        out / "classifier",
        path or out / "map.zarr",
        title="test",
        **options,
    )
    assert isinstance(job.path, Path)
    shutil.rmtree(job.path, ignore_errors=True)
    create_map(
        job.path,
        geobox=job.spec.geobox,
        classes=job.classes,
        tile=job.spec.tile,
        chunk=job.spec.chunk,
    )
    Ledger(store=job.path, inputs=job.inputs).prepare()
    return job


def tile_samples(
    year: np.ndarray,  # (time, band, y, x) int16 stored units
    bands: tuple[str, ...],
    *,
    count: int,
    classes: int = 7,
    seed: int = 0,
) -> Samples:
    """Return samples of a tile's pixels, in classes of equal size by brightness over the year.

    Brightness has no steps, so that a classifier of these is sure of some pixels and not of others.
    """
    generator = np.random.default_rng(seed)
    times, _, height, width = year.shape
    place = generator.choice(height * width, count, replace=False)
    stored = year.reshape(times, len(bands), -1)[:, :, place].transpose(2, 0, 1)
    reflectance = np.where(stored == NODATA, np.float32(np.nan), stored * np.float32(SCALE))
    is_seen = np.asarray(np.isfinite(reflectance).all(axis=2)).any(axis=1)
    reflectance = reflectance[is_seen].astype(np.float32)  # (sample, time, band)
    brightness = np.nanmean(reflectance, axis=(1, 2))
    label = (brightness.argsort().argsort() * classes // len(brightness)).astype(np.int64)
    number = np.arange(len(label))
    return Samples(
        reflectance=reflectance,
        bands=bands,
        periods=tuple(f"2022-{month + 1:02d}" for month in range(times)),
        label=label,
        classes=tuple(f"species {index}" for index in range(classes)),
        group=number,
        block=number,
    )


def write_classifier(folder: Path, samples: Samples, config: TrainConfig) -> None:
    """Train a classifier on samples of a tile and save it where `canopycube map` looks for it."""
    colours = [f"#{40 * index:02x}9e77" for index in range(len(samples.classes))]
    trained = train_classifier(samples, config, colours=colours)
    trained.save(folder / "out" / "classifier")
