"""The sections of a recipe that decide what follows the cube: labels, classifier, map, and where."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.recipe_values import AnyPath, ExistingPath, Flag, Number, Section, Whole


def _store(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(
            f"there are no samples at {str(path)!r}; canopycube import-table makes them"
        )
    return path


StorePath = Annotated[AnyPath, AfterValidator(_store)]

_OF_SAMPLES = ("samples", "classes", "drop", "colours")
"""Keys of `[reference]` that go with samples; the others say how a file is read."""


class ReferenceSection(Section):
    """Ground truth: a file of labels, or samples that were imported."""

    file: ExistingPath | None = None
    """Points (CSV, GeoPackage, GeoJSON, Shapefile), polygons, or a label raster."""
    samples: StorePath | None = None
    """Samples in place of `file`, as `canopycube import-table` makes them: `samples.zarr`. They are
    trained on as they are, so no cube is needed before the map."""
    class_column: str = "class"
    """Column with the class."""
    group_column: str | None = None
    """Column that says which labels belong together (a stand, a plot); by default each feature."""
    x_column: str | None = None
    """CSV: column with the x coordinate or longitude."""
    y_column: str | None = None
    """CSV: column with the y coordinate or latitude."""
    crs: str | None = None
    """CSV: CRS of the coordinates, lon/lat by default."""
    layer: str | None = None
    """Layer of a vector file with several."""
    variable: str | None = None
    """NetCDF label raster: its variable."""
    names: dict[Annotated[str, Field(pattern=r"^-?\d+$")], str] = Field(default_factory=dict)
    """Label raster: class names by value, e.g. { 1 = "larch" }."""
    nodata: Number | None = None
    """Label raster: value that means "no label", beside the one the file declares."""
    classes: dict[str, str] = Field(default_factory=dict)
    """Label to class: keeps, renames and merges; if given, other labels are left out."""
    drop: tuple[str, ...] = ()
    """Classes that are left out."""
    colours: dict[str, Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]] = Field(
        default_factory=dict
    )
    """Map colours by class, "#rrggbb"."""
    erode: Number = Field(default=0.0, ge=0)
    """Metres taken off polygons from their edge."""

    @model_validator(mode="after")
    def _one_of(self) -> "ReferenceSection":
        if (self.file is None) == (self.samples is None):
            raise ValueError("give either file or samples")
        if self.samples is not None and (odd := self.model_fields_set - set(_OF_SAMPLES)):
            raise ValueError(f"{min(odd)} goes with file; samples have classes, drop and colours")
        return self


class SamplingSection(Section):
    """How labels become training sequences."""

    patch: Whole = Field(default=1, ge=1, le=15)
    """Cells taken around a point: n x n."""
    every: Whole = Field(default=1, ge=1)
    """Label raster: take every n-th row and column."""
    max_per_class: Whole | None = Field(default=None, ge=1)
    """At most this many samples of a class, drawn at random."""
    max_per_group: Whole | None = Field(default=None, ge=1)
    """At most this many samples of a group (a polygon, say)."""
    min_clear_months: Whole = Field(default=1, ge=1)
    """Samples seen in fewer periods are dropped and counted."""
    block_size: Number = Field(default=1000.0, gt=0)
    """Edge in metres of the spatial blocks that keep neighbours on one side of a split."""
    seed: Whole = Field(default=0, ge=0)
    """Seed of every random draw."""


class TrainingSection(Section):
    """How the classifier learns; any key overrides the preset."""

    preset: Literal["default", "reference"] = "default"
    """"reference" is the published workflow's network and schedule, for comparison."""
    features: tuple[str, ...] | None = None
    """Bands and indices the network sees."""
    hidden: Whole | None = Field(default=None, ge=1)
    """Width of the LSTM's state."""
    layers: Whole | None = Field(default=None, ge=1, le=4)
    """Stacked LSTM layers."""
    dropout: Number | None = Field(default=None, ge=0, lt=1)
    """Share of activations dropped while training."""
    bidirectional: Flag | None = None
    """Read the year in both directions."""
    epochs: Whole | None = Field(default=None, ge=1)
    """Most passes over the samples."""
    patience: Whole | None = Field(default=None, ge=1)
    """Epochs without improvement before training stops."""
    batch_size: Whole | None = Field(default=None, ge=1)
    """Sequences in one step."""
    learning_rate: Number | None = Field(default=None, gt=0)
    """Step size of the optimiser."""
    class_weights: Literal["none", "root", "balanced"] | None = None
    """Weight of rare classes: none, by the root of their rarity, or balanced."""
    folds: Whole = Field(default=5, ge=2, le=20)
    """Parts into which each split divides the samples."""
    folds_used: Whole = Field(default=1, ge=1)
    """How many of the folds are held out in turn for the scores."""
    seed: Whole = Field(default=0, ge=0)
    """Seed of weights, batches and splits."""
    threads: Whole | None = Field(default=None, ge=1)
    """CPU threads for training; by default one (more is slower on a busy machine)."""


class MapSection(Section):
    """How the map is made."""

    min_months: Whole = Field(default=1, ge=1)
    """Pixels seen in fewer periods stay unclassified."""
    clip: Flag = True
    """Leave pixels outside the polygons of `area.file` unclassified."""


class OutputsSection(Section):
    """Where results go."""

    folder: AnyPath
    """Folder for the cube, samples, classifier and map; made if missing."""


class ClusterSection(Section):
    """Where the work runs."""

    kind: Literal["threads", "local", "scheduler"] = "threads"
    """Threads of this process, processes of this machine, or a running scheduler."""
    workers: Whole | None = Field(default=None, ge=1)
    """Threads or processes; by default one per core."""
    address: str | None = None
    """Address of the scheduler, e.g. "tcp://10.0.0.5:8786"."""

    @model_validator(mode="after")
    def _has_address(self) -> "ClusterSection":
        if (self.kind == "scheduler") != (self.address is not None):
            raise ValueError("address goes with kind = 'scheduler', and only with it")
        return self
