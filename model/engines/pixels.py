"""A chunk of a cube in, some of its pixels in physical units out."""

import numpy as np
from jaxtyping import Float32, Int64

from model.errors import ClassifierError

STORED_NODATA = -32768
"""The stored value of a cube that means "not clear"."""

STORED_SCALE = np.float32(1e-4)
"""Physical value of one stored unit of a cube."""


def nodata_of(pixels: np.ndarray) -> np.int16 | np.float32:
    """Return what stands for "not clear" in pixels of this type."""
    return np.int16(STORED_NODATA) if pixels.dtype == np.int16 else np.float32(np.nan)


def scale_of(pixels: np.ndarray) -> np.float32:
    """Return the physical value of one unit of pixels of this type."""
    return STORED_SCALE if pixels.dtype == np.int16 else np.float32(1)


def reflectance_of(
    pixels: np.ndarray, chosen: Int64[np.ndarray, "band"], wanted: Int64[np.ndarray, "n"]
) -> Float32[np.ndarray, "n time band"]:
    """Return the `wanted` pixels of the `chosen` bands in physical units, NaN where not clear.

    `pixels` (time, band, pixel) are int16 in stored units or float32 in physical ones.
    Raises `ClassifierError` for another type.
    """
    check_type(pixels)
    values = np.stack([pixels[:, index][:, wanted] for index in chosen])  # (band, time, n)
    physical = values.astype(np.float32)
    if pixels.dtype == np.int16:
        physical *= STORED_SCALE
        physical[values == STORED_NODATA] = np.nan
    return np.ascontiguousarray(physical.transpose(2, 1, 0))  # (n, time, band)


def check_type(pixels: np.ndarray) -> None:
    """Refuse numbers that are neither stored units nor physical ones: `ClassifierError`.

    A wider integer would pass as reflectance, and its nodata as a clear value.
    """
    if pixels.dtype not in (np.int16, np.float32):
        raise ClassifierError(
            f"the pixels are {pixels.dtype}; expected int16 (stored units, nodata {STORED_NODATA}) "
            "or float32 (reflectance, NaN where not clear)"
        )


def check_pixels(
    pixels: np.ndarray,
    chosen: Int64[np.ndarray, "band"],
    wanted: Int64[np.ndarray, "n"],
    *,
    steps: int,
    bands: int,
) -> None:
    """Refuse what kernels would read or write beyond its end: `ClassifierError`.

    Expected are pixels (time, band, pixel) of `steps` steps, and places of `bands` bands.
    """
    check_type(pixels)
    if pixels.ndim != 3 or len(pixels) != steps:
        raise ClassifierError(
            f"the classifier reads {steps} steps (time, band, pixel); the pixels have shape "
            f"{pixels.shape}"
        )
    if len(chosen) != bands:
        raise ClassifierError(f"the classifier reads {bands} bands; {len(chosen)} are chosen")
    for what, places, count in (
        ("band", chosen, pixels.shape[1]),
        ("pixel", wanted, pixels.shape[2]),
    ):
        if len(places) and not 0 <= places.min() <= places.max() < count:
            raise ClassifierError(
                f"{what}s {places.min()} to {places.max()} are asked for; there are {count}"
            )
