"""A forest in, the reference workflow's table exports out, faults and all, and the truth about them.

The exports are `.csv` files as Earth Engine writes them ("raw") or as the workflow's own cleaning
left them ("cleaned"): points of ground truth with a 2 x 2 patch round each, and patches of a mosaic.
Every fault that the project knows of them is in; what can be switched is a field of `ExportSpec`.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from changqing_images import FEATURES, INDICES, MASKED, Image, images_of
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.errors import InputError
from cube.forest import FOREST_CLASSES, ForestSpec, forest_points
from cube.forest.stands import ground

Form = Literal["raw", "cleaned"]

STEP = 10 / 111_319.49079327358
"""Degrees between samples: 10 m on the equator, along both axes."""

SMALL_FOREST = ForestSpec(scale=0.25)

_COARSE = ("B1", "B9")
"""Bands of 60 m, which can be masked while the others are not."""


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """What is exported, and with which faults; by default with all of them."""

    forest: ForestSpec = SMALL_FOREST
    """The forest that is seen, 120 x 120 pixels; the mosaic of patches lies in its middle."""
    patches: tuple[int, int] = (4, 7)
    """Patches from west to east and from south to north."""
    samples: tuple[int, int] = (19, 16)
    """Samples of a patch from west to east and from south to north, without overlap."""
    overlap: int = 1
    """Samples by which a patch reaches into its eastern and northern neighbour."""
    max_cloud_cover: float = 0.2
    """Images with more cloud are left out."""
    is_first_of_month: bool = True
    """A "monthly" table holds the first image of each month; else all of them."""
    is_qa60_empty: bool = True
    """The cloud mask has no effect; else cloud and shadow are masked."""
    is_evi_on_counts: bool = True
    """EVI is computed on counts instead of reflectance."""
    is_masked: bool = True
    """Masks of their own: a hole in one image, one in the 60 m bands, one in the indices."""
    has_gaps: bool = True
    """Every third patch lacks one date; each pixel of ground truth lacks about an eighth."""
    uneven_spelling: float = 0.1
    """Share of rows whose coordinates are spelt another way, or are off in the last bit."""
    seed: int = 0
    """Start of every random number but the forest's."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Where the tables lie, and the truth about every row of them."""

    spec: ExportSpec
    folder: Path
    ground_truth: Path
    patches: dict[tuple[int, int], Path]
    """By (i, j), as in the files' names: i runs to the east, j to the north."""
    geobox: GeoBox
    """The pixels that were sampled."""
    classes: np.ndarray
    """(y, x) uint8 on `geobox`: the number of the class in `FOREST_CLASSES`."""
    images: tuple[Image, ...]
    """What Earth Engine saw, in order of time."""
    rows: dict[Path, pd.DataFrame]
    """The rows of each file, in its order, as they were before any cleaning: the 20 features, and
    `row`, `column` (pixel of `geobox`), `date`, `longitude`, `latitude`, `image` (index), `hole`
    ("", "all", "coarse", "indices" or "cloud": what is masked), `is_cloud`, `is_snow`; of ground
    truth also `point` (index into the forest's points) and `class`."""

    @property
    def patch_rows(self) -> pd.DataFrame:
        """The rows of all patches together."""
        return pd.concat([self.rows[path] for path in self.patches.values()], ignore_index=True)


def write_export(folder: Path, spec: ExportSpec, *, form: Form = "raw") -> Export:
    """Write ground truth and patches into `folder`; the same spec gives the same bytes.

    Raises `InputError` if the mosaic does not fit into the forest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = images_of(
        spec.forest,
        max_cloud_cover=spec.max_cloud_cover,
        is_first_of_month=spec.is_first_of_month,
        is_evi_on_counts=spec.is_evi_on_counts,
    )
    sheet = _Sheet(spec, images)
    suffix = "_cleaned" if form == "cleaned" else ""
    year = spec.forest.year
    ground_truth = folder / f"LarchCN_{year}_monthly_ground_truth{suffix}.csv"
    rows = {ground_truth: sheet.ground_truth()}
    write_table(ground_truth, rows[ground_truth], form=form)
    patches = {}
    for i in range(spec.patches[0]):
        for j in range(spec.patches[1]):
            path = folder / f"LarchCN_256x256_{year}_monthly_patch_{i}_{j}{suffix}.csv"
            rows[path] = sheet.patch(i, j)
            write_table(path, rows[path], form=form)
            patches[i, j] = path
    here = ground(spec.forest)
    return Export(
        spec=spec,
        folder=folder,
        ground_truth=ground_truth,
        patches=patches,
        geobox=spec.forest.geobox,
        classes=here.class_number.astype(np.uint8)[here.stand],
        images=images,
        rows=rows,
    )


def write_table(path: Path, rows: pd.DataFrame, *, form: Form) -> None:
    """Write rows as one file: `raw` as Earth Engine does, `cleaned` as the workflow left them."""
    spelt = {"longitude": rows["longitude_text"], "latitude": rows["latitude_text"]}
    named = {name: rows[name] for name in ("month", "patch_id", "class") if name in rows.columns}
    if "class" in named:
        named["Class"] = named.pop("class")
    dates = {"image_date": rows["date"].map(datetime.date.isoformat)}
    if form == "raw":
        table = {"system:index": rows["index_text"]}
        table |= {name: rows[name] for name in FEATURES} | dates | named
        table[".geo"] = [
            f'{{"geodesic":false,"type":"Point","coordinates":[{longitude},{latitude}]}}'
            for longitude, latitude in zip(spelt["longitude"], spelt["latitude"], strict=True)
        ]
    else:
        # what was masked takes the value of the row above, whosever pixel that is
        filled = rows[list(FEATURES)].replace(MASKED, np.nan).ffill()
        table = {name: filled[name] for name in FEATURES} | dates
        table |= {name: column for name, column in named.items() if name != "month"} | spelt
    pd.DataFrame(table).to_csv(path, index=False, lineterminator="\n")


class _Sheet:
    """Images as a table: which sample takes which pixel, and what stands in its row."""

    def __init__(self, spec: ExportSpec, images: tuple[Image, ...]) -> None:
        self._spec, self._images = spec, images
        self._geobox = spec.forest.geobox
        self._to_grid = Transformer.from_crs(4326, self._geobox.crs.epsg, always_xy=True)
        self._holes = [_holes(spec, number, image) for number, image in enumerate(images)]
        to_degrees = Transformer.from_crs(self._geobox.crs.epsg, 4326, always_xy=True)
        middle = to_degrees.transform(*self._geobox.extent.centroid.coords[0])
        # the first column and the first row of the mosaic, counted from 0 degrees
        self._first = [
            round(degrees / STEP - count * size / 2)
            for degrees, count, size in zip(middle, spec.patches, spec.samples, strict=True)
        ]

    def patch(self, i: int, j: int) -> pd.DataFrame:
        """Return the rows of one patch: by date, then from north to south, west to east."""
        spec = self._spec
        columns, rows = (
            first + number * size + np.arange(size + spec.overlap)
            for first, number, size in zip(self._first, (i, j), spec.samples, strict=True)
        )
        across, up = np.meshgrid(columns, rows[::-1])
        number = i * spec.patches[1] + j
        absent = {number % len(self._images)} if spec.has_gaps and number % 3 == 0 else set()
        dates = [date for date in range(len(self._images)) if date not in absent]
        table = self._table(
            (across.ravel() + 0.5) * STEP, (up.ravel() + 0.5) * STEP, dates, stream=number + 1
        )
        return table.assign(patch_id=f"{i}_{j}")

    def ground_truth(self) -> pd.DataFrame:
        """Return the rows of the points: the four samples round each, by date, then by point."""
        points = forest_points(self._spec.forest)
        columns, rows = (
            np.floor(degrees / STEP - 0.5).astype(int)[:, None] + np.array(steps)
            for degrees, steps in (
                (points.longitude, (0, 1, 0, 1)),
                (points.latitude, (1, 1, 0, 0)),
            )
        )  # (point, 4)
        names = np.array([forest_class.name for forest_class in FOREST_CLASSES])
        order = np.random.default_rng([self._spec.seed, 9]).permutation(len(columns))
        table = self._table(
            (columns[order].ravel() + 0.5) * STEP,
            (rows[order].ravel() + 0.5) * STEP,
            list(range(len(self._images))),
            stream=0,
        )
        point = order.repeat(4)[table["sample"]]
        table = table.assign(
            point=point,
            month=[date.month for date in table["date"]],
            **{"class": names[points.class_number[point] - 1]},
        )
        if not self._spec.has_gaps:
            return table
        luck = np.random.default_rng([self._spec.seed, 8]).random(len(table))
        return table[luck > 1 / 8].reset_index(drop=True)

    def _table(
        self, longitude: np.ndarray, latitude: np.ndarray, dates: list[int], *, stream: int
    ) -> pd.DataFrame:
        east, north = self._to_grid.transform(longitude, latitude)
        grid = self._geobox.affine
        column = np.floor((east - grid.c) / 10).astype(int)
        row = np.floor((grid.f - north) / 10).astype(int)
        height, width = self._geobox.shape
        if not (
            row.min() >= 0 and row.max() < height and column.min() >= 0 and column.max() < width
        ):
            raise InputError(
                f"{self._spec.patches} patches of {self._spec.samples} samples are more than the "
                f"forest's {height} x {width} pixels; give a larger forest scale"
            )
        parts = [self._look(number, row, column) for number in dates]
        table = pd.concat(parts, ignore_index=True)
        table["sample"] = np.tile(np.arange(row.size), len(dates))
        places = np.stack([longitude[table["sample"]], latitude[table["sample"]]])
        generator = np.random.default_rng([self._spec.seed, 7, stream])
        return spelt(table, places, self._spec.uneven_spelling, generator)

    def _look(self, number: int, row: np.ndarray, column: np.ndarray) -> pd.DataFrame:
        """Return one image's rows."""
        image = self._images[number]
        hole = self._holes[number][row, column]
        hidden = {
            "all": FEATURES,
            "cloud": FEATURES,
            "coarse": _COARSE,
            "indices": INDICES,
            "": (),
        }
        values: dict[str, np.ndarray] = {}
        for name in FEATURES:
            is_hidden = np.isin(hole, [kind for kind, names in hidden.items() if name in names])
            values[name] = np.where(is_hidden, MASKED, image.features[name][row, column])
        return pd.DataFrame(
            values
            | {
                "row": row,
                "column": column,
                "date": image.date,
                "image": number,
                "hole": hole,
                "is_cloud": image.is_cloud[row, column],
                "is_snow": image.is_snow[row, column],
                "index_text": [f"{number}_{sample}" for sample in range(row.size)],
            }
        )


def _holes(spec: ExportSpec, number: int, image: Image) -> np.ndarray:
    """Return (y, x): what is masked of an image, as in `Export.rows`."""
    holes = np.full(image.is_seen.shape, "", dtype="<U7")
    height, width = holes.shape
    if spec.is_masked:
        if number == 1:
            holes[height // 2 : height // 2 + 3, width // 2 : width // 2 + 5] = "indices"
        if number == 3:
            holes[height // 3 : height // 3 + 12, width // 3 : width // 3 + 18] = "coarse"
        if number == 4:
            holes[height // 2 : height // 2 + 15, : width // 2] = "all"
    if not spec.is_qa60_empty:
        holes[image.is_cloud] = "cloud"
    holes[~image.is_seen] = "all"
    return holes


def spelt(
    table: pd.DataFrame, places: np.ndarray, share: float, generator: np.random.Generator
) -> pd.DataFrame:
    """Add coordinates and their texts: some off by one bit, some in another notation."""
    luck = generator.random(len(table))
    is_off, is_other = luck < share / 2, (luck >= share / 2) & (luck < share)
    places = np.where(is_off, np.nextafter(places, np.inf), places)  # (axis, row)
    for name, values in zip(("longitude", "latitude"), places, strict=True):
        table[name] = values
        table[f"{name}_text"] = [
            f"{value:.16e}" if other else repr(value)
            for value, other in zip(values.tolist(), is_other.tolist(), strict=True)
        ]
    return table
