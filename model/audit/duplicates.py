"""Sequences in; the same pixel, the same series or the same group where it must not be, out."""

import numpy as np
from jaxtyping import Float32, Int64

from model.audit.audited import Audited
from model.audit.finding import Finding, Severity, rows_of
from model.split import Folds

_FEWEST_VALUES = 8
"""Known values below which two sequences may be equal by chance."""

_SAME_PLACE = 0.01
"""Metres within which two places are one."""


def find_duplicates(audited: Audited) -> list[Finding]:
    """Return findings of pixels, series and groups on both sides, and of labels that contradict."""
    found: list[Finding] = []
    pixel, series = pixels(audited), identical_series(audited.known)
    for split in audited.folds:
        severity: Severity = "severe" if split.split in audited.believed else "note"
        for code, unit, what in (
            ("same-pixel", pixel, "of pixels that training has, too"),
            ("identical-series", series, "whose series training has, too, to the last bit"),
            ("group-on-both-sides", units_of(audited, split), "whose group or block also trains"),
        ):
            is_shared = np.zeros(len(audited), bool)
            for numbers in unit if isinstance(unit, tuple) else (unit,):
                if numbers is not None:
                    is_shared |= shared(numbers, split)
            if not is_shared.any():
                continue
            found.append(
                Finding(
                    code=code,
                    severity=severity,
                    what=f"the {split.split} split scores {int(is_shared.sum()):,} samples {what}",
                    count=int(is_shared.sum()),
                    rows=rows_of(is_shared),
                    advice="Keep each pixel once, and all of a group on one side"
                    if severity == "severe"
                    else f"Never believe the score of the {split.split} split",
                )
            )
    return found + _contradictions(audited, pixel, series)


def pixels(audited: Audited) -> Int64[np.ndarray, "sample"] | None:
    """Return a number for each pixel, -1 where it is not known; None where nothing tells pixels."""
    if audited.pixel is not None:
        return audited.pixel
    if audited.place is None:
        return None
    is_known = np.isfinite(audited.place).all(axis=1)
    near = np.rint(np.where(is_known[:, np.newaxis], audited.place, 0) / _SAME_PLACE)
    number = np.unique(near.astype(np.int64), axis=0, return_inverse=True)[1].reshape(-1)
    return np.where(is_known, number, -1).astype(np.int64)


def identical_series(
    values: Float32[np.ndarray, "sample time band"],
) -> Int64[np.ndarray, "sample"]:
    """Return a number for each distinct sequence; -1 where too little is known to tell."""
    plain = np.where(np.isnan(values), np.float32(-np.inf), values).reshape(len(values), -1)
    plain = np.ascontiguousarray(plain + np.float32(0))  # -0 and 0 are one
    text = plain.view(np.dtype((np.void, plain.itemsize * plain.shape[1]))).reshape(-1)
    number = np.unique(text, return_inverse=True)[1].reshape(-1)
    known = np.isfinite(values).reshape(len(values), -1)
    is_flat = np.where(known, plain, -np.inf).max(axis=1) == np.where(known, plain, np.inf).min(1)
    return np.where((known.sum(axis=1) >= _FEWEST_VALUES) & ~is_flat, number, -1).astype(np.int64)


def shared(unit: Int64[np.ndarray, "sample"], split: Folds) -> np.ndarray:
    """Return which samples are scored while another of their unit trains; -1 is no unit."""
    found = np.zeros(len(unit), bool)
    for number in range(split.count):
        held, trained = split.held_out(number), split.trained_on(number)
        found[held] = np.isin(unit[held], unit[trained]) & (unit[held] >= 0)
    return found


def units_of(audited: Audited, split: Folds) -> tuple[Int64[np.ndarray, "sample"], ...]:
    """Return what must not train while part of it is held out: groups, and blocks of their split.

    The random split cuts both, and that by year has all places on both sides.
    """
    if split.split in ("random", "year"):
        return ()
    if split.split == "block" and audited.block is not None:
        return audited.group, audited.block
    return (audited.group,)


def _contradictions(
    audited: Audited,
    pixel: Int64[np.ndarray, "sample"] | None,
    series: Int64[np.ndarray, "sample"],
) -> list[Finding]:
    is_disputed = np.zeros(len(audited), bool)
    for unit in (pixel, series):
        if unit is not None:
            is_disputed |= _has_two_labels(unit, audited.label)
    if not is_disputed.any():
        return []
    return [
        Finding(
            code="label-conflict",
            severity="warning",
            what=f"{int(is_disputed.sum()):,} samples have a duplicate of another class",
            count=int(is_disputed.sum()),
            rows=rows_of(is_disputed),
            advice="Decide which class is right and drop the other; both teach the network nothing",
        )
    ]


def _has_two_labels(
    unit: Int64[np.ndarray, "sample"], label: Int64[np.ndarray, "sample"]
) -> np.ndarray:
    number = np.unique(unit, return_inverse=True)[1]
    least, most = (
        np.full(number.max(initial=0) + 1, len(label)),
        np.full(number.max(initial=0) + 1, -1),
    )
    np.minimum.at(least, number, label)
    np.maximum.at(most, number, label)
    return np.asarray((least != most)[number] & (unit >= 0))
