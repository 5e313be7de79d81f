"""A site of real scenes with crop types in, what is told apart on held-out blocks of pixels out.

`python -m tests.benchmarks.site --json` takes twelve monthly medians of ten bands (SCL 4 to 7 is
clear) of worldcereal-site1, and scores models as `tests.benchmarks.series` does, with blocks of 8 x
8 pixels held out, and once more with random pixels held out: what a random split would have claimed.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from model import Samples
from model.features import BANDS, default_features
from tests.benchmarks.series import add_model_options, lines, measured

DATA = Path(os.environ.get("CANOPYCUBE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SITE = DATA / "worldcereal-site1"
SPLITS = ("block", "random")


def main(arguments: Sequence[str] | None = None) -> int:
    """Score every model asked for under both splits; print tables, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.site", description=__doc__)
    parser.add_argument("--layer", choices=("CT", "LC"), default="CT", help="labels (%(default)s)")
    parser.add_argument(
        "--least-blocks", type=int, help="leave out classes in fewer blocks than this"
    )
    add_model_options(parser)
    options = parser.parse_args(arguments)
    samples = site_samples(options.layer)
    if options.least_blocks:
        samples = _frequent(samples, options.least_blocks)
    found = {}
    for split in SPLITS:
        options.split = split
        found[split] = measured(samples, options)
    told = [line for split in SPLITS for line in lines(found[split])]
    print(json.dumps(found) if options.json else "\n".join(told))
    return 0


def _frequent(samples: Samples, least: int) -> Samples:
    """Return the samples of classes that lie in at least so many blocks."""
    blocks = [
        len(np.unique(samples.block[samples.label == n])) for n in range(len(samples.classes))
    ]
    kept = np.flatnonzero(np.array(blocks)[samples.label] >= least).astype(np.int64)
    chosen = samples.take(kept)
    names = [samples.classes[label] for label in chosen.label.tolist()]
    return Samples.from_names(
        reflectance=chosen.reflectance,
        bands=chosen.bands,
        periods=chosen.periods,
        labels=names,
        group=chosen.group,
        block=chosen.block,
    )


def site_samples(layer: str = "CT") -> Samples:
    """Return monthly medians of real scenes with labels of `layer`, in blocks of 8 x 8 pixels."""
    parts = {}
    for name in ("S2_L2A_10m", "S2_L2A_20m", "OUTPUT_POLY"):
        with xr.open_dataset(next(SITE.glob(f"{name}*")), mask_and_scale=False) as opened:
            parts[name] = opened.load()
    fine, coarse, truth = parts.values()
    size = fine["B02"].shape[-1]
    repeat = size // coarse["SCL"].shape[-1]
    layers = {str(name): fine[name].values for name in fine if str(name) in BANDS}
    for name in coarse:
        if str(name) in (*BANDS, "SCL"):
            layers[str(name)] = coarse[name].values.repeat(repeat, 1).repeat(repeat, 2)
    is_clear = np.isin(layers.pop("SCL"), (4, 5, 6, 7))
    months = fine["timestamp"].values.astype("datetime64[M]")
    wanted = np.arange("2017-11", "2018-11", dtype="datetime64[M]")
    bands = [name for name in BANDS if name in layers]
    cube = np.full((len(wanted), len(bands), size, size), np.nan, np.float32)
    for time_index, month in enumerate(wanted):
        here = months == month
        for band_index, name in enumerate(bands):
            usable = is_clear[here] & (layers[name][here] > 0)
            looks = np.ma.masked_array(layers[name][here] * 1e-4, ~usable)
            cube[time_index, band_index] = np.ma.median(looks, axis=0).filled(np.nan)
    label = truth[layer].values.squeeze()
    row, column = np.nonzero(label > 0)
    block = row // 8 * size + column // 8
    number = np.unique(block, return_inverse=True)[1]
    samples = Samples.from_names(
        reflectance=np.ascontiguousarray(cube[:, :, row, column].transpose(2, 0, 1)),
        bands=bands,
        periods=[str(month) for month in wanted],
        labels=[str(int(value)) for value in label[row, column]],
        group=number,
        block=number,
    )
    return samples.with_clear_periods(default_features(samples.bands))


if __name__ == "__main__":
    sys.exit(main())
