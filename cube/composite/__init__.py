"""Looks of a period in, one value a pixel out.

Each method is a kernel of one block in its own module; `composite_of` picks one by name, and
`SceneComposites` reads a catalogue in strips that fit its memory and gives the composite of a
period.
"""

from cube.composite.days import mean_day_of_year
from cube.composite.geomedian import geomedian_composite
from cube.composite.mean import mean_composite
from cube.composite.median import median_composite, sorting_network
from cube.composite.medoid import medoid_composite
from cube.composite.methods import METHODS, Method, composite_of, method_margin
from cube.composite.pick import best_composite, max_ndvi_composite
from cube.composite.scenes import SceneComposites

__all__ = [
    "METHODS",
    "Method",
    "SceneComposites",
    "best_composite",
    "composite_of",
    "geomedian_composite",
    "max_ndvi_composite",
    "mean_composite",
    "mean_day_of_year",
    "median_composite",
    "medoid_composite",
    "method_margin",
    "sorting_network",
]
