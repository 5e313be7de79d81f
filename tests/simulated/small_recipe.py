"""A small archive in, the recipe of a cube over a part of it out."""

from dataclasses import replace
from pathlib import Path

from repeated_cube import tile_samples, write_classifier
from small_archive import LEFT, PIXEL, TOP, Granule, SmallArchive

from cube.store import read_region
from model.config import TrainConfig
from pipelines.recipe import Recipe, read_recipe
from pipelines.run import Run

RECIPE = """
name = "Small"
bands = ["B04", "B08"]
[area]
bbox = [{left}, {bottom}, {right}, {top}]
crs = "EPSG:32648"
[grid]
crs = "EPSG:32648"
resolution = 100
[months]
first = "{first}"
last = "{last}"
[source]
kind = "stac"
catalogue = "{catalogue}"
offset = "metadata"
product_metadata = false
[composite]
tile = 32
chunk = 16
[cluster]
kind = "threads"
workers = 2
[outputs]
folder = "out"
"""


def two_overpasses_a_month(folder: Path) -> SmallArchive:
    """Write an archive of May to July: each overpass of two granules, 128 columns wide, side by side."""
    folder.mkdir()
    made = SmallArchive(folder)
    made.add(
        *(
            Granule(day=f"2022-{month:02d}-{day:02d}", tile=tile, left=left, width=128, height=64)
            for month in (5, 6, 7)
            for day in (3, 13)
            for tile, left in (("48SYC", 0), ("48SYD", 128))
        )
    )
    return made


def small_recipe(
    folder: Path,
    archive: SmallArchive,
    *overrides: str,
    columns: tuple[int, int] = (0, 256),
    rows: tuple[int, int] = (0, 64),
    months: tuple[str, str] = ("2022-05", "2022-06"),
) -> Recipe:
    """Write `folder/recipe.toml` for some columns and rows of the archive, and read it."""
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(
        RECIPE.format(
            left=LEFT + columns[0] * PIXEL,
            right=LEFT + columns[1] * PIXEL,
            top=TOP - rows[0] * PIXEL,
            bottom=TOP - rows[1] * PIXEL,
            first=months[0],
            last=months[1],
            catalogue=archive.catalogue,
        )
    )
    return read_recipe(path, overrides)


def train_on_first_tile(run: Run, *, seed: int = 0) -> None:
    """Put a small classifier of the cube's first tile where the run's map looks for it."""
    pixels = read_region(run.layout.cube, run.plan.spec.regions()[0])
    samples = tile_samples(pixels, ("B04", "B08"), count=200, classes=3, seed=seed)
    months = tuple(map(str, run.plan.spec.periods))
    config = TrainConfig.preset("default", features=["B04", "B08"], hidden=8, epochs=1)
    write_classifier(run.layout.folder.parent, replace(samples, periods=months), config)
