"""The name of a column in, what it is most likely for out."""

import re
from collections.abc import Sequence

from cube.bands import BANDS
from cube.errors import InputError

_SENTINEL2 = {
    spelling.lower(): band for band in BANDS for spelling in (band, band.replace("B0", "B"))
}
_OTHERS = (
    "NDVI", "EVI", "EVI2", "SAVI", "MSAVI", "NDWI", "MNDWI", "NDMI", "LSWI", "NBR", "NBR2", "NDRE",
    "GNDVI", "CIre", "CIg", "kNDVI", "LAI", "FAPAR", "VV", "VH", "HH", "HV",
)  # fmt: skip
_KNOWN = {name.lower(): name for name in _OTHERS} | _SENTINEL2

RADAR = ("VV", "VH", "HH", "HV")
"""Bands that no scale of reflectance is applied to."""

BOUNDED = ("NDVI", "NDWI", "MNDWI", "NDMI", "LSWI", "NBR", "NBR2", "NDRE", "GNDVI", "EVI", "EVI2",
           "SAVI", "MSAVI", "kNDVI")  # fmt: skip
"""Indices that are near -1..1, so that larger values are counts."""

_PREFIX = re.compile(r"^(optical|sar|sentinel-?[12]|s[12](-l2a|-l1c|-sigma0|-gamma0)?)[-_. ]", re.I)
_RESOLUTION = re.compile(r"[-_](10|20|60)m$", re.I)

IDS = (
    "id", "sample_id", "sampleid", "series_id", "point_id", "pointid", "plot_id", "plotid",
    "pixel_id", "location_id", "fid", "uid", "sample", "plot",
)  # fmt: skip
LABELS = (
    "label", "class", "species", "tree_species", "class_name", "classname", "class_label",
    "land_cover", "landcover", "crop_type", "croptype", "crop", "category", "target",
    "sampling_label", "landcover_label", "croptype_label", "ewoc_code", "class_id", "label_id",
)  # fmt: skip
DATES = (
    "date",
    "image_date",
    "timestamp",
    "acquisition_date",
    "observation_date",
    "datetime",
    "time",
)
LONGITUDES, LATITUDES = ("longitude", "lon", "long"), ("latitude", "lat")
EASTINGS, NORTHINGS = ("x", "easting"), ("y", "northing")
GEOMETRIES = (".geo", "geometry", "geom", "geom_text", "wkt", "geojson")
GROUPS, REGIONS = ("group", "stand", "stand_id"), ("region",)
STARTS, ENDS = ("start_date", "initial_start_date"), ("end_date",)

_NO_VALUE = re.compile(
    r"^(unnamed.*|index.*|.*_index|.*_(id|fid|uid)(_\d+)?|(id|[fgopu]id|(obs|row|object|pixel|point|"
    r"plot|image|scene)id)(_\d+)?|row.*|col|column|number|no|nr|seq.*|rank|order|x|y|lon.*|lat|"
    r"latitude|easting|northing|epoch|.*time.*|.*date.*|year|quarter|season|month|week.*|julian.*|doy|"
    r"day.*|hour.*|minute.*|fold|split|area|[sv][za]a|raa|.*(zenith|azimuth|angle).*|"
    r"cloud.*|scl|qa.*|valid.*|quality.*|tile.*|orbit.*|slope|aspect|elevation|altitude|"
    r"dem[-_].*|meteo[-_].*|agera5[-_].*|n_obs|count|weight)$",
    re.I,
)
"""Columns that vary with time or place, and are no observation of what grows there."""


def known_band(name: str) -> str | None:
    """Return the usual name of a band or index, whatever product it is called after, or None."""
    core = _RESOLUTION.sub("", _PREFIX.sub("", name.strip()))
    return _KNOWN.get(core.lower())


def may_be_value(name: str) -> bool:
    """Say whether a column of numbers may be an observation, and not what tells date or place."""
    return _NO_VALUE.match(name) is None


def listed(names: Sequence[str], most: int = 200) -> str:
    """Return names one after another, whole ones only: what is beyond `most` letters is counted.

    The first is always there, if need be without its end.
    """
    told = [names[0] if len(names[0]) <= most else f"{names[0][: most - 1]}…"] if names else []
    for name in names[1:]:
        if len(", ".join([*told, name])) > most:
            break
        told.append(name)
    more = len(names) - len(told)
    return ", ".join(told) + (f" and {more:,} more" if more else "")


def column_for(
    header: Sequence[str], asked: str | None, usual: Sequence[str], *, option: str, file: str
) -> str | None:
    """Return the column that was asked for, or the first usual one that is there, or None.

    Raises `InputError` if the column that was asked for is missing.
    """
    if asked is not None:
        if asked in header:
            return asked
        raise InputError(f"{file!r} has no column {asked!r} (--{option}); found {listed(header)!r}")
    by_word = {name.lower(): name for name in reversed(header)}
    return next((by_word[name] for name in usual if name in by_word), None)
