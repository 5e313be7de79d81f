"""Tables of pixels in, a folder with a stack, samples, a recipe and a report of them out."""

import glob
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube.durable import flush_files, flush_folders
from cube.errors import InputError
from cube.periods import Period
from cube.sample import SampleOptions
from cube.samplestore import write_samples
from cube.tables.calendar import Calendar, calendar_of
from cube.tables.columns import same_bands
from cube.tables.lattice import PlacedTable, crs_of, joined, place, refuse_too_wide
from cube.tables.read import TABLE_SUFFIXES, read_rows, table_columns
from cube.tables.spill import Spill, spill_rows
from cube.tables.stack import StackFacts, write_stack
from cube.tables.truth import TruthFacts, make_samples
from pipelines.import_report import import_report, is_import, write_import_report
from pipelines.progress import Reporter

_FLUSHED_AT_ONCE = 16
"""Files that are waited for at once; a disk makes many safe in the time of one."""

STACK, SAMPLES, RECIPE = "scenes.zarr", "samples.zarr", "recipe.toml"


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
) -> dict[str, Any]:
    """Import tables into `folder`, which appears whole or not at all; return the report.

    `names` are files, folders or patterns. An older import in `folder` is replaced, unless
    something else lies with it. Raises `InputError` for tables that cannot be imported.
    """
    started = time.perf_counter()
    options = options or ImportOptions()
    files = find_tables(names)
    folder = folder.resolve()
    _refuse_other(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _make_folder(draft / "scratch")
        report = _import(files, draft, reporter, options)
        shutil.rmtree(draft / "scratch")
        report["seconds"] = round(time.perf_counter() - started, 2)
        write_import_report(draft, report, recipe=draft / RECIPE)
        _put_in_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{str(folder.parents[1])!r} cannot be written: {error.strerror}; choose another --to"
        ) from error


def find_tables(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files that are named, those in folders, and those that patterns match.

    Raises `InputError` if a name stands for no file, and if a raw table and what was cleaned of it
    are both there.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            matches = [file for file in sorted(path.iterdir()) if _is_table(file)]
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(file) for file in sorted(glob.glob(name))]  # noqa: PTH207
        files = [file for file in matches if file.is_file()]
        if not files:
            raise InputError(
                f"{name!r} is no file, no folder with {', '.join(TABLE_SUFFIXES)} in it, and no "
                "pattern that matches one"
            )
        found |= dict.fromkeys(file.resolve() for file in files)
    _refuse_same_tables(tuple(found))
    return tuple(found)


def _is_table(file: Path) -> bool:
    return file.name.lower().endswith(TABLE_SUFFIXES) and not file.name.startswith(".")


def _refuse_same_tables(files: tuple[Path, ...]) -> None:
    stems: dict[str, Path] = {}
    for file in files:
        stem = file.name.lower()
        for suffix in (*TABLE_SUFFIXES, "_cleaned"):
            stem = stem.removesuffix(suffix)
        stem = str(file.with_name(stem))
        if other := stems.get(stem):
            raise InputError(
                f"{other.name!r} and {file.name!r} look like the same table twice; name one of "
                "each (the raw one: cleaning fills gaps in)"
            )
        stems[stem] = file


def _refuse_other(folder: Path) -> None:
    """Refuse to write where something other than an unchanged import lies."""
    if not folder.exists():
        return
    if not folder.is_dir() or not is_import(folder):
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise InputError(
            f"{str(folder)!r} exists and is no import, or its recipe was edited; choose another "
            "folder"
        )
    ours = {STACK, SAMPLES, RECIPE, "import.json", "import.md"}
    if other := sorted(file.name for file in folder.iterdir() if file.name not in ours):
        raise InputError(
            f"{str(folder)!r} holds {other[0]!r} beside an import; choose another folder"
        )


def _import(
    files: Sequence[Path], draft: Path, reporter: Reporter, options: ImportOptions
) -> dict[str, Any]:
    spills = _read(files, draft / "scratch", reporter, options)
    bands = _bands_with_data(spills)
    calendar = calendar_of(
        set().union(*(spill.days for spill in spills)), first=options.first, last=options.last
    )
    crs = crs_of(spills, options.crs)
    with reporter.bar("placing", len(spills)) as advance:
        tables = []
        for spill in spills:
            tables.append(place(spill, crs))
            advance(note=spill.name)
    patches = [table for table in tables if not table.spill.columns.is_truth]
    truth = [table for table in tables if table.spill.columns.is_truth]
    for kind in (patches, truth):
        if kind:
            refuse_too_wide(kind)
    stack: StackFacts | None = None
    if patches:
        stack = write_stack(
            draft / STACK,
            patches,
            crs=crs,
            bands=bands,
            calendar=calendar,
            scratch=draft / "scratch",
        )
    samples = _samples(truth, patches, draft, crs, bands, calendar)
    return import_report(
        tables, bands=bands, calendar=calendar, crs=crs, stack=stack, samples=samples
    )


def _read(
    files: Sequence[Path], scratch: Path, reporter: Reporter, options: ImportOptions
) -> list[Spill]:
    """Read every table once; raises `InputError` if bands differ or a table has no data."""
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
            if not spill.kept:
                what = "no row" if not spill.read else f"no data in any of its {spill.read:,} rows"
                raise InputError(f"{file.name!r} has {what}; leave it out, or export it again")
            spills.append(spill)
            advance(note=file.name)
    return spills


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """Return what each file is called: its name, its folder's too where others have the same."""
    count = Counter(file.name for file in files)
    return {file: file.name if count[file.name] == 1 else str(file) for file in files}


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


def _put_in_place(draft: Path, folder: Path) -> None:
    """Let the finished import appear, in place of an older one."""
    every = sorted(draft.rglob("*"))
    files = [path for path in every if path.is_file()]
    folders = [draft, *(path for path in every if path.is_dir())]
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
        for _ in pool.map(lambda file: flush_files([file]), files):
            pass
        for _ in pool.map(lambda part: flush_folders([part]), folders):
            pass
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    try:
        draft.rename(folder)
    finally:
        if not folder.exists() and old.exists():
            old.rename(folder)
    flush_folders([folder.parent])
    shutil.rmtree(old, ignore_errors=True)
