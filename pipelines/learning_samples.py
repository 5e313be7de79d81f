"""Stored samples in, the same as the model takes them out: arrays without names of dimensions."""

from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from cube.relabel import SETTLED
from cube.samplestore import open_samples
from cube.series.places import local_metres
from model.samples import Samples


def learning_samples(path: Path) -> Samples:
    """Return the samples stored at `path` as the model takes them, see `samples_of`.

    Raises `InputError` if there are none, and `SampleError` for ones that no model can learn from.
    """
    return samples_of(open_samples(path))


def samples_of(stored: xr.Dataset) -> Samples:
    """Return stored samples as the model takes them: arrays, no names of dimensions.

    Places are metres: those of the cube's CRS, else of an equidistant projection round the middle
    of the longitudes and latitudes; NaN where a sample has none. Regions, years and
    shares are there if they are stored. Missing values stay NaN.

    Raises `SampleError` for samples that no model can learn from.
    """
    share = None
    if "share" in stored:
        share = stored["share"].transpose("sample", "class").values.astype(np.float32)
    return Samples.from_names(
        reflectance=stored["reflectance"].transpose("sample", "time", "band").values,
        bands=tuple(str(band) for band in stored["band"].values),
        periods=tuple(str(period) for period in stored["period"].values),
        labels=stored["label"].values.tolist(),
        group=_numbered(stored, "group"),
        block=_numbered(stored, "block"),
        classes=None if share is None else stored["class"].values.tolist(),
        place=_places(stored),
        region=_numbered(stored, "region") if "region" in stored else None,
        year=_years(stored),
        share=share,
        is_settled=stored[SETTLED].values.astype(bool) if SETTLED in stored else None,
    )


def _numbered(stored: xr.Dataset, name: str) -> Int64[np.ndarray, " sample"]:
    return np.unique(stored[name].values.astype(str), return_inverse=True)[1].astype(np.int64)


def _years(stored: xr.Dataset) -> Int64[np.ndarray, " sample"] | None:
    """Return the year of each sample; None where they have none."""
    return stored["year"].values.astype(np.int64) if "year" in stored else None


def _places(stored: xr.Dataset) -> Float64[np.ndarray, "sample 2"] | None:
    if "x" in stored and "y" in stored:
        return np.column_stack([stored[name].values.astype(np.float64) for name in ("x", "y")])
    if "lon" not in stored or "lat" not in stored:
        return None
    lon, lat = (stored[name].values.astype(np.float64) for name in ("lon", "lat"))
    place = np.full((lon.size, 2), np.nan)
    is_there = np.isfinite(lon) & np.isfinite(lat)
    if is_there.any():
        place[is_there], _ = local_metres(lon[is_there], lat[is_there])
    return place
