"""Tables of pixels in, a folder with a stack, samples, a recipe and a report of them out."""

import glob
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube.errors import InputError
from cube.periods import Period
from cube.sample import SampleOptions
from cube.samplestore import write_samples
from cube.series import SeriesOptions
from cube.tables.calendar import Calendar, calendar_of
from cube.tables.columns import same_bands
from cube.tables.lattice import PlacedTable, crs_of, joined, refuse_too_wide
from cube.tables.lattice import place as placed
from cube.tables.read import TABLE_SUFFIXES, read_rows, table_columns
from cube.tables.spill import Spill, spill_rows
from cube.tables.stack import StackFacts, write_stack
from cube.tables.truth import TruthFacts, make_samples
from pipelines.draw_samples import MOST_CLASSES
from pipelines.import_advice import advice
from pipelines.import_place import RECIPE, SAMPLES, STACK, ImportPlace, import_place
from pipelines.import_report import import_report, write_import_report
from pipelines.import_series import hold_series, import_series, write_series_report
from pipelines.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How tables are imported."""

    crs: str | None = None
    """CRS of the grid; None takes the UTM zone of the data's middle."""
    first: Period | None = None
    """First month; None takes January of the first year found."""
    last: Period | None = None
    """Last month; None takes December of the last year found."""
    scale: float | None = None
    """Reflectance of one count; None takes 1e-4 and refuses what is no count."""

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale <= 1:
            raise InputError(f"--scale {self.scale!r}; expected the reflectance of one count, 0..1")


def import_tables(
    names: Sequence[str],
    folder: Path,
    reporter: Reporter,
    options: ImportOptions | None = None,
    series: SeriesOptions | None = None,
) -> dict[str, Any]:
    """Import tables into `folder`, which appears whole or not at all; return the report.

    `names` are files, folders or patterns. An older import in `folder` is replaced, unless
    something else lies with it. Tables of labelled series, told by their columns, become samples as
    `series` says. Raises `InputError` for tables that cannot be imported.
    """
    started = time.perf_counter()
    options = options or ImportOptions()
    series = series or SeriesOptions()
    with import_place(folder.resolve()) as place:
        files = find_tables(names)
        if hold_series(files, series):
            report = import_series(files, place, reporter, series)
            report["passed_over"] = passed_over(names)
            report["seconds"] = round(time.perf_counter() - started, 2)
            write_series_report(place.draft, report)
            place.put_in_place()
            return report
        report = _import(files, place, reporter, options)
        report["passed_over"] = passed_over(names)
        report["advice"] = advice(report)
        report["seconds"] = round(time.perf_counter() - started, 2)
        write_import_report(place.draft, report, recipe=place.draft / RECIPE)
        place.put_in_place()
    return report


def find_tables(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files that are named, those in folders, and those that patterns match.

    Raises `InputError` if a name stands for no file, and if a raw table and what was cleaned of it
    are both there.
    """
    found: dict[Path, None] = {}
    for name in names:
        try:
            files = [file for file in _matches(name) if file.is_file()]
        except OSError as error:
            raise InputError(f"{name[:60]!r} cannot be read: {error.strerror}") from error
        if not files:
            raise InputError(
                f"{name!r} is no file, no folder with {', '.join(TABLE_SUFFIXES)} in it, and no "
                "pattern that matches one"
            )
        found |= dict.fromkeys(file.resolve() for file in files)
    _refuse_same_tables(tuple(found))
    return tuple(found)


def _matches(name: str) -> list[Path]:
    """Return what a name may stand for; raises `OSError`."""
    path = Path(name)
    if path.is_dir():
        return [file for file in sorted(path.iterdir()) if _is_table(file)]
    if path.exists():
        return [path]
    return [Path(file) for file in sorted(glob.glob(name))]  # noqa: PTH207


def passed_over(names: Sequence[str]) -> dict[str, int]:
    """Count what lies in the folders that are named and was not read; hidden things are not told."""
    found: Counter[str] = Counter(files=0, folders=0)
    for folder in {Path(name).resolve() for name in names if Path(name).is_dir()}:
        others = [one for one in folder.iterdir() if not one.name.startswith(".")]
        found["folders"] += sum(one.is_dir() for one in others)
        found["files"] += sum(not one.is_dir() and not _is_table(one) for one in others)
    return dict(found)


def _is_table(file: Path) -> bool:
    return file.name.lower().endswith(TABLE_SUFFIXES) and not file.name.startswith(".")


def _refuse_same_tables(files: tuple[Path, ...]) -> None:
    here: dict[Path, Path] = {}
    anywhere: dict[tuple[str, bool], Path] = {}
    for file in files:
        whole = file.name.lower()
        for suffix in TABLE_SUFFIXES:
            whole = whole.removesuffix(suffix)
        stem = whole.removesuffix("_cleaned")
        is_cleaned = whole != stem
        # tables of two folders may well have one name, as those of two years: but not cleaned ones
        if other := here.get(file.with_name(stem)) or anywhere.get((stem, not is_cleaned)):
            one, two = (
                (other.name, file.name) if other.parent == file.parent else (str(other), str(file))
            )
            raise InputError(
                f"{one!r} and {two!r} look like the same table twice; name one of each (the raw "
                "one: cleaning fills gaps in)"
            )
        here[file.with_name(stem)] = anywhere[stem, is_cleaned] = file


def _import(
    files: Sequence[Path], place: ImportPlace, reporter: Reporter, options: ImportOptions
) -> dict[str, Any]:
    every = _read(files, place.scratch, reporter, options)
    spills = [spill for spill in every if spill.kept]
    bands = _bands_with_data(spills)
    calendar = calendar_of(
        {
            day: f"{spill.name!r}, row {row}"
            for spill in reversed(spills)
            for day, row in spill.days.items()
        },
        first=options.first,
        last=options.last,
    )
    crs = crs_of(spills, options.crs)
    with reporter.bar("placing", len(spills)) as advance:
        tables = []
        for spill in spills:
            tables.append(placed(spill, crs))
            advance(note=spill.name)
    patches = [table for table in tables if not table.spill.columns.is_truth]
    truth = [table for table in tables if table.spill.columns.is_truth]
    for kind in (patches, truth):
        if kind:
            refuse_too_wide(kind)
    stack: StackFacts | None = None
    if patches:
        stack = write_stack(
            place.draft / STACK,
            patches,
            crs=crs,
            bands=bands,
            calendar=calendar,
            scratch=place.scratch,
        )
    samples = _samples(truth, patches, place.draft, crs, bands, calendar)
    return import_report(
        every, bands=bands, calendar=calendar, crs=crs, stack=stack, samples=samples
    )


def _read(
    files: Sequence[Path], scratch: Path, reporter: Reporter, options: ImportOptions
) -> list[Spill]:
    """Read every table once; raises `InputError` if bands differ, or no table has data."""
    columns = {file: table_columns(file) for file in files}
    names = _names(files)
    same_bands({names[file]: found for file, found in columns.items()})
    spills = []
    with reporter.bar("reading", len(files)) as advance:
        for index, file in enumerate(files):
            rows = read_rows(file, columns[file], scale=options.scale)
            spill = spill_rows(
                rows, scratch / f"{index}.rows", name=names[file], columns=columns[file]
            )
            spills.append(spill)
            _refuse_many_classes(spills)
            advance(note=names[file])
    if not any(spill.kept for spill in spills):
        read = sum(spill.read for spill in spills)
        is_one = len(spills) == 1
        who = f"{spills[0].name!r} has" if is_one else "the tables have"
        what = "no row"
        if read:
            what = f"no data in any of {'its' if is_one else 'their'} {read:,} rows"
        raise InputError(f"{who} {what}; export again")
    return spills


def _refuse_many_classes(spills: Sequence[Spill]) -> None:
    classes = {name for spill in spills for name in spill.classes}
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"{spills[-1].name!r}: column {spills[-1].columns.label!r} makes it {len(classes):,} "
            f"classes, more than {MOST_CLASSES}, e.g. {min(classes)!r}; is it the class?"
        )


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """Return what each file is called: its name, its folder's too where others have the same."""
    count = Counter(file.name for file in files)
    return {file: _utf8(file.name if count[file.name] == 1 else str(file)) for file in files}


def _utf8(name: str) -> str:
    """Return a name with bytes that are no UTF-8 written out, which a report could not hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _bands_with_data(spills: Sequence[Spill]) -> tuple[str, ...]:
    """Return the bands that are not missing in every row."""
    kept = sum(spill.kept for spill in spills)
    return tuple(
        band
        for band in spills[0].columns.bands
        if sum(spill.facts[f"missing {band}"] for spill in spills) < kept
    )


def _samples(
    truth: Sequence[PlacedTable],
    patches: Sequence[PlacedTable],
    draft: Path,
    crs: Any,
    bands: tuple[str, ...],
    calendar: Calendar,
) -> TruthFacts | None:
    """Make the samples, on the stack's grid where they all lie in it, and store them."""
    if not truth:
        return None
    extent = joined([table.extent for table in truth])
    if patches:
        stack = joined([table.extent for table in patches])
        extent = stack if stack.holds(extent) else extent
    found = make_samples(
        truth, crs=crs, extent=extent, bands=bands, calendar=calendar, options=SampleOptions()
    )
    write_samples(draft / SAMPLES, found.samples)
    return found
