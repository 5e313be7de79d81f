"""A forest in, the images that the reference workflow exported out: 20 features on native pixels."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cube.bands import BANDS, REFLECTANCE_BANDS
from cube.forest import ForestScene, ForestSpec, scenes_of, true_scene

FEATURES = (
    *("AOT", "B1", "B11", "B12", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9"),
    *("EVI", "NDVI", "NDWI", "TCI_B", "TCI_G", "TCI_R", "WVP"),
)
"""The exports' features in the exports' order."""

INDICES = ("EVI", "NDVI", "NDWI")

MASKED = -999
"""What the exports hold where Earth Engine had no value."""

_NATIVE_EPSG = 32648


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of the archive as Earth Engine hands it out, on the forest's native grid."""

    date: datetime.date
    features: dict[str, np.ndarray]
    """(y, x) by name: counts as int64, indices as float64."""
    is_seen: np.ndarray
    """(y, x): whether the image has data; a split granule has half of it."""
    is_cloud: np.ndarray
    """(y, x): true cloud or cloud shadow, whether anybody masks it or not."""
    is_snow: np.ndarray
    """(y, x): snow on a tenth of the pixel or more."""


def images_of(
    spec: ForestSpec, *, max_cloud_cover: float, is_first_of_month: bool, is_evi_on_counts: bool
) -> tuple[Image, ...]:
    """Return the images in order of time.

    Scenes of more cloud than `max_cloud_cover` (0..1) are not in it. With `is_first_of_month` a
    month is its first image, whatever that one shows; else every image is there.
    """
    scenes = [
        scene
        for scene in scenes_of(spec)
        if scene.epsg == _NATIVE_EPSG and scene.cloud_cover < max_cloud_cover
    ]
    chosen = list(_first_of_month(scenes)) if is_first_of_month else scenes
    return tuple(_image(spec, scene, is_evi_on_counts=is_evi_on_counts) for scene in chosen)


def _first_of_month(scenes: list[ForestScene]) -> Iterator[ForestScene]:
    months = set()
    for scene in sorted(scenes, key=lambda scene: scene.time):
        if scene.time.month not in months:
            months.add(scene.time.month)
            yield scene


def _image(spec: ForestSpec, scene: ForestScene, *, is_evi_on_counts: bool) -> Image:
    truth = true_scene(spec, scene.id)
    counts = {}
    for name in (*REFLECTANCE_BANDS, "AOT", "WVP"):
        measured = truth.measured[name]
        unit = 1e-4 if name in REFLECTANCE_BANDS else 1e-3
        whole = np.clip(np.rint(np.nan_to_num(measured) / unit), 1, 65535).astype(np.int64)
        step = BANDS[name].resolution // 10
        counts[_export_name(name)] = whole.repeat(step, axis=0).repeat(step, axis=1)  # (y, x)
    features = with_indices(with_colours(counts), is_evi_on_counts=is_evi_on_counts)
    return Image(
        date=scene.time.date(),
        features={name: features[name] for name in FEATURES},
        is_seen=truth.is_seen,
        is_cloud=truth.is_cloud | truth.is_shadow,
        is_snow=truth.is_snow,
    )


def _export_name(band: str) -> str:
    """Return Earth Engine's name of a band: one digit where it has one."""
    return band.replace("B0", "B")


def with_colours(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the 8-bit picture: 255 is a reflectance of 0.2, as in the L2A product."""
    return counts | {
        f"TCI_{colour}": np.clip(counts[band] * 255 // 2000, 1, 255)
        for colour, band in (("B", "B2"), ("G", "B3"), ("R", "B4"))
    }


def with_indices(counts: dict[str, np.ndarray], *, is_evi_on_counts: bool) -> dict[str, np.ndarray]:
    """Add NDVI, NDWI and EVI; the EVI's constants are meant for reflectance 0..1.

    A quotient of nothing is masked, as on Earth Engine.
    """
    blue, green, red, infrared = (counts[name].astype(float) for name in ("B2", "B3", "B4", "B8"))
    scale = 1.0 if is_evi_on_counts else 1e-4
    below = (infrared + 6 * red - 7.5 * blue) * scale + 1
    masked = np.full(below.shape, float(MASKED))
    return counts | {
        "NDVI": (infrared - red) / (infrared + red),
        "NDWI": (green - infrared) / (green + infrared),
        "EVI": np.divide(2.5 * (infrared - red) * scale, below, out=masked, where=below != 0),
    }
