"""A folder and a spec in, a whole synthetic archive on disk out: scenes, labels, area, truth."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
import shapely.geometry
from affine import Affine
from jaxtyping import Float32, UInt16
from odc.geo.geobox import GeoBox

from cube.bands import BANDS, REFLECTANCE_BANDS
from cube.errors import InputError
from cube.forest.catalogue import (
    COLLECTION,
    catalogue_document,
    collection_document,
    in_degrees,
    item_document,
)
from cube.forest.labels import forest_points
from cube.forest.raster import write_cog
from cube.forest.scene import View
from cube.forest.schedule import ForestScene, scenes_of
from cube.forest.spec import FOREST_CLASSES, NATIVE_EPSG, ForestSpec
from cube.forest.stands import ground

OFFSET_COUNTS = 1000
"""What baseline 04.00 and later add to every reflectance count."""

_INSET = 2.0
"""Metres by which the area lies inside the grid, so that snapping it outwards to 10 m gives the
grid and no more."""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Where everything of a written forest lies."""

    spec: ForestSpec
    folder: Path
    catalogue: Path
    """`catalog.json`, the static STAC catalogue."""
    labels: Path
    """`labels.gpkg`: points in EPSG:4326 with `class`, `stand`, `point`."""
    labels_csv: Path
    """`labels.csv`: the same points as lon, lat, class, stand, point."""
    area: Path
    """`area.geojson`: one polygon in EPSG:4326, all but 2 m of the native grid."""
    classes: Path
    """`truth/classes.tif`: uint8 class number, names in its tags and in `truth/classes.json`."""
    stands: Path
    """`truth/stands.tif`: uint16 stand number from 1."""
    scenes: tuple[ForestScene, ...]


def write_forest(
    folder: Path | str,
    spec: ForestSpec,
    *,
    on_scene: Callable[[int, int], None] | None = None,
) -> Forest:
    """Simulate a forest and write it into `folder`, which must not exist or be empty.

    `on_scene(done, total)` is called after each scene. Everything is written beside `folder` first
    and moved there whole, so that a folder that exists is a forest that is complete. The same spec
    gives the same bytes. Raises `InputError` if `folder` holds something.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"cannot write a forest to {str(folder)!r}: it exists and is not an empty folder; "
            "name another or delete it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    draft.mkdir()
    try:
        forest = forest_in(draft, spec)
        _write_truth(forest)
        _write_labels(forest)
        _write_scenes(forest, on_scene)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft)
        raise
    return forest_in(folder, spec)


def forest_in(folder: Path, spec: ForestSpec) -> Forest:
    """Return where everything lies of a forest that was written into `folder` from `spec`."""
    return Forest(
        spec=spec,
        folder=folder,
        catalogue=folder / "catalog.json",
        labels=folder / "labels.gpkg",
        labels_csv=folder / "labels.csv",
        area=folder / "area.geojson",
        classes=folder / "truth" / "classes.tif",
        stands=folder / "truth" / "stands.tif",
        scenes=scenes_of(spec),
    )


def counts_of(
    measured: Float32[np.ndarray, "y x"], *, scale: float, offset: int
) -> UInt16[np.ndarray, "y x"]:
    """Return product counts: round(measured / scale) + offset, at least 1; NaN becomes nodata 0."""
    counts = np.rint(measured.astype(np.float64) / scale) + offset
    return np.asarray(np.where(np.isnan(counts), 0, np.clip(counts, 1, 32767)), np.uint16)


def _write_scenes(forest: Forest, on_scene: Callable[[int, int], None] | None) -> None:
    _write_json(forest.catalogue, catalogue_document())
    boxes = []
    for done, scene in enumerate(forest.scenes, 1):
        item = _write_scene(forest, scene)
        boxes.append(item["bbox"])
        if on_scene:
            on_scene(done, len(forest.scenes))
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    bbox = (float(low[0]), float(low[1]), float(high[2]), float(high[3]))
    _write_json(
        forest.folder / COLLECTION / "collection.json", collection_document(forest.scenes, bbox)
    )


def _write_scene(forest: Forest, scene: ForestScene) -> dict[str, Any]:
    folder = forest.folder / COLLECTION / scene.id
    folder.mkdir(parents=True)
    view = View(forest.spec, scene)
    offset = OFFSET_COUNTS if scene.offset_in_pixels else 0

    def write(name: str, counts: np.ndarray, resolution: int) -> None:
        transform = view.geobox.affine * Affine.scale(resolution / 10)
        write_cog(
            folder / f"{name}.tif",
            counts,
            epsg=scene.epsg,
            transform=transform,
            is_categorical=name == "SCL",
        )

    for index, name in enumerate(REFLECTANCE_BANDS):
        resolution = BANDS[name].resolution
        measured = view.coarse(view.measured(index, view.surface(index)), resolution)
        write(name, counts_of(measured, scale=1e-4, offset=offset), resolution)
    for name, layer in view.atmosphere().items():
        write(name, counts_of(layer, scale=1e-3, offset=0), 20)
    scl = view.classification()
    write("SCL", scl, 20)
    numbers, held = np.unique(scl, return_counts=True)
    item = item_document(
        scene,
        geobox=view.geobox,
        footprint=_footprint(view),
        share_of_scl={
            int(n): 100 * float(h) / scl.size for n, h in zip(numbers, held, strict=True)
        },
    )
    _write_json(folder / f"{scene.id}.json", item)
    return item


def _footprint(view: View) -> shapely.Geometry:
    """Return the convex hull of the pixels that were seen, in the scene's CRS."""
    blocks = view.is_seen[::6, ::6]
    rows = np.flatnonzero(blocks.any(axis=1))
    first, last = blocks[rows].argmax(axis=1), blocks.shape[1] - blocks[rows, ::-1].argmax(axis=1)
    corners = [(rows + lower, column) for lower in (0, 1) for column in (first, last)]
    north = view.geobox.affine.f - 60 * np.concatenate([row for row, _ in corners])
    east = view.geobox.affine.c + 60 * np.concatenate([column for _, column in corners])
    return shapely.MultiPoint(np.column_stack([east, north])).convex_hull


def _write_truth(forest: Forest) -> None:
    here = ground(forest.spec)
    forest.classes.parent.mkdir()
    grid = forest.spec.geobox.affine
    classes = here.class_number.astype(np.uint8)[here.stand]
    names = {str(c.number): c.name for c in FOREST_CLASSES}
    write_cog(
        forest.classes,
        classes,
        epsg=NATIVE_EPSG,
        transform=grid,
        is_categorical=True,
        tags={f"CLASS_{number}": name for number, name in names.items()},
        colours={c.number: _rgba(c.colour) for c in FOREST_CLASSES},
    )
    write_cog(
        forest.stands,
        (here.stand + 1).astype(np.uint16),
        epsg=NATIVE_EPSG,
        transform=grid,
        is_categorical=True,
    )
    _write_json(forest.classes.with_suffix(".json"), names)


def _rgba(colour: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue, 255


def _write_labels(forest: Forest) -> None:
    points = forest_points(forest.spec)
    names = [FOREST_CLASSES[number - 1].name for number in points.class_number]
    numbers = np.arange(1, len(names) + 1)
    with forest.labels_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["lon", "lat", "class", "stand", "point"])
        for row in zip(
            points.longitude, points.latitude, names, points.stand, numbers, strict=True
        ):
            writer.writerow([f"{row[0]:.7f}", f"{row[1]:.7f}", *row[2:]])
    frame = geopandas.GeoDataFrame(
        {"class": names, "stand": points.stand, "point": numbers},
        geometry=geopandas.points_from_xy(points.longitude, points.latitude),
        crs=4326,
    )
    # A GeoPackage holds the time of its last change; GDAL takes a fixed one from this option.
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{forest.spec.year}-12-31T00:00:00.000Z"})
    try:
        pyogrio.write_dataframe(frame, forest.labels, layer="labels", driver="GPKG")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    _write_json(forest.area, _area(forest.spec.geobox))


def _area(geobox: GeoBox) -> dict[str, Any]:
    left, bottom, right, top = geobox.boundingbox
    box = shapely.box(left + _INSET, bottom + _INSET, right - _INSET, top - _INSET)
    outline = in_degrees(box, NATIVE_EPSG)
    feature = {
        "type": "Feature",
        "properties": {"name": "synthetic forest"},
        "geometry": shapely.geometry.mapping(outline),
    }
    return {"type": "FeatureCollection", "features": [feature]}


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
