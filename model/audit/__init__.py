"""Labelled sequences in, faults that make a score or a map untrue out.

One file for one subject: `canary` and `duplicates` (splits that leak), `telling` (classes told by
dates, gaps, aerosol), `missing` and `fill` (values that stand for nothing), `steps` (padding and
filling down), `offset`, `spectrum`, `index`, `clouds`, `labels`. `check` puts them in order.
"""

from model.audit.audited import BELIEVED, NO_DAY, Audited
from model.audit.check import CODES, LEAKS, audit
from model.audit.finding import SEVERITIES, Finding, Severity

__all__ = [
    "BELIEVED",
    "CODES",
    "LEAKS",
    "NO_DAY",
    "SEVERITIES",
    "Audited",
    "Finding",
    "Severity",
    "audit",
]
