"""Nothing in, one patch table of the real size out: cheap values in the exports' exact form.

`python tests/simulated/changqing_full_size.py FILE` writes 788,480 rows: 10 dates of 308 x 256
samples. A pixel has a season of its own and noise; what its values mean is of no account.
"""

import datetime
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from changqing import STEP, Form, spelt, write_table
from changqing_images import FEATURES, MASKED, with_colours, with_indices
from pyproj import Transformer

SAMPLES = (308, 256)
"""From west to east and from south to north: 2,560 m of longitude and of latitude."""

DATES = tuple(
    datetime.date(2022, month, day)
    for month, day in (
        *((1, 13), (2, 7), (3, 4), (4, 13), (5, 3), (6, 2), (9, 15), (10, 5), (11, 4), (12, 4)),
    )
)

_CORNER = (107.57481, 33.62953)
"""Longitude and latitude of the south-western corner of the workflow's area."""

_COUNTS = {
    name: 1500.0 + 120 * place
    for place, name in enumerate(
        ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
    )
} | {"AOT": 90.0, "WVP": 1200.0}
"""A mean count of each band."""


def write_full_size(
    path: Path,
    *,
    samples: tuple[int, int] = SAMPLES,
    dates: tuple[datetime.date, ...] = DATES,
    form: Form = "raw",
    seed: int = 7,
) -> pd.DataFrame:
    """Write one patch table and return its rows: the columns of `Export.rows` without the truth
    about cloud. In one image of three a corner of 40 x 40 pixels is masked.
    """
    generator = np.random.default_rng(seed)
    columns, rows = (
        round(degrees / STEP) + np.arange(count)
        for degrees, count in zip(_CORNER, samples, strict=True)
    )
    across, up = np.meshgrid((columns + 0.5) * STEP, (rows[::-1] + 0.5) * STEP)
    to_grid = Transformer.from_crs(4326, 32648, always_xy=True)
    east, north = to_grid.transform(across.ravel(), up.ravel())
    column, row = (np.floor(axis / 10).astype(int) for axis in (east, -north))
    column, row = column - column.min(), row - row.min()
    shape = (row.max() + 1, column.max() + 1)
    parts = []
    for number, date in enumerate(dates):
        season = 1 - 0.5 * np.cos(2 * np.pi * (date.timetuple().tm_yday - 20) / 365)
        counts = {
            name: np.rint(mean * season * generator.uniform(0.5, 1.5, shape)).astype(int)
            for name, mean in _COUNTS.items()
        }
        features = with_indices(with_colours(counts), is_evi_on_counts=True)
        values = {name: features[name][row, column] for name in FEATURES}
        if number % 3 == 2:
            is_masked = (row < 40) & (column < 40)
            values = {name: np.where(is_masked, MASKED, held) for name, held in values.items()}
        index = [f"{number}_{sample}" for sample in range(row.size)]
        parts.append(pd.DataFrame(values | {"date": date, "index_text": index}))
    table = pd.concat(parts, ignore_index=True)
    table["row"], table["column"] = np.tile(row, len(dates)), np.tile(column, len(dates))
    places = np.tile(np.stack([across.ravel(), up.ravel()]), len(dates))  # (axis, row)
    table = spelt(table, places, 0.1, generator).assign(patch_id="0_0")
    write_table(path, table, form=form)
    return table


if __name__ == "__main__":
    write_full_size(Path(sys.argv[1]))
