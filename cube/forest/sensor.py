"""Reflectance at every nanometre in, Sentinel-2A and -2B bands out.

Centre wavelength and width at half maximum of each sensor's bands are those of ESA's spectral
response functions (COPE-GSEG-EOPG-TN-15-0007, version 3.0), in nanometres.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64

from cube.bands import REFLECTANCE_BANDS

Platform = Literal["S2A", "S2B"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)

FIRST_NANOMETRE, LAST_NANOMETRE = 400, 2500

CENTRE_AND_WIDTH: dict[Platform, dict[str, tuple[float, float]]] = {
    "S2A": {
        "B01": (442.7, 21.0),
        "B02": (492.4, 66.0),
        "B03": (559.8, 36.0),
        "B04": (664.6, 31.0),
        "B05": (704.1, 15.0),
        "B06": (740.5, 15.0),
        "B07": (782.8, 20.0),
        "B08": (832.8, 106.0),
        "B8A": (864.7, 21.0),
        "B09": (945.1, 20.0),
        "B11": (1613.7, 91.0),
        "B12": (2202.4, 175.0),
    },
    "S2B": {
        "B01": (442.2, 21.0),
        "B02": (492.1, 66.0),
        "B03": (559.0, 36.0),
        "B04": (664.9, 31.0),
        "B05": (703.8, 16.0),
        "B06": (739.1, 15.0),
        "B07": (779.7, 20.0),
        "B08": (832.9, 106.0),
        "B8A": (864.0, 22.0),
        "B09": (943.2, 21.0),
        "B11": (1610.4, 94.0),
        "B12": (2185.7, 185.0),
    },
}
"""(centre, full width at half maximum) in nanometres."""


def band_weights(platform: Platform) -> Float64[np.ndarray, "band nanometre"]:
    """Return the weight of each nanometre 400..2500 in each of `REFLECTANCE_BANDS`; rows sum to 1.

    The response is taken as exp(-ln 2 |2 (l - centre) / width|^6): flat, with the steep edges of
    the real filters, and one half at half the width from the centre.
    """
    wavelength = np.arange(FIRST_NANOMETRE, LAST_NANOMETRE + 1, dtype=np.float64)
    rows = []
    for band in REFLECTANCE_BANDS:
        centre, width = CENTRE_AND_WIDTH[platform][band]
        response = np.exp(-np.log(2) * np.abs(2 * (wavelength - centre) / width) ** 6)
        rows.append(response / response.sum())
    return np.stack(rows)  # (band, nanometre)


def band_centres() -> Float64[np.ndarray, "band"]:
    """Return the centre wavelength of each of `REFLECTANCE_BANDS` in nanometres (S2A)."""
    return np.array([CENTRE_AND_WIDTH["S2A"][band][0] for band in REFLECTANCE_BANDS])
