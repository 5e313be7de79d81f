"""The sections of a recipe that decide the cube: where, when, which scenes, what is made of them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cube.periods import Period, Step, periods_between
from pipelines.recipe_values import (
    AnyPath,
    BandName,
    CatalogueText,
    ExistingPath,
    Flag,
    MonthText,
    Number,
    RootedText,
    Section,
    StepText,
    Whole,
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
    """"utm" for the zone of the area's centre, "equal-area" for Lambert's azimuthal equal-area
    projection about it, which fits areas of several zones, "utm-each" for a cube and a map in each
    zone and a mosaic of them, or any CRS in metres."""
    mosaic_crs: str = "equal-area"
    """CRS of the mosaic of crs = "utm-each": "equal-area", "utm" or any CRS in metres."""
    resolution: Number = Field(default=10.0, gt=0)
    """Edge of a pixel in metres."""
    anchor: tuple[Number, Number] = (0.0, 0.0)
    """A point (x, y) in `crs` where pixel corners meet, to coincide with rasters you have."""

    @model_validator(mode="after")
    def _has_a_mosaic(self) -> "GridSection":
        if self.crs != "utm-each" and "mosaic_crs" in self.model_fields_set:
            raise ValueError("mosaic_crs goes with crs = 'utm-each', which makes a mosaic")
        if self.crs == "utm-each" and "anchor" in self.model_fields_set:
            raise ValueError("anchor goes with one grid; crs = 'utm-each' makes several")
        return self


class MonthsSection(Section):
    """When: calendar months, both ends included, and the periods they are divided into."""

    first: MonthText
    """First month, YYYY-MM."""
    last: MonthText
    """Last month, YYYY-MM."""
    step: StepText = "month"
    """What gets one value: "month", "half-month" (days 1-15 and the rest), "season" (meteorological:
    Dec-Feb, Mar-May ...), a whole number of days counted from New Year, or "acquisition": every
    overpass by itself (a raw series, which cannot be trained on)."""

    @property
    def calendar(self) -> tuple[Period, ...]:
        """The periods; the calendar months where acquisitions are yet to be found."""
        step: Step = "month" if self.step == "acquisition" else self.step
        return periods_between(self.first, self.last, step)

    @model_validator(mode="after")
    def _in_order(self) -> "MonthsSection":
        _ = self.calendar
        return self


class StacSection(Section):
    """Scenes from a STAC API or a static catalogue."""

    kind: Literal["stac"]
    """Always "stac"."""
    catalogue: CatalogueText
    """URL of an API, URL or path of a catalog.json, or a provider's short name, e.g.
    "planetary-computer"."""
    collection: str = "sentinel-2-l2a"
    """Collection to search."""
    max_cloud_cover: Number = Field(default=80.0, ge=0, le=100)
    """Scenes with more cloud (percent of the whole scene) are not read."""
    leave_out: tuple[str, ...] = ()
    """Ids of scenes that are not used, for those that cannot be mended."""
    access: Literal["auto", "none", "planetary-computer", "s3", "s3-cdse", "earthdata"] = "auto"
    """How files are signed when they are opened; "auto" as the catalogue's provider needs it."""
    reader: Literal["direct", "odc", "stackstac"] = "direct"
    """What reads the pixels: ourselves, block by block, or a library; all give the same."""
    resampling: Literal["nearest", "bilinear"] = "bilinear"
    """How reflectance comes onto the grid where pixels do not coincide."""
    overviews: Flag = False
    """Make a coarse grid of the files' overviews: fewer bytes, but no true means ("direct" only)."""
    offset: Literal["check", "metadata", "verify"] = "check"
    """Radiometric offset: by the metadata and checked against the pixels ("check": a
    disagreement stops), by the metadata alone, or by the pixels where they disagree ("verify")."""
    product_metadata: Flag = True
    """Ask the product's own metadata for the offset too: one small request a scene."""
    attempts: Whole = Field(default=8, ge=1, le=100)
    """Tries of one request before its server or file counts as failed."""
    timeout: Number = Field(default=60.0, gt=0)
    """Seconds without a byte after which a request has failed."""
    lost_scenes: Whole = Field(default=0, ge=0)
    """How many scenes may be lost to broken files, over all tiles, before the run has failed."""
    project: str | None = None
    """Of kind = "earthengine"; may stand here so that `kind` alone decides between the two."""


class ExportSection(Section):
    """Composites that Earth Engine writes into files, for areas that are too large to ask for."""

    to: Literal["cloud-storage", "drive"]
    """Where Earth Engine puts the GeoTIFFs."""
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")] | None = None
    """Bucket of "cloud-storage"."""
    folder: Annotated[str, Field(pattern=r"^[\w][\w -]*(/[\w][\w -]*)*$")] = "canopycube"
    """Folder in the bucket or on the drive."""
    files: AnyPath | None = None
    """Folder of this machine in which finished files lie: needed with "drive", whose files you
    download yourself; with "cloud-storage" for a bucket that is mounted or was copied."""

    @model_validator(mode="after")
    def _has_bucket(self) -> "ExportSection":
        if (self.to == "cloud-storage") != (self.bucket is not None):
            raise ValueError("bucket goes with to = 'cloud-storage', and only with it")
        return self


class EarthEngineSection(Section):
    """Composites that Google Earth Engine computes on its own servers."""

    kind: Literal["earthengine"]
    """Always "earthengine"."""
    project: str | None = None
    """Your Google Cloud project; by default EARTHENGINE_PROJECT, or that of your credentials."""
    collection: str = "COPERNICUS/S2_SR_HARMONIZED"
    """Image collection; one of which the radiometric offset is removed."""
    max_cloud_cover: Number = Field(default=80.0, ge=0, le=100)
    """Images with more cloud (CLOUDY_PIXEL_PERCENTAGE) are not used."""
    leave_out: tuple[str, ...] = ()
    """Ids of images (`system:index`) that are not used."""
    mask: Literal["cloud-score-plus", "scl", "qa60"] | None = None
    """What says which pixels are clear; by default "cloud-score-plus", and "qa60" where
    training.preset is "reference"."""
    clear_threshold: Number = Field(default=0.6, gt=0, lt=1)
    """Least `cs_cdf` of Cloud Score+ that is clear."""
    resampling: Literal["nearest", "bilinear"] = "bilinear"
    """How reflectance comes onto the grid where pixels do not coincide."""
    requests_at_once: Whole = Field(default=20, ge=1, le=40)
    """Most requests under way at once, shared out among the cluster's processes, of which each has
    one at least; Earth Engine's own limit is 40. With cluster.kind = "scheduler" and no
    cluster.workers, nobody knows how many share: each process has one under way. Lowered while the
    server answers that it is too much."""
    seconds_per_request: Number = Field(default=5.0, gt=0)
    """Seconds that one request is thought to take at least: `plan` reckons with it."""
    attempts: Whole = Field(default=8, ge=1, le=100)
    """Tries of one request before it counts as failed."""
    timeout: Number = Field(default=360.0, gt=0)
    """Seconds without a byte after which a request has failed: Earth Engine computes for up to
    five minutes, and then says itself that the time is up."""
    endpoint: str = "https://earthengine-highvolume.googleapis.com"
    """Address of Earth Engine's service."""
    export: ExportSection | None = None
    """Have the composites exported to files, and build from those."""
    catalogue: str | None = None
    """Of kind = "stac"; may stand here so that `kind` alone decides between the two."""


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
    opening: Number = Field(default=0.0, ge=0)
    """Metres: cloud into which no disc of this radius fits is clear, such as bright roofs."""
    shadow: Flag = False
    """Take dark ground and cloud shadow (SCL 2, 3) for clear."""
    snow: Flag = False
    """Take snow and ice (SCL 11) for clear."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Name of an installed cloud model that is asked too, e.g. "omnicloudmask"."""


class CompositeSection(Section):
    """How a period becomes one value, and how the cube is stored."""

    method: Literal["median", "mean", "medoid", "geomedian", "max-ndvi", "best"] = "median"
    """How the clear looks of a period become one value."""
    outliers: Flag = False
    """Reject clear looks, and values of the series, that only an unseen cloud explains."""
    outlier_threshold: Number = Field(default=0.04, gt=0)
    """Reflectance by which a look may always be brighter in blue than its pixel at other times."""
    buffer: Whole = Field(default=128, ge=1)
    """Most megabytes that a period's looks take at once; of more, a tile is made in strips."""
    tile: Whole = Field(default=512, ge=16)
    """Edge of the unit of work in pixels."""
    chunk: Whole = Field(default=256, ge=16)
    """Edge of a stored chunk in pixels; divides `tile`."""
    sharded: Flag = True
    """One stored object per tile instead of one per chunk."""
    zarr_format: Literal[2, 3] = 3
    """2 for GDAL older than 3.12 (then `sharded = false`)."""


class GapsSection(Section):
    """How periods without a clear look are filled from the same pixel's other periods."""

    method: Literal["linear", "harmonic", "whittaker"] = "linear"
    """A straight line, a year's wave, or the smoothest series near the observations."""
    longest_gap: Whole = Field(default=100, ge=1)
    """Days between the observations round a gap up to which it is filled."""
    smoothness: Number = Field(default=0.1, gt=0)
    """"whittaker" only: small for a curve through the observations, large for a straight one."""
