"""Numbers of a table in, physical values with NaN for what was not observed out."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

from cube.bands import BANDS
from cube.errors import InputError
from cube.series.names import BOUNDED, RADAR
from cube.series.options import SeriesOptions

FILL_VALUES = (-999.0, -9999.0, -99999.0, 65535.0, -32768.0, -28672.0, -3.4028234663852886e38)
"""Values that archives write where nothing was observed."""

_MODIS_FILL, _MODIS_LEAST = -0.3, -0.2
"""What -3000, the fill of MODIS' vegetation indices, becomes when it is scaled, and the smallest
value that they have (valid range of MOD13: -2000 to 10000)."""

_FEWEST_FILLS, _FEWEST_OTHERS = 3, 50
"""So often -0.3 is there, beside so many different values, where it is surely fill: a table rounded
to one decimal holds it, too."""

_DIFFERENCES = ("NDVI", "NDWI", "MNDWI", "NDMI", "LSWI", "NBR", "NBR2", "NDRE", "GNDVI")
"""Normalised differences, which are never beyond 1."""

_COUNT = 1e-4
_LARGEST = 2.0
"""Of reflectance and of the indices that are `BOUNDED`."""

_FEW, _BRIGHTEST = 0.01, 4.0
"""So few reflectances may be above that, none above what samples take."""

_ROUNDING = 1e-6
"""By which a table's numbers may miss a value."""

_PERCENT = 255
"""Whole numbers up to here may be percent or bytes."""


def physical(
    values: Float64[np.ndarray, "row band"],
    bands: Sequence[str],
    options: SeriesOptions,
    where: Callable[[int], str],
) -> tuple[Float32[np.ndarray, "row band"], tuple[str, ...]]:
    """Return physical values, and what was decided about them, one sentence each.

    `where` tells a row in messages. Raises `InputError` for infinite values, for fill values and
    empty cells that were not declared, and for counts without a scale.
    """
    _refuse_infinite(values, bands, where)
    is_lost, notes = _not_observed(values, bands, options, where)
    fills = (is_lost & ~np.isnan(values)).sum(axis=0)
    values = np.where(is_lost, np.nan, values)
    factors, more = _factors(values, bands, options.scale)
    notes += more
    values = values * np.array(factors)
    scale = options.scale or (None if factors == [1.0] * len(factors) else _COUNT)
    if scale is not None and (options.finds_nodata or options.nodata):
        values, more = _without_impossible(values, bands)
        notes += more
    values, more = _without_mixed(values, bands, fills)
    notes += more
    _refuse_counts(values, bands, where, scale)
    values, more = _without_modis_fill(values, bands, options)
    notes += more
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    _refuse_infinite(single, bands, where)  # what is too large for the samples
    return single, tuple(notes)


def _refuse_infinite(values: np.ndarray, bands: Sequence[str], where: Callable[[int], str]) -> None:
    if (bad := np.isinf(values)).any():
        row, at = (int(index) for index in np.argwhere(bad)[0])
        raise InputError(
            f"{where(row)}: {bands[at]} is {values[row, at]}; {int(bad.sum()):,} values are "
            "infinite or near it, as after a division by 0. Leave these cells empty, or mend them"
        )


def _not_observed(
    values: np.ndarray, bands: Sequence[str], options: SeriesOptions, where: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    """Return where nothing was observed; refuse what looks like it and was not declared."""
    declared = [value for value in options.nodata if not np.isnan(value)]
    is_lost = np.isin(values, declared)
    notes = [
        f"{int((values == value).sum()):,} values {value:g} mean not observed (--nodata)"
        for value in declared
    ]
    for value in FILL_VALUES:
        found = (values == value) & ~is_lost
        if not found.any():
            continue
        if options.finds_nodata:
            is_lost |= found
            notes.append(f"{int(found.sum()):,} values {value:g} were taken as not observed")
            continue
        row, at = (int(index) for index in np.argwhere(found)[0])
        raise InputError(
            f"{where(row)}: {bands[at]} is {value:g}, as are {int(found.sum()):,} of "
            f"{values.size:,} values; if that means not observed, say --nodata {value:g} (or auto)"
        )
    is_empty = np.isnan(values)
    if is_empty.any():
        if not (options.finds_nodata or any(np.isnan(value) for value in options.nodata)):
            row, at = (int(index) for index in np.argwhere(is_empty)[0])
            raise InputError(
                f"{where(row)}: {bands[at]} is empty or NaN, as are {int(is_empty.sum()):,} of "
                f"{values.size:,} values; if that means not observed, say --nodata nan (or auto)"
            )
        notes.append(f"{int(is_empty.sum()):,} cells are empty: not observed")
    return is_lost | is_empty, notes


def _factors(
    values: np.ndarray, bands: Sequence[str], scale: float | None
) -> tuple[list[float], list[str]]:
    """Return what each band is multiplied by, and what was decided."""
    notes = []
    is_found = scale is None and _are_counts(values, bands)
    if is_found:
        notes.append("values of Sentinel-2 are whole counts, taken as 0.0001 each (--scale)")
    factors = []
    for at, band in enumerate(bands):
        factor = 1.0
        if is_found and band in BANDS:
            factor = _COUNT * BANDS[band].stored_per_count
        elif scale is not None and band not in RADAR:
            column = values[:, at]
            if band in BOUNDED and not (np.abs(column[np.isfinite(column)]) > _LARGEST).any():
                notes.append(f"{band} is in -1..1 already, so --scale leaves it as it is")
            else:
                factor = scale * (BANDS[band].stored_per_count if band in BANDS else 1)
        factors.append(factor)
    return factors, notes


def _are_counts(values: np.ndarray, bands: Sequence[str]) -> bool:
    """Say whether the bands of Sentinel-2 are whole numbers that are neither shares nor percent."""
    columns = [at for at, band in enumerate(bands) if band in BANDS]
    known = values[:, columns][np.isfinite(values[:, columns])]
    return bool(
        known.size and (known == np.rint(known)).all() and np.quantile(known, 0.99) > _PERCENT
    )


def _without_impossible(values: np.ndarray, bands: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Take a few reflectances that cannot be for not observed: resampling mixed fill values in."""
    is_reflectance = np.array([_is_reflectance(band) for band in bands])
    is_beyond = (np.abs(values) > _BRIGHTEST) & is_reflectance
    count = int(is_beyond.sum())
    if not count or count >= _FEW * np.isfinite(values[:, is_reflectance]).sum():
        return values, []
    note = f"{count:,} reflectances are beyond {_BRIGHTEST:g}, and were taken as not observed"
    return np.where(is_beyond, np.nan, values), [note]


def _without_mixed(
    values: np.ndarray, bands: Sequence[str], fills: Int64[np.ndarray, " band"]
) -> tuple[np.ndarray, list[str]]:
    """Take a few indices that cannot be for not observed where their column holds fill values.

    `fills` counts those of each band. Such values are means of fill and of what is beside it.
    """
    values, notes = values.copy(), []
    for at, band in enumerate(bands):
        if band not in BOUNDED or not fills[at]:
            continue
        most = 1.0 if band in _DIFFERENCES else _LARGEST
        is_mixed = np.abs(values[:, at]) > most + _ROUNDING
        count = int(is_mixed.sum())
        if not count or count > max(int(fills[at]), _FEW * np.isfinite(values[:, at]).sum()):
            continue
        values[is_mixed, at] = np.nan
        notes.append(
            f"{count:,} values of {band} are beyond {most:g}, as resampling makes them beside fill "
            "values, and were taken as not observed"
        )
    return values, notes


def _without_modis_fill(
    values: np.ndarray, bands: Sequence[str], options: SeriesOptions
) -> tuple[np.ndarray, list[str]]:
    """Take -0.3 for not observed where it must be MODIS' fill and may be found; else tell it."""
    values, notes = values.copy(), []
    for at, band in enumerate(bands):
        is_it = np.isclose(values[:, at], _MODIS_FILL, rtol=0, atol=_ROUNDING)
        if band not in ("NDVI", "EVI") or not is_it.any():
            continue
        count = f"{int(is_it.sum()):,} values of {band} are -0.3, the scaled fill value of MODIS"
        others = values[np.isfinite(values[:, at]) & ~is_it, at]
        is_alone = (
            is_it.sum() >= _FEWEST_FILLS
            and np.unique(others).size >= _FEWEST_OTHERS
            and others.min() >= _MODIS_LEAST
        )
        if is_alone and options.finds_nodata:
            values[is_it, at] = np.nan
            notes.append(f"{count}, and no other is below -0.2: they were taken as not observed")
        elif is_alone:
            notes.append(
                f"{count}, and no other is below -0.2, so nothing was observed there: say "
                "--nodata -0.3 (or auto)"
            )
        else:
            notes.append(f"{count}; if they are that, say --nodata -0.3")
    return values, notes


def _is_reflectance(band: str) -> bool:
    return band in BANDS and band not in ("AOT", "WVP")


def _refuse_counts(
    values: np.ndarray, bands: Sequence[str], where: Callable[[int], str], scale: float | None
) -> None:
    for at, band in enumerate(bands):
        is_reflectance = _is_reflectance(band)
        if not is_reflectance and band not in BOUNDED:
            continue
        size = np.abs(values[:, at])
        is_high = size > _LARGEST  # NaN is not
        # a glint or a cloud may be brighter than a white sheet; many such values are counts
        is_rare = scale is not None or is_high.mean() < _FEW
        is_glint = is_reflectance and is_rare and not (size > _BRIGHTEST).any()
        if is_glint or not is_high.any():
            continue
        row = int(np.flatnonzero(is_high)[0])
        do = (
            "if they are counts of 1/10000, say --scale 0.0001"
            if scale is None
            else f"is --scale {scale:g} right, and are fill values named with --nodata?"
        )
        raise InputError(
            f"{where(row)}: {band} is {values[row, at]:g}, and {int(is_high.sum()):,} values are "
            f"beyond {_LARGEST:g}, which {band} never is; {do}"
        )
