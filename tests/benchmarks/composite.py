"""A month of made-up looks in, how fast each way takes the median of the clear ones out.

Run with `python -m tests.benchmarks.composite [--json]`. Every way starts from the same stored
units and clear mask and must end in the same stored units, so masking, rounding and nodata are
part of what is timed. Values are counted as they come in: looks x bands x pixels.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from cube.bands import NODATA
from cube.composite import median_composite
from tests.benchmarks.rounds import machine, median_seconds, show

try:
    import bottleneck
except ModuleNotFoundError:  # no dependency of ours; measured where someone has it
    bottleneck = None

BANDS = 12


def month_of_looks(looks: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (look, band, y, x) int16 and (look, y, x) bool with 40 % of the ground in clouds."""
    generator = np.random.default_rng(looks)
    reflectance = generator.integers(-200, 6000, (looks, BANDS, size, size), dtype=np.int16)
    clouds = np.stack(
        [gaussian_filter(generator.standard_normal((size, size)), 8) for _ in range(looks)]
    )
    return reflectance, clouds > np.quantile(clouds, 0.4)


def as_stored(median: np.ndarray) -> np.ndarray:
    """Return float medians as stored units, NaN as nodata."""
    return np.where(np.isnan(median), NODATA, np.rint(median)).astype(np.int16)


def with_numpy(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """NaN where not clear, then np.nanmedian."""
    values = np.where(is_clear[:, None], reflectance, np.float32(np.nan))
    return as_stored(np.nanmedian(values, axis=0))


def with_bottleneck(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """NaN where not clear, then bottleneck's nanmedian."""
    values = np.where(is_clear[:, None], reflectance, np.float32(np.nan))
    return as_stored(bottleneck.nanmedian(values, axis=0))


def labelled(reflectance: np.ndarray, is_clear: np.ndarray) -> xr.DataArray:
    """Return the looks as xarray has them: one a day of June, NaN where not clear."""
    days = np.datetime64("2022-06-01", "ns") + np.arange(len(is_clear)) * np.timedelta64(1, "D")
    looks = xr.DataArray(reflectance, dims=("time", "band", "y", "x"), coords={"time": days})
    return looks.where(xr.DataArray(is_clear, dims=("time", "y", "x"))).astype(np.float32)


def with_resample(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take xarray's `resample(time="MS").median()`."""
    return as_stored(labelled(reflectance, is_clear).resample(time="MS").median()[0].to_numpy())


def with_groupby(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take xarray's `groupby("time.month").median()`."""
    return as_stored(labelled(reflectance, is_clear).groupby("time.month").median()[0].to_numpy())


WAYS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "median_composite": lambda reflectance, is_clear: median_composite(reflectance, is_clear)[0],
    "np.nanmedian": with_numpy,
    "xarray resample": with_resample,
    "xarray groupby": with_groupby,
    **({"bottleneck": with_bottleneck} if bottleneck is not None else {}),
}


def measure(looks: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """Return one row a way; raises `RuntimeError` if their composites differ."""
    reflectance, is_clear = month_of_looks(looks, size)
    expected = with_numpy(reflectance, is_clear)
    for name, way in WAYS.items():
        if not np.array_equal(way(reflectance, is_clear), expected):
            raise RuntimeError(f"{name} gives another composite than np.nanmedian")
    seconds = median_seconds(
        {name: lambda way=way: way(reflectance, is_clear) for name, way in WAYS.items()},
        rounds=rounds,
    )
    ours = seconds["median_composite"]
    return [
        {
            "looks": looks,
            "way": name,
            "ms": 1e3 * taken,
            "million values/s": reflectance.size / taken / 1e6,
            "times slower than ours": taken / ours,
        }
        for name, taken in seconds.items()
    ]


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.composite", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--size", type=int, default=160, help="edge of the window in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a median is taken over")
    options = parser.parse_args()
    title = (
        f"Median of a month, {BANDS} bands, {options.size} x {options.size}, 60 % clear, medians "
        f"of {options.rounds} rounds"
    )
    with warnings.catch_warnings():
        # a pixel without a clear look is part of the job
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")
        rows = [
            row for looks in (6, 10, 20) for row in measure(looks, options.size, options.rounds)
        ]
    show(
        {title: rows},
        where=machine(["numpy", "numba", "xarray"]),
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
