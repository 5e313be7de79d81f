"""A scene in, what stands between sensor and ground out: cloud, shadow, aerosol, water vapour."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from cube.bands import REFLECTANCE_BANDS
from cube.forest.noise import SmoothNoise, sigmoid
from cube.forest.schedule import ForestScene
from cube.forest.sensor import band_centres
from cube.forest.spec import ForestSpec
from cube.forest.stands import pixel_axis
from cube.forest.sun import sun_position

_CLOUD_OCTAVES = ((1500.0, 1.0), (620.0, 0.55), (260.0, 0.3), (110.0, 0.16))
_CLOUD_HEIGHT = (900.0, 2600.0)
"""Metres above the ground."""
_FARTHEST_SHADOW = 5000.0
"""Metres; a cloud at 2,600 m under the December sun (zenith 58 degrees) throws 4,200."""
_CLOUD_EDGE = 0.45
"""Standard deviations of the cloud field between no cloud and full cloud."""

CLOUD_REFLECTANCE: dict[str, float] = dict(
    zip(
        REFLECTANCE_BANDS,
        (0.78, 0.77, 0.76, 0.76, 0.77, 0.78, 0.78, 0.78, 0.77, 0.62, 0.50, 0.38),
        strict=True,
    )
)
"""Thick water cloud: white, darker where water absorbs (B09, SWIR); from memory of Bowker et al.
(1985), NASA RP-1139."""

_SHADOW_DEPTH = (0.55, 0.80)
"""Share of the light that a thick cloud takes from its shadow, at 440 nm and at 2,200 nm."""


@dataclass(frozen=True, kw_only=True)
class Sky:
    """The state of the air at one overpass, on the native 10 m grid."""

    cloud: Float32[np.ndarray, "y x"]
    """Opacity of cloud and cirrus, 0..1."""
    shadow: Float32[np.ndarray, "y x"]
    """Opacity of the cloud between sun and pixel, 0..1."""
    texture: Float32[np.ndarray, "y x"]
    """Factor on the cloud's reflectance."""
    aerosol: Float32[np.ndarray, "y x"]
    """Aerosol optical thickness at 550 nm."""
    vapour: Float32[np.ndarray, "y x"]
    """Water vapour column in centimetres."""
    miss: Float32[np.ndarray, "y x"]
    """Where high, the classification misses cloud and shadow (standard normal)."""
    alarm: Float32[np.ndarray, "y x"]
    """Where high, the classification sees cloud on clear ground (standard normal)."""


def sky_of(spec: ForestSpec, scene: ForestScene) -> Sky:
    """Return the sky of the scene's overpass; every granule of one overpass has the same."""
    axis, side = pixel_axis(spec.edge), spec.edge * 10.0
    generator = spec.generator("sky", scene.day)
    extent = (side, side)
    field = SmoothNoise(generator, extent=extent, octaves=_CLOUD_OCTAVES, margin=_FARTHEST_SHADOW)
    here = field.on_grid(axis, axis)
    level = np.float32(np.quantile(here, 1 - scene.cloud_cover))
    height = generator.uniform(*_CLOUD_HEIGHT)
    zenith, azimuth = sun_position(scene.time)
    reach = height * np.tan(np.radians(zenith))
    # The cloud that shades a pixel stands towards the sun; rows run south.
    north, east = reach * np.cos(np.radians(azimuth)), reach * np.sin(np.radians(azimuth))
    there = field.on_grid(axis - north, axis + east)
    if scene.cloud_cover > 0:
        cloud, shadow = _opacity(here - level), _opacity(there - level)
    else:
        cloud, shadow = np.zeros_like(here), np.zeros_like(there)

    def noise(*octaves: tuple[float, float]) -> Float32[np.ndarray, "y x"]:
        return SmoothNoise(generator, extent=extent, octaves=octaves).on_grid(axis, axis)

    if generator.random() < 0.25:  # thin cirrus over part of the scene
        cirrus = 0.10 * sigmoid(2 * noise((2200.0, 1.0), (700.0, 0.5)) - np.float32(1))
        cloud = np.maximum(cloud, cirrus.astype(np.float32))
    season = np.exp(-(((scene.day - 205) / 70) ** 2))
    base = (0.06 + 0.08 * season) * np.exp(0.45 * generator.standard_normal())
    return Sky(
        cloud=cloud,
        shadow=shadow,
        texture=1 + np.float32(0.09) * noise((300.0, 1.0), (120.0, 0.8)),
        aerosol=(base * np.exp(0.3 * noise((2500.0, 1.0), (900.0, 0.4)))).astype(np.float32),
        vapour=((0.5 + 2.9 * season) * np.exp(0.08 * noise((2500.0, 1.0)))).astype(np.float32),
        miss=noise((450.0, 1.0), (150.0, 0.5)),
        alarm=noise((90.0, 1.0)),
    )


def _opacity(excess: Float32[np.ndarray, "y x"]) -> Float32[np.ndarray, "y x"]:
    t = np.clip(excess / np.float32(_CLOUD_EDGE), np.float32(0), np.float32(1))
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def haze_left(band: int) -> float:
    """Return what is left of haze after atmospheric correction: reflectance per optical thickness.

    Falls with wavelength to the power -2.2, molecules and fine aerosol together.
    """
    return float(0.06 * (band_centres()[band] / 490) ** -2.2)


def shadow_depth(band: int) -> float:
    """Return the share of light that a thick cloud's shadow lacks; blue skylight fills it in."""
    return float(np.interp(band_centres()[band], (440, 2200), _SHADOW_DEPTH))
