"""Reports: what they say of hostile names, missing scores and damaged files."""

from pathlib import Path

import pytest

from cube.errors import InputError
from pipelines.report import markdown, read_report, summary, write_report


def _entry(split: str, *, notes: tuple[str, ...] = (), score: float | None = 0.5) -> dict:
    per_class = {"a|b<script>": {"recall": 0.5, "precision": None, "f1": 0.5, "support": 3}}
    scores = None
    if score is not None:
        scores = {"accuracy": score, "macro_f1": score, "per_class": per_class}
    return {
        "split": split,
        "model": "lstm",
        "held_out": 3,
        "folds": 5,
        "folds_used": 1,
        "notes": list(notes),
        "scores": scores,
    }


REPORT = {
    "name": "Reserve <b>`x`",
    "training": {
        "scores": {
            "entries": [
                _entry("random"),
                _entry("grouped", score=None, notes=("the split finds 1 group",)),
                _entry("block"),
            ]
        }
    },
}


def test_all_three_splits_stand_in_every_form() -> None:
    lines = "\n".join(summary(REPORT))
    text = markdown(REPORT)
    for split in ("random", "grouped", "block"):
        assert f"scores    {split}" in lines
        assert f"| {split} | lstm |" in text
    assert "the split finds 1 group" in lines
    assert "– | –" in text


def test_names_cannot_break_the_page() -> None:
    text = markdown(REPORT)
    assert "<script>" not in text
    assert "a\\|b&lt;script>" in text
    assert "# Reserve &lt;b>'x'" in text


def test_a_report_comes_back(tmp_path: Path) -> None:
    write_report(tmp_path / "out" / "report.json", REPORT)
    assert read_report(tmp_path / "out" / "report.json") == REPORT
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "report.json",
        "report.md",
    ]
    assert read_report(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_report_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match="delete it and run again"):
        read_report(tmp_path / "report.json")
