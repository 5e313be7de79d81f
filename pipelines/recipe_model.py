"""The sections of a recipe that decide what follows the cube: labels, classifier, map, and where."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from model.config import Architecture, ClassWeights, Pooling, Schedule
from model.features import FeatureSet
from model.ranges import RANGES
from pipelines.recipe_values import (
    AnyPath,
    AnyPlace,
    BlockSize,
    ExistingPath,
    Flag,
    Number,
    Section,
    Whole,
)


def _store(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(
            f"there are no samples at {str(path)!r}; canopycube import-table makes them"
        )
    return path


StorePath = Annotated[AnyPath, AfterValidator(_store)]

BaselineName = Literal["lda", "logistic regression", "random forest", "gradient boosting", "mlp"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
"""Simple models by name."""

Engine = Literal["auto", "exact", "fast", "torch", "cuda", "cuda-fast"]
"""Ways to compute a map, by name (`predict_block`)."""

ExtraLayer = Literal["likely_classes", "applicable"]
"""Layers that a map has if asked for."""

_OF_SAMPLES = ("samples", "classes", "drop", "colours", "legend", "decisions")
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
    region_column: str | None = None
    """Column with the region of a label, for scores with whole regions left out."""
    share_columns: dict[str, str] = Field(default_factory=dict)
    """Mixed plots: column with a class's share, to the class; in place of `class_column`."""
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
    legend: dict[str, str] = Field(default_factory=dict)
    """What lies above a class, and above that: { larch_JP = "larch", larch = "conifers" }."""
    decisions: ExistingPath | None = None
    """What `canopycube label-doctor` was told of doubtful labels: labels kept, changed, dropped."""
    erode: Number = Field(default=0.0, ge=0)
    """Metres taken off polygons from their edge."""

    @model_validator(mode="after")
    def _one_of(self) -> "ReferenceSection":
        if (self.file is None) == (self.samples is None):
            raise ValueError("give either file or samples")
        if self.samples is not None and (odd := self.model_fields_set - set(_OF_SAMPLES)):
            raise ValueError(
                f"{min(odd)} goes with file; samples have {', '.join(_OF_SAMPLES[1:])}"
            )
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
    stratify: Literal["none", "group", "block"] = "none"
    """How a class's samples are drawn: from all of them, or in turn from its groups or blocks."""
    block_size: BlockSize = 1000.0
    """Edge in metres of the spatial blocks that keep neighbours on one side of a split; "auto":
    as far as the cube's own pixels resemble each other."""
    seed: Whole = Field(default=0, ge=0)
    """Seed of every random draw."""


class SearchSection(Section):
    """Settings that are tried out; whole groups are held out to compare them.

    For each held-out part of a score it is done anew without it, so no score has seen the choice.
    """

    trials: Whole = Field(default=20, ge=2, le=10_000)
    """How many settings are tried."""
    method: Literal["random", "tpe"] = "random"
    """At random, or led by what went well before (needs optuna)."""
    ranges: dict[str, list[Number | Whole | Flag | str]] = Field(min_length=1)
    """Key of `[training]` to the values it may take, or to [lowest, highest] of a number."""


def _in_range(name: str) -> Any:
    """Bound a number by the range that the network's settings allow."""
    lowest, highest = RANGES[name]
    return Field(default=None, ge=lowest, le=highest)


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return features as they are written; raise `ValueError` for one that does not exist."""
    FeatureSet(names=names)
    return names


Features = Annotated[tuple[str, ...], AfterValidator(_known)]


class TrainingSection(Section):
    """How the classifier learns; any key overrides the preset."""

    preset: Literal["default", "reference"] = "default"
    """"reference" is the published workflow's network and schedule, for comparison."""
    model: Literal["network", "auto"] | BaselineName = "network"
    """What is saved: the network, a simple model, or ("auto") whichever wins with whole blocks or
    groups held out."""
    baselines: tuple[BaselineName, ...] = BASELINES
    """Simple models that are scored beside the network."""
    architecture: Architecture | None = None
    """Kind of network."""
    features: Features | None = None
    """Bands and indices the network sees."""
    hidden: Whole | None = _in_range("hidden")
    """Width of the network."""
    layers: Whole | None = _in_range("layers")
    """Layers on top of each other."""
    bidirectional: Flag | None = None
    """Read the year in both directions."""
    pooling: Pooling | None = None
    """What of an LSTM's states is read: the last, their mean, or a weighted mean, alone or beside the
    largest value of each unit."""
    layer_norm: Flag | None = None
    """Normalise what the head is given."""
    calendar_input: Flag | None = None
    """Tell the network the day of the year of each step."""
    mask_input: Flag | None = None
    """Tell the network of each step whether it was clear."""
    standardise: Flag | None = None
    """Scale features to mean 0 and standard deviation 1."""
    input_pieces: Whole | None = _in_range("input_pieces")
    """Pieces that the features' ranges are cut into, all together; 0 cuts none."""
    members: Whole | None = _in_range("members")
    """Networks whose probabilities are averaged."""
    dropout: Number | None = _in_range("dropout")
    """Share of activations dropped between layers while training."""
    head_dropout: Number | None = _in_range("head_dropout")
    """Share of activations dropped before the head while training."""
    month_dropout: Number | None = _in_range("month_dropout")
    """Chance that a clear period is hidden while training."""
    shift_days: Number | None = _in_range("shift_days")
    """The season is shifted by up to so many days while training."""
    noise: Number | None = _in_range("noise")
    """Spread of the noise that is added while training, in standard deviations."""
    mixup: Number | None = _in_range("mixup")
    """Samples are mixed in pairs while training; 0 does not."""
    label_smoothing: Number | None = _in_range("label_smoothing")
    """Share of each label that is spread over all classes."""
    class_weights: ClassWeights | None = None
    """Weight of rare classes: none, by the root of their rarity, or balanced."""
    balanced_sampling: Flag | None = None
    """Draw every class as often as any other."""
    logit_adjustment: Number | None = _in_range("logit_adjustment")
    """Strength of the adjustment for rare classes (Menon et al. 2021); 0 is none."""
    focal_gamma: Number | None = _in_range("focal_gamma")
    """Focus on samples that are hard (Lin et al. 2017); 0 is none."""
    weight_average: Number | None = _in_range("weight_average")
    """Share of the epochs, from the end, whose weights are averaged."""
    weight_decay: Number | None = _in_range("weight_decay")
    """Decoupled weight decay."""
    epochs: Whole | None = _in_range("epochs")
    """Most passes over the samples."""
    patience: Whole | None = _in_range("patience")
    """Epochs without improvement before training stops."""
    batch_size: Whole | None = _in_range("batch_size")
    """Sequences in one step."""
    learning_rate: Number | None = _in_range("learning_rate")
    """Step size of the optimiser."""
    schedule: Schedule | None = None
    """Whether the step size stays, or rises and falls."""
    least_steps: Whole | None = _in_range("least_steps")
    """Steps of the optimiser at least; epochs are added where samples are few. 0 adds none."""
    gradient_limit: Number | None = _in_range("gradient_limit")
    """Longest gradient; longer ones are shortened."""
    search: SearchSection | None = None
    """Settings to try out first."""
    folds: Whole = Field(default=5, ge=2, le=20)
    """Parts into which each split divides the samples."""
    folds_used: Whole = Field(default=1, ge=1)
    """How many of the folds models are scored on; under the strictest split on all."""
    splits: tuple[Literal["region", "year", "knndm"], ...] = ()
    """More splits beside random, grouped and block ones."""
    buffer: Number = Field(default=0.0, ge=0)
    """Metres round held-out blocks in which nothing trains."""
    audit: Literal["stop", "tell", "off"] = "stop"
    """What follows from severe faults of the samples: no training, or a line that says so."""
    audit_allow: tuple[str, ...] = ()
    """Codes of severe faults that do not stop."""
    doubtful: Literal["auto", "keep", "leave out"] = "auto"
    """Whether models learn from samples of stands whose labels the others doubt; "auto" leaves them
    out where that makes a simple model better on stands that it never saw. Scores are of all
    held-out samples either way."""
    importance: Flag = True
    """Measure which periods and bands matter, which takes as long as mapping half a million pixels."""
    coverage: Number = Field(default=0.9, gt=0.5, lt=1)
    """Share of samples whose set of likely classes shall hold the true one."""
    onnx: Flag = False
    """Write the network as ONNX, too (needs the optional group `onnx`)."""
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
    engine: Engine = "auto"
    """How probabilities are computed: exact to 5e-5, fast to 1e-2, by torch, or what `auto` picks."""
    layers: tuple[ExtraLayer, ...] = ()
    """More of each pixel: the number of classes that cannot be ruled out, and whether it is like
    the training samples, which takes longer than all the rest."""

    @model_validator(mode="after")
    def _names_each_once(self) -> "MapSection":
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers repeat: {list(self.layers)}")
        return self


class OutputsSection(Section):
    """Where results go."""

    folder: AnyPath
    """Folder for the cube, samples, classifier and map; made if missing."""
    stores: AnyPlace | None = None
    """Where the cube and the map go instead: a folder, or an address of an object store, as
    "s3://bucket/folder", whose credentials and server the environment names."""


class LearningRecipe(Section):
    """What samples, audit and training need of a recipe."""

    name: str = Field(min_length=1, max_length=100)
    """Title of the map."""
    outputs: OutputsSection
    reference: ReferenceSection | None = None
    sampling: SamplingSection = SamplingSection()
    training: TrainingSection = TrainingSection()


class SeriesRecipe(LearningRecipe):
    """Labelled series without a cube: they can be audited, trained on and scored."""

    @model_validator(mode="after")
    def _has_samples(self) -> "SeriesRecipe":
        if self.reference is None or self.reference.samples is None:
            raise ValueError(
                "source is missing; without one there is no cube, and reference.samples must name "
                "what `canopycube import-table` made"
            )
        return self
