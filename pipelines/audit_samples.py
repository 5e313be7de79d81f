"""Stored or drawn samples and their folds in, what is wrong with them out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from cube.samplestore import open_samples
from model.audit import SEVERITIES, Audited, Finding, audit
from model.errors import SplitError
from model.features import REFERENCE_FEATURES
from model.samples import Samples
from model.split import SPLITS, Folds, Split, make_folds
from pipelines.audit_text import AuditReport, refuse_severe, report_json, report_lines
from pipelines.progress import Reporter
from pipelines.recipe_model import TrainingSection

__all__ = [
    "AuditOptions",
    "audit_run",
    "audit_samples",
    "audit_stored_samples",
    "refuse_severe",
    "samples_of",
]

NOT_SEEN = ("labels that are wrong everywhere alike leave no trace in samples",)


_BUFFERED = ("block", "knndm", "region")
"""Splits round whose held-out samples a buffer is left."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How samples will be scored, as far as an audit looks at it."""

    folds: int = 5
    """Parts into which each split divides the samples."""
    splits: tuple[Split, ...] = ()
    """Splits beside random, grouped and block ones. What leaks in the random one is only a note."""
    buffer: float = 0.0
    """Metres round held-out blocks in which nothing trains."""
    seed: int = 0
    """Seed of the splits."""
    features: tuple[str, ...] | None = None
    """Bands that the network will see; None is all but AOT, WVP, B01 and B09."""

    @classmethod
    def of(cls, training: TrainingSection) -> "AuditOptions":
        """Return what the `[training]` of a recipe says."""
        features = training.features
        if features is None and training.preset == "reference":
            features = REFERENCE_FEATURES.names
        return cls(
            folds=training.folds,
            splits=training.splits,
            buffer=training.buffer,
            seed=training.seed,
            features=features,
        )


def audit_samples(
    samples: xr.Dataset | Samples,
    folds: Sequence[Folds],
    *,
    features: Sequence[str] | None = None,
) -> tuple[Finding, ...]:
    """Return what is wrong with samples and with the ways in which they are split.

    `folds` are of these samples in this order. `features` are bands that the network will see,
    None all but AOT, WVP, B01 and B09: what only others tell is a warning and not severe. A dataset
    as `cube.samplestore` keeps it tells more than `Samples`: pixels, dates behind each period, and
    labels that gave no sample.
    """
    seen = None if features is None else tuple(features)
    return audit(_audited(samples, tuple(folds), seen))


def audit_run(
    samples: xr.Dataset | Path,
    options: AuditOptions | None = None,
    *,
    what: str | None = None,
) -> AuditReport:
    """Return the audit of stored samples under each split that they allow.

    Raises `InputError` if there are no samples at the path.
    """
    started = time.perf_counter()
    options = options or AuditOptions()
    stored = open_samples(samples) if isinstance(samples, Path) else samples
    plain = samples_of(stored)
    made, impossible = _splits(plain, options)
    found = (*audit_samples(stored, made, features=options.features), *impossible)
    return AuditReport(
        what=what or (str(samples) if isinstance(samples, Path) else "samples"),
        samples=len(plain),
        splits=tuple(split.split for split in made),
        findings=tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))),
        names=_names(stored),
        not_seen=NOT_SEEN,
        seconds=time.perf_counter() - started,
    )


def audit_stored_samples(
    path: Path, training: TrainingSection, reporter: Reporter
) -> dict[str, Any]:
    """Audit a run's samples as its recipe will score them; say what was found; return it as JSON."""
    report = audit_run(path, AuditOptions.of(training))
    for line in report_lines(report, training.audit_allow):
        reporter.say(line)
    return report_json(report, training.audit_allow)


def samples_of(stored: xr.Dataset) -> Samples:
    """Return a dataset of samples as the model takes them, in the same order."""
    return Samples.from_names(
        reflectance=stored["reflectance"].transpose("sample", "time", "band").values,
        bands=tuple(str(band) for band in stored["band"].values),
        periods=tuple(str(period) for period in stored["period"].values),
        labels=stored["label"].values.tolist(),
        group=_numbers(stored["group"].values),
        block=_numbers(stored["block"].values),
        place=_places(stored),
        region=_numbers(stored["region"].values) if "region" in stored else None,
        year=stored["year"].values.astype(np.int64) if "year" in stored else None,
    )


def _numbers(names: np.ndarray) -> Int64[np.ndarray, " sample"]:
    return np.unique(names.astype(str), return_inverse=True)[1].astype(np.int64)


def _places(stored: xr.Dataset) -> Float64[np.ndarray, "sample 2"] | None:
    if not {"x", "y"} <= set(stored.variables):
        return None
    return np.stack([stored[axis].values.astype(np.float64) for axis in ("x", "y")], axis=1)


def _audited(
    samples: xr.Dataset | Samples, folds: tuple[Folds, ...], features: tuple[str, ...] | None
) -> Audited:
    if isinstance(samples, Samples):
        return Audited.of(samples, folds=folds, features=features)
    more: dict[str, Any] = {}
    if {"row", "column"} <= set(samples.variables):
        row, column = (samples[name].values.astype(np.int64) for name in ("row", "column"))
        more["pixel"] = row * (int(column.max(initial=0)) + 1) + column
    if "clear_count" in samples:
        more["looks"] = samples["clear_count"].transpose("sample", "time").values
    dropped = samples.attrs.get("canopycube", {}).get("dropped", {})
    more["outside"] = {
        reason: int(count)
        for reason, count in dropped.items()
        if "outside" in reason or "different classes" in reason
    }
    return Audited.of(samples_of(samples), folds=folds, features=features, **more)


def _splits(
    samples: Samples, options: AuditOptions
) -> tuple[tuple[Folds, ...], tuple[Finding, ...]]:
    """Return the folds of every split that can be made, and a finding for each that cannot."""
    made, impossible = [], []
    for split in dict.fromkeys((*SPLITS, *options.splits)):
        try:
            folds = make_folds(
                samples,
                split,
                folds=options.folds,
                seed=options.seed,
                buffer=options.buffer if split in _BUFFERED else 0.0,
            )
        except SplitError as error:
            impossible.append(
                Finding(
                    code="split-impossible",
                    severity="warning",
                    what=str(error),
                    count=0,
                    rows=(),
                    advice="Without this split nothing says how the classifier does elsewhere",
                )
            )
            continue
        made.append(folds)
    return tuple(made), tuple(impossible)


def _names(stored: xr.Dataset) -> dict[str, list[str]]:
    """Return what tells where a sample is, as text."""
    columns = ("label", "group", "block", "x", "y", "lon", "lat")
    return {
        name: [str(value) for value in stored[name].values.tolist()]
        for name in columns
        if name in stored.variables
    }
