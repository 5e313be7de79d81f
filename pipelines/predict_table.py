"""A classifier and a table of series in, a table of their classes and how sure they are out."""

import re
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Bool, Float32, Int64

from cube.decisions import guarded
from cube.durable import flush_files, flush_folders
from cube.errors import InputError, WorkFailedError
from cube.series import AlignedSeries, SeriesOptions, align_to, read_series
from cube.series.columns import bands_in
from cube.series.table import table_header
from model.classifier import SpeciesClassifier
from model.errors import ClassifierError
from pipelines.import_table import find_tables
from pipelines.label_names import read_label_names
from pipelines.predict_scores import score_lines, scores_of
from pipelines.printable import printable
from pipelines.progress import Reporter

ENDINGS = (".csv", ".csv.gz", ".parquet")
_FIRST = ("id", "class", "confidence", "margin", "months_observed")
_ROWS = 65_536
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def predict_table(
    classifier: Path,
    tables: Sequence[str],
    target: Path,
    reporter: Reporter,
    *,
    options: SeriesOptions | None = None,
    is_placed: bool = False,
    threads: int = 1,
) -> dict[str, Any]:
    """Classify every series of `tables` and write one row each to `target`; return the report.

    Columns are `id`, `class`, `confidence` (probability of the class, 0..1), `margin` (how far the
    second class is behind), `months_observed` (steps with every band that is needed), `longitude`,
    `latitude` and `label` where the tables have them, `likely_classes` (those that cannot be ruled
    out, parted by semicolons) and `is_applicable` (whether the series is like those trained on)
    where the classifier knows them, and `probability <class>` of each class. A series without a
    single such step has an empty class, no probabilities, and is not applicable. `is_placed` puts
    dates into the classifier's periods, else series must have its steps. With labels the report
    has scores, over series whose label is one of the classifier's classes or of the labels that
    its recipe made classes of; none where over a tenth of the labels are neither.

    `target` ends in .csv, .csv.gz or .parquet and appears whole or not at all. Raises `InputError`
    for tables that cannot be read, `ClassifierError` for other bands or a damaged classifier,
    `WorkFailedError` if writing fails.
    """
    started = time.perf_counter()
    check_target(target)
    loaded = SpeciesClassifier.load(classifier)
    options = replace(options or SeriesOptions(), needs_labels=False)
    files = find_tables(tables)
    needed = _needed_bands(loaded, files, options)
    series = read_series(files, replace(options, bands=needed))
    if lost := [band for band in needed if band not in series.bands]:
        raise InputError(
            f"{files[0].name!r} has no value of {', '.join(lost)}, which the classifier reads"
        )
    aligned = align_to(series, loaded.periods, is_placed=is_placed)
    probability = _probability(loaded, aligned, reporter, threads)
    observed = loaded.fitted.features.is_clear(aligned.value, series.bands).sum(axis=1)
    is_inside = _applicable(loaded, aligned, threads)
    _write(target, _table(loaded, aligned, probability, observed, is_inside))
    is_told = np.isfinite(probability[:, 0])
    names = np.array(loaded.classes)
    return {
        "path": str(target),
        "rows": len(series),
        "unclassified": int((~is_told).sum()),
        "by_class": dict(
            sorted(Counter(names[probability[is_told].argmax(axis=1)].tolist()).items())
        ),
        "mean_confidence": float(probability[is_told].max(axis=1).mean())
        if is_told.any()
        else None,
        "applicable": None if is_inside is None else int(is_inside.sum()),
        "scores": scores_of(
            loaded, read_label_names(classifier), aligned.observations.label, probability
        ),
        "dropped": aligned.dropped,
        "notes": list(series.notes),
        "seconds": round(time.perf_counter() - started, 2),
    }


def prediction_lines(report: dict[str, Any]) -> list[str]:
    """Return what `predict` tells people."""
    counts = ", ".join(f"{printable(name)} {n:,}" for name, n in report["by_class"].items())
    lines = [f"series    {report['rows']:,} classified into {report['path']}: {counts}"]
    if report["unclassified"]:
        lines.append(f"          {report['unclassified']:,} without a usable step have no class")
    if (inside := report["applicable"]) is not None:
        lines.append(
            f"          {inside:,} of them like the training samples (is_applicable); beyond, "
            "scores say nothing"
        )
    lines += score_lines(report["scores"])
    lines += [f"left out  {count:,} {reason}" for reason, count in report["dropped"].items()]
    return lines + [f"note      {printable(note)}" for note in report["notes"]]


def check_target(target: Path) -> None:
    """Refuse a place where no table can be written; raises `InputError`."""
    if not target.name.lower().endswith(ENDINGS):
        raise InputError(
            f"--to {str(target)!r} has no known ending; expected one of {', '.join(ENDINGS)}"
        )
    if not target.absolute().parent.is_dir():
        raise InputError(f"--to {str(target)!r} lies in a folder that does not exist; make it")
    if (target.exists() or target.is_symlink()) and not _is_ours(target):
        raise InputError(
            f"--to {str(target)!r} exists and is no table of predictions; it is not overwritten"
        )


def _is_ours(target: Path) -> bool:
    if target.is_symlink() or not target.is_file():
        return False
    try:
        return table_header(target)[: len(_FIRST)] == _FIRST
    except InputError:
        return False


def _needed_bands(
    classifier: SpeciesClassifier, files: Sequence[Path], options: SeriesOptions
) -> tuple[str, ...]:
    """Return the bands to read; raise `ClassifierError` if a table lacks one."""
    for file in files:
        there = bands_in(table_header(file), options, file=file.name)
        if missing := [band for band in classifier.required_bands if band not in there]:
            raise ClassifierError(
                f"the classifier does not fit {file.name!r}. bands: needs "
                f"{' '.join(classifier.required_bands)}; the table has "
                f"{printable(' '.join(there))[:200]}, lacks {' '.join(missing)}"
            )
    return classifier.required_bands


def _probability(
    classifier: SpeciesClassifier, aligned: AlignedSeries, reporter: Reporter, threads: int
) -> Float32[np.ndarray, "series class"]:
    bands = aligned.observations.bands
    starts = range(0, len(aligned.value), _ROWS)
    found = []
    with reporter.bar("predicting", len(starts)) as advance:
        for start in starts:
            part = aligned.value[start : start + _ROWS]
            found.append(classifier.predict_samples(part, bands, threads=threads))
            advance()
    return np.concatenate(found)  # (series, class)


def _table(
    classifier: SpeciesClassifier,
    aligned: AlignedSeries,
    probability: Float32[np.ndarray, "series class"],
    observed: Int64[np.ndarray, " series"],
    is_inside: Bool[np.ndarray, " series"] | None,
) -> pa.Table:
    series = aligned.observations
    is_lost = np.isnan(probability[:, 0])
    names = np.array([*classifier.classes, ""], dtype=object)
    best = np.where(is_lost, len(classifier.classes), probability.argmax(axis=1))
    top = np.sort(probability, axis=1)[:, -2:]  # (series, second and first)
    columns: dict[str, Any] = dict(
        zip(
            _FIRST,
            (series.id, names[best], top[:, 1], top[:, 1] - top[:, 0], observed.astype(np.int32)),
            strict=True,
        )
    )
    if series.lon is not None:
        columns |= {"longitude": series.lon, "latitude": series.lat}
    if series.label is not None:
        columns["label"] = series.label
    if classifier.conformal is not None:
        columns["likely_classes"] = _likely(classifier, probability)
    if is_inside is not None:
        columns["is_applicable"] = is_inside
    for at, name in enumerate(classifier.classes):
        columns[f"probability {name}"] = probability[:, at]
    return pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})


def _applicable(
    classifier: SpeciesClassifier, aligned: AlignedSeries, threads: int
) -> Bool[np.ndarray, " series"] | None:
    """Say which series are like the training samples; None where the classifier cannot."""
    if classifier.applicability is None:
        return None
    bands, starts = aligned.observations.bands, range(0, len(aligned.value), _ROWS)
    parts = [
        classifier.is_applicable(aligned.value[start : start + _ROWS], bands, threads=threads)
        for start in starts
    ]
    return np.concatenate(parts)  # (series,)


def _likely(
    classifier: SpeciesClassifier, probability: Float32[np.ndarray, "series class"]
) -> list[str]:
    """Return the classes that cannot be ruled out, parted by semicolons."""
    known = np.nan_to_num(probability, nan=1 / probability.shape[1])
    sets = classifier.likely_classes(known) & np.isfinite(probability)
    return ["; ".join(np.array(classifier.classes)[row].tolist()) for row in sets]


def _guarded(table: pa.Table) -> pa.Table:
    """Return the table with an apostrophe before text that a spreadsheet would run."""
    for at, name in enumerate(table.column_names):
        if pa.types.is_string(table[name].type):
            texts = [_safe(text) for text in table[name].to_pylist()]
            table = table.set_column(at, name, pa.array(texts, pa.string()))
    return table


def _safe(text: str | None) -> str | None:
    # ids may be negative numbers, which run nothing
    return text if text is None or _NUMBER.fullmatch(text) else guarded(text)


def _write(target: Path, table: pa.Table) -> None:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.draft")
    try:
        if target.name.lower().endswith(".parquet"):
            pyarrow.parquet.write_table(table, draft, compression="zstd")
        else:
            packed = "gzip" if target.name.lower().endswith(".gz") else None
            with pa.output_stream(str(draft), compression=packed) as file:
                pyarrow.csv.write_csv(_guarded(table), file)
        flush_files([draft])
        draft.replace(target)
        flush_folders([target.absolute().parent])
    except (OSError, pa.ArrowException) as error:
        raise WorkFailedError(f"{str(target)!r} could not be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
