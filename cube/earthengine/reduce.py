"""Looks of a period as a collection in, one image out: how Earth Engine makes one value of them."""

from collections.abc import Callable
from typing import Any

from cube.earthengine.composite import Method
from cube.earthengine.installed import ee

RANK = "rank"
"""Band of a look: its place among the looks by time, from 0."""

_NEARNESS = "nearness"

Image = Any
"""An `ee.Image`; the client has no types to check."""


def each(things: Any, make: Callable[[Any], Any]) -> Any:
    """Return what Earth Engine makes of each of a list or a collection by `make`."""
    # the client counts a function's arguments, and sees none of one that is wrapped for checks
    return things.map(lambda one: make(one))


def own_pixels(layers: Image) -> Image:
    """Keep Earth Engine from taking a coarser level of its pyramid."""
    return layers.reproject(layers.projection())


def _median(looks: Any, bands: tuple[str, ...], clear: Image, number: int) -> Image:
    # exact: Earth Engine makes a histogram only of more than `maxRaw` values
    return looks.select(list(bands)).reduce(ee.Reducer.median(maxRaw=number + 1))


def _mean(looks: Any, bands: tuple[str, ...], clear: Image, number: int) -> Image:
    # a sum of whole numbers is exact, and so is where its quotient is a half
    total = looks.select(list(bands)).reduce(ee.Reducer.sum())
    return total.toDouble().divide(clear.max(1))


def _medoid(looks: Any, bands: tuple[str, ...], clear: Image, number: int) -> Image:
    """Of equals the earliest: ranks make every cost another, so no order of ties decides."""
    values = looks.select(list(bands))

    def with_nearness(look: Any) -> Image:
        ours = ee.Image(look).select(list(bands))

        def distance(other: Any) -> Image:
            return ee.Image(other).subtract(ours).abs().reduce(ee.Reducer.sum())

        cost = each(values, distance).reduce(ee.Reducer.sum()).toDouble()
        rank = ee.Image(look).select([RANK])
        nearness = cost.multiply(-number).subtract(rank).rename([_NEARNESS])
        return ours.addBands(nearness)

    return each(looks, with_nearness).qualityMosaic(_NEARNESS).select(list(bands))


REDUCED: dict[Method, Callable[[Any, tuple[str, ...], Image, int], Image]] = {
    "median": _median,
    "mean": _mean,
    "medoid": _medoid,
}
"""By method: of the looks, the cube's bands, how many looks are clear at each place, and the number of
looks, the composite before it is rounded; masked where no look is clear."""


def half_even(value: Image) -> Image:
    """Round to whole numbers, halves to the even one; Earth Engine's own `round` goes up."""
    upper = value.add(0.5).floor()
    is_odd_half = upper.subtract(value).eq(0.5).And(upper.mod(2).neq(0))
    return upper.subtract(is_odd_half)
