"""What many records of a ledger have in common, kept once beside them: settings, scenes, classifiers."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cube.ledger import Ledger
from cube.place import Place, names_below, remove_files, replace_content

Kind = Literal["settings", "scenes", "classifier"]
"""`settings` of a step, `scenes` with what changes when their pixels do, a `classifier` in brief."""

_NAME = re.compile(r"(settings|scenes|classifier)-([0-9a-f]{16})\.json", re.ASCII)


def keep_note(store: Place, kind: Kind, mark: str, content: Mapping[str, Any]) -> None:
    """Keep a note in a store's ledger, which is prepared; one that is there stays as it is.

    `mark` is the fingerprint by which records name it.
    """
    file = _file(store, kind, mark)
    if not file.exists():
        replace_content(file, json.dumps(content, sort_keys=True))


def read_note(store: Place, kind: Kind, mark: Any) -> dict[str, Any]:
    """Return a note of a store's ledger; empty if it is not there, or is none."""
    if not isinstance(mark, str) or not _NAME.fullmatch(f"{kind}-{mark}.json"):
        return {}
    try:
        content = json.loads(_file(store, kind, mark).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing that decides a pixel is in it
    return content if isinstance(content, dict) else {}


def drop_notes(store: Place, used: Iterable[tuple[Kind, str]]) -> None:
    """Remove the notes of a store's ledger that are not `used`, by kind and mark."""
    kept = {f"{kind}-{mark}.json" for kind, mark in used}
    folder = Ledger(store=store, inputs=None).folder
    names = [name for name in names_below(folder, "*-*.json") if _NAME.fullmatch(name)]
    remove_files([folder / name for name in names if name not in kept])


def _file(store: Place, kind: Kind, mark: str) -> Place:
    return Ledger(store=store, inputs=None).folder / f"{kind}-{mark}.json"
