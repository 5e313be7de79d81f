"""Samples and a file of decisions about their labels in, samples with mended labels out.

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
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool, Shaped

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
            raise InputError(f"group {_short(self.group)} is to be fixed, but label is blank")
        if self.action != "fix" and self.label:
            raise InputError(
                f"group {_short(self.group)} has label {_short(self.label)}, which goes with fix, "
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
            raise InputError(f"{_name(path)}, line {line}: {error}") from None
        before, first = decided.setdefault(decision.target, (decision, line))
        if (before.action, before.label) != (decision.action, decision.label):
            raise InputError(
                f"{_name(path)}: lines {first} and {line} contradict each other about group "
                f"{_short(decision.group)}; keep one of them"
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


def apply_decisions(samples: xr.Dataset, path: str | Path) -> xr.Dataset:
    """Return samples with labels fixed and groups or samples left out as a file decides.

    `samples` are those of `draw_samples` or an import. `attrs["canopycube"]["dropped"]` counts
    what was left out, `attrs["canopycube"]["decisions"]` samples by action, rows that were decided
    over other samples (`of_other_samples`: their groups may have other pixels now), and the SHA-256
    of the file. Names are compared in Unicode form NFC, without spaces round them. A fix that the samples have already is done. Raises `InputError` for a file that cannot
    be read, a group or sample that is not there, a given class that is another by now, a class
    that no sample has, and if nothing is left.
    """
    path = Path(path)
    decisions = read_decisions(path)
    group, label = (samples[name].values.astype(str) for name in ("group", "label"))
    names = sample_names(samples) if any(one.sample for one in decisions) else group
    classes = {_plain(name): name for name in sorted(set(label.tolist()))}
    fingerprint = samples_fingerprint(samples)
    places = _places(_plain_all(group))
    plain = _plain_all(label)
    fixed, action = label.copy(), np.full(label.size, "", dtype="U6")
    # rows of whole groups first, so that rows of samples have the last word
    for one in sorted(decisions, key=lambda one: one.sample != ""):
        if one.action == "fix" and one.label not in classes:
            raise InputError(
                f"{_name(path)} gives group {_short(one.group)} the class {_short(one.label)}, "
                f"which no sample has; classes are {', '.join(classes.values())}"
            )
        at = _found(one, places, label=plain, names=names, fingerprint=fingerprint, path=path)
        action[at] = one.action
        fixed[at] = classes[one.label] if one.action == "fix" else label[at]
    strangers = sum(one.fingerprint not in ("", fingerprint) for one in decisions)
    return _mended(samples, fixed, action, path, strangers)


def sample_names(samples: xr.Dataset) -> Shaped[np.ndarray, " sample"]:
    """Return a name for each sample: `row/column` of the cube's grid, else `#n`, counted from 0.

    The name is unique within a group; `#n` holds only for samples of the same fingerprint.
    """
    if "row" in samples and "column" in samples:
        row, column = (samples[name].values.tolist() for name in ("row", "column"))
        return np.array([f"{y}/{x}" for y, x in zip(row, column, strict=True)], dtype=str)
    return np.array([f"#{n}" for n in range(samples.sizes["sample"])], dtype=str)


def samples_fingerprint(samples: xr.Dataset) -> str:
    """Return 16 hexadecimal digits over which samples there are, whatever their labels are."""
    digest = hashlib.sha256()
    for values in (samples["group"].values.astype(str), sample_names(samples)):
        digest.update("\x1f".join(values.tolist()).encode() + b"\x1e")
    return digest.hexdigest()[:16]


def _plain(text: str) -> str:
    """Return text as names are compared: composed, without spaces round it."""
    return unicodedata.normalize("NFC", text.strip(" "))


def _plain_all(names: Shaped[np.ndarray, " sample"]) -> Shaped[np.ndarray, " sample"]:
    known, number = np.unique(names, return_inverse=True)
    return np.array([_plain(name) for name in known.tolist()], dtype=str)[number]


def _action(text: str) -> Action:
    for action in ACTIONS:
        if text.lower() == action:
            return action
    raise InputError(f"decision {_short(text)} does not exist; expected accept, fix or drop")


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Yield line numbers and the cells of the known columns, trimmed and in Unicode form NFC."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in _NEEDED if name not in header]:
            raise InputError(
                f"{_name(path)} has no column {', '.join(missing)}; its header is "
                f"{_short(', '.join(header))}; expected {', '.join(COLUMNS)}"
            )
        if twice := [name for name in COLUMNS if header.count(name) > 1]:
            raise InputError(f"{_name(path)} has column {twice[0]!r} twice; rename one")
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{_name(path)}, line {reader.line_num}: {len(row)} cells where the header has "
                    f"{len(header)}; mend or quote that line"
                )
            cells = dict(zip(header, row, strict=True))
            yield (
                reader.line_num,
                {
                    name: _plain(unguarded(cells[name].strip(" ")))
                    for name in COLUMNS
                    if name in cells
                },
            )
    except csv.Error as error:
        raise InputError(
            f"{_name(path)}, line {reader.line_num} is no CSV: {error}; write it again"
        ) from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{_name(path)} has more than 64 MiB; that is no list of decisions")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{_name(path)} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{_name(path)} cannot be read: {error.strerror}") from None


def _places(group: Shaped[np.ndarray, " sample"]) -> Mapping[str, np.ndarray]:
    """Return the samples of each group."""
    order = np.argsort(group, kind="stable")
    names, start = np.unique(group[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, start[1:]), strict=True))


def _found(
    one: Decision,
    places: Mapping[str, np.ndarray],
    *,
    label: Shaped[np.ndarray, " sample"],
    names: Shaped[np.ndarray, " sample"],
    fingerprint: str,
    path: Path,
) -> np.ndarray:
    """Return the samples that a decision is about."""
    at = places.get(one.group)
    if at is None:
        raise InputError(
            f"{_name(path)} decides about group {_short(one.group)}, which the samples do not "
            "have; take that row out, or take the samples it was written for"
        )
    if one.sample:
        if one.sample.startswith("#") and one.fingerprint != fingerprint:
            raise InputError(
                f"{_name(path)} decides about sample {_short(one.sample)} of other samples "
                f"({one.fingerprint or 'no fingerprint'}, these are {fingerprint}); decide again"
            )
        at = at[names[at] == one.sample]
        if not at.size:
            raise InputError(
                f"{_name(path)} decides about sample {_short(one.sample)} of group "
                f"{_short(one.group)}, which the samples do not have; take that row out"
            )
    is_meant = label[at] == one.given
    # a label file that was mended meanwhile needs the fix no more
    is_mended = (label[at] == one.label) & (one.action == "fix")
    if not (is_meant | is_mended).any():
        found = ", ".join(map(_short, sorted(set(label[at].tolist()))))
        raise InputError(
            f"{_name(path)} decides about group {_short(one.group)} given as {_short(one.given)}, "
            f"but it is {found} in the samples; look at it again or take that row out"
        )
    meant: np.ndarray = at[is_meant]
    return meant


def _mended(
    samples: xr.Dataset,
    fixed: Shaped[np.ndarray, " sample"],
    action: Shaped[np.ndarray, " sample"],
    path: Path,
    strangers: int,
) -> xr.Dataset:
    is_kept: Bool[np.ndarray, " sample"] = action != "drop"
    if fixed.size and not is_kept.any():
        raise InputError(f"{_name(path)} drops all {fixed.size:,} samples; nothing is left")
    ours: dict[str, Any] = dict(samples.attrs.get("canopycube", {}))
    dropped = Counter(ours.get("dropped", {}))
    if out := int((~is_kept).sum()):
        dropped["samples that decisions drop"] += out
    counts: dict[str, Any] = {name: int((action == name).sum()) for name in ACTIONS}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    mended = samples.assign(label=("sample", fixed, samples["label"].attrs))
    if "share" in samples:  # a fix says what the whole sample is
        shares = samples["share"].transpose("sample", "class")
        pure = (fixed[:, None] == samples["class"].values.astype(str)).astype(shares.dtype)
        is_fixed = (action == "fix")[:, None]
        values = np.where(is_fixed, pure, shares.values)
        mended = mended.assign(share=(("sample", "class"), values, samples["share"].attrs))
    counts |= {"file": digest, "of_other_samples": strangers}
    ours |= {"dropped": dict(dropped), "decisions": counts}
    return mended.isel(sample=np.flatnonzero(is_kept)).assign_attrs(canopycube=ours)


def _name(path: Path) -> str:
    return f"decisions file {str(path)!r}"


def _short(text: str) -> str:
    """Return text of the file as it is quoted in an error: no line breaks, no end of it."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
