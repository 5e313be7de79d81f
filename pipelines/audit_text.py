"""Findings of an audit in; lines for people, JSON for machines, a table of all rows, a verdict out."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cube.decisions import guarded
from cube.durable import replace_text
from cube.errors import InputError, WorkFailedError
from model.audit import CODES, Finding
from pipelines.printable import printable

TABLE_CODES = frozenset(
    {"single-look", "coordinates-spelt", "duplicate-date", "labels-spelt", "labels-mixed"}
)
"""Codes of what only a table shows."""

RECIPE_CODES = frozenset({"split-impossible"})
"""Codes of what only splitting shows."""

_MOST_ROWS = 6
"""Rows that a line names, and `--json` ten times as many; `--rows` writes all."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit looked at and found."""

    what: str
    """The file, folder or recipe that was audited."""
    samples: int
    """Sequences that were looked at."""
    splits: tuple[str, ...]
    """Ways to split them that were looked at."""
    findings: tuple[Finding, ...]
    """What was found, severe ones first."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What each sequence is called, by column of `--rows`: its class, group, place, row of a file."""
    not_seen: tuple[str, ...] = ()
    """What cannot be seen in such data, one sentence each."""
    seconds: float = 0.0
    """Time that it took."""


class AuditFailedError(WorkFailedError):
    """Something severe was found that is not allowed; `found` is what `--json` prints of it."""

    def __init__(self, text: str, found: dict[str, Any]) -> None:
        super().__init__(text)
        self.found = found


def check_allowed(codes: Sequence[str], *, given: str = "--allow") -> frozenset[str]:
    """Return the codes of the option or key `given`; raises `InputError` for one of no finding."""
    known = CODES | TABLE_CODES | RECIPE_CODES
    if unknown := sorted(set(codes) - known):
        raise InputError(
            f"{given} {unknown[0]!r} is no code of a finding; codes are {', '.join(sorted(known))}"
        )
    return frozenset(codes)


def refuse_severe(found: Mapping[str, Any], allowed: Collection[str] = ()) -> None:
    """Raise `AuditFailedError` if a report (as `report_json` gives it) has severe findings.

    Those whose codes are `allowed` do not count.
    """
    grave = [
        one
        for one in found["findings"]
        if one["severity"] == "severe" and one["code"] not in allowed
    ]
    if grave:
        codes = list(dict.fromkeys(one["code"] for one in grave))
        raise AuditFailedError(
            f"the audit of {found['audited']!r} found {', '.join(codes)}; mend it, or go on in "
            f"spite of it with --allow {' '.join(codes)} (of a recipe: training.audit_allow)",
            dict(found),
        )


def finding_lines(
    findings: Sequence[Finding],
    allowed: Collection[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Return what people are told: for each finding what, where to look, and what to do."""
    lines = []
    for one in findings:
        word = "allowed" if one.severity == "severe" and one.code in allowed else one.severity
        lines.append(f"{word:<8}  {one.code}: {printable(one.what)}")
        if one.rows:
            shown = [_named(row, names) for row in one.rows[:_MOST_ROWS]]
            more = len(one.rows) - len(shown)
            told = f" and {more:,} more" if more else ""
            lines.append(f"          look at {', '.join(shown)}{told}")
        lines.append(f"          {printable(one.advice)}")
    return lines


def _named(row: int, names: Mapping[str, Sequence[str]] | None) -> str:
    where = (names or {}).get("row")
    return f"sample {row}" if where is None else f"row {printable(where[row])}"


def report_lines(report: AuditReport, allowed: Collection[str] = ()) -> list[str]:
    """Return what `audit` tells people."""
    counts = {
        word: sum(one.severity == word for one in report.findings)
        for word in ("severe", "warning", "note")
    }
    told = ", ".join(
        f"{number} {word if number == 1 or word == 'severe' else word + 's'}"
        for word, number in counts.items()
    )
    lines = [
        f"audited   {printable(report.what)}: {report.samples:,} samples, splits "
        f"{', '.join(report.splits) or 'none'}, {report.seconds:.1f} s",
        *finding_lines(report.findings, allowed, report.names),
        *(f"not seen  {printable(sentence)}" for sentence in report.not_seen),
    ]
    return [*lines, f"found     {told}" if report.findings else "found     nothing"]


def findings_json(
    findings: Sequence[Finding], allowed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return findings as plain JSON values; `rows` has the first ones only."""
    return [
        {
            "code": one.code,
            "severity": one.severity,
            "allowed": one.severity == "severe" and one.code in allowed,
            "what": one.what,
            "count": one.count,
            "rows": list(one.rows[: 10 * _MOST_ROWS]),
            "advice": one.advice,
        }
        for one in findings
    ]


def report_json(report: AuditReport, allowed: Collection[str] = ()) -> dict[str, Any]:
    """Return the whole report as plain JSON values."""
    return {
        "audited": report.what,
        "samples": report.samples,
        "splits": list(report.splits),
        "severe": sum(
            one.severity == "severe" and one.code not in allowed for one in report.findings
        ),
        "findings": findings_json(report.findings, allowed),
        "not_seen": list(report.not_seen),
        "seconds": round(report.seconds, 2),
    }


def write_rows(path: Path, report: AuditReport) -> None:
    """Write every row of every finding as CSV: code, severity, sample, and what it is called.

    Text that a spreadsheet would run carries an apostrophe in front, see `cube.decisions.guarded`.

    Raises `InputError` if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["code", "severity", "sample", *map(guarded, report.names)])
    for one in report.findings:
        for row in one.rows:
            named = [guarded(str(column[row])) for column in report.names.values()]
            writer.writerow([one.code, one.severity, row, *named])
    try:
        replace_text(path, text.getvalue())
    except OSError as error:
        raise InputError(f"--rows {str(path)!r} cannot be written: {error.strerror}") from error
