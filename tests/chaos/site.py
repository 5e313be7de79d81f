"""A folder in, a small forest with its recipe and an undisturbed run out, against which others stand.

The forest is cut into many small tiles, so that a fault meets a run that has begun and not ended.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from cube.forest import ForestSpec, write_forest
from pipelines.recipe import read_recipe
from pipelines.run import open_run

RECIPE = """
name = "Small forest"
bands = ["B02", "B04", "B05", "B08", "B11"]
[area]
file = "forest/area.geojson"
[months]
first = "2022-05"
last = "{last}"
[source]
kind = "stac"
catalogue = "forest/catalog.json"
offset = "verify"
[composite]
tile = {tile}
chunk = {tile}
[reference]
file = "forest/labels.gpkg"
group_column = "stand"
[sampling]
block_size = 300
[training]
model = "lda"
baselines = ["lda"]
epochs = 1
hidden = 8
importance = false
audit = "off"
doubtful = "keep"
folds = 2
[outputs]
folder = "out"
"""

STORES = {"build": "cube.zarr", "map": "map.zarr"}
"""What each step writes."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A forest, its recipe, and what comes of it when nothing happens."""

    folder: Path
    """Where all of it lies."""
    recipe: Path
    """The recipe."""
    undisturbed: Path
    """Outputs of a run in one thread, with nothing to disturb it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of commands that run here."""
        return {"CANOPYCUBE_CACHE": str(self.folder / "cache")}

    @contextmanager
    def outputs(self, name: str) -> Iterator[Path]:
        """Yield a folder of outputs that has scenes and classifier, and neither cube nor map."""
        made = self.folder / name
        made.mkdir()
        shutil.copy(self.undisturbed / "scenes.parquet", made)
        shutil.copytree(self.undisturbed / "classifier", made / "classifier")
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def write_site(folder: Path, *, tile: int = 16, last: str = "2022-08") -> Site:
    """Simulate the forest (120 x 120 pixels) and carry the recipe out once, in one thread.

    `tile` is in pixels; `last` is the last month, after 2022-05. Of both depends how long tiles take.
    """
    # of liars among the scenes a run may believe one, which is another test's subject
    write_forest(folder / "forest", ForestSpec(scale=0.25, lying_share=0.0))
    (folder / "recipe.toml").write_text(RECIPE.format(tile=tile, last=last))
    site = Site(folder=folder, recipe=folder / "recipe.toml", undisturbed=folder / "out")
    recipe = read_recipe(site.recipe, ("cluster.kind=threads", "cluster.workers=1"))
    with patch.dict(os.environ, site.environment), open_run(recipe) as run:
        run.build()
        run.sample()
        run.train()
        run.map()
    return site
