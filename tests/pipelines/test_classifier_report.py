"""The page of a classifier: what it says of scores, periods and splits, and that nothing is cut."""

import re
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.classifier_plots import confusion_plot, importance_plot
from pipelines.classifier_report import classifier_page
from pipelines.periods_told import joined, left_out
from pipelines.training_text import STRICTNESS

STEPS = tuple(
    f"{first}/{first + timedelta(14)}"
    for first in (date(2018, 1, 1) + timedelta(15 * number) for number in range(25))
)


def _entry(split: str, model: str, *, is_scored: bool = True) -> dict[str, Any]:
    one = {"recall": 0.5, "precision": 0.5, "f1": 0.5, "support": 2}
    scores = {
        "accuracy": 0.5, "macro_f1": 0.5, "per_class": {"larch": one, "pine": one},
        "classes": ["larch", "pine"], "confusion": [[1, 1], [1, 1]],
    }  # fmt: skip
    return {
        "split": split,
        "model": model,
        "held_out": 4,
        "folds": 2,
        "folds_used": 2,
        "notes": [] if is_scored else ["all samples are of 2018; two years are the least"],
        "scores": scores if is_scored else None,
        "against": {"verdict": "lda wins by 3.0 points of macro-F1"} if model == "lda" else None,
    }


def training(**more: Any) -> dict[str, Any]:
    """Return what a page is made of, with a split that could not be made."""
    entries = [_entry("block", name) for name in ("lstm", "lda")]
    entries += [_entry("year", name, is_scored=False) for name in ("lstm", "lda", "majority class")]
    return {
        "fingerprint": "f", "code_version": "1", "verdict": "lstm: good", "classes": ["larch", "pine"],
        "colours": ["#ff0000", "#00ff00"], "samples_by_class": {"larch": 2, "pine": 2},
        "scores": {"entries": entries, "is_of_hull": False}, "model": "lstm", "split": "block",
        "settings": {}, "sample_fingerprint": "s",
    } | more  # fmt: skip


def test_a_split_without_scores_has_no_rows_and_one_reason() -> None:
    page = classifier_page("A", training(), None)
    assert page.count("<td>year</td>") == 0
    assert page.count("<td>block</td>") == 2
    assert page.count("all samples are of 2018; two years are the least") == 1
    assert "<b>year</b>: not scored: all samples" in page
    assert STRICTNESS in page


def test_periods_are_told_by_what_goes() -> None:
    kept = [list(STEPS), [*STEPS[:3], STEPS[10]], [STEPS[10]]]
    months = [{"periods": steps, "macro_f1": 0.9} for steps in kept]
    found = {
        "periods": list(STEPS), "bands": ["NDVI"], "loss": np.zeros((25, 1)).tolist(),
        "months": months, "enough": months[1],
    }  # fmt: skip
    page = classifier_page("A", training(importance=found), None)
    table = page.partition("How few periods are enough")[2].partition("<table>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("</table>")[0])
    assert "<td>none</td>" in rows[1]
    assert f"<td>{STEPS[3]} to {STEPS[9]}, {STEPS[11]} to {STEPS[24]}</td>" in rows[2]
    assert f"<td>{STEPS[0]} to {STEPS[2]}; what remains is {STEPS[10]}</td>" in rows[3]
    assert f"of all: {STEPS[0]} to {STEPS[2]}, {STEPS[10]}." in page
    assert max(map(len, rows)) < 250


@given(st.sets(st.integers(0, 11)), st.just(tuple(f"2022-{month:02d}" for month in range(1, 13))))
def test_joined_names_stand_for_those_that_were_chosen(chosen: set[int], every: tuple) -> None:
    told = joined([every[place] for place in chosen], every)
    found: set[int] = set()
    for part in filter(None, told.split(", ")):
        first, _, last = part.partition(" to ")
        found |= set(range(every.index(first), every.index(last or first) + 1))
    assert found == chosen


def test_nothing_goes_where_there_is_one_period() -> None:
    assert left_out([["2022-01"]]) == ["none"]
    assert left_out([["a", "b"], ["b"]]) == ["none", "a; what remains is b"]


@pytest.mark.parametrize(("steps", "bands"), [(25, 2), (3, 1), (25, 40)])
def test_the_label_of_the_colour_bar_is_not_cut(steps: int, bands: int) -> None:
    names = [f"B{number}" for number in range(bands)]
    drawing = importance_plot(STEPS[:steps], names, np.ones((steps, bands)).tolist())
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', drawing)[1].split())  # type: ignore[index]
    label = re.search(
        r'font-size: (\d+)px[^>]*rotate\(-90 ([\d.]+) ([\d.]+)\)">loss of macro-F1<', drawing
    )
    assert label is not None
    size, right, middle = map(float, label.groups())
    half = len("loss of macro-F1") * size * 0.6 / 2
    assert half < middle < height - half
    assert right < width


def test_no_predicted_class_is_called_the_given_one() -> None:
    drawing = confusion_plot(["larch", "pine"], [[2, 1], [0, 3]])
    assert ">predicted class<" in drawing
    assert ">class of the label<" in drawing
    assert ">given<" not in drawing
