"""A sensor's name in, what its counts and its mask mean out: bands, scale, nodata, scene classes.

Every sensor ends in the same two things, so that one composite serves all of them: stored units
(1e-4 of reflectance) under Sentinel-2's band names, and Sentinel-2's scene classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from cube.bands import BANDS, REFLECTANCE_BANDS, Band
from cube.errors import InputError

_CLEAR_LAND, _WATER, _SNOW = 4, 6, 11
_SHADOW, _NEAR_CLOUD, _CLOUD, _CIRRUS, _NOTHING = 3, 8, 9, 10, 0


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """How the files of one product are to be read."""

    name: str
    """Key in `SENSORS`, e.g. `landsat-c2-l2`."""
    keys: Mapping[str, tuple[str, ...]]
    """Asset keys in small letters by canonical (Sentinel-2) band name, every provider's together."""
    mask_keys: tuple[str, ...]
    """Asset keys of the mask in small letters, e.g. `qa_pixel`; as an asset of a scene: `SCL`."""
    gain: float
    """Stored units (1e-4 of reflectance) of one count; `calibration` knows the bands that differ."""
    bias: float
    """Stored units of a count of 0."""
    nodata: int
    """Count that means nothing was measured, in a file of a band."""
    mask_nodata: int
    """The same in the mask's file."""
    dtype: str
    """Type of the bands' counts."""
    mask_dtype: str
    """Type of the mask. Some providers keep a mask in a wider type, which reads as well."""
    has_offset: bool = False
    """Whether products may carry 1000 counts more (`Scene.offset`)."""
    _decode: Callable[[Integer[np.ndarray, "*look"]], UInt8[np.ndarray, "*look"]] = field(
        repr=False
    )
    """What `classes_of` does."""

    def band_of(self, key: str) -> str | None:
        """Return the band an asset key means, or None if it is no band of the sensor."""
        return next((band for band, keys in self.keys.items() if key.lower() in keys), None)

    def calibration(self, band: str, *, offset: int = 0) -> tuple[float, float]:
        """Return (gain, bias): `count * gain + bias` is the stored value of `band`.

        `offset` is the scene's (`Scene.offset`, counts). Units of 1e-4 reflectance, for AOT and WVP
        those of `Band`. Raises `InputError` for a band the sensor does not have.
        """
        if band not in self.keys:
            raise InputError(
                f"sensor {self.name!r} has no band {band!r}; it has {', '.join(self.keys)}"
            )
        properties = BANDS[band]
        gain = self.gain * properties.stored_per_count
        return gain, self.bias + (gain * offset if properties.has_offset else 0.0)

    def classes_of(self, mask: Integer[np.ndarray, "*look"]) -> UInt8[np.ndarray, "*look"]:
        """Return Sentinel-2 scene classes (SCL, see `cube.mask.SCL_CLASSES`) of mask values.

        Where several bits are set, the one that makes the ground least usable decides: nothing
        measured (0), cloud (9), cirrus (10), cloud shadow (3), rim of a cloud (8), snow (11), water
        (6). All other ground is class 4: Landsat and HLS do not tell vegetation from bare soil, and
        a mask that takes only vegetation would otherwise find none. Saturated detectors, which SCL
        marks as class 1, are in other files (QA_RADSAT) and are not looked for.
        """
        found: UInt8[np.ndarray, "*look"] = self._decode(mask)
        return found


def _is_set(mask: Integer[np.ndarray, "*look"], bit: int) -> Bool[np.ndarray, "*look"]:
    found: Bool[np.ndarray, "*look"] = (mask & (1 << bit)) != 0
    return found


def _scl(mask: Integer[np.ndarray, "*look"]) -> UInt8[np.ndarray, "*look"]:
    """SCL itself; a value that the product does not define is nothing known: 0."""
    return np.where((mask >= 0) & (mask <= 11), mask, _NOTHING).astype(np.uint8)


def _from_qa_pixel(mask: Integer[np.ndarray, "*look"]) -> UInt8[np.ndarray, "*look"]:
    """QA_PIXEL of Landsat Collection 2: bits 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud
    shadow, 5 snow, 6 clear, 7 water (USGS LSDS-1619, Landsat 8-9 Collection 2 Level-2 Science
    Product Guide, table of QA_PIXEL bits; LSDS-1618 for Landsat 4-7, which have no cirrus).

    A value of 0 cannot be in a product, whose confidence bits are never all unset: it is fill too.
    """
    return np.select(
        [
            (mask == 0) | _is_set(mask, 0),
            _is_set(mask, 3),
            _is_set(mask, 2),
            _is_set(mask, 4),
            _is_set(mask, 1),
            _is_set(mask, 5),
            _is_set(mask, 7),
        ],
        [
            np.uint8(code)
            for code in (_NOTHING, _CLOUD, _CIRRUS, _SHADOW, _NEAR_CLOUD, _SNOW, _WATER)
        ],
        np.uint8(_CLEAR_LAND),
    )


def _from_fmask(mask: Integer[np.ndarray, "*look"]) -> UInt8[np.ndarray, "*look"]:
    """Fmask of HLS: bits 0 cirrus, 1 cloud, 2 next to cloud or shadow, 3 cloud shadow, 4 snow or
    ice, 5 water, 6-7 aerosol, which is not used; 255 is fill (HLS Product User Guide 2.0, table of
    the quality layer; it calls bit 0 reserved). A value of 0 is clear land.
    """
    return np.select(
        [
            (mask < 0) | (mask >= 255),
            _is_set(mask, 1),
            _is_set(mask, 0),
            _is_set(mask, 3),
            _is_set(mask, 2),
            _is_set(mask, 4),
            _is_set(mask, 5),
        ],
        [
            np.uint8(code)
            for code in (_NOTHING, _CLOUD, _CIRRUS, _SHADOW, _NEAR_CLOUD, _SNOW, _WATER)
        ],
        np.uint8(_CLEAR_LAND),
    )


def _sentinel_keys(band: Band) -> tuple[str, ...]:
    short = band.name.replace("B0", "B")
    return tuple(dict.fromkeys((band.name.lower(), short.lower(), band.earth_search)))


_LANDSAT_KEYS = {
    "B01": ("coastal",),
    "B02": ("blue",),
    "B03": ("green",),
    "B04": ("red",),
    "B8A": ("nir08",),
    "B11": ("swir16",),
    "B12": ("swir22",),
}
"""USGS, Earth Search and Planetary Computer use these for OLI, ETM+ and TM alike; the numbers of
the bands (SR_B4 is red of OLI and near infrared of TM) would not do. TM and ETM+ have no coastal."""

_HLS_L30_KEYS = {
    "B01": ("b01",),
    "B02": ("b02",),
    "B03": ("b03",),
    "B04": ("b04",),
    "B8A": ("b05",),
    "B11": ("b06",),
    "B12": ("b07",),
}
"""Numbered as OLI's bands are."""

SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor(
            name="sentinel-2-l2a",
            keys={name: _sentinel_keys(band) for name, band in BANDS.items()},
            mask_keys=("scl",),
            gain=1.0,
            bias=0.0,
            nodata=0,
            mask_nodata=0,
            dtype="uint16",
            mask_dtype="uint8",
            has_offset=True,
            _decode=_scl,
        ),
        # reflectance = count * 0.0000275 - 0.2 (USGS LSDS-1619, table of scale factors)
        Sensor(
            name="landsat-c2-l2",
            keys=_LANDSAT_KEYS,
            mask_keys=("qa_pixel",),
            gain=0.275,
            bias=-2000.0,
            nodata=0,
            mask_nodata=1,
            dtype="uint16",
            mask_dtype="uint16",
            _decode=_from_qa_pixel,
        ),
        # reflectance = count * 0.0001 (HLS Product User Guide 2.0, tables of S30 and L30 layers)
        Sensor(
            name="hls-s30",
            keys={name: (name.lower(),) for name in REFLECTANCE_BANDS},
            mask_keys=("fmask",),
            gain=1.0,
            bias=0.0,
            nodata=-9999,
            mask_nodata=255,
            dtype="int16",
            mask_dtype="uint8",
            _decode=_from_fmask,
        ),
        Sensor(
            name="hls-l30",
            keys=_HLS_L30_KEYS,
            mask_keys=("fmask",),
            gain=1.0,
            bias=0.0,
            nodata=-9999,
            mask_nodata=255,
            dtype="int16",
            mask_dtype="uint8",
            _decode=_from_fmask,
        ),
    )
}
"""Every product that can be read, by name."""
