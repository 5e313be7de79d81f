"""A spec in, the ground out: hills, stands with their classes and traits, and what varies inside.

Everything here is the same on every date; `cube.forest.scene` lights it and looks at it.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int, UInt16
from scipy.spatial import cKDTree

from cube.forest.canopy import CANOPIES, TRAITS
from cube.forest.noise import SmoothNoise
from cube.forest.spec import FOREST_CLASSES, ForestSpec

_STANDS = 320
"""Stands at scale 1 (2,304 ha): about 7 ha each."""

_ELEVATION = (1550.0, 260.0)
"""Mean and standard deviation in metres."""
_HILLS = ((2600.0, 1.0), (1100.0, 0.55), (500.0, 0.30), (240.0, 0.13), (120.0, 0.05))

_HEIGHT_OF_CLASS = {"ever_broad": -1.0, "deci_broad": -0.4, "larch_CN": 0.8, "shrubland": 0.6}
"""Where classes would rather grow, in standard deviations of elevation (others: anywhere)."""
_LOOSENESS = 1.3
"""How little the stands obey that, in the same unit."""

_STAND_SPREAD = {
    "leaf_area": 0.125,
    "chlorophyll": 0.08,
    "water": 0.075,
    "dry_matter": 0.075,
    "brown": 0.025,
    "soil": 0.12,
}
"""Standard deviation of each trait between stands (see `cube.forest.canopy.TRAITS`)."""
_CALENDAR_SPREAD = 2.3
"""Standard deviation between stands of the days by which a stand is late."""
_BRIGHTNESS_SPREAD = 0.055
"""Standard deviation between stands of the log of brightness: crown shape, age, density."""
_IMPURITY = (1.3, 20.0)
"""Beta distribution of the share of a stand that another canopy holds (mean 0.06)."""
_MIXTURE = (18.0, 18.0)
"""Beta distribution of the share of conifers in a mixed stand."""

_PIXEL_SPREAD = {"leaf_area": 0.22, "chlorophyll": 0.15, "day": 3.0, "share": 0.17}
"""Standard deviation inside a stand."""
_PIXEL_OCTAVES = ((160.0, 0.3), (45.0, 0.7), (16.0, 1.2))

_DAYS_PER_METRE = 0.020
"""Delay of spring with elevation. Hopkins (1920) has 4 days on 400 feet, 0.033; from space one
finds 0.015-0.03 in these mountains. Autumn comes earlier by as much."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What lies under every scene, on the native 10 m grid."""

    elevation: Float32[np.ndarray, "y x"]
    """Metres above sea."""
    stand: UInt16[np.ndarray, "y x"]
    """Stand number less 1: the row of the stand tables."""
    edge_pixel: Int[np.ndarray, "edge"]
    """Flat index of every pixel that two stands share."""
    edge_stand: UInt16[np.ndarray, "edge"]
    """The other stand of each of them."""
    edge_share: Float32[np.ndarray, "edge"]
    """The other stand's share of the pixel, 0..0.5."""
    leaf_area: Float32[np.ndarray, "y x"]
    """Deviation inside the stand, log of the ratio."""
    chlorophyll: Float32[np.ndarray, "y x"]
    """Deviation inside the stand, log of the ratio."""
    day: Float32[np.ndarray, "y x"]
    """Days by which spring is later (autumn earlier) than in the stand's mean."""
    share: Float32[np.ndarray, "y x"]
    """What the second canopy holds above its share in the stand, 0..1 as a difference."""
    class_number: Int[np.ndarray, "stand"]
    """Class of each stand, 1..7."""
    canopies: Int[np.ndarray, "stand 2"]
    """Main and second canopy of each stand, as index into `CANOPIES`."""
    second_share: Float64[np.ndarray, "stand"]
    """Share of the second canopy, 0..1."""
    traits: Float64[np.ndarray, "stand trait"]
    """Deviation of each stand from its canopies' mean traits."""
    brightness: Float64[np.ndarray, "stand"]
    """Factor on reflectance."""
    delay: Float64[np.ndarray, "stand"]
    """Days by which spring is late (autumn early) in the stand's mean."""


def pixel_axis(edge: int) -> Float64[np.ndarray, "n"]:
    """Return pixel centres along one side in metres from the upper left corner."""
    return np.arange(edge, dtype=np.float64) * 10 + 5


@functools.lru_cache(maxsize=2)
def ground(spec: ForestSpec) -> Ground:
    """Lay out hills, stands and traits; the same spec gives the same arrays."""
    axis, side = pixel_axis(spec.edge), spec.edge * 10.0
    extent = (side, side)
    hills = SmoothNoise(spec.generator("elevation"), extent=extent, octaves=_HILLS)
    mean, spread = _ELEVATION
    relief = hills.on_grid(axis, axis)
    relief = (relief - relief.mean()) / relief.std()
    elevation = np.float32(mean) + np.float32(spread) * relief

    stand, other, share = _cells(spec, axis)
    numbers, dense = np.unique(stand, return_inverse=True)
    rank = np.zeros(int(stand.max()) + 1, np.intp)
    rank[numbers] = np.arange(numbers.size)
    stand = dense.reshape(stand.shape).astype(np.uint16)
    # A cell whose own pixels were all lost to its neighbours is no stand and shares no edge.
    is_edge = (share > 0.02) & np.isin(other, numbers)
    edge_pixel = np.flatnonzero(is_edge)

    area = np.bincount(stand.ravel(), minlength=numbers.size)
    height = np.bincount(stand.ravel(), weights=elevation.ravel()) / area
    class_number = _classes(spec, area=area, height=(height - mean) / spread)
    canopies, second_share = _mixture(spec, class_number)
    generator = spec.generator("stand traits")
    traits = np.stack(
        [_STAND_SPREAD[t] * _bounded_normal(generator, numbers.size) for t in TRAITS], axis=1
    )
    brightness = np.exp(_BRIGHTNESS_SPREAD * _bounded_normal(generator, numbers.size))
    delay = _DAYS_PER_METRE * (height - mean)
    delay += _CALENDAR_SPREAD * _bounded_normal(generator, numbers.size)

    inside = {
        name: np.float32(size)
        * SmoothNoise(
            spec.generator(f"inside {name}"), extent=extent, octaves=_PIXEL_OCTAVES
        ).on_grid(axis, axis)
        for name, size in _PIXEL_SPREAD.items()
    }
    rise = elevation - height.astype(np.float32)[stand]
    second = second_share.astype(np.float32)[stand]
    return Ground(
        elevation=elevation,
        stand=stand,
        edge_pixel=edge_pixel,
        edge_stand=rank[other.ravel()[edge_pixel]].astype(np.uint16),
        edge_share=share.ravel()[edge_pixel].astype(np.float32),
        leaf_area=inside["leaf_area"],
        chlorophyll=inside["chlorophyll"],
        day=inside["day"] + np.float32(_DAYS_PER_METRE) * rise,
        share=np.clip(second + inside["share"], np.float32(0), np.float32(1)) - second,
        class_number=class_number,
        canopies=canopies,
        second_share=second_share,
        traits=traits,
        brightness=brightness,
        delay=delay,
    )


def _bounded_normal(generator: np.random.Generator, size: int) -> Float64[np.ndarray, "n"]:
    """Normal values, none beyond 2.2: PROSAIL's response was taken within its steps."""
    return np.clip(generator.standard_normal(size), -2.2, 2.2)


def _cells(
    spec: ForestSpec, axis: Float64[np.ndarray, "n"]
) -> tuple[Int[np.ndarray, "y x"], Int[np.ndarray, "y x"], Float64[np.ndarray, "y x"]]:
    """Return the cell of each pixel, its neighbour, and the neighbour's share of the pixel.

    A power diagram (Voronoi cells with weights, so of many sizes) whose plane is bent by smooth
    noise. A power diagram is the plain one of points lifted by sqrt(largest weight - weight).
    """
    generator = spec.generator("stands")
    side = spec.edge * 10.0
    count = max(42, round(_STANDS * spec.scale**2))
    spacing = side / np.sqrt(count)
    place = generator.uniform(-0.03 * side, 1.03 * side, (count, 2))
    weight = generator.uniform(0, (1.1 * spacing) ** 2, count)
    lifted = np.column_stack([place, np.sqrt(weight.max() - weight)])
    tree = cKDTree(lifted)
    bends = [
        SmoothNoise(generator, extent=(side, side), octaves=((220.0, 1.0), (70.0, 0.45)))
        for _ in range(2)
    ]
    shape = (axis.size, axis.size)
    first = np.empty(shape, np.int64)
    second, share = np.empty(shape, np.int64), np.empty(shape, np.float64)
    for top in range(0, axis.size, 256):  # strips keep the tree's answers small
        rows = axis[top : top + 256]
        y = rows[:, None] + 28.0 * bends[0].on_grid(rows, axis).astype(np.float64)
        x = axis[None, :] + 28.0 * bends[1].on_grid(rows, axis).astype(np.float64)
        points = np.stack([y, x, np.zeros_like(y)], axis=-1)  # (y, x, 3)
        distance, cell = tree.query(points, k=2)
        gap = np.linalg.norm(place[cell[..., 0]] - place[cell[..., 1]], axis=-1)
        to_edge = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * np.maximum(gap, 1.0))
        first[top : top + 256], second[top : top + 256] = cell[..., 0], cell[..., 1]
        share[top : top + 256] = 0.5 * np.exp(-to_edge / 7.0)
    return first, second, share


def _classes(
    spec: ForestSpec, *, area: Int[np.ndarray, "stand"], height: Float64[np.ndarray, "stand"]
) -> Int[np.ndarray, "stand"]:
    """Draw classes until each holds four fifths of its share of the area, or take the best draw."""
    share = np.array([c.area_share for c in FOREST_CLASSES])
    count = np.maximum(np.round(share * area.size).astype(int), 3 if area.size < 200 else 8)
    count[0] += area.size - count.sum()
    pool = np.repeat(np.arange(1, len(FOREST_CLASSES) + 1), count)
    wish = np.array([_HEIGHT_OF_CLASS.get(c.name, 0.0) for c in FOREST_CLASSES])[pool - 1]
    order = np.argsort(height, kind="stable")
    generator = spec.generator("classes")
    best, least_share = np.empty(0, np.int64), 0.0
    for _ in range(500):
        luck = wish + _LOOSENESS * generator.standard_normal(pool.size)
        drawn = np.empty(area.size, np.int64)
        drawn[order] = pool[np.argsort(luck, kind="stable")]
        held = np.bincount(drawn, weights=area, minlength=len(FOREST_CLASSES) + 1)[1:]
        got = float(np.min(held / (share * area.sum())))
        if got > least_share:
            best, least_share = drawn, got
        if got >= 0.8:
            break
    return best


def _mixture(
    spec: ForestSpec, class_number: Int[np.ndarray, "stand"]
) -> tuple[Int[np.ndarray, "stand 2"], Float64[np.ndarray, "stand"]]:
    """Return main and second canopy of each stand and the second one's share."""
    index = {canopy.name: i for i, canopy in enumerate(CANOPIES)}
    generator = spec.generator("mixture")
    canopies = np.empty((class_number.size, 2), np.int64)
    share = np.empty(class_number.size)
    for row, number in enumerate(class_number):
        name = FOREST_CLASSES[number - 1].name
        if name == "mix_coni_broad":
            canopies[row] = index["deci_broad"], index["ever_coni"]
            share[row] = generator.beta(*_MIXTURE)
            continue
        others = [i for canopy, i in index.items() if canopy != name]
        canopies[row] = index[name], generator.choice(others)
        share[row] = generator.beta(*_IMPURITY)
    return canopies, share
