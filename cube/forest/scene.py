"""A scene's id in, the truth about it out: surface, clouds, and what the sensor measured."""

from dataclasses import dataclass

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float32, Float64, UInt8
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.ndimage import map_coordinates

from cube.bands import BANDS, REFLECTANCE_BANDS
from cube.forest.schedule import ForestScene, scene_of
from cube.forest.sky import CLOUD_REFLECTANCE, haze_left, shadow_depth, sky_of
from cube.forest.spec import NATIVE_EPSG, NEIGHBOUR_EPSG, ForestSpec
from cube.forest.surface import Surface

_NEIGHBOUR_SHARE = 0.6
"""Share of the native grid, from its eastern side, that the neighbouring zone's tile reaches."""

_NOISE = (0.002, 0.015)
"""Standard deviation of the sensor and its correction: absolute, and as a share of the signal."""


@dataclass(frozen=True, kw_only=True)
class TrueScene:
    """The truth about one scene on its own grid."""

    scene: ForestScene
    geobox: GeoBox
    """The scene's grid at 10 m."""
    reflectance: Float32[np.ndarray, "band y x"]
    """True surface reflectance 0..1 of `REFLECTANCE_BANDS` on 10 m pixels, in the light of slope
    and sun, with snow, without cloud, shadow, haze or noise; NaN where the sensor saw nothing."""
    measured: dict[str, Float32[np.ndarray, "_ _"]]
    """What the product holds per band at the band's own resolution, before it is counted:
    reflectance 0..1; `AOT` without unit and `WVP` in centimetres; NaN where nothing was seen."""
    scl: UInt8[np.ndarray, "y20 x20"]
    """Scene classification at 20 m as the product has it, errors included; 0 is nodata."""
    cloud: Float32[np.ndarray, "y x"]
    """True opacity of cloud, 0..1."""
    shadow: Float32[np.ndarray, "y x"]
    """True opacity of the cloud that shades the pixel, 0..1."""
    snow: Float32[np.ndarray, "y x"]
    """True share of the pixel where snow is seen, 0..1."""
    is_seen: Bool[np.ndarray, "y x"]
    """Whether the sensor saw the pixel; whole 60 m pixels."""

    @property
    def is_cloud(self) -> Bool[np.ndarray, "y x"]:
        """Where a tenth or more of the light is the cloud's."""
        return np.asarray(self.cloud >= np.float32(0.1))

    @property
    def is_shadow(self) -> Bool[np.ndarray, "y x"]:
        """Where a cloud of opacity 0.1 or more takes the sun away and none is above."""
        return np.asarray((self.shadow >= np.float32(0.1)) & ~self.is_cloud)

    @property
    def is_snow(self) -> Bool[np.ndarray, "y x"]:
        """Where snow is seen on a tenth or more of the pixel."""
        return np.asarray(self.snow >= np.float32(0.1))


def true_scene(spec: ForestSpec, scene_id: str) -> TrueScene:
    """Simulate one scene again from the seed; raise `InputError` if there is no such scene."""
    view = View(spec, scene_of(spec, scene_id))
    reflectance, measured = [], {}
    for index, name in enumerate(REFLECTANCE_BANDS):
        surface = view.surface(index)
        measured[name] = view.coarse(view.measured(index, surface), BANDS[name].resolution)
        reflectance.append(np.where(view.is_seen, view.regrid(surface), np.float32(np.nan)))
    return TrueScene(
        scene=view.scene,
        geobox=view.geobox,
        reflectance=np.stack(reflectance),
        measured=measured | view.atmosphere(),
        scl=view.classification(),
        cloud=view.cloud,
        shadow=view.shadow,
        snow=view.snow,
        is_seen=view.is_seen,
    )


def neighbour_geobox(spec: ForestSpec) -> GeoBox:
    """Return the 10 m grid of the tile in EPSG:32649: the box round the forest's eastern part.

    It lies on that zone's 60 m lattice; what the box holds beyond the forest is nodata.
    """
    left, bottom, right, top = spec.geobox.boundingbox
    left = right - _NEIGHBOUR_SHARE * (right - left)
    there = Transformer.from_crs(NATIVE_EPSG, NEIGHBOUR_EPSG, always_xy=True)
    west, south, east, north = there.transform_bounds(left, bottom, right, top)
    west, south = np.floor(west / 60) * 60, np.floor(south / 60) * 60
    east, north = np.ceil(east / 60) * 60, np.ceil(north / 60) * 60
    shape = (round((north - south) / 10), round((east - west) / 10))
    return GeoBox(shape, Affine(10, 0, west, 0, -10, north), NEIGHBOUR_EPSG)


class View:
    """One scene, layer by layer; what is large is made when asked for and not kept.

    A scene of the neighbouring zone is the native one, noise and clouds included, taken
    bilinearly at the centres of its own 10 m pixels: what a bilinear warp of the native scene
    gives, so that both agree wherever they are warped together.
    """

    def __init__(self, spec: ForestSpec, scene: ForestScene) -> None:
        self.scene = scene
        self._spec = spec
        self._sky = sky_of(spec, scene)
        self._surface = Surface(spec, time=scene.overpass_time, platform=scene.platform)
        self._places: Float64[np.ndarray, "2 y x"] | None = None
        if scene.epsg == NATIVE_EPSG:
            self.geobox = spec.geobox
            is_seen = np.ones(self.geobox.shape, bool)
        else:
            self.geobox = neighbour_geobox(spec)
            self._places = _places(spec.geobox, self.geobox)
            last = spec.edge - 1
            is_seen = np.all((self._places >= 0) & (self._places <= last), axis=0)
        is_seen &= _swath(spec, scene, is_seen.shape)
        rows, columns = self.geobox.shape
        blocks = is_seen.reshape(rows // 6, 6, columns // 6, 6).all(axis=(1, 3))
        self.is_seen: Bool[np.ndarray, "y x"] = blocks.repeat(6, axis=0).repeat(6, axis=1)
        self.cloud: Float32[np.ndarray, "y x"] = self.regrid(self._sky.cloud)
        self.shadow: Float32[np.ndarray, "y x"] = self.regrid(self._sky.shadow)
        self.snow: Float32[np.ndarray, "y x"] = self.regrid(self._surface.snow)

    def regrid(self, native: Float32[np.ndarray, "y x"]) -> Float32[np.ndarray, "_ _"]:
        """Bring a native layer onto this scene's 10 m grid."""
        if self._places is None:
            return native
        return np.asarray(
            map_coordinates(native, self._places, order=1, mode="nearest"), np.float32
        )

    def surface(self, band: int) -> Float32[np.ndarray, "y x"]:
        """Return the true surface of one reflectance band on the native grid."""
        return self._surface.band(band)

    def measured(
        self, band: int, surface: Float32[np.ndarray, "y x"]
    ) -> Float32[np.ndarray, "_ _"]:
        """Return what the sensor makes of `surface` (native), on this scene's 10 m grid."""
        sky, name = self._sky, REFLECTANCE_BANDS[band]
        haze = np.float32(self.scene.haze * haze_left(band)) * sky.aerosol
        lit = surface * (1 - np.float32(shadow_depth(band)) * sky.shadow) + haze
        cloud = np.float32(CLOUD_REFLECTANCE[name]) * sky.texture
        seen = lit + sky.cloud * (cloud - lit)
        absolute, relative = _NOISE
        noise = self._spec.generator("noise", self.scene.day, band).standard_normal(
            seen.shape, dtype=np.float32
        )
        # A coarser pixel gathers more light: keep its noise as large as that of a 10 m pixel.
        side = np.float32(BANDS[name].resolution / 10)
        seen += side * noise * (np.float32(absolute) + np.float32(relative) * seen)
        return self.regrid(seen)

    def coarse(
        self, layer: Float32[np.ndarray, "y x"], resolution: int
    ) -> Float32[np.ndarray, "_ _"]:
        """Average a 10 m layer over pixels of `resolution` metres; NaN where nothing was seen."""
        step = resolution // 10
        rows, columns = layer.shape
        layer = np.where(self.is_seen, layer, np.float32(np.nan))
        if step == 1:
            return layer
        total = np.zeros((rows // step, columns // step), np.float32)
        for row in range(step):
            for column in range(step):
                total += layer[row::step, column::step]
        return total / np.float32(step * step)

    def atmosphere(self) -> dict[str, Float32[np.ndarray, "y20 x20"]]:
        """Return `AOT` (no unit) and `WVP` (cm) at 20 m."""
        return {
            "AOT": self.coarse(self.regrid(self._sky.aerosol), 20),
            "WVP": self.coarse(self.regrid(self._sky.vapour), 20),
        }

    def classification(self) -> UInt8[np.ndarray, "y20 x20"]:
        """Return the scene classification (SCL) at 20 m, with the mistakes a real one has.

        Thin cloud and shadow go unseen in whole patches, and some clear ground is called cloud.
        """

        def at_20(native: Float32[np.ndarray, "y x"]) -> Float32[np.ndarray, "y20 x20"]:
            return self.coarse(self.regrid(native), 20)

        red = self.coarse(self.regrid(self.surface(REFLECTANCE_BANDS.index("B04"))), 20)
        infrared = self.coarse(self.regrid(self.surface(REFLECTANCE_BANDS.index("B08"))), 20)
        cloud, shadow = at_20(self._sky.cloud), at_20(self._sky.shadow)
        miss, alarm = at_20(self._sky.miss), at_20(self._sky.alarm)
        light, snow = at_20(self._surface.light), at_20(self._surface.snow)
        scl = np.where((infrared - red) > 0.35 * (infrared + red), 4, 5).astype(np.uint8)
        scl[(light < 0.55) & (infrared < 0.12)] = 2
        scl[alarm < -2.75] = 7
        scl[snow > 0.25] = 11
        scl[(shadow > 0.3) & (miss < 0.7)] = 3
        scl[(alarm > 2.6) & (cloud < 0.05)] = 8
        is_caught = (miss < 1.0) | (cloud > 0.85)
        scl[(cloud > 0.12) & is_caught] = 10
        scl[(cloud > 0.30) & is_caught] = 8
        scl[(cloud > 0.70) & is_caught] = 9
        scl[np.isnan(cloud)] = 0
        return scl


def _places(native: GeoBox, other: GeoBox) -> Float64[np.ndarray, "2 y x"]:
    """Return the native (row, column), fractional, of every pixel centre of `other`."""
    rows, columns = other.shape
    east = other.affine.c + (np.arange(columns) + 0.5) * 10
    north = other.affine.f - (np.arange(rows) + 0.5) * 10
    transform = Transformer.from_crs(NEIGHBOUR_EPSG, NATIVE_EPSG, always_xy=True)
    x, y = transform.transform(*np.meshgrid(east, north))
    return np.stack(
        [(native.affine.f - y) / 10 - 0.5, (x - native.affine.c) / 10 - 0.5]
    )  # (row|column, y, x)


def _swath(spec: ForestSpec, scene: ForestScene, shape: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Return where the swath and the scene's half of it lie (native grid only cuts)."""
    is_inside = np.ones(shape, bool)
    axis = (np.arange(spec.edge) + 0.5) / spec.edge
    y, x = axis[:, None], axis[None, :]
    if scene.has_swath_edge and scene.epsg == NATIVE_EPSG:
        # The swath leans by the inclination of the orbit, about 13 degrees; its end drifts.
        drift = spec.generator("swath", scene.day).uniform(0.12, 0.30)
        is_inside &= x - 0.23 * (y - 0.5) > drift
    # The halves overlap by 140 m, more than one 60 m pixel, so that no gap is left between them.
    line, overlap = 0.45 + 0.1 * x, 7 / spec.edge
    if scene.part == "north":
        is_inside &= y < line + overlap
    if scene.part == "south":
        is_inside &= y > line - overlap
    return is_inside
