"""A spec in, reference points out: where a forester stood, on which pixel, in which stand."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from pyproj import Transformer

from cube.errors import InputError
from cube.forest.spec import FOREST_CLASSES, NATIVE_EPSG, ForestSpec
from cube.forest.stands import ground

_CELL = 4
"""Points stand in cells of 4 x 4 pixels, one at most in each: no two 2 x 2 patches touch."""


@dataclass(frozen=True, kw_only=True)
class ForestPoints:
    """Reference points, ordered by class, then at random."""

    longitude: Float64[np.ndarray, "point"]
    """Degrees (EPSG:4326), rounded to 1e-7 (1 cm)."""
    latitude: Float64[np.ndarray, "point"]
    row: Int[np.ndarray, "point"]
    """Native row of the pixel the point lies in."""
    column: Int[np.ndarray, "point"]
    """Native column of the pixel the point lies in."""
    class_number: Int[np.ndarray, "point"]
    """1..7, the class of the stand."""
    stand: Int[np.ndarray, "point"]
    """Stand number as in `truth/stands.tif`, from 1."""


def forest_points(spec: ForestSpec) -> ForestPoints:
    """Draw the points of every class at random over its area.

    A point lies 1 to 4 m off its pixel's centre along both axes, so that the 2 x 2 patch round it
    is a matter of fact; that patch and the pixel lie in one stand. Raises `InputError` if a class
    has too little area for its points.
    """
    here = ground(spec)
    stand = here.stand.astype(np.int64)
    generator = spec.generator("points")
    cells = spec.edge // _CELL
    row, column = np.divmod(np.arange(cells * cells), cells)
    row = row * _CELL + 1 + generator.integers(0, 2, row.size)
    column = column * _CELL + 1 + generator.integers(0, 2, column.size)
    side_y, side_x = (generator.choice([-1, 1], row.size) for _ in range(2))
    step_y, step_x = (generator.uniform(0.1, 0.4, row.size) for _ in range(2))
    at = stand[row, column]
    is_inside = (
        (stand[row + side_y, column] == at)
        & (stand[row, column + side_x] == at)
        & (stand[row + side_y, column + side_x] == at)
    )
    chosen = []
    for forest_class in FOREST_CLASSES:
        held = np.flatnonzero(is_inside & (here.class_number[at] == forest_class.number))
        wanted = spec.points_of(forest_class)
        if held.size < wanted:
            raise InputError(
                f"forest seed {spec.seed!r} at scale {spec.scale!r} has room for {held.size} of "
                f"{wanted} points of {forest_class.name}; give another seed"
            )
        chosen.append(generator.permutation(held)[:wanted])
    pick = np.concatenate(chosen)
    left, top = spec.corner
    east = left + (column[pick] + 0.5 + side_x[pick] * step_x[pick]) * 10
    north = top - (row[pick] + 0.5 + side_y[pick] * step_y[pick]) * 10
    to_degrees = Transformer.from_crs(NATIVE_EPSG, 4326, always_xy=True)
    longitude, latitude = to_degrees.transform(east, north)
    return ForestPoints(
        longitude=np.round(longitude, 7),
        latitude=np.round(latitude, 7),
        row=row[pick],
        column=column[pick],
        class_number=here.class_number[at[pick]],
        stand=at[pick] + 1,
    )
