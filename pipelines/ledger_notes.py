"""What many records of a ledger have in common, kept once beside them: settings, scenes, classifiers."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from cube.ledger import Ledger, fingerprint, sealed, unsealed
from cube.place import Place, names_below, remove_files, replace_content

Kind = Literal["settings", "scenes", "classifier"]
"""`settings` of a step, `scenes` with what changes when their pixels do, a `classifier` in brief."""

_NAME = re.compile(r"(settings|scenes|classifier)-([0-9a-f]{16})\.json", re.ASCII)


def keep_note(store: Place, kind: Kind, mark: str, content: Mapping[str, Any]) -> None:
    """Keep a note in a store's ledger, which is prepared; one that is there and whole stays so.

    `mark` is the fingerprint by which records name it.
    """
    file = _file(store, kind, mark)
    if not (file.exists() and _is_whole(file)):
        replace_content(file, sealed(content))


def read_note(store: Place, kind: Kind, mark: Any) -> dict[str, Any]:
    """Return a note of a store's ledger; empty if it is not there, or not as it was written."""
    if not isinstance(mark, str) or not _NAME.fullmatch(f"{kind}-{mark}.json"):
        return {}
    try:
        return unsealed(_file(store, kind, mark).read_bytes())
    except (OSError, ValueError):
        return {}  # nothing that decides a pixel is in it


def damaged_notes(store: Place, *, links: Collection[str] = ()) -> list[str]:
    """Return the names, in a store's ledger, of the notes that are not as they were written.

    Those that are `links`, by their names in the store, are not read.
    """
    folder = Ledger(store=store, inputs=None).folder
    names = [name for name in names_below(folder, "*-*.json") if _NAME.fullmatch(name)]
    read = [name for name in names if f"ledger/{name}" not in links]
    return [name for name in read if not _is_whole(folder / name)]


def _is_whole(file: Place) -> bool:
    try:
        content = unsealed(file.read_bytes())
    except ValueError:
        return False
    kind, _, mark = file.stem.partition("-")
    return kind != "scenes" or mark == fingerprint(content)


def drop_notes(store: Place, used: Iterable[tuple[Kind, str]]) -> None:
    """Remove the notes of a store's ledger that are not `used`, by kind and mark."""
    kept = {f"{kind}-{mark}.json" for kind, mark in used}
    folder = Ledger(store=store, inputs=None).folder
    names = [name for name in names_below(folder, "*-*.json") if _NAME.fullmatch(name)]
    remove_files([folder / name for name in names if name not in kept])


def _file(store: Place, kind: Kind, mark: str) -> Place:
    return Ledger(store=store, inputs=None).folder / f"{kind}-{mark}.json"
