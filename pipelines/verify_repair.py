"""A certificate in, a store out that claims no more than it holds: damaged tiles are forgotten."""

from pathlib import Path

import zarr

from cube.ledger import Ledger
from cube.place import Place, remove_files, zarr_place
from cube.soundness import CheckedStore, LayoutFault, any_above, mend_layout
from cube.storedfiles import is_leftover, stored_files
from cube.zarrstore import stored_array
from pipelines.verify_store import Certificate


def repair_store(made: Certificate) -> list[str]:
    """Forget what is damaged; return the ids of the tiles that are to be made anew.

    Their records go first, then their objects, so that a stop half-way leaves nothing that counts
    and is not there. Links, objects outside the grid, records of no tile, notes that were edited and what killed writers left
    over are removed, foreign files stay. Metadata and coordinates are written anew from the store's
    own description. Raises `OSError`.
    """
    store = made.store
    links = [fault.place for fault in made.faults if fault.kind == "link"]
    strays = [fault.place for fault in made.faults if fault.kind in ("outside", "record", "note")]
    remove_files([within(store.place, name) for name in (*links, *strays)])
    mend_layout(  # after the links are gone: what they lead to is not to be written
        store,
        [LayoutFault(name=one.place, what=one.what) for one in made.faults if one.kind == "layout"],
    )
    remove_files([within(store.place, name) for name in made.leftovers if is_leftover(name)])
    forgotten = []
    for fault in made.faults:
        if fault.kind == "damaged":
            tile = fault.place.removeprefix("tile ")
            _forget(store, tile, links)
            forgotten.append(tile)
    return forgotten


def _forget(store: CheckedStore, tile: str, links: list[str]) -> None:
    region = store.spec.region(tile)
    ledger = Ledger(store=store.place, inputs=None)
    if ledger.folder.exists():
        ledger.forget(region)
    group = zarr.open_group(zarr_place(store.place), mode="r")
    prefix = len(str(store.place)) + 1
    files = [
        file for name in store.layers for file in stored_files(stored_array(group, name), region)
    ]
    # what lies behind a link is not the store's to remove
    remove_files([file for file in files if not any_above(str(file)[prefix:], links)])


def within(place: Place, name: str) -> Place:
    """Return an object of a store by its name; one that leads out of the store is refused."""
    found = place
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise ValueError(f"{name!r} is no name of an object in a store")
        found = found / part
    assert not isinstance(found, Path) or found.is_relative_to(str(place))
    return found
