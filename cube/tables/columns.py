"""The header of a table in, which column holds what out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cube.bands import BANDS
from cube.errors import InputError

_BANDS = {spelling.lower(): band for band in BANDS for spelling in (band, band.replace("B0", "B"))}
"""Band by what products, Earth Engine and people call it: no colour words."""

_DATE, _POINT, _LABEL = "image_date", ".geo", "class"
_COORDINATES = (("longitude", "latitude"), ("lon", "lat"))

_IDS = {"id", "sample_id", "point_id", "plot_id", "pixel_id", "location_id", "series_id"}
_OF_EXPORTS = {"system:index", "patch_id", _POINT}
"""Columns that tables of series have and exports of pixels have not, and the other way round."""

RECOMPUTED = ("EVI", "NDVI", "NDWI", "TCI_B", "TCI_G", "TCI_R")
"""Columns that are not imported: what the classifier needs of them is made from the bands."""

EXPECTED = ("system:index", "month", "patch_id", *RECOMPUTED)
"""Columns that exports have beside those that are imported."""

CHECKED = ("EVI", "NDVI")
"""Those of them that are compared with what the bands give."""


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Where a table of pixels keeps what."""

    header: tuple[str, ...]
    """Every column, in the table's order."""
    bands: Mapping[str, str]
    """Column of each band, by canonical name, in the order of wavelength."""
    date: str
    """Column with the day of the acquisition."""
    point: tuple[str, ...]
    """The one column with a GeoJSON point, or those with longitude and latitude."""
    label: str | None
    """Column with the class; None in a table of patches."""
    checks: Mapping[str, str]
    """Columns of `CHECKED` indices, by the index's name."""

    @property
    def is_truth(self) -> bool:
        """Whether the table holds ground truth."""
        return self.label is not None

    @property
    def is_raw(self) -> bool:
        """Whether points are GeoJSON, as exports have them."""
        return len(self.point) == 1

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that are read from every row."""
        label = () if self.label is None else (self.label,)
        return (*self.bands.values(), self.date, *self.point, *label)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The columns that are not imported."""
        return tuple(name for name in self.header if name not in self.needed)


def recognise_columns(header: Sequence[str], *, file: str) -> TableColumns:
    """Return which column of the table `file` holds what, whatever their order.

    A table has bands (`B2` or `B02`, `AOT`, `WVP`), `image_date`, and `.geo` or `longitude` and
    `latitude`; with `Class` it is ground truth. Raises `InputError` if one is missing or there
    twice, be it in another case.
    """
    names = tuple(name.strip() for name in header)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{file!r} has the column {twice[0][:60]!r} {names.count(twice[0])} times")
    by_word: dict[str, str] = {}
    for name in names:
        if (other := by_word.setdefault(name.lower(), name)) != name:
            raise InputError(
                f"{file!r} has the columns {other[:60]!r} and {name[:60]!r}, which differ in case "
                "only; take one out"
            )
    point: tuple[str, ...] = (by_word[_POINT],) if _POINT in by_word else ()
    for pair in _COORDINATES:
        if not point and set(pair) <= set(by_word):
            point = (by_word[pair[0]], by_word[pair[1]])
    bands = _bands(names, file)
    missing = [] if _DATE in by_word else [_DATE]
    missing += [] if point else [".geo (or longitude and latitude)"]
    missing += [] if bands else ["bands such as B2"]
    if _DATE not in by_word and _IDS & set(by_word) and not _OF_EXPORTS & set(by_word):
        raise InputError(
            f"{file!r} has no column that is known to hold dates{_close(names)}; name it with "
            f"--date (or --wide, where dates or steps are in names). Found {', '.join(names)[:200]!r}"
        )
    if missing:
        raise InputError(
            f"{file!r} lacks the {_plural('column', missing)} {', '.join(missing)}{_close(names)}; "
            f"found {', '.join(names)[:200]!r}. Expected is a table of Earth Engine with one row a "
            "pixel and date; the columns of a table of series are named with --id, --date, --label"
        )
    return TableColumns(
        header=names,
        bands=bands,
        date=by_word[_DATE],
        point=point,
        label=by_word.get(_LABEL),
        checks={name: by_word[name.lower()] for name in CHECKED if name.lower() in by_word},
    )


def _bands(names: Sequence[str], file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        band = _BANDS.get(name.lower())
        if band is None:
            continue
        if band in found:
            raise InputError(f"{file!r} has band {band} twice, as {found[band]!r} and {name!r}")
        found[band] = name
    return {band: found[band] for band in BANDS if band in found}


def _plural(word: str, of: Sequence[str]) -> str:
    return word if len(of) == 1 else f"{word}s"


def _close(names: Sequence[str]) -> str:
    """Return which column may be the date under another name."""
    close = [name for name in names if "date" in name.lower()]
    is_there = _DATE in (name.lower() for name in names)
    return f" (there is {close[0][:40]!r})" if close and not is_there else ""


def same_bands(columns: Mapping[str, TableColumns]) -> tuple[str, ...]:
    """Return the bands that all tables (by file name) have.

    Raises `InputError` if two differ, naming both and the difference.
    """
    first, *others = columns
    bands = tuple(columns[first].bands)
    for other in others:
        if odd := set(bands) ^ set(columns[other].bands):
            holder, lacking = (first, other) if odd & set(bands) else (other, first)
            lacks = sorted(set(columns[holder].bands) - set(columns[lacking].bands))
            raise InputError(
                f"{lacking!r} lacks {', '.join(lacks)}, which {holder!r} has; all tables of an "
                "import need the same bands"
            )
    return bands
