"""Aligned series in, the samples that `cube.samplestore` keeps out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cube.series.align import AlignedSeries
from cube.series.options import SeriesOptions
from cube.series.places import blocks_of, far_note, groups_of, local_metres
from cube.zarrstore import SCHEMA

_CROWDED = 1 / 3


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesSamples:
    """Samples of series, and how their units were made."""

    samples: xr.Dataset
    """As `cube.sample.draw_samples` gives them, without rows and columns of a cube."""
    group_distance: float | None
    """Metres within which places share a group; None where a column says it."""
    block_degrees: float | None
    """Edge of the blocks; None without places."""
    notes: tuple[str, ...]
    """What was decided, one sentence each."""


def series_dataset(aligned: AlignedSeries, options: SeriesOptions) -> SeriesSamples:
    """Return labelled series as samples: dims (sample, time, band), physical, NaN where missing.

    `group` is the table's, else a chain of near places, else each series its own; `block` a square
    of longitude and latitude, else the group; `year` is that of the first observation; `x` and `y`
    are metres of an equidistant projection, whose CRS is an attribute.
    """
    series = aligned.observations
    assert series.label is not None  # options.needs_labels
    variables: dict[str, Any] = {
        "reflectance": (("sample", "time", "band"), aligned.value, {"units": "1"}),
        "clear_count": (("sample", "time"), aligned.count, {"units": "1"}),
        "label": ("sample", series.label.astype(str), {"long_name": "class"}),
        "id": ("sample", series.id.astype(str), {"long_name": "series of the table"}),
        "year": ("sample", aligned.year, {"long_name": "year of the first observation"}),
    }
    crs, distance, edge, notes = None, None, None, []
    group = None if series.group is None else series.group.astype(str)
    block = None
    if series.lon is not None and series.lat is not None:
        place, crs = local_metres(series.lon, series.lat)
        block, edge = blocks_of(series.lon, series.lat, options.block_degrees)
        variables |= {
            "x": ("sample", place[:, 0], {"units": "m"}),
            "y": ("sample", place[:, 1], {"units": "m"}),
            "lon": ("sample", series.lon, {"units": "degrees_east"}),
            "lat": ("sample", series.lat, {"units": "degrees_north"}),
        }
        notes.append(f"blocks are squares of {edge:g} degrees (--block-degrees)")
        if group is None:
            number, distance, cut = groups_of(place, options.group_distance)
            group = np.array([f"place {n}" for n in number.tolist()])
            notes.append(f"places within {distance:g} m of each other are one group")
            notes += [note for note in (cut, far_note(place)) if note is not None]
    else:
        notes.append("there are no places: neighbours cannot be kept on one side of a split")
    if group is None:
        group = np.array([f"series {n}" for n in range(len(series))])
    largest = np.unique(group, return_counts=True)[1].max() / len(group)
    if largest > _CROWDED:
        notes.append(
            f"WARNING: one group holds {largest:.0%} of the series, too many for a split by groups; "
            "is it the label unit? Name that with --group, or say --group-distance"
        )
    variables["group"] = ("sample", group, {"long_name": "field, stand or place of the series"})
    variables["block"] = ("sample", group if block is None else block)
    if series.region is not None:
        variables["region"] = ("sample", series.region.astype(str))
    return SeriesSamples(
        samples=xr.Dataset(
            variables,
            coords={
                "time": np.array([period.start for period in aligned.periods]),
                "period": ("time", np.array([str(period) for period in aligned.periods])),
                "band": np.array(series.bands),
            },
            attrs={
                "title": "canopycube samples",
                **({} if crs is None else {"crs": crs}),
                "canopycube": {
                    "schema": SCHEMA,
                    "kind": "samples",
                    "bands": list(series.bands),
                    "periods": [str(period) for period in aligned.periods],
                    "dropped": aligned.dropped,
                },
            },
        ),
        group_distance=distance,
        block_degrees=edge,
        notes=tuple(notes),
    )
