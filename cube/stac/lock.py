"""Scenes in, checked scenes out, and the lock file between a search and every later run."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from jaxtyping import Integer
from rasterio.warp import transform_bounds
from scipy.ndimage import binary_dilation

from cube.bands import BANDS
from cube.durable import replace_text
from cube.errors import InputError
from cube.radiometry import (
    DARK_BANDS,
    OffsetDecision,
    OffsetReading,
    OffsetSetting,
    read_offset_from_pixels,
    settle_offset,
)
from cube.stac.files import READ_ERRORS, file_stamp, raster, read_error
from cube.stac.footprint import meets, unwrapped
from cube.stac.scene import SCL, Asset, DroppedScene, Scene, SceneList

_FORMAT = "canopycube scenes 2"
"""First field of every lock file; a reader refuses any other. 2: question, stamps of the files."""

_SAMPLE_EDGE = 512
"""Pixels along each side of the coarse look at a scene; a 10,980-pixel band has an overview near."""

_SAMPLE_BANDS = 3
"""Dark bands looked at: one is dark over water and vegetation alike, whichever the haze brightens."""

_THREADS = 8
"""Files opened at once; each costs a few requests of some kilobytes."""


def lock_scenes(
    found: SceneList,
    *,
    bands: Sequence[str],
    offset: OffsetSetting = "check",
    on_scene: Callable[[int, int], None] | None = None,
) -> SceneList:
    """Check scenes against their files, so that later runs can trust what the list says.

    For `bands` and the scene classification, every file's header is read: its own geometry and
    CRS replace what the item declared, and local files get their stamp. Unless `offset` is `metadata`, the radiometric
    offset is read from dark pixels of a coarse overview and compared (`settle_offset`). A scene
    without one of `bands` is dropped with its reason. Assets that are not asked for are left out.

    `on_scene` is called with (done, total). Raises `InputError` for a missing or corrupt file, a
    footprint that is not where the pixels are, an offset that pixels deny, and if no scene is
    left; `WorkFailedError` where a server does not answer.
    """
    unknown = [band for band in bands if band not in BANDS]
    if unknown:
        raise InputError(f"bands {unknown} are not known; known are {', '.join(BANDS)}")
    scenes, dropped = _with_all(found, tuple(dict.fromkeys((*bands, SCL))))
    locked: list[Scene] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for scene in pool.map(lambda scene: _locked(scene, bands, offset), scenes):
            locked.append(scene)
            if on_scene is not None:
                on_scene(len(locked), len(scenes))
    return replace(found, scenes=tuple(locked), dropped=(*found.dropped, *dropped))


def write_scenes(path: Path, found: SceneList, *, question: str = "") -> None:
    """Write the lock file, whole or not at all: JSON, one scene a line, no signature in it.

    `question` is kept with it, for `read_scenes` to return; empty keeps the list's own.
    """
    lines = [json.dumps(scene.to_json(), allow_nan=False) for scene in found.scenes]
    gone = [json.dumps({"id": d.id, "reason": d.reason}) for d in found.dropped]
    text = (
        f'{{"format": {json.dumps(_FORMAT)},\n"question": {json.dumps(question or found.question)},\n'
        + '"scenes": [\n'
        + ",\n".join(lines)
        + '\n],\n"dropped": [\n'
        + ",\n".join(gone)
        + "\n]}\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)


def read_scenes(path: Path) -> SceneList:
    """Read a lock file; raise `InputError` if it is missing, damaged, or something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"scene list {str(path)!r} does not exist; run `canopycube lock RECIPE`"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"scene list {str(path)!r} is no JSON: {error}") from error
    if not isinstance(record, Mapping) or record.get("format") != _FORMAT:
        raise InputError(
            f"{str(path)!r} is no scene list of this version ({_FORMAT!r}); delete it or run "
            "`canopycube lock RECIPE`"
        )
    try:
        return SceneList(
            scenes=tuple(Scene.from_json(scene) for scene in record["scenes"]),
            dropped=tuple(
                DroppedScene(id=str(d["id"]), reason=str(d["reason"])) for d in record["dropped"]
            ),
            question=str(record["question"]),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"scene list {str(path)!r} is damaged ({error!r}); run `canopycube lock RECIPE`"
        ) from error


def _with_all(found: SceneList, names: tuple[str, ...]) -> tuple[list[Scene], list[DroppedScene]]:
    kept, dropped = [], []
    for scene in found.scenes:
        missing = [name for name in names if name not in scene.assets]
        if missing:
            reason = f"has no asset for {', '.join(missing)}"
            dropped.append(DroppedScene(id=scene.id, reason=reason))
        else:
            kept.append(scene)
    if not kept:
        raise InputError(f"none of {len(found.scenes)} scenes has all of {', '.join(names)}")
    return kept, dropped


def _locked(scene: Scene, bands: Sequence[str], setting: OffsetSetting) -> Scene:
    telling = [] if setting == "metadata" else _telling_bands(scene, bands)
    names = list(dict.fromkeys((*bands, SCL, *telling)))
    headers = {name: _header(scene, name) for name in names}
    codes = {epsg for epsg, _ in headers.values()}
    if len(codes) > 1:
        raise InputError(f"scene {scene.id!r} has files of several CRS: {sorted(codes)}")
    epsg = codes.pop()
    _refuse_lying_footprint(scene, epsg, headers[SCL][1])
    decision = OffsetDecision(offset=scene.offset, reason=scene.offset_reason)
    if telling:
        reading = _reading(scene, telling, {name: asset for name, (_, asset) in headers.items()})
        decision = settle_offset(decision, reading, setting=setting, scene_id=scene.id)
    wanted = {*bands, SCL}
    return replace(
        scene,
        epsg=epsg,
        assets={name: asset for name, (_, asset) in headers.items() if name in wanted},
        offset=decision.offset,
        offset_reason=decision.reason,
        is_locked=True,
    )


def _telling_bands(scene: Scene, bands: Sequence[str]) -> list[str]:
    """Dark bands to look at: those of the cube if it has any, else others of the scene."""
    ours = [name for name in DARK_BANDS if name in bands]
    others = [name for name in DARK_BANDS if name in scene.assets and name not in ours]
    return ours[:_SAMPLE_BANDS] or others[:_SAMPLE_BANDS]


def _header(scene: Scene, name: str) -> tuple[int, Asset]:
    """(EPSG code, asset with the file's own geometry) of one file."""
    asset = scene.assets[name]
    try:
        with raster(asset.href) as file:
            epsg = file.crs.to_epsg() if file.crs else None
            found = (file.transform, file.shape, file.nodata, file.count, file.dtypes[0])
        stamp = file_stamp(asset.href)
    except READ_ERRORS as error:
        raise read_error(error, scene_id=scene.id, band=name, href=asset.href) from error
    transform, shape, nodata, count, dtype = found
    owner = f"scene {scene.id!r}, asset {name}"
    if epsg is None:
        raise InputError(f"{owner}: the file has no CRS with an EPSG code")
    if count != 1 or dtype not in ("uint8", "uint16"):
        raise InputError(f"{owner}: the file has {count} bands of {dtype}; expected one of uint16")
    if nodata not in (0, None):
        raise InputError(f"{owner}: the file's nodata is {nodata}; a product has 0")
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return epsg, replace(asset, transform=(a, b, c, d, e, f), shape=shape, stamp=stamp)


def _refuse_lying_footprint(scene: Scene, epsg: int, asset: Asset) -> None:
    assert asset.transform is not None
    assert asset.shape is not None
    to_crs = rasterio.Affine(*asset.transform)
    bounds = rasterio.transform.array_bounds(*asset.shape, to_crs)
    west, south, east, north = transform_bounds(f"EPSG:{epsg}", "EPSG:4326", *bounds)
    ground = shapely.box(west, south, east + 360 if east < west else east, north)
    if not meets(unwrapped(scene.footprint), ground):
        raise InputError(
            f"scene {scene.id!r}: its footprint is not where its pixels are "
            f"({west:.2f}, {south:.2f}, {east:.2f}, {north:.2f}); leave the scene out"
        )


def _reading(scene: Scene, bands: list[str], assets: Mapping[str, Asset]) -> OffsetReading:
    """Ask the pixels of a coarse overview, far from where the sensor saw nothing."""
    if len({_extent(assets[name]) for name in (*bands, SCL)}) > 1:
        return "undecided"
    edges = [assets[name].shape or (0, 0) for name in (*bands, SCL)]
    shape = (
        min(_SAMPLE_EDGE, *(rows for rows, _ in edges)),
        min(_SAMPLE_EDGE, *(columns for _, columns in edges)),
    )
    scl = _overview(scene, SCL, assets, shape)
    counts = np.stack([_overview(scene, name, assets, shape) for name in bands])
    # an overview can mix nodata (0) into the pixels beside it, and so darken them
    is_inside = ~binary_dilation((scl == 0) | (counts == 0).any(axis=0), iterations=2)
    return read_offset_from_pixels(counts[:, is_inside], scl[is_inside])


def _extent(asset: Asset) -> tuple[int, ...]:
    assert asset.transform is not None
    assert asset.shape is not None
    bounds = rasterio.transform.array_bounds(*asset.shape, rasterio.Affine(*asset.transform))
    return tuple(round(edge) for edge in bounds)


def _overview(
    scene: Scene, name: str, assets: Mapping[str, Asset], shape: tuple[int, int]
) -> Integer[np.ndarray, "y x"]:
    href = assets[name].href
    try:
        with raster(href) as file:
            pixels: Any = file.read(1, out_shape=shape)
    except READ_ERRORS as error:
        raise read_error(error, scene_id=scene.id, band=name, href=href) from error
    return np.asarray(pixels)
