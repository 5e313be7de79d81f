"""Tables of labelled series in, a folder with samples, a recipe and a report of them out."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cube.durable import replace_text
from cube.errors import InputError
from cube.samplestore import write_samples
from cube.series import (
    AlignedSeries,
    SeriesOptions,
    align,
    is_series_table,
    read_series,
    series_dataset,
)
from cube.series.samples import SeriesSamples
from model.classunits import groups_by_class
from pipelines.import_place import RECIPE, SAMPLES, ImportPlace
from pipelines.import_report import KIND, SCHEMA
from pipelines.import_series_text import allows_few_groups, series_markdown, series_recipe
from pipelines.label_units import few_groups_notes
from pipelines.progress import Reporter
from pipelines.recipe import TrainingSection

FORM = "series"
"""What `form` of a report says of an import of series."""


def hold_series(files: Sequence[Path], options: SeriesOptions) -> bool:
    """Say whether files hold labelled series, and not an Earth Engine export of pixels.

    A file that cannot be read holds none: whoever reads it as a table says why. Raises `InputError`
    if some do and others do not.
    """
    found = {file: _holds_series(file, options) for file in files}
    if len(set(found.values())) > 1:
        one, other = (next(f.name for f in files if found[f] is kind) for kind in (True, False))
        raise InputError(
            f"{one!r} holds series, {other!r} does not look like it; import them one after another"
        )
    return all(found.values())


def _holds_series(file: Path, options: SeriesOptions) -> bool:
    try:
        return is_series_table(file, options)
    except (InputError, UnicodeError):
        return False


def import_series(
    files: Sequence[Path], place: ImportPlace, reporter: Reporter, options: SeriesOptions
) -> dict[str, Any]:
    """Import tables of series into the draft of `place`; return the report, which lies there, too.

    Raises `InputError` for what cannot be imported.
    """
    with reporter.bar("reading", 3) as advance:
        observations = read_series(files, options)
        advance(note=f"{len(observations):,} series")
        aligned = align(observations, options)
        advance(note=f"{len(aligned.periods)} steps")
        made = series_dataset(aligned, options)
        write_samples(place.draft / SAMPLES, made.samples)
        advance()
    return _report(files, aligned, made)


def write_series_report(folder: Path, report: dict[str, Any]) -> None:
    """Write the recipe to go on with, and the report as JSON and Markdown."""
    replace_text(folder / RECIPE, series_recipe(report))
    report["recipe"] = hashlib.sha256((folder / RECIPE).read_bytes()).hexdigest()
    replace_text(folder / "import.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    replace_text(folder / "import.md", series_markdown(report))


def _report(files: Sequence[Path], aligned: AlignedSeries, made: SeriesSamples) -> dict[str, Any]:
    samples, series = made.samples, aligned.observations
    labels = samples["label"].values
    is_missing = np.isnan(aligned.value).all(axis=2)  # (series, time)
    years = Counter(aligned.year.tolist())
    groups = groups_by_class(labels, samples["group"].values)
    by_class = dict(sorted(Counter(labels.tolist()).items()))
    counts = {"by_class": by_class, "groups_by_class": groups}
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "form": FORM,
        "files": [{"name": file.name} for file in files],
        "samples": {
            "samples": len(series),
            "by_class": by_class,
            "groups": _count(samples["group"].values),
            "groups_by_class": groups,
            "blocks": _count(samples["block"].values),
            "blocks_by_class": groups_by_class(labels, samples["block"].values),
            "by_year": {str(year): years[year] for year in sorted(years)},
            "bounds_lon_lat": _bounds(series.lon, series.lat),
        },
        "bands": list(series.bands),
        "ranges": {
            band: [float(edge(values[np.isfinite(values)])) for edge in (np.min, np.max)]
            for band, values in zip(series.bands, np.moveaxis(aligned.value, 2, 0), strict=True)
        },
        "periods": [str(period) for period in aligned.periods],
        "steps_missing_share": float(is_missing.mean()),
        "missing_share_by_period": {
            str(period): float(share)
            for period, share in zip(aligned.periods, is_missing.mean(axis=0), strict=True)
        },
        "group_distance": made.group_distance,
        "block_degrees": made.block_degrees,
        "dropped": aligned.dropped,
        "columns_not_imported": list(series.not_imported),
        "notes": [
            *(*series.notes, *made.notes),
            *few_groups_notes(
                groups,
                TrainingSection().folds,
                is_allowed=allows_few_groups(counts, made.group_distance),
            ),
        ],
    }


def _count(values: np.ndarray) -> int:
    return len(np.unique(values))


def _bounds(lon: np.ndarray | None, lat: np.ndarray | None) -> list[float] | None:
    if lon is None or lat is None:
        return None
    return [round(float(value), 6) for value in (lon.min(), lat.min(), lon.max(), lat.max())]
