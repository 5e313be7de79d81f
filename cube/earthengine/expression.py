"""The passes of a period and a window in, the image that Earth Engine is to compute out.

A pass is merged before it is masked, and masked before looks are reduced, by the same rules as
scenes that are read from files (`cube.stac.gather`, `cube.composite`). Images are named one by one,
as the scene list holds them: one that is gone is an error then, not a hole, and no search depends
on what the archive takes in meanwhile.
"""

import math
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from odc.geo.geobox import GeoBox

from cube.bands import BANDS, NODATA, STORED_MAX
from cube.earthengine.composite import COUNTS, Definition
from cube.earthengine.installed import ee
from cube.earthengine.reduce import RANK, REDUCED, each, half_even, own_pixels
from cube.earthengine.requests import grid_of
from cube.errors import InputError
from cube.periods import Period
from cube.resample import WIDEST_BILINEAR
from cube.spec import METRES
from cube.stac.scene import Scene

CLOUD_SCORES = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
"""Collection whose images have the `system:index` of the Sentinel-2 image they judge."""

_SCORE = "cs_cdf"
_QA60_CLOUD = 1 << 10 | 1 << 11
"""QA60: opaque cloud, cirrus."""

_NATIVE = {"SCL": 20, _SCORE: 10, "QA60": 60, "AOT": 10, "WVP": 10}
"""Pixel size in metres of what masks are made of, and of layers that Earth Engine has finer than
`cube.bands`."""

_METRES_PER_DEGREE = 111_320.0
"""Of latitude: what a pixel of a grid in degrees measures from north to south."""

_EPOCH = date(1970, 1, 1)

Image = Any
"""An `ee.Image`; the client has no types to check."""


def band_name(band: str) -> str:
    """Return what Earth Engine calls a band of the cube: `B2` for `B02`."""
    return band.replace("B0", "B")


def period_image(
    passes: Sequence[tuple[Scene, ...]],
    *,
    definition: Definition,
    period: Period,
    window: GeoBox,
    bands: tuple[str, ...],
) -> Image:
    """Return the composite of `passes`, each with the scene to prefer first, as an `ee.Image`.

    Its bands are `bands` in stored units and then `COUNTS` (see `answer_bands`), int16; `NODATA`
    where no look was clear, and 0 in the counts. It is right for requests on the pixels of
    `window`, whole or in parts, and on no other grid. Raises `InputError` for no pass at all, and
    for a grid whose pixels have no size in metres.
    """
    if not passes:
        raise InputError(f"no scene is given for {period}, so there is nothing to ask for")
    granule = _Granule(definition, window, bands)
    # Days are counted from an even number of days since 1970, so that halves go to the same day
    # as when dates themselves are rounded.
    first = int(period.start.astype("M8[D]").astype(int))
    origin = first - first % 2
    looks = _looks(passes, granule, origin=origin)
    counts = looks.select([_CLEAR, _SEEN, _DAY]).reduce(ee.Reducer.sum()).unmask(0, False)
    clear, seen, days = (counts.select([number]) for number in range(3))
    offset = (
        half_even(days.toDouble().divide(clear.max(1)))
        .subtract(first - origin)
        .multiply(clear.gt(0))
    )
    reduced = REDUCED[definition.method](looks, bands, clear, len(passes))
    # rounding leaves whole numbers as they are, so also what stands for no data, and the medoid
    values = half_even(reduced.toDouble().unmask(NODATA, False))
    image = values.addBands(clear).addBands(seen).addBands(offset)
    return image.rename([*bands, *COUNTS]).toInt16()


_CLEAR, _SEEN, _DAY = "clear", "seen", "day"
"""Bands of a look beside those of the cube and its rank."""


def _looks(passes: Sequence[tuple[Scene, ...]], granule: "_Granule", *, origin: int) -> Any:
    """Return an image a pass: bands where it is clear; `clear`, `seen`, `day`, `rank` everywhere."""
    told = [
        # a mosaic shows the last of its images, so what is to prefer comes last
        [[_day(scenes[0]) - origin, rank], [granule.source(scene) for scene in reversed(scenes)]]
        for rank, scenes in enumerate(passes)
    ]

    def look(one: Any) -> Image:
        granules = ee.List(ee.List(one).get(1))
        merged = ee.ImageCollection.fromImages(each(granules, granule.made)).mosaic()
        values = merged.select(list(granule.bands))
        found = merged.select([_CLEAR, _SEEN]).unmask(0, False)
        is_clear = found.select([_CLEAR])
        told = ee.Image.constant(ee.List(ee.List(one).get(0))).rename([_DAY, RANK]).toInt16()
        days = told.select([_DAY]).multiply(is_clear)
        look = values.updateMask(is_clear).addBands(found).addBands(days)
        return look.addBands(told.select([RANK]))

    return ee.ImageCollection.fromImages(each(ee.List(told), look))


class _Granule:
    """What is made of one image, by the same function for every one."""

    def __init__(self, definition: Definition, window: GeoBox, bands: tuple[str, ...]) -> None:
        self.bands = bands
        self._definition = definition
        self._window = window
        self._pixel = _pixel_metres(window)

    def source(self, scene: Scene) -> Image:
        """Return the image of a scene with all that its mask needs."""
        image = ee.Image.load(f"{scene.collection}/{scene.id}")
        if self._definition.mask != "cloud-score-plus":
            return image
        return image.addBands(ee.Image.load(f"{CLOUD_SCORES}/{scene.id}"), [_SCORE])

    def made(self, image: Any) -> Image:
        """Return stored units and `clear` where every band has data, `seen` where the SCL has."""
        image = ee.Image(image)
        is_seen = self._nearest(image, "SCL").gt(1)  # 0 is no data, 1 saturated or defective
        stored = self._stored(image)
        # what resampling makes of a mask is nowhere said: it may be a fraction, or reach less far
        masks = self._masks(image).addBands(stored.mask())
        has_data = masks.reduce(ee.Reducer.allNonZero()).And(is_seen)
        values = stored.unmask(0, False).addBands(self._clear(image).rename([_CLEAR]))
        return values.updateMask(has_data).addBands(is_seen.updateMask(is_seen).rename([_SEEN]))

    def _nearest(self, image: Image, name: str) -> Image:
        """Return what a mask is made of, at its own pixels, 0 where it has none."""
        layer = image.select([name])
        is_fine = self._pixel <= _NATIVE[name]
        return (layer if is_fine else own_pixels(layer)).unmask(0, False)

    def _clear(self, image: Image) -> Image:
        definition = self._definition
        if definition.mask == "scl":
            scl = self._nearest(image, "SCL")
            return _any_of([scl.eq(number) for number in sorted(definition.classes)])
        if definition.mask == "qa60":
            # a second band of one name gets another name, so what the image itself has is taken
            whole = image.addBands(ee.Image.constant(0).toUint16().rename(["QA60"]))
            return self._nearest(whole, "QA60").toInt().bitwiseAnd(_QA60_CLOUD).eq(0)
        return self._nearest(image, _SCORE).gte(definition.threshold)

    def _masks(self, image: Image) -> Image:
        """Return where each band has data at the pixel that holds the window's pixel's centre."""
        return self._own(image).mask()

    def _own(self, image: Image) -> Image:
        """Return the bands by their own pixels, the nearest one each."""
        return self._by_size(
            image, 1.0, lambda layers: layers, lambda layers, _: own_pixels(layers)
        )

    def _stored(self, image: Image) -> Image:
        if self._definition.resampling == "nearest":
            brought = self._own(image).toFloat()
        else:
            smooth = self._by_size(image, WIDEST_BILINEAR, _bilinear, self._mean)
            brought = smooth.add(0.5).floor()  # halves up, as `cube.resample` does
        gains = [BANDS[name].stored_per_count for name in self.bands]
        if any(gain != 1 for gain in gains):
            brought = brought.multiply(ee.Image.constant(gains))
        return brought.min(STORED_MAX)

    def _mean(self, layer: Image, native: int) -> Image:
        """Return the mean of all pixels that one of the window covers."""
        most = (math.ceil(self._pixel / native) + 2) ** 2
        mean = layer.toFloat().reduceResolution(ee.Reducer.mean(), False, most)
        return mean.reproject(*_grid(self._window))

    def _by_size(
        self,
        image: Image,
        widest: float,
        fine: Callable[[Image], Image],
        coarse: Callable[[Image, int], Image],
    ) -> Image:
        """Bring the bands by `fine`, but by `coarse` where a pixel spans over `widest` of theirs."""
        is_fine = [self._pixel <= widest * _native(name) for name in self.bands]
        together = [name for name, fits in zip(self.bands, is_fine, strict=True) if fits]
        parts = [fine(_called_ours(image, together))] if together else []
        for name, fits in zip(self.bands, is_fine, strict=True):
            if not fits:  # one by one: an image of several has several projections
                parts.append(coarse(_called_ours(image, [name]), _native(name)))
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.addBands(part)
        return whole.select(list(self.bands)) if parts[1:] else whole


def _native(band: str) -> int:
    """Return the size of a band's pixels on Earth Engine, in metres."""
    return _NATIVE.get(band) or BANDS[band].resolution


def _called_ours(image: Image, bands: Sequence[str]) -> Image:
    return image.select([band_name(name) for name in bands], list(bands))


def _any_of(conditions: Sequence[Image]) -> Image:
    whole = conditions[0]
    for condition in conditions[1:]:
        whole = whole.Or(condition)
    return whole


def _bilinear(layers: Image) -> Image:
    # floating point beforehand: a mean of whole numbers is not to be one before we round it
    return layers.toFloat().resample("bilinear")


def _day(scene: Scene) -> int:
    return (scene.overpass_start.date() - _EPOCH).days


def _grid(window: GeoBox) -> tuple[str, list[float]]:
    """Return CRS and transform of a window as `reproject` takes them."""
    grid = grid_of(window)
    crs: str = grid.get("crsCode") or grid["crsWkt"]
    return crs, [float(number) for number in window.transform[:6]]


def _pixel_metres(window: GeoBox) -> float:
    """Return the longer side of a window's pixel in metres, the same for every window of a grid."""
    if window.crs is None:
        raise InputError("the window has no CRS, so Earth Engine cannot be asked for it")
    height, width = abs(window.resolution.y), abs(window.resolution.x)
    if window.crs.geographic:
        return height * _METRES_PER_DEGREE
    if window.crs.units[0] not in METRES:
        raise InputError(
            f"the grid is in {window.crs.units[0]!r}; Earth Engine is asked for grids in metres or "
            "degrees"
        )
    return max(height, width)
