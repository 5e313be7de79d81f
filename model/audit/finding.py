"""What is wrong with samples, as a value: named, counted, with rows to look at and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Severity = Literal["severe", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("severe", "warning", "note")
"""From the gravest: `severe` means that the score cannot be believed, or that values are not what
they are called; `warning` that somebody should look; `note` that something is good to know."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of one kind."""

    code: str
    """Short name that never changes, e.g. `split-canary`; what `--allow` takes."""
    severity: Severity
    """How grave it is, see `SEVERITIES`."""
    what: str
    """What was found, with figures, one sentence without a full stop."""
    count: int
    """How many samples (or classes, bands, groups, as `what` says) it is about."""
    rows: tuple[int, ...]
    """Samples to look at, the first ones first; empty where it is about no sample in particular."""
    advice: str
    """What to do, one sentence without a full stop."""


def rows_of(chosen: np.ndarray | Iterable[int]) -> tuple[int, ...]:
    """Return indices, or the places where a mask is true, as the rows of a finding."""
    found = np.asarray(chosen)
    if found.dtype == bool:
        found = np.flatnonzero(found)
    return tuple(int(row) for row in found.tolist())


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names as text, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
