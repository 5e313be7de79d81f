"""A cube and a classifier in, a map store out: one Dask task reads, classifies and writes a tile."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import shapely
from distributed import Client
from jaxtyping import UInt8
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from rasterio.features import geometry_mask

from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger, digest, fingerprint
from cube.mapstore import (
    QUALITY_NODATA,
    UNCLASSIFIED,
    MapClass,
    create_map,
    map_classes,
    write_map_region,
)
from cube.spec import CubeSpec, tile_region
from cube.store import open_stored_cube, read_spec
from model.classifier import SpeciesClassifier
from pipelines.cluster import run_tasks
from pipelines.lazy_map import classifier_stamp, classify_block, load_once, stored_layers
from pipelines.progress import Reporter


def legend_of(classifier: SpeciesClassifier, colours: Mapping[str, str]) -> tuple[MapClass, ...]:
    """Return the map's legend: the classifier's classes, in the recipe's colours where it has any."""
    pairs = zip(classifier.classes, classifier.colours, strict=True)
    return tuple(
        MapClass(value=index, name=name, colour=colours.get(name, colour))
        for index, (name, colour) in enumerate(pairs, start=1)
    )


def map_species(
    cube: Path,
    classifier: Path,
    path: Path,
    client: Client,
    reporter: Reporter,
    *,
    title: str,
    cube_digest: str,
    min_months: int = 1,
    clip: Geometry | None = None,
    colours: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Classify the cube into the map at `path`; resumes tile by tile.

    Pixels whose centre is outside `clip` stay unclassified. A map made from other inputs is
    replaced. Raises `ClassifierError` if the classifier does not fit the cube, `InputError` if
    `path` holds something that is no map, `WorkFailedError` unless every tile is done.
    """
    started = time.perf_counter()
    spec = read_spec(cube)
    stamp = classifier_stamp(classifier)
    loaded = load_once(classifier, stamp)
    loaded.check_cube(spec.bands, [str(month) for month in spec.months])
    classes = legend_of(loaded, colours or {})
    inputs = fingerprint(
        {
            "cube": cube_digest,
            "spec": spec.to_json(),
            "classifier": loaded.fingerprint,
            "classes": [vars(item) for item in classes],
            "min_months": min_months,
            "clip": None if clip is None else clip.wkt,
        }
    )
    ledger = Ledger(store=path, inputs=inputs)
    if path.exists():
        map_classes(path)  # refuses to touch what is no map
        if not ledger.records():
            shutil.rmtree(path)
    if not path.exists():
        create_map(
            path,
            geobox=spec.geobox,
            classes=classes,
            tile=spec.tile,
            chunk=spec.chunk,
            zarr_format=spec.zarr_format,
            title=title,
        )
    ledger.prepare()
    regions = {(region.row, region.column): region for region in spec.regions()}
    pending = {region.id for region in ledger.pending(regions.values())}
    written = _write_lazily(cube, spec, classifier, stamp, path, inputs, min_months, clip)
    blocks = written.to_delayed(optimize_graph=True)
    tasks = {region.id: blocks[place] for place, region in regions.items() if region.id in pending}
    with reporter.bar("map", len(regions)) as advance:
        advance(len(regions) - len(pending))
        run_tasks(client, tasks, step="map", on_done=lambda tile, _: advance(note=tile))
    records = ledger.records()
    if missing := sorted(region.id for region in regions.values() if region.id not in records):
        raise WorkFailedError(f"map: {len(missing)} tiles are not recorded, first {missing[0]}")
    return {
        "path": str(path),
        "tiles": f"{len(records)} of {len(regions)}, 0 failed",
        "mapped_now": len(pending),
        "classifier": loaded.fingerprint[:16],
        "digest": fingerprint({tile: record["digest"] for tile, record in records.items()}),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _write_lazily(
    cube: Path,
    spec: CubeSpec,
    classifier: Path,
    stamp: str,
    path: Path,
    inputs: str,
    min_months: int,
    clip: Geometry | None,
) -> da.Array:
    """Return the lazy (tile row, tile column) array whose blocks, computed, write the map."""
    pixels = open_stored_cube(cube)["reflectance"].data
    rows, columns = (len(sizes) for sizes in pixels.chunks[2:])
    written: da.Array = da.map_blocks(
        _map_tile,
        pixels,
        spec=spec,
        classifier=classifier,
        stamp=stamp,
        path=path,
        inputs=inputs,
        min_months=min_months,
        clip=None if clip is None else shapely.to_wkb(clip.to_crs(spec.crs).geom),
        drop_axis=(0, 1),
        chunks=((1,) * rows, (1,) * columns),
        dtype=bool,
        meta=np.empty((0, 0), bool),
    )
    return written


def _map_tile(
    block: np.ndarray,  # (time, band, y, x) int16
    *,
    spec: CubeSpec,
    classifier: Path,
    stamp: str,
    path: Path,
    inputs: str,
    min_months: int,
    clip: bytes | None,
    block_id: tuple[int, int],
) -> np.ndarray:
    """Classify one tile, write its layers, record it; returns one True, (1, 1)."""
    started = time.perf_counter()
    region = tile_region(spec.shape[2:], spec.tile, *block_id)
    layers = classify_block(
        block, folder=classifier, stamp=stamp, bands=spec.bands, min_months=min_months
    )
    if clip is not None:
        _leave_outside_out(layers, region.window(spec.geobox), clip)
    write_map_region(path, region, stored_layers(layers))
    Ledger(store=path, inputs=inputs).record(
        region,
        {
            "digest": digest(layers),
            "classified": int((layers[0] != UNCLASSIFIED).sum()),
            "seconds": round(time.perf_counter() - started, 3),
        },
    )
    return np.ones((1, 1), bool)


def _leave_outside_out(layers: UInt8[np.ndarray, "layer y x"], window: GeoBox, clip: bytes) -> None:
    is_outside = geometry_mask(
        [shapely.from_wkb(clip)], out_shape=window.shape, transform=window.transform
    )
    layers[0][is_outside] = UNCLASSIFIED
    layers[1:, is_outside] = QUALITY_NODATA


def require_classifier(folder: Path) -> None:
    """Raise `InputError` if there is no classifier yet."""
    if not folder.exists():
        raise InputError(f"there is no classifier at {str(folder)!r}; run `canopycube train` first")
