"""The header of a table of series in, which column holds what out."""

from collections.abc import Sequence
from dataclasses import dataclass

from cube.errors import InputError
from cube.series.names import (
    DATES,
    EASTINGS,
    ENDS,
    GEOMETRIES,
    GROUPS,
    IDS,
    LABELS,
    LATITUDES,
    LONGITUDES,
    NORTHINGS,
    REGIONS,
    STARTS,
    column_for,
    known_band,
    listed,
    may_be_value,
)
from cube.series.options import SeriesOptions
from cube.series.wide import WideColumns, bands_of_header, wide_columns


@dataclass(frozen=True, kw_only=True)
class SeriesColumns:
    """Where a table of series keeps what."""

    header: tuple[str, ...]
    """Every column, in the table's order."""
    id: str | None
    """Column of the series; None in a wide table whose rows have no name."""
    label: str | None
    """Column of the class; None in a table to be predicted."""
    date: str | None
    """Column of the day; None in a wide table."""
    wide: WideColumns | None
    """Value columns of a wide table; None in a long one."""
    place: tuple[str, ...]
    """Columns of longitude and latitude (or x and y), or the one of a geometry; empty if none."""
    group: str | None
    """Column of the label unit."""
    year: str | None
    """Column of the year that belongs to the id."""
    region: str | None
    """Column of the region."""
    start: str | None
    """Column of the first step's day, where steps are counted."""
    end: str | None
    """Column of the last step's day, where steps are counted."""

    @property
    def as_text(self) -> tuple[str, ...]:
        """Columns that are read as text, whatever they look like."""
        single = (self.id, self.label, self.date, self.group, self.year, self.region, self.start,
                  self.end)  # fmt: skip
        geometry = self.place if len(self.place) == 1 else ()
        return tuple({name: None for name in (*single, *geometry) if name is not None})

    @property
    def values(self) -> tuple[str, ...]:
        """Columns of a long table that may be observations: no others have a meaning yet."""
        used = {*self.as_text, *self.place}
        return tuple(name for name in self.header if name not in used)

    @property
    def other_labels(self) -> tuple[str, ...]:
        """Columns that look like classes, too."""
        return tuple(n for n in self.header if n.lower() in LABELS and n != self.label)


def recognise_series(
    header: tuple[str, ...], options: SeriesOptions, *, file: str
) -> SeriesColumns:
    """Return which column of the table `file` holds what.

    Raises `InputError` if a column that was named is missing, if there is neither a date nor
    columns with a date or step in their names, if a long table has no id, or if there is no label
    where one is needed.
    """

    def column(option: str, usual: Sequence[str]) -> str | None:
        asked = getattr(options, option)
        return column_for(header, asked, usual, option=option, file=file)

    date = None if options.wide is not None else column("date", DATES)
    wide = None
    if date is None:
        wide = wide_columns(header, file=file, pattern=options.wide, bands=options.bands)
    found = listed(header)
    if date is None and wide is None:
        raise InputError(
            f"{file!r} has no column with dates, and none with a date or step in its name; name "
            f"them with --date or --wide. Found {found!r}"
        )
    series = column("id", IDS)
    if series is None and wide is None:
        raise InputError(
            f"{file!r} has no column that says which rows are one series; name it with --id. "
            f"Found {found!r}"
        )
    label = column("label", LABELS)
    if label is None and options.needs_labels:
        raise InputError(
            f"{file!r} has no column that is known to be the class; name it with --label. "
            f"Found {found!r}"
        )
    is_counted = wide is not None and wide.days is None
    return SeriesColumns(
        header=header,
        id=series,
        label=label,
        date=date,
        wide=wide,
        place=_place(header, options, file),
        group=column("group", GROUPS),
        year=None if options.year is None else column("year", ()),
        region=column("region", REGIONS),
        start=_start(header, options, file) if is_counted else None,
        end=column_for(header, None, ENDS, option="end", file=file) if is_counted else None,
    )


def _start(header: tuple[str, ...], options: SeriesOptions, file: str) -> str | None:
    is_column = options.start is not None and options.start in header
    if options.start is not None and not is_column:
        return None  # it is the day itself
    return column_for(header, options.start, STARTS, option="start", file=file)


def _place(header: tuple[str, ...], options: SeriesOptions, file: str) -> tuple[str, ...]:
    pairs = [(EASTINGS, NORTHINGS)] if options.crs is not None else []
    for pair in [*pairs, (LONGITUDES, LATITUDES)]:
        found = [column_for(header, None, usual, option="", file=file) for usual in pair]
        if None not in found:
            return tuple(name for name in found if name is not None)
    geometry = column_for(header, None, GEOMETRIES, option="", file=file)
    return () if geometry is None else (geometry,)


def looks_like_series(header: tuple[str, ...], options: SeriesOptions) -> bool:
    """Say whether a table is one of series, and no export of pixels that have no id.

    Whatever names a column of series does (`--id`, `--label`, `--date`, `--wide`) says that it is.
    """
    if any((options.id, options.label, options.date, options.wide)):
        return True
    words = {name.lower() for name in header}
    has_id = bool(words & set(IDS))
    if words & {"system:index", "patch_id"} or ("image_date" in words and not has_id):
        return False
    if words & set(DATES):
        return has_id or ".geo" not in words
    try:
        return wide_columns(header, file="", pattern=None, bands=None) is not None
    except InputError:
        return True


def value_columns(
    header: Sequence[str], options: SeriesOptions, numeric: Sequence[str], *, file: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the value columns of a long table by band: those that are surely observations, and
    the names of those that are if they vary within a series.

    Raises `InputError` if a column of `--bands` is missing or a band is there twice.
    """
    if options.bands is not None:
        by_band = {known_band(name) or name: name for name in header}
        chosen = {}
        for asked in options.bands:
            name = asked if asked in header else by_band.get(known_band(asked) or asked, "")
            if not name:
                raise InputError(
                    f"{file!r} has no column {asked!r} (--bands); found {listed(header)!r}"
                )
            chosen[known_band(name) or name] = name
        return chosen, ()
    certain: dict[str, str] = {}
    for name in numeric:
        band = known_band(name)
        if band is None:
            continue
        if band in certain:
            raise InputError(
                f"{file!r} has band {band} twice, as {certain[band]!r} and {name!r}; choose with "
                "--bands"
            )
        certain[band] = name
    possible = [n for n in numeric if n not in certain.values() and may_be_value(n)]
    return certain, tuple(possible)


def bands_in(header: tuple[str, ...], options: SeriesOptions, *, file: str) -> tuple[str, ...]:
    """Return the bands that a table may give, by their usual names, whether or not it would.

    Raises `InputError` as `recognise_series`.
    """
    columns = recognise_series(header, options, file=file)
    names = columns.values if columns.wide is None else bands_of_header(header, options.wide)
    return tuple(dict.fromkeys(known_band(name) or name for name in names))
