"""A month of made-up looks in, how fast each way makes a composite of the clear ones out.

Run with `python -m tests.benchmarks.composite [--json]`. Every way starts from the same stored
units and clear mask and must end in the same stored units, so masking, rounding and nodata are
part of what is timed; its processor seconds are, on one core. Values are counted as they come in:
looks x bands x pixels. What stands in the optional group `benchmarks` is measured where it is
installed; hdmedians comes as source only and needs a compiler.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import dask.array as da
import numba
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from cube.bands import NODATA
from cube.composite import (
    geomedian_composite,
    mean_composite,
    median_composite,
    medoid_composite,
)
from tests.benchmarks.rounds import machine, seconds_in_turns, show

BANDS = 12

OPTIONAL = ("bottleneck", "flox", "numbagg", "geomad", "hdmedians")
"""Peers that are no dependencies of ours; xarray gets slower where flox or numbagg is installed."""

TOLERANCE = 0.05
"""Stored units: the step at which every geometric median stops, ours and theirs."""

Way = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Stored units (look, band, y, x) and mask (look, y, x) in, stored units (band, y, x) out."""


def month_of_looks(looks: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (look, band, y, x) int16 and (look, y, x) bool with 40 % of the ground in clouds."""
    generator = np.random.default_rng(looks)
    reflectance = generator.integers(-200, 6000, (looks, BANDS, size, size), dtype=np.int16)
    return reflectance, clear_ground(generator, looks, size)


def month_of_haze(looks: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return looks at one ground through haze that brightens all bands, and noise."""
    generator = np.random.default_rng(looks)
    ground = generator.uniform(200, 4000, (1, BANDS, size, size))
    haze = generator.exponential(300, (looks, 1, size, size))
    noise = generator.normal(0, 60, (looks, BANDS, size, size))
    return (ground + haze + noise).astype(np.int16), clear_ground(generator, looks, size)


def clear_ground(generator: np.random.Generator, looks: int, size: int) -> np.ndarray:
    """Return (look, y, x) bool, 60 % of it true, in patches."""
    clouds = np.stack(
        [gaussian_filter(generator.standard_normal((size, size)), 8) for _ in range(looks)]
    )
    return clouds > np.quantile(clouds, 0.4)


SCENES = {"random": month_of_looks, "haze": month_of_haze}


def as_stored(composite: np.ndarray) -> np.ndarray:
    """Return float values as stored units, NaN as nodata."""
    return np.where(np.isnan(composite), NODATA, np.rint(composite)).astype(np.int16)


def masked(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Return the looks as float32, NaN where not clear."""
    return np.where(is_clear[:, None], reflectance, np.float32(np.nan))


def along_looks(reduce: Callable[..., np.ndarray]) -> Way:
    """Return the way that masks and calls `reduce` along the first axis."""
    return lambda reflectance, is_clear: as_stored(reduce(masked(reflectance, is_clear), axis=0))


def with_flox(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take flox's nanmedian over the looks of one group."""
    values = np.moveaxis(masked(reflectance, is_clear), 0, -1)  # (band, y, x, look)
    month = np.zeros(len(is_clear), np.int64)
    result, *_ = import_module("flox").groupby_reduce(values, month, func="nanmedian")
    return as_stored(result[..., 0])


def with_dask(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take Dask's nanmedian of a stack with a chunk a look, as odc-stac and stackstac give it."""
    looks = da.from_array(reflectance, chunks=(1, -1, -1, -1))
    clear = da.from_array(is_clear, chunks=(1, -1, -1))
    values = da.where(clear[:, None], looks, np.float32(np.nan))
    return as_stored(da.nanmedian(values, axis=0).compute(scheduler="synchronous"))


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


def medoid_with_numpy(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take the medoid by sums of absolute differences, all pixels together."""
    values = masked(reflectance, is_clear)
    cost = np.stack([np.nansum(np.abs(values - one), axis=(0, 1)) for one in values])
    cost[~is_clear] = np.inf
    chosen = np.argmin(cost, axis=0)[None, None]
    picked = np.take_along_axis(values, np.broadcast_to(chosen, (1, *values.shape[1:])), axis=0)[0]
    return as_stored(picked)


def medoid_with_hdmedians(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take hdmedians' nanmedoid, which takes one pixel: by Euclidean distance."""
    nanmedoid = import_module("hdmedians").nanmedoid
    values = masked(reflectance, is_clear).transpose(2, 3, 1, 0)  # (y, x, band, look)
    result = np.full(values.shape[:3], np.nan, np.float32)
    for y, x in np.argwhere(is_clear.any(axis=0)):
        result[y, x] = nanmedoid(values[y, x])
    return as_stored(result.transpose(2, 0, 1))


def geomedian_with_geomad(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Take geomad's geometric median, which odc-algo calls, with one thread."""
    values = masked(reflectance, is_clear).transpose(2, 3, 1, 0)  # (y, x, band, look)
    result = import_module("geomad").nangeomedian_pcm(
        np.ascontiguousarray(values), eps=TOLERANCE, num_threads=1, nocheck=True
    )
    return as_stored(result.transpose(2, 0, 1))


def ways_of(method: str) -> dict[str, Way]:
    """Return our way, first, and every peer's that is installed."""
    has = {name for name in OPTIONAL if find_spec(name) is not None}
    ways: dict[str, dict[str, Way]] = {
        "median": {
            "ours": lambda reflectance, is_clear: median_composite(reflectance, is_clear)[0],
            "numpy": along_looks(np.nanmedian),
            "xarray resample": with_resample,
            "xarray groupby": with_groupby,
            "dask": with_dask,
            "flox": with_flox,
        },
        "mean": {
            "ours": lambda reflectance, is_clear: mean_composite(reflectance, is_clear)[0],
            "numpy": along_looks(np.nanmean),
        },
        "medoid": {
            "ours": lambda reflectance, is_clear: medoid_composite(reflectance, is_clear)[0],
            "numpy": medoid_with_numpy,
            "hdmedians": medoid_with_hdmedians,
        },
        "geomedian": {
            "ours": lambda reflectance, is_clear: geomedian_composite(reflectance, is_clear)[0],
            "geomad": geomedian_with_geomad,
        },
    }
    for name in ("bottleneck", "numbagg"):
        if method in ("median", "mean") and name in has:
            ways[method][name] = along_looks(getattr(import_module(name), f"nan{method}"))
    return {name: way for name, way in ways[method].items() if name not in OPTIONAL or name in has}


def geomedian_reference(reflectance: np.ndarray, is_clear: np.ndarray) -> np.ndarray:
    """Return (band, y, x) float64: 5,000 steps of Weiszfeld's, or the look that is better still."""
    values = np.where(is_clear[:, None], reflectance, 0.0)  # (look, band, y, x)
    point = values.sum(axis=0) / np.maximum(is_clear.sum(axis=0), 1)
    distance = np.empty(is_clear.shape)
    for _ in range(5000):
        np.sqrt(((values - point) ** 2).sum(axis=1), out=distance)
        weight = is_clear / np.maximum(distance, 1e-9)
        total = np.maximum(weight.sum(axis=0), 1e-300)
        point = (weight[:, None] * values).sum(axis=0) / total
    places = np.concatenate([point[None], values])
    cost = np.stack(
        [(is_clear * np.sqrt(((values - place) ** 2).sum(axis=1))).sum(axis=0) for place in places]
    )
    cost[1:][~is_clear] = np.inf
    chosen = np.argmin(cost, axis=0)[None, None]
    return np.take_along_axis(places, np.broadcast_to(chosen, (1, *point.shape)), axis=0)[0]


def off_by(method: str, found: Mapping[str, np.ndarray], is_clear: np.ndarray) -> dict[str, Any]:
    """Return the most stored units by which each composite differs from the first one's."""
    expected = next(iter(found.values())).astype(np.int64)
    # every point between two looks is a geometric median of them
    counts = is_clear.sum(axis=0)
    compared = (counts != 2) if method == "geomedian" else np.ones(counts.shape, np.bool_)
    return {
        name: int(np.abs(values - expected)[:, compared].max()) for name, values in found.items()
    }


def measure(method: str, scenes: str, looks: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """Return one row a way; raises `RuntimeError` if medians, or medoids of one kind, differ."""
    reflectance, is_clear = SCENES[scenes](looks, size)
    ways = ways_of(method)
    difference = off_by(
        method, {name: way(reflectance, is_clear) for name, way in ways.items()}, is_clear
    )
    for name, most in difference.items():
        if most and (method == "median" or (method, name) == ("medoid", "numpy")):
            raise RuntimeError(f"{method} by {name} differs from ours by {most}")
    taken = seconds_in_turns(
        {name: lambda way=way: way(reflectance, is_clear) for name, way in ways.items()},
        rounds=rounds,
        clock=time.process_time,
    )
    rows = []
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        ratios = [theirs / ours for theirs, ours in zip(seconds, taken["ours"], strict=True)]
        rows.append(
            {
                "scenes": scenes,
                "looks": looks,
                "way": name,
                "ms": 1e3 * middle,
                "million values/s": reflectance.size / middle / 1e6,
                "times slower than ours": statistics.median(ratios),
                "from": min(ratios),
                "to": max(ratios),
                "most units from ours": difference[name],
            }
        )
    return rows


def accuracy(scenes: str, looks: int) -> list[dict[str, Any]]:
    """Return how far every geometric median is from the float64 reference, on 16 x 16 pixels."""
    reflectance, is_clear = (
        np.ascontiguousarray(part[..., :16, :16]) for part in SCENES[scenes](looks, 64)
    )
    compared = ~np.isin(is_clear.sum(axis=0), (0, 2))
    expected = geomedian_reference(reflectance, is_clear)[:, compared]
    rows = []
    for name, way in ways_of("geomedian").items():
        off = np.abs(way(reflectance, is_clear)[:, compared] - expected)
        rows.append(
            {
                "scenes": scenes,
                "looks": looks,
                "way": name,
                "pixels": int(compared.sum()),
                "off by more than 1 unit, %": 100 * float((off.max(axis=0) > 1).mean()),
                "most units": float(off.max()),
            }
        )
    return rows


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.composite", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--size", type=int, default=160, help="edge of the window in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a median is taken over")
    parser.add_argument("--methods", nargs="+", default=["median", "mean", "medoid", "geomedian"])
    options = parser.parse_args()
    numba.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tables: dict[str, list[dict[str, Any]]] = {}
    with warnings.catch_warnings():
        # a pixel without a clear look is part of the job
        warnings.filterwarnings("ignore", message="All-NaN slice|Mean of empty slice")
        for method in options.methods:
            kinds = ("random", "haze") if method == "geomedian" else ("random",)
            title = (
                f"{method} of a month, {BANDS} bands, {options.size} x {options.size}, 60 % clear, "
                f"medians of {options.rounds} rounds, processor seconds"
            )
            tables[title] = [
                row
                for scenes in kinds
                for looks in (6, 10, 20)
                for row in measure(method, scenes, looks, options.size, options.rounds)
            ]
        if "geomedian" in options.methods:
            tables["geometric medians against 5,000 steps in float64"] = [
                row for scenes in SCENES for looks in (6, 10, 20) for row in accuracy(scenes, looks)
            ]
    installed = [name for name in OPTIONAL if find_spec(name) is not None]
    show(
        tables,
        where=machine(["numpy", "numba", "xarray", "dask", *installed]),
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
