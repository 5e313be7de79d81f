"""Places in, the square of a grid that each lies in out: what keeps neighbours on one side."""

import numpy as np
from jaxtyping import Shaped


def spatial_blocks(
    x: Shaped[np.ndarray, " sample"], y: Shaped[np.ndarray, " sample"], size: int | float
) -> Shaped[np.ndarray, " sample"]:
    """Return the block of each place as text, e.g. `e0501n5629` for 1000 m blocks.

    Blocks are counted from the origin of the CRS, not from the corner of the cube, so that two
    cubes that overlap agree on them.
    """
    east, north = (np.floor(part / size).astype(np.int64).tolist() for part in (x, y))
    return np.array([f"e{e:04d}n{n:04d}" for e, n in zip(east, north, strict=True)], dtype=str)
