"""A scene with its files' geometry in, one coarse look at dark bands and classes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import rasterio
from jaxtyping import UInt8, UInt16
from rasterio.transform import array_bounds
from scipy.ndimage import binary_dilation

from cube.radiometry import DARK_BANDS, OffsetReading, read_offset_from_pixels
from cube.stac.header import FileHeader, read_coarse
from cube.stac.pixels import PixelReader
from cube.stac.scene import SCL, Asset, Scene
from cube.stac.sensors import SENSORS

_SAMPLE_EDGE = 512
"""Pixels along each side of the coarse look at a scene; a 10,980-pixel band has an overview near."""

_SAMPLE_BANDS = 3
"""Dark bands looked at: one is dark over water and vegetation alike, whichever the haze brightens."""

_KEPT_EDGE = 128
"""Pixels along each side of what is kept to compare with other scenes: 115 KB a scene."""


@dataclass(frozen=True, kw_only=True)
class CoarseLook:
    """What is kept of a coarse look, to be compared with those of other dates."""

    ground: tuple[int, ...]
    """EPSG code and bounds: looks of one ground and shape hold the same places pixel by pixel."""
    bands: tuple[str, ...]
    """Dark bands, by `DARK_BANDS`."""
    counts: UInt16[np.ndarray, "band y x"] = field(repr=False)
    """As they are in the file, 0 for nodata."""
    scl: UInt8[np.ndarray, "y x"] = field(repr=False)
    """Scene classes; 0 where nothing, or not every band, was seen, and near there."""


def telling_bands(scene: Scene, bands: Sequence[str]) -> list[str]:
    """Return dark bands to look at: those of the cube if it has any, else others of the scene.

    One of them is infrared if the scene has any where its other files lie, although the cube may
    not: neighbours in time are compared in visible and infrared light.
    """
    ours = [name for name in DARK_BANDS if name in bands]
    others = [name for name in DARK_BANDS if name in scene.assets and name not in ours]
    chosen = ours[:_SAMPLE_BANDS] or others[:_SAMPLE_BANDS]
    infrared = [
        name
        for name in ("B12", "B11")
        if name in scene.assets and _place(scene, name) == _place(scene, SCL)
    ][:1]
    if not infrared or not {"B11", "B12"}.isdisjoint(chosen):
        return chosen
    return [*chosen[: _SAMPLE_BANDS - 1], *infrared]


def _place(scene: Scene, name: str) -> str:
    """Return the server that an asset lies on, empty for this machine."""
    return urlsplit(scene.assets[name].href).netloc


def coarse_classes(
    reader: PixelReader, scene: Scene, header: FileHeader
) -> UInt8[np.ndarray, "y x"]:
    """Return the scene classes over all the scene's ground, in at most 512 x 512 pixels.

    Raises `SceneReadError` or `SceneUnreachableError`.
    """
    rows, columns = header.asset.shape or (0, 0)
    shape = (min(_SAMPLE_EDGE, rows), min(_SAMPLE_EDGE, columns))
    return SENSORS[scene.sensor].classes_of(read_coarse(reader, scene, SCL, header, shape))


def look_at(
    reader: PixelReader,
    scene: Scene,
    bands: Sequence[str],
    headers: Mapping[str, FileHeader],
    classes: UInt8[np.ndarray, "y x"],
) -> tuple[OffsetReading, CoarseLook | None]:
    """Ask the pixels of a coarse overview for the offset, far from where the sensor saw nothing.

    `classes` are those of `coarse_classes`. Returns the reading (`read_offset_from_pixels`) and
    what is kept of the look; "undecided" and None where the files cover different ground. Raises
    `SceneReadError` or `SceneUnreachableError`.
    """
    ground = {_extent(headers[name].asset) for name in (*bands, SCL)}
    if len(ground) > 1:
        return "undecided", None
    shapes = [headers[name].asset.shape or (0, 0) for name in bands]
    height = min(classes.shape[0], *(rows for rows, _ in shapes))
    width = min(classes.shape[1], *(columns for _, columns in shapes))
    counts = np.stack(
        [read_coarse(reader, scene, name, headers[name], (height, width)) for name in bands]
    )
    rows, columns = (
        ((np.arange(wanted) + 0.5) * size / wanted).astype(int)
        for wanted, size in zip((height, width), classes.shape, strict=True)
    )
    scl = classes[np.ix_(rows, columns)]
    # an overview can mix nodata (0) into the pixels beside it, and so darken them
    is_inside = ~binary_dilation((scl == 0) | (counts == 0).any(axis=0), iterations=2)
    thin = (slice(None, None, -(-height // _KEPT_EDGE)), slice(None, None, -(-width // _KEPT_EDGE)))
    look = CoarseLook(
        ground=(headers[SCL].epsg, *ground.pop()),
        bands=tuple(bands),
        counts=counts[(slice(None), *thin)].astype(np.uint16),
        scl=np.where(is_inside, scl, np.uint8(0))[thin],
    )
    return read_offset_from_pixels(counts[:, is_inside], scl[is_inside]), look


def _extent(asset: Asset) -> tuple[int, ...]:
    assert asset.transform is not None
    assert asset.shape is not None
    bounds = array_bounds(*asset.shape, rasterio.Affine(*asset.transform))
    return tuple(round(edge) for edge in bounds)
