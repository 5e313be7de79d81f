"""Figures of a training report in, drawings as SVG text out."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipelines.printable import printable

_INK, _FAINT = "#222222", "#8a8a8a"
_BAR, _LINE = "#9fbfd6", "#1f5f8b"
_LONGEST_NAME = 24

_LETTER = 0.065
"""Inches that a letter of a tick's name is long."""

_COLOUR_BAR = 1.5
"""Inches that a colour bar is high at least, so that what stands beside it is not cut."""


def confusion_plot(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Draw a confusion matrix, shaded by the share of each class of the labels (rows)."""
    counts = np.asarray(confusion, dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(2.5 + 0.45 * len(classes), 12.0)
    figure, axes = _figure(size + 1.2, size)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if share[row, column] > 0.5 else _INK,
                )
    names = [_short(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class of the label")
    return _svg(figure)


def reliability_plot(curve: dict[str, Any]) -> str:
    """Draw how often answers of a confidence are right: on the diagonal, it means what it says."""
    confidence = _numbers(curve["confidence"])
    accuracy = _numbers(curve["accuracy"])
    count = _numbers(curve["count"])
    figure, axes = _figure(4.2, 3.6)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--")
    known = np.isfinite(confidence) & np.isfinite(accuracy)
    most = max(float(np.nansum(count)), 1.0)
    axes.bar(confidence[known], count[known] / most, width=0.05, color=_BAR, label="share")
    axes.plot(confidence[known], accuracy[known], color=_LINE, marker="o", markersize=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy (line), share of samples (bars)")
    return _svg(figure)


def dissimilarity_plot(curve: dict[str, Sequence[float]], threshold: float) -> str:
    """Draw how accuracy falls with the distance from the training samples."""
    figure, axes = _figure(4.2, 3.6)
    axes.plot(curve["dissimilarity"], curve["accuracy"], color=_BAR, marker="o", markersize=3)
    axes.plot(curve["dissimilarity"], curve["falling"], color=_LINE)
    axes.axvline(threshold, color=_FAINT, linestyle="--", linewidth=1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("dissimilarity (dashed: end of the area)")
    axes.set_ylabel("accuracy of held-out samples")
    return _svg(figure)


def importance_plot(
    periods: Sequence[str], bands: Sequence[str], loss: Sequence[Sequence[float]]
) -> str:
    """Draw what macro-F1 loses when one band of one period is shuffled among the samples."""
    values = np.asarray(loss, dtype=float)  # (period, band)
    names = max((len(period) for period in periods), default=0) * _LETTER
    height = max(0.28 * len(bands), _COLOUR_BAR) + names + 0.6
    figure, axes = _figure(2.2 + 0.38 * len(periods), height)
    limit = max(float(np.abs(values).max(initial=0)), 1e-6)
    image = axes.imshow(values.T, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(periods)), list(periods), rotation=90)
    axes.set_yticks(range(len(bands)), [_short(band) for band in bands])
    figure.colorbar(image, ax=axes, label="loss of macro-F1")
    return _svg(figure)


def months_plot(kept: Sequence[int], score: Sequence[float]) -> str:
    """Draw the score against the number of periods that are looked at."""
    figure, axes = _figure(4.2, 3.2)
    axes.plot(list(kept), list(score), color=_LINE, marker="o", markersize=3)
    axes.set_xlabel("periods")
    axes.set_ylabel("macro-F1")
    axes.set_ylim(0, 1)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=7, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return a drawing to stand inside HTML: equal figures give equal text, names stay text."""
    buffer = io.StringIO()
    with (
        mpl.rc_context({"svg.hashsalt": "canopycube", "svg.fonttype": "none"}),
        warnings.catch_warnings(),
    ):
        # names stay text, and a browser has letters that matplotlib's own font has not
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.set_canvas(FigureCanvasSVG(figure))
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _short(name: str) -> str:
    # a dollar would begin a formula
    text = " ".join(printable(name).split()).replace("$", r"\$")
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
