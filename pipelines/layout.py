"""An `[outputs]` section in, where each result of a run lies out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cube.place import Place
from pipelines.recipe_model import OutputsSection


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a run keeps its results."""

    folder: Path
    """The recipe's output folder."""
    stores: Place | None = None
    """Where the cube and the map lie, if elsewhere than in `folder`."""

    @classmethod
    def of(cls, outputs: OutputsSection) -> Self:
        """Return the layout of a recipe's `[outputs]`."""
        return cls(folder=outputs.folder, stores=outputs.stores)

    @property
    def home(self) -> Place:
        """The folder of the cube and the map."""
        return self.folder if self.stores is None else self.stores

    @property
    def cube(self) -> Place:
        """The data cube."""
        return self.home / "cube.zarr"

    @property
    def scenes(self) -> Path:
        """The scene lock file, stac-geoparquet."""
        return self.folder / "scenes.parquet"

    @property
    def exports(self) -> Path:
        """What Earth Engine was asked to export, as JSON."""
        return self.folder / "exports.json"

    @property
    def samples(self) -> Path:
        """The labelled sequences."""
        return self.folder / "samples.zarr"

    @property
    def training(self) -> Path:
        """What a training that was stopped goes on from; gone when the classifier is there."""
        return self.folder / "training"

    @property
    def classifier(self) -> Path:
        """The trained classifier."""
        return self.folder / "classifier"

    @property
    def map(self) -> Place:
        """The map as Zarr."""
        return self.home / "map.zarr"

    @property
    def report(self) -> Path:
        """What was found, as JSON."""
        return self.folder / "report.json"
