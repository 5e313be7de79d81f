"""One locked scene and a window in, counts out: each asset brought from its own grid."""

from collections.abc import Callable, Sequence

import numpy as np
from affine import Affine
from jaxtyping import UInt16
from odc.geo.geobox import GeoBox

from cube.stac.scene import Asset, Scene
from cube.warp import place

NativeReader = Callable[[Scene, Sequence[str], GeoBox], UInt16[np.ndarray, "band y x"]]
"""Reads assets of one scene at a window of their own grid, which they share: pixels are copied."""


def read_on_grid(
    read_native: NativeReader,
    scene: Scene,
    names: Sequence[str],
    window: GeoBox,
    *,
    is_smooth: bool,
) -> UInt16[np.ndarray, "band y x"]:
    """Read assets of one locked scene on the grid of `window`; 0 where there is nothing.

    `Placement.bring` says how pixels come from one grid onto the other.
    """
    out = np.zeros((len(names), *window.shape), np.uint16)
    for grid, members in _by_grid(scene, names).items():
        placement = place(grid, window)
        if placement is None:
            continue
        counts = read_native(scene, members, grid[placement.rows, placement.columns])
        out[[names.index(name) for name in members]] = placement.bring(
            counts, nodata=0, is_smooth=is_smooth
        )
    return out


def native_grid(asset: Asset, epsg: int) -> GeoBox:
    """Return the grid of a locked scene's file."""
    assert asset.transform is not None
    assert asset.shape is not None
    return GeoBox(asset.shape, Affine(*asset.transform), f"EPSG:{epsg}")


def _by_grid(scene: Scene, names: Sequence[str]) -> dict[GeoBox, list[str]]:
    found: dict[GeoBox, list[str]] = {}
    for name in names:
        found.setdefault(native_grid(scene.assets[name], scene.epsg), []).append(name)
    return found
