"""Sequences in; bands that are swapped, constant or empty out, as the spectrum of plants tells."""

import numpy as np
from jaxtyping import Bool

from model.audit.audited import SENTINEL_2, Audited
from model.audit.finding import Finding, rows_of, some

_RISES = (
    ("B02", "B03"), ("B04", "B03"), ("B04", "B05"), ("B05", "B06"), ("B06", "B07"),
    ("B04", "B08"), ("B04", "B8A"), ("B12", "B11"), ("B11", "B08"), ("B11", "B8A"),
)  # fmt: skip
"""Bands of which green leaves reflect less in the first than in the second."""

_VISIBLE, _NEAR = ("B02", "B03", "B04"), ("B06", "B07", "B08", "B8A")

_GREEN_RATIO, _GREEN_BRIGHTEST = 5.0, 0.12
"""Near infrared over visible light from which ground is green (bare twigs and soil reach 4), and
the visible light beyond which it is cloud or snow."""

_MOSTLY = 0.8
"""Share of green steps that must contradict the spectrum: soils and shadows contradict in some."""

_FEWEST_STEPS = 30

_CLEARLY = 1.25
"""Ratio of the wrong over the right band from which one pair in single months is severe: yellowing
leaves and soil between them bring bands near each other, swapped ones lie as far apart as ever."""


def find_bands(audited: Audited) -> list[Finding]:
    """Return findings of swapped, constant and empty bands."""
    return [*_swapped(audited), *_constant(audited)]


def _swapped(audited: Audited) -> list[Finding]:
    is_green = _is_green(audited)
    if is_green is None:
        return []
    places = [("", is_green)]
    if audited.periods is not None:
        for step, name in enumerate(audited.periods):
            part = np.zeros_like(is_green)
            part[:, step] = is_green[:, step]
            places.append((name, part))
    constant = set(_without_change(audited)[1])
    wrong: dict[str, list[str]] = {}
    pairs_in: dict[str, int] = {}
    is_clear = False
    is_wrong = np.zeros(len(audited), bool)
    for name, part in places:
        if part.sum() < _FEWEST_STEPS:
            continue
        for low, high in _RISES:
            if not audited.has(low, high) or {low, high} & constant:
                continue
            against = audited.band(low)[part] > audited.band(high)[part]
            if against.mean() > _MOSTLY and "" not in wrong.get(f"{low} > {high}", []):
                wrong.setdefault(f"{low} > {high}", []).append(name)
                pairs_in[name] = pairs_in.get(name, 0) + 1
                ratio = np.median(
                    audited.band(low)[part] / np.maximum(audited.band(high)[part], 1e-4)
                )
                is_clear |= bool(ratio > _CLEARLY)
                is_wrong |= part.any(axis=1)
    if not wrong:
        return []
    is_grave = is_clear or "" in pairs_in or max(pairs_in.values()) > 1
    told = [pair if "" in where else f"{pair} in {some(where, 3)}" for pair, where in wrong.items()]
    return [
        Finding(
            code="swapped-bands",
            severity="severe" if is_grave else "warning",
            what=f"green ground contradicts the spectrum of leaves: {'; '.join(told)}",
            count=len({band for pair in wrong for band in pair.split(" > ")}),
            rows=rows_of(is_wrong),
            advice="Check the order of the bands where samples were made",
        )
    ]


def _is_green(audited: Audited) -> Bool[np.ndarray, "sample time"] | None:
    """Say which steps are green, by medians that one swapped band does not move."""
    visible = [audited.band(band) for band in _VISIBLE if audited.has(band)]
    near = [audited.band(band) for band in _NEAR if audited.has(band)]
    if len(visible) < 3 or len(near) < 2:
        return None
    dark, bright = np.median(visible, axis=0), np.max(near, axis=0)
    return np.asarray((dark > 0) & (dark < _GREEN_BRIGHTEST) & (bright > _GREEN_RATIO * dark))


def _without_change(audited: Audited) -> tuple[list[str], list[str]]:
    """Return the bands without any value, and those with a single one."""
    empty, constant = [], []
    for band in audited.bands:
        values = audited.band(band)
        known = values[np.isfinite(values)]
        if not known.size:
            empty.append(band)
        elif known.size > 1 and known.min() == known.max():
            constant.append(band)
    return empty, constant


def _constant(audited: Audited) -> list[Finding]:
    empty, constant = _without_change(audited)
    found = []
    for code, names, what in (
        ("empty-band", empty, "have no value in any sample"),
        ("constant-band", constant, "have one value in all samples"),
    ):
        if names:
            is_reflectance = any(name in SENTINEL_2 for name in names)
            found.append(
                Finding(
                    code=code,
                    severity="severe" if is_reflectance and code == "constant-band" else "warning",
                    what=f"{some(names)} {what}",
                    count=len(names),
                    rows=(),
                    advice="Leave these bands out, or find out why nothing is in them",
                )
            )
    return found
