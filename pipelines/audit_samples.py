"""Stored or drawn samples and their folds in, what is wrong with them out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64, Int64

from cube.place import Place
from cube.samplestore import open_samples
from model.audit import SEVERITIES, Audited, Finding, audit
from model.audit.finding import rows_of
from model.errors import FeatureError, SplitError
from model.features import BANDS, REFERENCE_FEATURES, FeatureSet, default_features
from model.samples import LARGEST_VALUE, Samples
from model.split import SPLITS, Folds, Split, make_folds
from pipelines.audit_text import AuditReport, report_json, report_lines
from pipelines.draw_samples import places_to_map
from pipelines.layout import Layout
from pipelines.learning_samples import samples_of
from pipelines.progress import Reporter
from pipelines.recipe_model import TrainingSection

NOT_SEEN = ("labels that are wrong everywhere alike leave no trace in samples",)


_OUTSIDE = ("points outside the cube", "polygons outside the cube")
_CONTESTED = "cells claimed by different classes"
"""Reasons, of those that samples were dropped for, that say something is wrong with the labels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditOptions:
    """How samples will be scored, as far as an audit looks at it."""

    folds: int = 5
    """Parts into which each split divides the samples."""
    splits: tuple[Split, ...] = ()
    """Splits beside random, grouped and block ones. What leaks in the random one is only a note."""
    buffer: float = 0.0
    """Metres round held-out samples in which nothing trains, of every split but the random one."""
    prediction: Float64[np.ndarray, "place 2"] | None = None
    """Places that will be mapped, metres, for the split `knndm`; None takes the samples' hull."""
    seed: int = 0
    """Seed of the splits."""
    features: tuple[str, ...] | None = None
    """Features that the network will see; None is all but AOT, WVP, B01 and B09."""

    @classmethod
    def of(cls, training: TrainingSection, cube: Place | None = None) -> "AuditOptions":
        """Return what the `[training]` of a recipe says; `cube`, if it exists, will be mapped."""
        features = training.features
        if features is None and training.preset == "reference":
            features = REFERENCE_FEATURES.names
        return cls(
            folds=training.folds,
            splits=training.splits,
            buffer=training.buffer,
            prediction=places_to_map(cube) if cube is not None and cube.exists() else None,
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

    `folds` are of these samples in this order. `features` are those that the network will see,
    None all but AOT, WVP, B01 and B09: what only others tell is a warning and not severe. A dataset
    as `cube.samplestore` keeps it tells more than `Samples`: pixels, dates behind each period, and
    labels that gave no sample.
    """
    seen = None if features is None else FeatureSet(names=tuple(features)).required_bands
    return audit(_audited(samples, tuple(folds), seen))


def audit_run(
    samples: xr.Dataset | Path,
    options: AuditOptions | None = None,
    *,
    what: str | None = None,
) -> AuditReport:
    """Return the audit of stored samples under each split that they allow.

    As in training, samples without a period that is clear in every band of the features are left
    out; they are told.

    Raises `InputError` if there are no samples at the path.
    """
    started = time.perf_counter()
    options = options or AuditOptions()
    stored = open_samples(samples) if isinstance(samples, Path) else samples
    used = _usable(stored, options.features)
    chosen = stored.isel(sample=used)
    made, impossible = _splits(_plain(chosen), options)
    found = [
        *(
            replace(one, rows=rows_of(used[list(one.rows)]))
            for one in audit_samples(chosen, made, features=options.features)
        ),
        *impossible,
        *_left_out(used, stored.sizes["sample"]),
    ]
    return AuditReport(
        what=what or (str(samples) if isinstance(samples, Path) else "samples"),
        samples=stored.sizes["sample"],
        splits=tuple(split.split for split in made),
        findings=tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))),
        names=_names(stored),
        not_seen=NOT_SEEN,
        seconds=time.perf_counter() - started,
    )


def audit_stored_samples(
    layout: Layout, training: TrainingSection, reporter: Reporter
) -> dict[str, Any]:
    """Audit a run's samples as its recipe will score them; say what was found; return it as JSON."""
    report = audit_run(layout.samples, AuditOptions.of(training, layout.cube))
    for line in report_lines(report, training.audit_allow):
        reporter.say(line)
    return report_json(report, training.audit_allow)


def _usable(stored: xr.Dataset, features: tuple[str, ...] | None) -> Int64[np.ndarray, " used"]:
    """Return the samples that training takes; all of them where it would take none."""
    samples = _plain(stored)
    try:
        wanted = FeatureSet(names=features) if features else default_features(samples.bands)
        is_clear = wanted.is_clear(samples.reflectance, samples.bands).any(axis=1)
    except FeatureError:  # training refuses that; what else is wrong is told all the same
        is_clear = np.ones(len(samples), bool)
    used = np.flatnonzero(is_clear if is_clear.any() else ~is_clear)
    return np.asarray(used, np.int64)


def _left_out(used: Int64[np.ndarray, " used"], count: int) -> list[Finding]:
    if len(used) == count:
        return []
    lost = np.setdiff1d(np.arange(count), used)
    return [
        Finding(
            code="empty-sequence",
            severity="warning",
            what=f"{len(lost):,} samples have no period that is clear in every band of the "
            "features; training leaves them out",
            count=len(lost),
            rows=rows_of(lost),
            advice="Leave bands that are often missing out of the features, or draw other samples",
        )
    ]


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
        more["clear_count"] = samples["clear_count"].transpose("sample", "time").values
    dropped = samples.attrs.get("canopycube", {}).get("dropped", {})
    more["outside"] = {reason: int(dropped[reason]) for reason in _OUTSIDE if reason in dropped}
    more["contested"] = int(dropped.get(_CONTESTED, 0))
    more["values"] = _values(samples)
    return Audited.of(_plain(samples), folds=folds, features=features, **more)


def _values(stored: xr.Dataset) -> Float32[np.ndarray, "sample time band"]:
    values = stored["reflectance"].transpose("sample", "time", "band").values
    return np.asarray(values, np.float32)


def _plain(stored: xr.Dataset) -> Samples:
    """Return samples without the values that no model takes: these are findings, no end."""
    values = _values(stored)
    own = np.array([str(band) in BANDS for band in stored["band"].values])
    with np.errstate(invalid="ignore"):
        is_wrong = np.isinf(values) | ((np.abs(values) > LARGEST_VALUE) & own)
    dims = ("sample", "time", "band")
    return samples_of(stored.assign(reflectance=(dims, np.where(is_wrong, np.nan, values))))


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
                buffer=0.0 if split == "random" else options.buffer,
                prediction=options.prediction,
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
