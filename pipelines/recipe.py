"""A TOML file in, a validated `Recipe` out: the one description of a run."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from cube.bands import canonical_band
from cube.errors import InputError
from cube.months import Month, month_range

DEFAULT_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


def _month(value: object) -> Month:
    return value if isinstance(value, Month) else Month.parse(str(value))


def _rooted(path: Path, info: ValidationInfo) -> Path:
    """Return a path of the recipe as seen from the recipe's own folder."""
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path.expanduser()).absolute()


def _existing(path: Path, info: ValidationInfo) -> Path:
    rooted = _rooted(path, info)
    if not rooted.is_file():
        raise ValueError(f"file {str(rooted)!r} does not exist")
    return rooted


def _rooted_text(name: str, info: ValidationInfo) -> str:
    """Return a file, template or catalogue seen from the recipe's folder; addresses as they are."""
    if "://" in name:
        return name
    rooted = _rooted(Path(name), info)
    if "{date" not in name and not rooted.exists():
        raise ValueError(f"file {str(rooted)!r} does not exist")
    return str(rooted)


Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
MonthText = Annotated[Month, BeforeValidator(_month)]
BandName = Annotated[str, AfterValidator(canonical_band)]
AnyPath = Annotated[Path, AfterValidator(_rooted)]
RootedText = Annotated[str, AfterValidator(_rooted_text)]
ExistingPath = Annotated[Path, AfterValidator(_existing)]


class Section(BaseModel):
    """A table of the recipe: unknown keys and loose types are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )


class AreaSection(Section):
    """Where: a box or the polygons of a vector file."""

    bbox: tuple[Number, Number, Number, Number] | None = None
    """[left, bottom, right, top] in `crs` units."""
    crs: str = "EPSG:4326"
    """CRS of `bbox`; lon/lat unless said otherwise."""
    file: ExistingPath | None = None
    """GeoJSON, GeoPackage, Shapefile or any other vector file with polygons."""

    @model_validator(mode="after")
    def _one_of(self) -> "AreaSection":
        if (self.bbox is None) == (self.file is None):
            raise ValueError("give either bbox or file")
        return self


class GridSection(Section):
    """The pixels of the cube."""

    crs: str = "utm"
    """"utm" for the zone of the area's centre, or any CRS in metres."""
    resolution: Number = Field(default=10.0, gt=0)
    """Edge of a pixel in metres."""
    anchor: tuple[Number, Number] = (0.0, 0.0)
    """A point (x, y) in `crs` where pixel corners meet, to coincide with rasters you have."""


class MonthsSection(Section):
    """When: calendar months, both ends included."""

    first: MonthText
    """First month, YYYY-MM."""
    last: MonthText
    """Last month, YYYY-MM."""

    @model_validator(mode="after")
    def _in_order(self) -> "MonthsSection":
        month_range(self.first, self.last)
        return self


class StacSection(Section):
    """Scenes from a STAC API or a static catalogue."""

    kind: Literal["stac"]
    """Always "stac"."""
    catalogue: RootedText
    """URL of an API, or URL or path of a catalog.json."""
    collection: str = "sentinel-2-l2a"
    """Collection to search."""
    max_cloud_cover: Number = Field(default=80.0, ge=0, le=100)
    """Scenes with more cloud (percent of the whole scene) are not read."""
    reader: Literal["odc", "stackstac"] = "odc"
    """Library that reads the pixels."""
    resampling: Literal["nearest", "bilinear"] = "bilinear"
    """How reflectance comes onto the grid where pixels do not coincide."""
    offset: Literal["check", "metadata", "verify"] = "check"
    """Radiometric offset: by the metadata and checked against the pixels ("check": a
    disagreement stops), by the metadata alone, or by the pixels where they disagree ("verify")."""


class StackSection(Section):
    """Scenes the user already has."""

    kind: Literal["stack"]
    """Always "stack"."""
    files: Annotated[tuple[RootedText, ...], Field(min_length=1)]
    """NetCDF files, Zarr stores or GeoTIFF templates (`S2_{date:%Y%m%d}_{band}.tif`)."""
    bands: dict[BandName, str] = Field(default_factory=dict)
    """Canonical band name to the files' name for it; a band not listed has its own name."""
    mask: str | None = None
    """Name of the mask layer; without one every pixel with data is clear."""
    time: str = "time"
    """Name of the time dimension."""
    y: str = "y"
    """Name of the y dimension."""
    x: str = "x"
    """Name of the x dimension."""
    crs: str | None = None
    """CRS of files that do not say it."""
    scale: Number | None = Field(default=None, gt=0)
    """Physical value of one count; by default the file's own, or 1e-4."""
    offset: Number | None = None
    """Reflectance of count 0: -0.1 for baseline 04.00 and later as delivered; by default the
    file's own, or 0."""
    nodata: Number | None = None
    """Count that means no data; by default the file's own, or 0."""
    resampling: Literal["nearest", "bilinear"] = "bilinear"
    """How bands of another grid come onto the cube's."""


class MaskSection(Section):
    """Which pixels of a scene are usable ground."""

    classes: tuple[Whole, ...] = (4, 5, 6, 7)
    """Scene classes (SCL) that are clear."""
    buffer: Number = Field(default=0.0, ge=0)
    """Metres to stay away from cloud and cloud shadow."""


class CompositeSection(Section):
    """How a month becomes one value, and how the cube is stored."""

    method: Literal["median"] = "median"
    """The statistic over clear looks."""
    tile: Whole = Field(default=512, ge=16)
    """Edge of the unit of work in pixels."""
    chunk: Whole = Field(default=256, ge=16)
    """Edge of a stored chunk in pixels; divides `tile`."""
    sharded: Flag = True
    """One stored object per tile instead of one per chunk."""
    zarr_format: Literal[2, 3] = 3
    """2 for GDAL older than 3.12 (then `sharded = false`)."""


class ReferenceSection(Section):
    """Ground truth."""

    file: ExistingPath
    """Points (CSV, GeoPackage, GeoJSON, Shapefile), polygons, or a label raster."""
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
    """Samples seen in fewer months are dropped and counted."""
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
    """Pixels seen in fewer months stay unclassified."""
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


class Recipe(Section):
    """One run from scenes to a map; a recipe without `reference` ends with the cube."""

    name: str = Field(min_length=1, max_length=100)
    """Title of the map."""
    months: MonthsSection
    source: Annotated[StacSection | StackSection, Field(discriminator="kind")]
    outputs: OutputsSection
    area: AreaSection | None = None
    grid: GridSection = GridSection()
    bands: Annotated[tuple[BandName, ...], Field(min_length=1)] = DEFAULT_BANDS
    mask: MaskSection = MaskSection()
    composite: CompositeSection = CompositeSection()
    reference: ReferenceSection | None = None
    sampling: SamplingSection = SamplingSection()
    training: TrainingSection = TrainingSection()
    map: MapSection = MapSection()
    cluster: ClusterSection = ClusterSection()

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands repeat: {list(self.bands)}")
        if self.area is None and self.source.kind == "stac":
            raise ValueError("area is missing; give [area] bbox or file")
        if self.area is None and self.grid.model_fields_set:
            raise ValueError("grid goes with area; without one the cube takes the stack's own grid")
        if self.composite.tile % self.composite.chunk:
            raise ValueError(
                f"composite.tile {self.composite.tile} is no multiple of chunk {self.composite.chunk}"
            )
        if self.composite.sharded and self.composite.zarr_format == 2:
            raise ValueError("composite.zarr_format 2 has no shards; set composite.sharded = false")
        return self


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read and validate a recipe; `overrides` are `key.path=value` texts (values in TOML).

    Paths in the recipe are taken from the recipe's folder. Raises `InputError`, naming the key,
    what was found and what is expected.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"recipe {str(path)!r} does not exist; `canopycube init` writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {str(path)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {str(path)!r} is not TOML: {error}") from error
    for override in overrides:
        _override(table, override)
    try:
        return Recipe.model_validate(table, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise InputError(f"recipe {str(path)!r}: {_first_error(error)}") from error


def _override(table: dict[str, Any], text: str) -> None:
    found = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.*)", text, flags=re.DOTALL)
    if not found:
        raise InputError(
            f"--set {text!r} is not understood; expected key=value, e.g. map.min_months=3"
        )
    try:
        value = tomllib.loads(f"value = {found[2]}")["value"]
    except tomllib.TOMLDecodeError:
        value = found[2]  # plain words need no quotes on a command line
    *parents, key = found[1].split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {text!r}: {parent!r} is a value, not a table")
    table[key] = value


def _first_error(error: ValidationError) -> str:
    """Return the first finding as `key: what was found; what is expected`."""
    findings = error.errors(include_url=False)
    first = findings[0]
    is_stack = "stack" in first["loc"][1:2]
    key = _key(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key{_suggestion(key, StackSection if is_stack else StacSection)}"
    elif first["type"] == "missing":
        absent = [_key(finding["loc"]) for finding in findings if finding["type"] == "missing"]
        findings = [finding for finding in findings if finding["type"] != "missing"] or [first]
        key, message = ", ".join(absent), "missing; must be given"
    elif first["type"] == "union_tag_invalid":
        message = f"kind = {first['ctx']['tag']!r} is not known; expected 'stac' or 'stack'"
    elif first["type"] != "value_error":
        expected = message.removeprefix("Input should be ").replace("a valid tuple", "a list")
        message = f"found {first['input']!r:.80}; expected {expected}"
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"


def _key(location: tuple[int | str, ...]) -> str:
    """Return a place in the recipe as its reader sees it, without pydantic's own steps."""
    return ".".join(str(step) for step in location if step not in ("stac", "stack", "[key]"))


def _suggestion(key: str, source: type[Section]) -> str:
    """Return which key of the same table may have been meant, or which there are."""
    *parents, last = key.split(".")
    section: Any = Recipe
    for step in parents:
        field = section.model_fields.get(step)
        section = source if step == "source" else field.annotation if field else None
        section = next((kind for kind in (*get_args(section), section) if _is_section(kind)), None)
        if section is None:
            return ""
    for other in (StacSection, StackSection):
        if parents == ["source"] and source is not other and last in other.model_fields:
            return f" with this source; it belongs to kind = {'stac' if other is StacSection else 'stack'!r}"
    close = difflib.get_close_matches(last, section.model_fields, n=1)
    known = ", ".join(section.model_fields)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {known}"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
