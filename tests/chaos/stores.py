"""Two stores in, every file that differs out: of all of them, or of the tiles recorded so far."""

import json
import re
from pathlib import Path

_TIMES = ("seconds", "made_at", "first_used", "record_digest")
"""Keys of a ledger's records and notes that are times, or follow from them."""

_LEFT_OVER = re.compile(r"\.(partial|draft)$")
"""Names of files that a killed writer may leave behind; no reader looks at them."""


def tiles_recorded(store: Path) -> set[str]:
    """Return the ids of the tiles that a store's ledger says are done."""
    try:
        names = [path.name for path in (store / "ledger").iterdir()]
    except FileNotFoundError:
        return set()
    return {name.removesuffix(".json") for name in names if re.fullmatch(r"r\d+c\d+\.json", name)}


def differences(expected: Path, found: Path) -> list[str]:
    """Return what differs between two stores: files missing, too many, or with other bytes.

    Of what lies in the ledger only times may differ; what killed writers left over is not compared.
    """
    theirs, ours = _files(expected), _files(found)
    told = [f"{name} is missing" for name in sorted(theirs - ours)]
    told += [f"{name} is too many" for name in sorted(ours - theirs)]
    both = sorted(theirs & ours)
    return told + [
        f"{name} differs" for name in both if _content(expected, name) != _content(found, name)
    ]


def damage(expected: Path, found: Path) -> list[str]:
    """Return the files of recorded tiles that are not as they should be, while others are worked on.

    What is recorded is done: at no moment may a reader find less.
    """
    told = []
    for tile in sorted(tiles_recorded(found)):
        for name in _files_of(expected, tile):
            path = found / name
            if not path.exists():
                told.append(f"{tile} is recorded and {name} is missing")
            elif path.read_bytes() != (expected / name).read_bytes():
                told.append(f"{tile} is recorded and {name} differs")
    return told


def left_over(store: Path) -> list[str]:
    """Return what killed writers have left behind."""
    return sorted(
        str(file.relative_to(store))
        for file in store.rglob("*")
        if file.is_file() and _LEFT_OVER.search(file.name)
    )


def chunk_files(store: Path, tile: str) -> list[str]:
    """Return the files, relative to a store, that hold the pixels of a tile."""
    return _files_of(store, tile)


def _files(store: Path) -> set[str]:
    return {
        file.relative_to(store).as_posix()
        for file in store.rglob("*")
        if file.is_file() and not _LEFT_OVER.search(file.name)
    }


def _files_of(store: Path, tile: str) -> list[str]:
    row, column = (int(number) for number in re.findall(r"\d+", tile))
    return [
        name for name in sorted(_files(store)) if re.search(rf"/c/(\d+/)*{row}/{column}$", name)
    ]


def _content(store: Path, name: str) -> object:
    content = (store / name).read_bytes()
    if not re.fullmatch(r"ledger/[^/]+\.json", name):
        return content
    record = json.loads(content)
    return {key: value for key, value in record.items() if key not in _TIMES}
