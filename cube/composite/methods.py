"""The name of a method and looks in, one value a pixel out."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Int16, UInt16

from cube.composite.geomedian import geomedian_composite
from cube.composite.mean import mean_composite
from cube.composite.median import median_composite
from cube.composite.medoid import medoid_composite
from cube.composite.pick import CLOUD_REACH, best_composite, max_ndvi_composite, ndvi_bands
from cube.errors import InputError
from cube.periods import Period
from cube.source import Looks

Method = Literal["median", "mean", "medoid", "geomedian", "max-ndvi", "best"]
"""How the clear looks of a period become one value."""

METHODS: tuple[Method, ...] = get_args(Method)
"""Every method by name."""


def check_method(method: str, *, bands: tuple[str, ...] | None = None) -> None:
    """Raise `InputError` for a method that is unknown or needs more than `bands`."""
    if method not in METHODS:
        raise InputError(f"composite {method!r} is unknown; expected one of {', '.join(METHODS)}")
    if method == "max-ndvi" and bands is not None:
        ndvi_bands(bands)


def composite_of(
    method: Method,
    looks: Looks,
    *,
    bands: tuple[str, ...],
    period: Period,
    pixel_size: tuple[float, float],
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the composite of `looks` by `method`, and the number of clear looks behind it.

    Stored units in and out; no clear look gives `NODATA`. `bands` names the bands of the looks,
    `pixel_size` is in metres (y, x). Only "best" looks at `period` and beyond the pixel itself:
    give it looks with `method_margin` pixels more on each side. Raises `InputError` for an unknown
    method and for "max-ndvi" without its bands.
    """
    check_method(method, bands=bands)
    reflectance, is_clear = looks.reflectance, looks.is_clear
    if method == "median":
        return median_composite(reflectance, is_clear)
    if method == "mean":
        return mean_composite(reflectance, is_clear)
    if method == "medoid":
        return medoid_composite(reflectance, is_clear)
    if method == "geomedian":
        return geomedian_composite(reflectance, is_clear)
    if method == "max-ndvi":
        return max_ndvi_composite(reflectance, is_clear, bands=bands)
    return best_composite(
        reflectance, is_clear, days=looks.days, period=period, pixel_size=pixel_size
    )


def method_margin(method: Method, *, pixel_size: tuple[float, float]) -> int:
    """Return how many pixels beyond a window a method must see for the window's own pixels."""
    return int(np.ceil(CLOUD_REACH / min(pixel_size))) if method == "best" else 0
