"""Doubtful labels and their series in, one HTML page out: to look at, to decide, to download.

The page is one file without anything from elsewhere: it opens from a disk, and its content security
policy forbids it to ask for more. Names from data are text in a JSON block, which the script shows
as text.
"""

import base64
import hashlib
import html
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from cube.decisions import COLUMNS, Decision

MOST_CASES = 1000
"""Suspects on one page; more take long to load, and longer to decide."""

QUANTILES = (0.1, 0.5, 0.9)
"""Of the values of a class or group at a time: the envelope and the line in it."""

_MISSING = 65535
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One doubtful group."""

    group: str
    """The label unit."""
    given: str
    """Its class in the samples."""
    suggested: str
    """The class it looks like."""
    score: float
    """Doubt, 0..1."""
    samples: int
    """Number of its samples."""
    agreement: float
    """Share of them that look like the suggested class."""
    verdict: str
    """What the self-organising map says: clean, analyse or remove."""
    neuron: int
    """Where on that map it lies; -1 for nowhere."""
    lon: float | None
    """Degrees east of its middle; None where samples have no coordinates."""
    lat: float | None
    """Degrees north."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelPage:
    """All that the page shows."""

    title: str
    """Heading."""
    name: str
    """What tells this page from others of the same samples, in the browser's memory."""
    fingerprint: str
    """Of the samples: `cube.decisions.samples_fingerprint`."""
    classes: tuple[str, ...]
    """Names."""
    colours: tuple[str, ...]
    """`#rrggbb` of each class."""
    layers: tuple[str, ...]
    """Bands and indices that can be drawn."""
    periods: tuple[str, ...]
    """Names of the time axis."""
    envelopes: Float32[np.ndarray, "class quantile time layer"]
    """`QUANTILES` of each class; NaN where there is nothing."""
    cases: tuple[Case, ...]
    """Most doubtful first."""
    series: Float32[np.ndarray, "case quantile time layer"]
    """`QUANTILES` of each case's samples."""
    edge: int
    """Neurons along each side of the self-organising map."""
    share: Float64[np.ndarray, "neuron class"]
    """Share of each class in each neuron; rows of NaN for empty ones."""
    decisions: tuple[Decision, ...] = ()
    """What was decided before; kept in what is downloaded unless decided anew."""
    joined: frozenset[tuple[str, str]] = frozenset()
    """Group and class of fixed samples that joined others of their group: `joined_by_decisions`."""
    left_out: int = 0
    """Suspects that are not on the page."""
    by_map: int = 0
    """Cases that models do not doubt enough, and the self-organising map would remove."""


def write_html(page: LabelPage) -> str:
    """Return the page as HTML."""
    style, script = _template("css"), _template("js")
    return Template(_template("html")).substitute(
        title=html.escape(page.title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_json(_content(page)),
    )


def _template(suffix: str) -> str:
    return (_TEMPLATES / f"label_page.{suffix}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which the page's policy knows its own script and style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(content: dict[str, Any]) -> str:
    """Return JSON that ends no script element, whatever names it holds."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _content(page: LabelPage) -> dict[str, Any]:
    low, step = _scales(page.envelopes, page.series)
    whole = [one for one in page.decisions if not one.sample]
    mended: dict[tuple[str, str], list[str]] = {}
    for one in whole:
        if one.action == "fix":
            mended.setdefault((one.group, one.label), []).append(one.given)
    decided = {(one.group, one.given): one for one in whole}
    place = {name: index for index, name in enumerate(page.classes)}
    earlier = [_row(one) for one in page.decisions]
    return {
        "name": page.name,
        "fingerprint": page.fingerprint,
        # another file of decisions begins anew: what the browser keeps was decided before it
        "decided": hashlib.sha256(_json({"rows": earlier}).encode()).hexdigest()[:16],
        "classes": [
            {"name": name, "colour": colour}
            for name, colour in zip(page.classes, page.colours, strict=True)
        ],
        "layers": [
            {"name": name, "low": float(first), "step": float(size)}
            for name, first, size in zip(page.layers, low, step, strict=True)
        ],
        "first_layer": page.layers.index("NDVI") if "NDVI" in page.layers else 0,
        "periods": list(page.periods),
        "envelopes": _packed(page.envelopes, low, step),
        "series": _packed(page.series, low, step),
        "cases": [
            _case(one, place, _originals(one, mended, page.joined), decided) for one in page.cases
        ],
        "som": {"edge": page.edge, "neurons": _neurons(page.share)},
        "earlier": earlier,
        "columns": list(COLUMNS),
        "left_out": page.left_out,
        "by_map": page.by_map,
    }


def _case(
    one: Case,
    place: dict[str, int],
    originals: list[str],
    decided: dict[tuple[str, str], Decision],
) -> dict[str, Any]:
    earlier = decided.get((one.group, one.given))
    return {
        **{name: getattr(one, name) for name in _SHOWN},
        "score": round(one.score, 4),
        "agreement": round(one.agreement, 4),
        "given_index": place[one.given],
        "suggested_index": place[one.suggested],
        "originals": originals,
        "earlier": earlier
        and {"action": earlier.action, "label": earlier.label, "note": earlier.note},
        "shift": _shift(one.group),
    }


def _originals(
    one: Case, mended: dict[tuple[str, str], list[str]], joined: frozenset[tuple[str, str]]
) -> list[str]:
    """Return what the labels of a case are called in the reference: what is decided is of them.

    Fixes may have made the group what it is now, beside samples that always were.
    """
    fixed = mended.get((one.group, one.given), [])
    is_own = not fixed or (one.group, one.given) in joined
    return [*fixed, one.given] if is_own else fixed


_SHOWN = ("group", "given", "suggested", "samples", "verdict", "neuron", "lon", "lat")


def _shift(name: str) -> list[float]:
    """Return where in its neuron a dot lies: always the same, so that few hide each other."""
    first, second = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:2]
    return [round(0.2 + 0.6 * value / 255, 2) for value in (first, second)]


def _neurons(share: Float64[np.ndarray, "neuron class"]) -> list[list[float]]:
    """Return [most frequent class, its share] of each neuron; class -1 for an empty one."""
    return [
        [-1, 0.0] if np.isnan(row).any() else [int(row.argmax()), round(float(row.max()), 3)]
        for row in share
    ]


def _row(one: Decision) -> list[str]:
    cells = (one.group, one.given, one.action, one.label, one.sample, one.note, one.fingerprint)
    return list(cells)


def _scales(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest value and the step of each layer, so that 65,534 steps hold all values."""
    layers = arrays[0].shape[-1]
    values = np.concatenate([array.reshape(-1, layers) for array in arrays]).astype(np.float64)
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    top = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    is_there = np.isfinite(low)
    low, top = np.where(is_there, low, 0.0), np.where(is_there, top, 0.0)
    return low, np.where(top > low, (top - low) / (_MISSING - 1), 1.0)


def _packed(values: np.ndarray, low: np.ndarray, step: np.ndarray) -> str:
    """Return values as little-endian 16-bit steps in Base64; 65535 where there is none."""
    known = np.isfinite(values)
    steps = np.rint((np.where(known, values, low) - low) / step)
    stored = np.where(known, np.clip(steps, 0, _MISSING - 1), _MISSING).astype("<u2")
    return base64.b64encode(stored.tobytes()).decode("ascii")
