"""A store that no longer fits in, the same set aside out: tiles of it that still hold are carried over.

An earlier store lies beside the new one under a hidden name until the new one is whole, so that a run
which is stopped in between finds it again.
"""

import glob

from cube.place import Place, folder_names, move_store, remove_store


def set_aside(store: Place) -> Place:
    """Rename a store to a hidden name beside it, `.NAME.earlier-1` or the next free number; return it.

    Whoever is stopped right after finds no store at the place, and what was there under that name.
    """
    numbers = [_number(earlier) for earlier in earlier_stores(store)]
    aside = store.with_name(f".{store.name}.earlier-{max(numbers, default=0) + 1}")
    move_store(store, aside)
    return aside


def earlier_stores(store: Place) -> list[Place]:
    """Return what was set aside of a store, the newest first."""
    names = folder_names(store.parent, f".{glob.escape(store.name)}.earlier-*")
    found = [store.parent / name for name in names]
    return sorted((place for place in found if _number(place)), key=_number, reverse=True)


def put_back(store: Place) -> None:
    """Undo the latest `set_aside`, where nothing has come into the place."""
    if (earlier := earlier_stores(store)) and not store.exists():
        move_store(earlier[0], store)


def drop_earlier(store: Place) -> None:
    """Remove all that was set aside of a store: it is whole, or nothing of them fits."""
    for earlier in earlier_stores(store):
        remove_store(earlier)


def _number(earlier: Place) -> int:
    """Return which of the earlier stores it is; 0 for what only looks like one."""
    number = earlier.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
