"""Sequences in, every fault that can be seen in them out, the gravest first."""

from collections.abc import Callable

from model.audit.audited import Audited
from model.audit.canary import find_leaks
from model.audit.clouds import find_clouds
from model.audit.duplicates import find_duplicates
from model.audit.fill import find_fill
from model.audit.finding import SEVERITIES, Finding
from model.audit.index import find_indices
from model.audit.labels import find_labels
from model.audit.offset import find_offset
from model.audit.spectrum import find_bands
from model.audit.steps import find_repeats, find_uneven_dates
from model.audit.telling import find_telling

DETECTORS: tuple[Callable[[Audited], list[Finding]], ...] = (
    find_leaks,
    find_duplicates,
    find_telling,
    find_fill,
    find_repeats,
    find_uneven_dates,
    find_offset,
    find_bands,
    find_indices,
    find_clouds,
    find_labels,
)
"""Everything that is looked for; findings of one severity come in this order."""

CODES = frozenset(
    {
        "split-canary",
        "same-pixel",
        "identical-series",
        "group-on-both-sides",
        "label-conflict",
        "class-by-date-count",
        "class-by-dates",
        "class-by-gaps",
        "class-by-aot",
        "class-by-wvp",
        "fill-value",
        "fill-mixed",
        "zero-run",
        "padded-end",
        "repeated-step",
        "filled-down",
        "uneven-dates",
        "offset-left-in",
        "offset-removed-twice",
        "swapped-bands",
        "constant-band",
        "empty-band",
        "index-on-counts",
        "index-contradicts-bands",
        "cloud-inside",
        "label-outside",
        "empty-sequence",
        "label-envelope",
        "few-groups",
        "mixed-group",
        "groups-too-fine",
    }
)
"""Every code that a finding of sequences can have."""

LEAKS = frozenset(
    {
        "split-canary",
        "same-pixel",
        "identical-series",
        "group-on-both-sides",
        "groups-too-fine",
        "class-by-date-count",
        "class-by-dates",
        "class-by-gaps",
        "class-by-aot",
        "class-by-wvp",
    }
)
"""Codes of what lets a score rest on something else than the ground."""


def audit(audited: Audited) -> tuple[Finding, ...]:
    """Return every finding, severe ones first; the same sequences give the same findings.

    Nothing is changed. No finding does not mean that nothing is wrong: what leaves no trace in the
    sequences (features that are not scaled, labels that are wrong everywhere alike) is not seen.
    """
    if not len(audited):
        return ()
    found = [finding for detect in DETECTORS for finding in detect(audited)]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))
