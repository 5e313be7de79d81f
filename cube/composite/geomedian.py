"""Looks in, one spectrum a pixel out: the geometric median over clear looks."""

import numpy as np
from jaxtyping import Bool, Int16, UInt16

from cube.bands import NODATA
from cube.composite.geomedian_few import FEW, geomedian_of_few
from cube.composite.geomedian_many import geomedian_of_many

TOLERANCE = 0.05
"""Stored units. A pixel is done when its next Newton step is shorter; the step is still taken."""

STEP_LIMIT = 200
"""Steps after which a pixel is taken as it is."""


def geomedian_composite(
    reflectance: Int16[np.ndarray, "look band y x"], is_clear: Bool[np.ndarray, "look y x"]
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the geometric median over clear looks and how many there were.

    The spectrum whose summed Euclidean distance to the clear looks is least (Roberts et al. 2017,
    "High-dimensional pixel composites from Earth observation time series", IEEE Transactions on
    Geoscience and Remote Sensing 55, 6254-6264). The search starts at the look nearest to all
    others, leaves it as Vardi and Zhang 2000 ("The multivariate L1-median and associated data
    depth", PNAS 97, 1423-1426) do, and goes on in Newton steps, in Weiszfeld's where Newton's goes
    uphill, until the next is shorter than `TOLERANCE` or `STEP_LIMIT` are done. One look is itself,
    two are their mean. Stored units in and out, float64 for a few pixels at a time, halves rounded
    to even; no clear look gives `NODATA`. The kernel of a pixel follows from its own clear looks, so
    that no other look, window or neighbour changes it.
    """
    looks, bands, height, width = reflectance.shape
    geomedian = np.full((bands, height * width), NODATA, np.int16)
    clear_count = is_clear.sum(axis=0, dtype=np.uint16).reshape(height * width)
    if looks and bands:
        rows = reflectance.reshape(looks, bands, height * width)
        clear = is_clear.reshape(looks, height * width)
        geomedian_of_few(rows, clear, clear_count, geomedian, TOLERANCE, STEP_LIMIT)
        if looks > FEW:
            geomedian_of_many(rows, clear, clear_count, FEW, geomedian, TOLERANCE, STEP_LIMIT)
    return geomedian.reshape(bands, height, width), clear_count.reshape(height, width)
