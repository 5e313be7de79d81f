"""An area of several UTM zones in, its part in each zone out; samples of all zones, as one store."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import shapely
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geom import Geometry

from cube.blocks import spatial_blocks
from cube.errors import InputError
from cube.grid import LON_LAT, lon_lat_area, utm_epsg
from cube.ledger import fingerprint
from cube.reference import Reference
from cube.sample import SampleOptions, thinned

_STEP = 3.0
"""Degrees of longitude after which a zone can end; also those that are widened."""

_BANDS = (-80.0, 0.0, 56.0, 64.0, 72.0, 84.0)
"""Latitudes at which a zone can end."""


def zone_areas(area: Geometry) -> dict[int, Geometry]:
    """Return the part of `area` in each UTM zone, in lon/lat, by the EPSG code of the zone.

    The parts share their edges and nothing else. Raises `InputError` for an area that reaches
    beyond 84 degrees north or 80 south, where there are no zones.
    """
    ground = lon_lat_area(area)
    left, bottom, right, top = ground.bounds
    if bottom < _BANDS[0] or top > _BANDS[-1]:
        raise InputError(
            f"the area reaches from latitude {bottom:.2f} to {top:.2f}, and UTM has zones between -80 "
            "and 84 only; set grid.crs = 'equal-area', or a polar CRS such as 'EPSG:3413'"
        )
    cells: dict[int, list[shapely.Geometry]] = {}
    for west in np.arange(np.floor(left / _STEP) * _STEP, right, _STEP):
        for south, north in pairwise(_BANDS):
            middle = np.array(west + _STEP / 2), np.array((south + north) / 2)
            cell = shapely.box(west, south, west + _STEP, north)
            cells.setdefault(int(utm_epsg(*middle)), []).append(cell)
    found = {}
    for epsg, boxes in sorted(cells.items()):
        part = shapely.intersection(ground, shapely.union_all(boxes))
        polygons = [
            one
            for one in shapely.get_parts(shapely.get_parts([part]))
            if one.geom_type == "Polygon"
        ]
        if whole := [one for one in polygons if one.area > 0]:
            found[epsg] = Geometry(shapely.union_all(whole), LON_LAT)
    return found


def labels_of_zone(reference: Reference, epsg: int) -> Reference:
    """Return the labelled cells whose centre lies in a UTM zone: neighbours' grids overlap."""
    crs = reference.geobox.crs
    assert crs is not None  # CubeSpec refuses a grid without one
    longitude, latitude = crs.transformer_to_crs(LON_LAT)(reference.x, reference.y)
    is_own = utm_epsg(np.asarray(longitude), np.asarray(latitude)) == epsg
    dropped = Counter(reference.dropped)
    dropped["cells of another UTM zone"] = int((~is_own).sum())
    return replace(
        reference,
        row=reference.row[is_own],
        column=reference.column[is_own],
        label=reference.label[is_own],
        group=reference.group[is_own],
        region=None if reference.region is None else reference.region[is_own],
        share=None if reference.share is None else reference.share[is_own],
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def joined_samples(zones: Mapping[str, xr.Dataset], options: SampleOptions, crs: CRS) -> xr.Dataset:
    """Return the samples of several zones as those of one cube, in the order of `zones`.

    `x` and `y` are in `crs` then, so that distances and blocks hold across zones; `row` and `column`
    stay those of the zone's grid, whose name is in `zone (sample)`. At most as many of a group and
    a class are kept as `options` want.
    """
    parts = [
        part.assign(zone=("sample", np.full(part.sizes["sample"], name)))
        for name, part in zones.items()
    ]
    joined: xr.Dataset = xr.concat(parts, dim="sample", join="outer", combine_attrs="override")
    if "share" in joined:
        joined["share"] = joined["share"].fillna(0).astype(np.float32)
    x, y = LON_LAT.transformer_to_crs(crs)(joined["lon"].values, joined["lat"].values)
    about = {name: joined[name].attrs for name in ("x", "y")}
    block = spatial_blocks(np.asarray(x), np.asarray(y), options.block_size)
    joined = joined.assign(
        x=("sample", np.asarray(x), about["x"]),
        y=("sample", np.asarray(y), about["y"]),
        block=("sample", block),
    )
    label, group = (joined[name].values.astype(str) for name in ("label", "group"))
    every = np.ones(label.size, np.bool_)
    joined = joined.isel(sample=thinned(label, group, every, options, block=block))
    joined.attrs["crs"] = crs.to_wkt()
    joined.attrs["canopycube"] = _attributes([part.attrs["canopycube"] for part in zones.values()])
    return joined


def _attributes(parts: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return our own attributes of joined samples: counts added up, cubes as one hash."""
    dropped: Counter[str] = Counter()
    for part in parts:
        counts = part["dropped"]
        assert isinstance(counts, Mapping)  # `draw_samples` has written it
        dropped.update(counts)
    return {
        **parts[0],
        "cube": fingerprint([part["cube"] for part in parts]),
        "dropped": dict(dropped),
    }
