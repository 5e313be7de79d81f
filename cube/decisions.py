"""A file of decisions about labels in and out; `cube.relabel` carries them out.

The file is a CSV table (UTF-8, comma) that people and the page of `canopycube label-doctor` write.
Columns, in any order, the first three needed:

    group                 label unit (stand, polygon) as the samples name it
    given                 class it has in the samples, so that a decision never meets another label
    decision              accept (the label is right), fix (it is `label`) or drop (leave it out)
    label                 the right class, of fix only; one that other samples have
    sample                one sample of the group, as `sample_names` calls it; blank: all of them
    note                  whatever the person wants to keep
    samples_fingerprint   the samples that were looked at, see `samples_fingerprint`

A row for a sample goes before the row of its group. Cells of text that a spreadsheet would take for
a formula carry an apostrophe in front, which is taken off again: see `guarded`.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cube.durable import replace_text
from cube.errors import InputError

Action = Literal["accept", "fix", "drop"]
ACTIONS: tuple[Action, ...] = get_args(Action)
"""What can be decided about a label."""

COLUMNS = ("group", "given", "decision", "label", "sample", "note", "samples_fingerprint")
"""Header of the file, as it is written."""

_NEEDED = COLUMNS[:3]
_FORMULA = re.compile(r"^'*[=+\-@\t\r]")
_MOST_BYTES = 64 * 2**20
_SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What somebody decided about the label of a group, or of one sample of it."""

    group: str
    """The label unit."""
    given: str
    """The class it had when somebody looked."""
    action: Action
    """What to do with it."""
    label: str = ""
    """The right class; blank unless `action` is fix."""
    sample: str = ""
    """Name of one sample (`sample_names`); blank for the whole group."""
    note: str = ""
    """Free text."""
    fingerprint: str = ""
    """The samples that were looked at; blank if unknown."""

    def __post_init__(self) -> None:
        if not self.group or not self.given:
            raise InputError("a decision has a blank group or given class; fill in both")
        if self.action == "fix" and not self.label:
            raise InputError(f"group {quoted(self.group)} is to be fixed, but label is blank")
        if self.action != "fix" and self.label:
            raise InputError(
                f"group {quoted(self.group)} has label {quoted(self.label)}, which goes with fix, "
                f"not {self.action}"
            )

    @property
    def target(self) -> tuple[str, str, str]:
        """What it is about: group, given class, sample."""
        return self.group, self.given, self.sample


def guarded(text: str) -> str:
    """Return text with an apostrophe before what a spreadsheet would run as a formula."""
    return "'" + text if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Return what `guarded` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_decisions(path: str | Path) -> tuple[Decision, ...]:
    """Read a file of decisions; equal rows count once, an empty table is none.

    Raises `InputError` for what is no such table, and for two rows that decide one thing
    differently.
    """
    path = Path(path)
    decided: dict[tuple[str, str, str], tuple[Decision, int]] = {}
    for line, cells in _rows(path):
        try:
            decision = Decision(
                group=cells["group"],
                given=cells["given"],
                action=_action(cells["decision"]),
                label=cells.get("label", ""),
                sample=cells.get("sample", ""),
                note=cells.get("note", ""),
                fingerprint=cells.get("samples_fingerprint", ""),
            )
        except InputError as error:
            raise InputError(f"{named(path)}, line {line}: {error}") from None
        before, first = decided.setdefault(decision.target, (decision, line))
        if (before.action, before.label) != (decision.action, decision.label):
            raise InputError(
                f"{named(path)}: lines {first} and {line} contradict each other about group "
                f"{quoted(decision.group)}; keep one of them"
            )
    return tuple(decision for decision, _ in decided.values())


def write_decisions(path: str | Path, decisions: Iterable[Decision]) -> None:
    """Write a file that `read_decisions` reads back; raises `OSError`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in decisions:
        cells = (one.group, one.given, one.action, one.label, one.sample, one.note)
        writer.writerow([*map(guarded, cells), guarded(one.fingerprint)])
    replace_text(Path(path), text.getvalue())


def as_compared(text: str) -> str:
    """Return text as names are compared: composed, without spaces round it."""
    return unicodedata.normalize("NFC", text.strip(" "))


def _action(text: str) -> Action:
    for action in ACTIONS:
        if text.lower() == action:
            return action
    raise InputError(f"decision {quoted(text)} does not exist; expected accept, fix or drop")


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Yield line numbers and the cells of the known columns, trimmed and in Unicode form NFC."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in _NEEDED if name not in header]:
            raise InputError(
                f"{named(path)} has no column {', '.join(missing)}; its header is "
                f"{quoted(', '.join(header))}; expected {', '.join(COLUMNS)}"
            )
        if twice := [name for name in COLUMNS if header.count(name) > 1]:
            raise InputError(f"{named(path)} has column {twice[0]!r} twice; rename one")
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{named(path)}, line {reader.line_num}: {len(row)} cells where the header has "
                    f"{len(header)}; mend or quote that line"
                )
            cells = dict(zip(header, row, strict=True))
            yield (
                reader.line_num,
                {
                    name: as_compared(unguarded(cells[name].strip(" ")))
                    for name in COLUMNS
                    if name in cells
                },
            )
    except csv.Error as error:
        raise InputError(
            f"{named(path)}, line {reader.line_num} is no CSV: {error}; write it again"
        ) from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{named(path)} has more than 64 MiB; that is no list of decisions")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{named(path)} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}") from None


def named(path: Path) -> str:
    """Return what errors call the file."""
    return f"decisions file {str(path)!r}"


def quoted(text: str) -> str:
    """Return text of the file as it is quoted in an error: no line breaks, no end of it."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
