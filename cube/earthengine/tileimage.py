"""A tile of a cube in, the image that its file is exported from out: every period, band by band."""

from typing import Any

from odc.geo.geobox import GeoBox

from cube.earthengine.composite import answer_bands
from cube.earthengine.requests import MOST_BANDS
from cube.earthengine.source import EarthEngineSource
from cube.errors import InputError
from cube.spec import CubeSpec, Region
from cube.stac.scene import Scene


def exported_bands(number: int, bands: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that the bands of the cube's period `number` have in an exported file."""
    return tuple(f"t{number:03d}_{name}" for name in answer_bands(bands))


def periods_seen(
    source: EarthEngineSource, spec: CubeSpec, window: GeoBox
) -> list[tuple[int, list[tuple[Scene, ...]]]]:
    """Return number and looks of each period that has any over `window`, in their order."""
    passes = source.passes_by_period(spec.periods, window)
    return [
        (number, passes[period]) for number, period in enumerate(spec.periods) if passes[period]
    ]


def tile_image(
    source: EarthEngineSource, spec: CubeSpec, region: Region
) -> tuple[Any, tuple[str, ...]] | None:
    """Return the image that a tile's file is exported from, and its bands; None without a scene.

    Raises `InputError` for more periods and bands than one file may have.
    """
    from cube.earthengine.expression import period_image
    from cube.earthengine.session import session

    session(source.access)  # the client builds no expression before it knows its functions
    window = region.window(spec.geobox)
    seen = periods_seen(source, spec, window)
    _check_bands(len(seen), spec, region)
    whole: Any = None
    names: list[str] = []
    for number, passes in seen:
        image = period_image(
            passes,
            definition=source.definition,
            period=spec.periods[number],
            window=window,
            bands=spec.bands,
        )
        named = exported_bands(number, spec.bands)
        image = image.rename(list(named))
        whole = image if whole is None else whole.addBands(image)
        names += named
    return (whole, tuple(names)) if names else None


def refuse_many_bands(source: EarthEngineSource, spec: CubeSpec) -> None:
    """Raise `InputError` if the file of any tile would have more bands than Earth Engine writes."""
    if len(spec.periods) * len(answer_bands(spec.bands)) <= MOST_BANDS:
        return
    for region in spec.regions():
        seen = periods_seen(source, spec, region.window(spec.geobox))
        _check_bands(len(seen), spec, region)


def _check_bands(periods: int, spec: CubeSpec, region: Region) -> None:
    number = periods * len(answer_bands(spec.bands))
    if number > MOST_BANDS:
        raise InputError(
            f"tile {region.id} would be exported with {number} bands, of {periods} periods; Earth "
            f"Engine writes {MOST_BANDS} at most: take fewer bands or longer periods"
        )
