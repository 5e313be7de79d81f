"""Whether a stored cube or map is what it says: its layout, its objects, its tiles, one by one."""

from cube.soundness.layout import LayoutFault, foreign_attributes, layout_faults, mend_layout
from cube.soundness.objects import StoredObjects, Stray, any_above
from cube.soundness.pixels import TileState, is_damage, record_state, tile_state
from cube.soundness.store import CheckedStore, checked_cube, checked_map

__all__ = [
    "CheckedStore",
    "LayoutFault",
    "StoredObjects",
    "Stray",
    "TileState",
    "any_above",
    "checked_cube",
    "checked_map",
    "foreign_attributes",
    "is_damage",
    "layout_faults",
    "mend_layout",
    "record_state",
    "tile_state",
]
