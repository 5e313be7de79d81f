"""A table's header in, which of its columns an audit reads as what out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cube.bands import canonical_band
from cube.errors import InputError
from cube.tables.columns import recognise_columns
from cube.tables.csvblock import split_header
from cube.tables.lines import is_gzip, line_blocks
from cube.tables.read import PARQUET_SUFFIXES

_ID = ("id", "sample_id", "sample", "point_id", "point", "series")
_DATE = ("date", "image_date", "day", "timestamp", "time")
_LABEL = ("label", "class")
_LON_LAT = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))
_NO_BANDS = ("system:index", "month", "year", "patch_id", "index", ".geo")


@dataclass(frozen=True, kw_only=True)
class RowColumns:
    """Which column of a table holds what."""

    is_export: bool
    """Whether the table has the form of Earth Engine's exports."""
    bands: Mapping[str, str]
    """Canonical name of a band to its column."""
    others: Mapping[str, str]
    """Index or colour to its column."""
    key: tuple[str, ...]
    """Columns whose text tells sequences apart."""
    place: tuple[str, ...]
    """Columns with coordinates, or the one with shapes; none where there are none."""
    date: str
    """Column with the day."""
    label: str
    """Column with the class."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns that hold numbers."""
        return (*self.bands.values(), *self.others.values())

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that are read as text."""
        return tuple(dict.fromkeys((*self.key, *self.place, self.date, self.label)))


def table_header(file: Path) -> tuple[str, ...]:
    """Return the names of a table's columns; `InputError` if it cannot be read."""
    if file.suffix.lower() in PARQUET_SUFFIXES and not is_gzip(file):
        try:
            return tuple(pyarrow.parquet.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{file.name!r} cannot be read as Parquet: {str(error)[:120]}"
            ) from error
    return split_header(next(line_blocks(file)).text, file=file.name)


def has_usual_columns(header: tuple[str, ...]) -> bool:
    """Say whether a table has the usual columns of series, or those of an export."""
    by_word = {name.strip().lower(): name for name in header}
    if "image_date" in by_word or "system:index" in by_word:
        return True
    return all(_first(by_word, words) is not None for words in (_ID, _DATE, _LABEL))


def row_columns(header: tuple[str, ...], file: Path) -> RowColumns | None:
    """Return which column holds what; None where there are no labels."""
    by_word = {name.strip().lower(): name for name in header}
    date, label = _first(by_word, _DATE), _first(by_word, _LABEL)
    place = next(
        (tuple(by_word[axis] for axis in pair) for pair in _LON_LAT if set(pair) <= set(by_word)),
        (),
    )
    key = _first(by_word, _ID)
    if key is None or date is None or "image_date" in by_word:
        found = recognise_columns(header, file=file.name)
        if found.label is None:
            return None
        raw = {name.strip(): name for name in header}
        named = ("EVI", "NDVI", "NDWI", "TCI_R", "TCI_G", "TCI_B")
        return RowColumns(
            is_export=True,
            bands={band: raw[name] for band, name in found.bands.items()},
            others={name: by_word[name.lower()] for name in named if name.lower() in by_word},
            key=tuple(raw[name] for name in found.point),
            place=tuple(raw[name] for name in found.point),
            date=raw[found.date],
            label=raw[found.label],
        )
    if label is None:
        return None
    taken = {key, date, label, *place, *(by_word[word] for word in _NO_BANDS if word in by_word)}
    bands = {_band(name): name for name in header if name not in taken}
    if not bands:
        raise InputError(f"{file.name!r} has no column with values beside {', '.join(header)!r}")
    return RowColumns(
        is_export=False, bands=bands, others={}, key=(key,), place=place, date=date, label=label
    )


def _first(by_word: Mapping[str, str], words: Sequence[str]) -> str | None:
    return next((by_word[word] for word in words if word in by_word), None)


def _band(name: str) -> str:
    try:
        return canonical_band(name.strip())
    except InputError:
        return name.strip()
