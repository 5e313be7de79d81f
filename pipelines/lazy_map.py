"""A cube and a classifier in, a lazy class map out: Dask `map_blocks`, one task per tile."""

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from jaxtyping import Bool, UInt8

from cube.errors import InputError
from cube.mapstore import (
    EXTRA_LAYERS,
    LAYERS,
    QUALITY_NODATA,
    QUALITY_SCALE,
    MapClass,
    flag_attributes,
)
from model.classifier import SpeciesClassifier
from model.classifier_file import JSON_NAME
from model.engines import ENGINES
from model.predict import predict_block
from pipelines.cluster import carried_files


def classify(
    cube: xr.Dataset,
    classifier: str | Path,
    *,
    min_months: int = 1,
    engine: str = "auto",
    layers: Sequence[str] = (),
) -> xr.Dataset:
    """Classify a cube lazily: slice the result, look at it, and only that is computed.

    `cube` comes from `open_cube` (or a part of it in y and x); `classifier` is the folder of a
    trained classifier. Returns (y, x) variables: `species` uint8 (0 where fewer than `min_months`
    periods are clear, else the number of the class), `confidence` and `margin` float32 0..1, NaN
    where unclassified, and `months_observed` float32, as are `layers` of `cube.mapstore.EXTRA_LAYERS`
    if asked for. `species.attrs` has CF flag meanings.

    Raises `InputError` if the cube lacks the dims, or something is asked for that there is not,
    `ClassifierError` if the classifier cannot be read or does not fit the cube's bands and periods.
    """
    _refuse_unknown(min_months, engine, layers)
    if "reflectance" not in cube:
        raise InputError("the cube has no variable 'reflectance'; open it with `open_cube`")
    reflectance = cube["reflectance"]
    if reflectance.dims != ("time", "band", "y", "x"):
        raise InputError(
            f"the cube has dims {reflectance.dims}; expected ('time', 'band', 'y', 'x')"
        )
    folder = Path(classifier)
    loaded = load_once(folder, classifier_stamp(folder))
    bands = tuple(str(band) for band in reflectance["band"].values)
    if "period" not in reflectance.coords:
        raise InputError("the cube has no coordinate 'period'; open it with `open_cube`")
    loaded.check_cube(bands, [str(period) for period in reflectance["period"].values])
    refuse_missing(loaded, layers, asked_by="layers")
    pixels = reflectance.chunk({"time": -1, "band": -1}).data
    names = layer_names(layers)
    stacked = da.map_blocks(
        classify_block,
        pixels,
        folder=folder,
        stamp=classifier_stamp(folder),
        bands=bands,
        min_months=min_months,
        engine=engine,
        layers=names,
        drop_axis=(0, 1),
        new_axis=0,
        chunks=((len(names),), *pixels.chunks[2:]),
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
    )  # (layer, y, x)
    coordinates = {
        name: coordinate
        for name, coordinate in cube.coords.items()
        if set(coordinate.dims) <= {"y", "x"}
    }
    found = xr.Dataset(coords=coordinates)
    for index, name in enumerate(names):
        layer = xr.DataArray(stacked[index], dims=("y", "x"), coords=coordinates)
        found[name] = layer if name == "species" else _physical(layer, name)
        found[name].attrs["grid_mapping"] = reflectance.encoding.get(
            "grid_mapping", reflectance.attrs.get("grid_mapping", "spatial_ref")
        )
    found["species"].attrs["long_name"] = "species or land-cover class"
    found["species"].attrs |= flag_attributes(legend_of(loaded))
    return found


def _refuse_unknown(min_months: int, engine: str, layers: Sequence[str]) -> None:
    if min_months < 1:
        raise InputError(f"min_months is {min_months!r}; expected 1 or more")
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if isinstance(layers, str):
        raise InputError(f"layers is {layers!r}; expected a list of names, as [{layers!r}]")
    if unknown := [name for name in layers if name not in EXTRA_LAYERS]:
        raise InputError(
            f"layers asks for {unknown[0]!r}; expected names of {', '.join(EXTRA_LAYERS)}"
        )


def refuse_missing(classifier: SpeciesClassifier, layers: Sequence[str], *, asked_by: str) -> None:
    """Raise `InputError` for layers that the classifier was saved without; `asked_by` names them."""
    has = {
        "likely_classes": classifier.conformal is not None,
        "applicable": classifier.applicability is not None,
    }
    if missing := [name for name in layers if not has[name]]:
        raise InputError(
            f"{asked_by} asks for {missing[0]!r}, which the classifier was saved without; train it "
            "again, or leave that out"
        )


def layer_names(extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the layers of a map in the order in which a classified block stacks them."""
    return ("species", *LAYERS, *(name for name in EXTRA_LAYERS if name in extra))


def legend_of(
    classifier: SpeciesClassifier, colours: Mapping[str, str] | None = None
) -> tuple[MapClass, ...]:
    """Return the classifier's classes, in the colours of `colours` where it has any."""
    pairs = zip(classifier.classes, classifier.colours, strict=True)
    return tuple(
        MapClass(value=index, name=name, colour=(colours or {}).get(name, colour))
        for index, (name, colour) in enumerate(pairs, start=1)
    )


def _physical(layer: xr.DataArray, name: str) -> xr.DataArray:
    scale = np.float32(QUALITY_SCALE if name in ("confidence", "margin") else 1)
    physical: xr.DataArray = xr.where(layer == QUALITY_NODATA, np.float32(np.nan), layer * scale)
    physical.attrs |= (LAYERS | EXTRA_LAYERS)[name]
    return physical


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """A tile, or some rows of it, as a map stores it, and what computed that."""

    layers: UInt8[np.ndarray, "layer y x"]
    """Those of `layer_names`."""
    engine: str
    """Name of the engine; `none` where there was nothing to compute."""
    arithmetic: str
    """What it computed with (`model.engines.Engine.arithmetic`); `none` likewise."""


def classify_block(
    block: np.ndarray,  # (time, band, y, x), int16 stored units or float32 physical
    **settings: Any,
) -> UInt8[np.ndarray, "layer y x"]:
    """Return the layers of `classify_tile`."""
    return classify_tile(block, **settings).layers


def classify_tile(
    block: np.ndarray,  # (time, band, y, x), int16 stored units or float32 physical
    *,
    folder: Path,
    stamp: str,
    bands: tuple[str, ...],
    min_months: int,
    engine: str = "auto",
    layers: Sequence[str] = (),
    wanted: Bool[np.ndarray, "y x"] | None = None,
) -> Classified:
    """Classify one tile; the layers are `layer_names`, as a map stores them.

    Pixels that are not `wanted` (by default all are) are nodata in every layer.
    """
    names = layer_names(layers)
    prediction = predict_block(
        load_once(folder, stamp),
        block,
        bands,
        min_months=min_months,
        engine=engine,
        wanted=wanted,
        layers=tuple(name for name in names if name in EXTRA_LAYERS),
    )
    stacked = np.stack([prediction.class_value, *(getattr(prediction, name) for name in names[1:])])
    if wanted is not None:
        stacked[1:, ~wanted] = QUALITY_NODATA
    return Classified(layers=stacked, engine=prediction.engine, arithmetic=prediction.arithmetic)


_loading = threading.Lock()


def load_once(folder: Path, stamp: str) -> SpeciesClassifier:
    """Load a classifier once per process; `stamp` is what `classifier_stamp` said of it.

    Raises `ClassifierError` if it cannot be read, `InputError` if it is another by now.
    """
    with _loading:  # the cache lets several threads load at once, and each tests its own engine
        return _loaded(folder, stamp)


@functools.lru_cache(maxsize=4)
def _loaded(folder: Path, stamp: str) -> SpeciesClassifier:
    # a worker has them from the client, and perhaps no disk in common with it
    if files := carried_files(f"{stamp}/"):
        if _stamp_of(files) != stamp:
            raise InputError(f"classifier {str(folder)!r} did not arrive as it was sent; run again")
        return SpeciesClassifier.load_files(files, named=str(folder))
    loaded = SpeciesClassifier.load(folder)
    if classifier_stamp(folder) != stamp:
        raise InputError(f"classifier {str(folder)!r} was replaced while it was in use; run again")
    return loaded


_PIECE = 2**20
"""Bytes of a file that are hashed at once."""


def classifier_stamp(folder: Path) -> str:
    """Return a hash of the classifier's files, so that a changed folder is loaded anew."""
    sha = hashlib.sha256()
    for file in _files_of(folder):
        sha.update(file.name.encode())
        with file.open("rb") as opened:  # weights of a wide network are larger than a tile
            while piece := opened.read(_PIECE):
                sha.update(piece)
    return sha.hexdigest()[:16]


def classifier_files(folder: Path, stamp: str) -> dict[str, bytes]:
    """Return the classifier's files as they go to workers: their content by `stamp/name`.

    Raises `InputError` if it is another classifier by now.
    """
    files = {file.name: file.read_bytes() for file in _files_of(folder)}
    if _stamp_of(files) != stamp:
        raise InputError(f"classifier {str(folder)!r} was replaced while it was in use; run again")
    return {f"{stamp}/{name}": content for name, content in files.items()}


def _stamp_of(files: Mapping[str, bytes]) -> str:
    """Return what `classifier_stamp` says of a folder with these files."""
    sha = hashlib.sha256()
    for name in sorted(files):
        sha.update(name.encode() + files[name])
    return sha.hexdigest()[:16]


def _files_of(folder: Path) -> list[Path]:
    # what else lies there, as the report, decides no pixel; another folder may be named by mistake,
    # and loading it says so
    found = sorted((*folder.glob(JSON_NAME), *folder.glob("weights-*")))
    return [file for file in found if file.is_file()]


def stored_layers(
    block: UInt8[np.ndarray, "layer y x"], extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a classified block, with its `extra` layers, as the layers of a map store."""
    return dict(zip(layer_names(extra), block, strict=True))
