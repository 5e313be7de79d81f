"""A number of classes in, as many distinct colours out, chosen with colour-blind readers in mind."""

import numpy as np
from jaxtyping import Float64

from cube.errors import InputError
from cube.sidecar import rgb

# Paul Tol's qualitative scheme "muted" (https://sronpersonalpages.nl/~pault/, 2021), greens first
_FIRST = (
    "#117733",
    "#ddcc77",
    "#332288",
    "#cc6677",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
)

# Linear RGB as seen with protanopia and deuteranopia (Machado, Oliveira and Fernandes 2009,
# https://doi.org/10.1109/TVCG.2009.113, severity 1.0)
_SEEN = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
)

_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
"""Linear sRGB to CIE XYZ, white point D65 (IEC 61966-2-1)."""

_WHITE = _TO_XYZ.sum(axis=1)
_MOST = 254


def default_colours(count: int) -> tuple[str, ...]:
    """Return `count` (0..254) different colours as `#rrggbb`; always the same ones, in one order.

    The first nine are a published colour-blind-safe set. Each further one lies as far as possible
    (CIE 1976 colour difference) from all before it and from the white and grey of the page, in
    the worst of normal, protanope and deuteranope vision. Past some twenty no set of colours can
    be told apart in a map at a glance; they are then only different.

    Raises `InputError` for more than 254.
    """
    if not 0 <= count <= _MOST:
        raise InputError(f"{count} classes asked for; a map holds 1..{_MOST}")
    if count <= len(_FIRST):
        return _FIRST[:count]
    levels = np.arange(20, 256, 17)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    taken = np.array([rgb(colour) for colour in (*_FIRST, "#ffffff", "#d9d9d9", "#000000")])
    places = _appearance(candidates)
    distance = np.min([_difference(places, place) for place in _appearance(taken)], axis=0)
    colours = list(_FIRST)
    while len(colours) < count:
        best = int(np.argmax(distance))
        red, green, blue = candidates[best].tolist()
        colours.append(f"#{red:02x}{green:02x}{blue:02x}")
        distance = np.minimum(distance, _difference(places, places[best]))
    return tuple(colours)


def _appearance(colours: np.ndarray) -> Float64[np.ndarray, "colour vision lab"]:
    """Return CIE L*a*b* of sRGB colours 0..255 under each vision."""
    value = colours / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.stack([np.clip(linear @ vision.T, 0, 1) for vision in _SEEN], axis=1)
    ratio = seen @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [
            116 * root[..., 1] - 16,
            500 * (root[..., 0] - root[..., 1]),
            200 * (root[..., 1] - root[..., 2]),
        ],
        axis=-1,
    )


def _difference(
    places: Float64[np.ndarray, "colour vision lab"], place: Float64[np.ndarray, "vision lab"]
) -> Float64[np.ndarray, " colour"]:
    difference: Float64[np.ndarray, " colour"] = np.linalg.norm(places - place, axis=-1).min(
        axis=-1
    )
    return difference
