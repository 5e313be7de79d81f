"""A seed in, clean labelled sequences of a forest out: seasons, stands, clouds, noise, and no leak."""

from dataclasses import dataclass

import numpy as np

from model.samples import Samples

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
ATMOSPHERE = ("AOT", "WVP")
MONTHS = tuple(f"2022-{month:02d}" for month in range(1, 13))

_BARE = np.array([0.040, 0.055, 0.065, 0.090, 0.130, 0.145, 0.160, 0.170, 0.180, 0.110])
_LEAF = np.array([0.022, 0.048, 0.026, 0.080, 0.260, 0.320, 0.340, 0.350, 0.170, 0.075])
"""Reflectance of a canopy without and with leaves, by band."""


@dataclass(frozen=True, kw_only=True)
class SeriesSpec:
    """What is simulated."""

    seed: int = 0
    classes: int = 5
    groups: int = 120
    per_group: int = 8
    """Pixels of a group on average; groups differ in size."""
    gap: float = 0.25
    """Share of months that clouds hide; a cloud hides whole groups, whatever their class."""
    noise: float = 0.006
    has_atmosphere: bool = False
    """Adds AOT and WVP, which change with the place and the month."""


def simulated_series(spec: SeriesSpec) -> Samples:
    """Return the samples; a group's pixels lie side by side, groups 200 m apart or more."""
    random = np.random.default_rng(spec.seed)
    label_of_group = random.permutation(np.arange(spec.groups) % spec.classes)
    size = np.maximum(1, random.poisson(spec.per_group, spec.groups))
    group = np.repeat(np.arange(spec.groups), size)
    label = label_of_group[group]

    months = np.arange(12) + 0.5
    spring, autumn = random.uniform(3.2, 5.0, spec.classes), random.uniform(9.0, 11.0, spec.classes)
    evergreen = np.where(
        random.random(spec.classes) < 0.4, random.uniform(0.5, 0.9, spec.classes), 0
    )
    shift = random.normal(0, 0.25, spec.groups)  # a stand is early or late
    density = np.clip(random.normal(0.9, 0.07, spec.groups), 0.5, 1.1)
    rise = (months - (spring[label_of_group] + shift)[:, None]) * 2.5
    fall = (months - (autumn[label_of_group] + shift)[:, None]) * 2.0
    leafy = 1 / (1 + np.exp(-rise)) - 1 / (1 + np.exp(-fall))
    leafy = np.maximum(leafy, evergreen[label_of_group][:, None]) * density[:, None]

    colour = 1 + random.normal(0, 0.08, (spec.classes, 10))  # pigments and needles of a class
    tint = 1 + random.normal(0, 0.04, (spec.groups, 10))  # age, soil and slope of a stand
    mixed = leafy[..., None] * _LEAF + (1 - leafy[..., None]) * _BARE
    of_group = mixed * colour[label_of_group][:, None] * tint[:, None]  # (group, time, band)
    light = 1 + random.normal(0, 0.03, (spec.groups, 12, 1))  # haze and sun that are left
    values = (of_group * light)[group]
    values = values * (1 + random.normal(0, 0.02, (len(group), 1, 10)))
    values = values + random.normal(0, spec.noise, values.shape) * (0.3 + 2 * values)
    values = np.maximum(np.rint(values * 1e4), 1) / 1e4

    corner = _corners(random, spec.groups)
    inside = np.concatenate([np.arange(count) for count in size])
    edge = np.ceil(np.sqrt(size))[group]
    place = corner[group] + 10 * np.stack([inside % edge, inside // edge], axis=1) + 5
    bands = BANDS
    if spec.has_atmosphere:
        values = np.concatenate([values, _atmosphere(random, place)], axis=2)
        bands = (*BANDS, *ATMOSPHERE)
    clouds = _clouds(random, corner, spec.gap)[group]
    clouds |= random.random(clouds.shape) < 0.02  # a mask errs in single pixels
    values[clouds] = np.nan
    block = np.unique(place // 1000, axis=0, return_inverse=True)[1].reshape(-1)
    samples = Samples(
        reflectance=values.astype(np.float32),
        bands=bands,
        periods=MONTHS,
        label=label.astype(np.int64),
        classes=tuple(f"species {index}" for index in range(spec.classes)),
        group=group.astype(np.int64),
        block=block.astype(np.int64),
        place=place,
    )
    return samples.take(np.flatnonzero(~clouds.all(axis=1)).astype(np.int64))


def _corners(random: np.random.Generator, groups: int) -> np.ndarray:
    """Return (group, 2): metres, on a jittered grid of 400 m, in no order."""
    edge = int(np.ceil(np.sqrt(groups * 1.5)))
    cell = random.permutation(edge * edge)[:groups]
    jitter = np.rint(random.uniform(0, 10, (groups, 2))) * 10
    return np.stack([cell % edge, cell // edge], axis=1) * 400.0 + jitter + 500_000


def _clouds(random: np.random.Generator, corner: np.ndarray, gap: float) -> np.ndarray:
    """Return (group, time): true where a cloud hides the whole group; clouds are kilometres wide."""
    least, most = corner.min(axis=0), corner.max(axis=0) + 1
    hidden = np.zeros((len(corner), 12), bool)
    for month in range(12):
        coarse = random.random((6, 6))
        at = np.minimum((6 * (corner - least) / (most - least)).astype(int), 5)
        hidden[:, month] = coarse[at[:, 0], at[:, 1]] < gap * random.uniform(0.4, 1.6)
    return hidden


def _atmosphere(random: np.random.Generator, place: np.ndarray) -> np.ndarray:
    """Return (sample, time, 2): smooth fields of aerosol and water vapour."""
    fields = []
    for level, swing in ((0.12, 0.03), (0.15, 0.1)):
        slope = random.normal(0, 1e-5, (12, 2))
        base = level + swing * np.cos((np.arange(12) - 6) / 12 * 2 * np.pi)
        base = base + random.normal(0, 0.02, 12)
        field = base + (place - place.mean(axis=0)) @ slope.T
        fields.append(np.maximum(np.rint(field * 1e3), 1) / 1e3)
    return np.stack(fields, axis=2)
