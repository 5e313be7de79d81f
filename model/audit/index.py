"""Sequences with columns of indices in; indices of other values than their bands give, out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from model.audit.audited import Audited
from model.audit.finding import Finding, rows_of

_NEEDED = {"EVI": ("B02", "B04", "B08"), "NDVI": ("B04", "B08"), "NDWI": ("B03", "B08")}
_NEAR = 1e-3
"""Difference that rounding makes."""

_COUNTS = 1e4
"""Counts of a reflectance of 1."""

_FEWEST, _OFTEN = 20, 0.01
"""Values that must contradict, and the share of them, to be told."""


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """A column of an index against its bands."""

    is_compared: Bool[np.ndarray, "sample time"]
    is_right: Bool[np.ndarray, "sample time"]
    """Equal to the index of reflectance."""
    is_on_counts: Bool[np.ndarray, "sample time"]
    """Equal to the index of counts, and to no other."""


def find_indices(audited: Audited) -> list[Finding]:
    """Return findings of indices on counts, and of indices that contradict their bands."""
    found = []
    for name, needed in _NEEDED.items():
        given = _given(audited, name)
        if given is None or not audited.has(*needed):
            continue
        compared = _compare(audited, name, given)
        total = max(int(compared.is_compared.sum()), 1)
        is_other = compared.is_compared & ~compared.is_right & ~compared.is_on_counts
        for code, is_it, what, advice in (
            (
                "index-on-counts",
                compared.is_on_counts,
                "were computed on counts (reflectance x 10000), for which its constants are not "
                "made",
                f"Compute {name} on reflectance 0..1",
            ),
            (
                "index-contradicts-bands",
                is_other,
                "are not what the bands give",
                f"Compute {name} from the bands, after gaps are known, and fill nothing",
            ),
        ):
            count = int(is_it.sum())
            if count < _FEWEST or count < _OFTEN * total:
                continue
            found.append(
                Finding(
                    code=code,
                    severity="warning",
                    what=f"{count:,} of {total:,} values of {name} {what}",
                    count=int(is_it.any(axis=1).sum()),
                    rows=rows_of(np.asarray(is_it.any(axis=1))),
                    advice=advice,
                )
            )
    return found


def _given(audited: Audited, name: str) -> Float64[np.ndarray, "sample time"] | None:
    if name in audited.columns:
        return audited.columns[name].astype(np.float64)
    return audited.band(name).astype(np.float64) if audited.has(name) else None


def _compare(audited: Audited, name: str, given: Float64[np.ndarray, "sample time"]) -> _Compared:
    bands = {band: audited.band(band).astype(np.float64) for band in _NEEDED[name]}
    right = _index(name, bands)
    counts = _index(name, {band: values * _COUNTS for band, values in bands.items()})
    is_compared = np.isfinite(given) & np.isfinite(right) & np.isfinite(counts) & (given != -999)
    tolerance = _NEAR * np.maximum(1, np.abs(given))
    with np.errstate(invalid="ignore"):
        is_right = is_compared & (np.abs(given - right) <= tolerance)
        is_on_counts = is_compared & ~is_right & (np.abs(given - counts) <= tolerance)
    return _Compared(is_compared=is_compared, is_right=is_right, is_on_counts=is_on_counts)


def _index(name: str, of: dict[str, np.ndarray]) -> Float64[np.ndarray, "sample time"]:
    """Return the index without any guard, as exports have it; NaN or infinite where it has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if name == "NDWI":
            return np.asarray((of["B03"] - of["B08"]) / (of["B03"] + of["B08"]))
        over = of["B08"] - of["B04"]
        if name == "NDVI":
            return np.asarray(over / (of["B08"] + of["B04"]))
        # Huete et al. 2002, for reflectance 0..1
        return np.asarray(2.5 * over / (of["B08"] + 6 * of["B04"] - 7.5 * of["B02"] + 1))
