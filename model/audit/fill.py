"""Sequences in; fill values among their values, and runs of zeros, out."""

import numpy as np
from jaxtyping import Bool, Float32

from model.audit.audited import Audited
from model.audit.finding import Finding, rows_of, some
from model.audit.missing import is_mixed, is_modis_fill

_ZERO_RUN = 3
"""Zeros on end that chance does not make."""


def find_fill(audited: Audited) -> list[Finding]:
    """Return findings of fill values, also mixed ones, and of runs of zeros in single bands."""
    found = []
    has_fill = np.asarray(audited.is_fill.any(axis=(1, 2)))
    if has_fill.any():
        values, counts = np.unique(audited.values[audited.is_fill], return_counts=True)
        named = ", ".join(f"{value:g}" for value in values[np.argsort(-counts)][:3].tolist())
        bands = [
            band
            for band, is_in in zip(
                audited.bands, np.asarray(audited.is_fill.any(axis=(0, 1))), strict=True
            )
            if is_in
        ]
        found.append(
            Finding(
                code="fill-value",
                severity="severe",
                what=f"{int(audited.is_fill.sum()):,} values in {int(has_fill.sum()):,} samples "
                f"stand for nothing ({named}), in {some(bands)}",
                count=int(has_fill.sum()),
                rows=rows_of(has_fill),
                advice="Set them to NaN before samples are made; a network learns them as if the "
                "ground were so",
            )
        )
    found += [*_of_modis(audited), *_mixed(audited)]
    has_run = _has_zero_run(np.where(audited.is_fill, np.float32(np.nan), audited.values))
    if has_run.any():
        found.append(
            Finding(
                code="zero-run",
                severity="warning",
                what=f"{int(has_run.sum()):,} samples have {_ZERO_RUN} zeros or more on end in a "
                "band",
                count=int(has_run.sum()),
                rows=rows_of(has_run),
                advice="See whether 0 stands for missing, or whether values below 0 were cut off",
            )
        )
    return found


def _of_modis(audited: Audited) -> list[Finding]:
    """Find -0.3 among vegetation indices: likely fill, but no certain one, so a warning."""
    return [
        _warning(
            is_it,
            band,
            code="fill-value",
            what="-0.3, the scaled fill value of MODIS, and no other is below -0.2",
            advice="Set them to NaN before samples are made (import-table: --nodata -0.3)",
        )
        for at, band in enumerate(audited.bands)
        if (is_it := is_modis_fill(audited.known[..., at], band)).any()
    ]


def _mixed(audited: Audited) -> list[Finding]:
    """Find indices that cannot be in columns that hold fill: resampling mixed it in."""
    return [
        _warning(
            is_it,
            band,
            code="fill-mixed",
            what="beyond 1, beside fill values",
            advice="Fill values were mixed into them, as resampling does: set them to NaN, too",
        )
        for at, band in enumerate(audited.bands)
        if audited.is_fill[..., at].any()
        and (is_it := is_mixed(audited.known[..., at], band)).any()
    ]


def _warning(
    is_it: Bool[np.ndarray, "sample time"], band: str, *, code: str, what: str, advice: str
) -> Finding:
    """Return the finding that values of a band are what they should not be."""
    has_it = np.asarray(is_it.any(axis=1))
    return Finding(
        code=code,
        severity="warning",
        what=f"{int(is_it.sum()):,} values of {band} in {int(has_it.sum()):,} samples are {what}",
        count=int(has_it.sum()),
        rows=rows_of(has_it),
        advice=advice,
    )


def _has_zero_run(values: Float32[np.ndarray, "sample time band"]) -> Bool[np.ndarray, "sample"]:
    is_zero = values == 0
    if values.shape[1] < _ZERO_RUN:
        return np.zeros(len(values), bool)
    windows = [
        is_zero[:, start : values.shape[1] - _ZERO_RUN + 1 + start] for start in range(_ZERO_RUN)
    ]
    return np.asarray(np.logical_and.reduce(windows).any(axis=(1, 2)))
