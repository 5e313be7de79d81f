"""Reports: what they say of hostile names, missing scores and damaged files."""

from pathlib import Path

import pytest

from cube.errors import InputError
from model.scoretable import STRICTEST
from pipelines.report import markdown, plan_lines, read_report, summary, write_report
from pipelines.training_text import STRICTNESS, score_lines


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
        "model": "lstm",
        "split": "block",
        "scores": {
            "entries": [
                _entry("random"),
                _entry("grouped", score=None, notes=("the split finds 1 group",)),
                _entry("block"),
            ]
        },
    },
}


def test_all_three_splits_stand_in_every_form() -> None:
    lines = "\n".join(summary(REPORT))
    text = markdown(REPORT)
    for split in ("random", "grouped", "block"):
        assert f"scores    {split}" in lines
        is_scored = split != "grouped"
        assert (f"| {split} | lstm |" in text) == is_scored  # no row that holds nothing
    for told in (lines, text):
        assert "grouped not scored: the split finds 1 group" in told.replace("grouped:", "grouped")
    assert text.partition("## Scores")[2].count("the split finds 1 group") == 1


def test_the_number_of_samples_stands_beside_their_scores() -> None:
    block = [_entry("block"), _entry("block") | {"model": "lda"}]
    for of_lda, told in ((3, "(3 samples; whole"), (9, "(samples: lstm 3, lda 9; whole")):
        block[1]["held_out"] = of_lda
        assert told in "\n".join(score_lines({"entries": block}))


def test_knndm_says_what_stood_for_the_map() -> None:
    entries = [_entry("knndm", notes=("nothing says what will be mapped",))]
    for is_of_hull in (True, False):
        scores = {"entries": entries, "is_of_hull": is_of_hull}
        training = REPORT["training"] | {"scores": scores, "split": "knndm"}
        for told in ("\n".join(score_lines(scores)), markdown({"training": training})):
            assert ("as their hull is, for want of a map" in told) == is_of_hull
            assert ("as the map is" in told) != is_of_hull
    assert "- knndm: nothing says what will be mapped" in markdown({"training": training})


def test_the_order_of_splits_is_the_one_that_chooses() -> None:
    assert f"in the order {', '.join(STRICTEST)}:" in STRICTNESS
    assert STRICTNESS in markdown(REPORT)


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


CUBE = {
    "shape": {"time": 12, "band": 5, "y": 120, "x": 120},
    "bytes": 2_000_000,
    "tiles": "4 of 4",
    "lost_scenes": [],
    "requests": 0,
    "bytes_read": 0,
    "empty_share_by_period": {"2022-01": 1.0, "2022-02": 0.2},
}


def test_a_cube_says_how_complete_it_is() -> None:
    lines = summary({"cube": CUBE})
    assert lines[1].strip() == "4 of 4 tiles, 0 scenes lost"
    assert not any("requests" in line for line in lines)
    lost = [
        {"scene": f"S{n}", "reason": f"scene 'S{n}', asset B02: cut short", "tiles": n + 1}
        for n in range(15)
    ]
    cube = CUBE | {"lost_scenes": lost, "requests": 12_345, "bytes_read": 6_700_000}
    text = "\n".join(summary({"cube": cube}))
    assert "4 of 4 tiles, 15 scenes lost\n" in text
    assert "lost in 1 tile: scene 'S0', asset B02: cut short\n" in text
    assert "lost in 2 tiles: scene 'S1'" in text
    assert "and 3 more; `canopycube build --json` names all" in text
    assert "12,345 requests brought 6.7 MB" in text
    assert "15 scenes lost" in markdown({"cube": cube})


PLAN = {
    "crs": "EPSG:32648",
    "resolution": 10.0,
    "shape": CUBE["shape"],
    "periods": "2022-01 … 2022-12",
    "bands": ["B02"],
    "tiles": 4,
    "grid_tiles": 4,
    "cube_bytes_uncompressed": 10,
    "cube_chunks": 1440,
    "cube_objects": 24,
    "peak_bytes_per_worker": 10,
    "peak_bytes": 20,
    "looks_by_period": {"2022-01": 0, "2022-02": 3},
    "periods_without_scenes": ["2022-01"],
    "provider": "earth-search",
    "overpasses": 3,
    "scenes": 4,
    "scenes_dropped": {"S9": "cloud cover 91 % is above 80 %"},
    "offsets": {"boa_offset_applied": 4},
    "strips": 1,
    "requests": 1200,
    "requests_for_headers": 44,
    "bytes_to_read": 3_400_000,
}


def test_a_plan_tells_how_long_it_will_take() -> None:
    known = PLAN | {
        "grid_tiles": 1000,
        "tiles": 412,
        "tiles_ready": 12,
        "cube_bytes": 6,
        "is_calibrated": True,
        "build_core_hours": 1234.5,
        "build_seconds": 7200.0,
        "build_measured_tiles": 1,
        "map_core_hours": None,
        "map_seconds": None,
        "map_measured_tiles": 0,
        "warnings": ["the disk may fill up"],
    }
    text = "\n".join(plan_lines(known))
    assert "412 of 1,000 tiles touch the area, 12 are there; a tile needs" in text
    assert "10 B, compressed about 6 B (measured); 1,440 chunks" in text
    assert "building 1,234 core hours, 2 h with these workers (by 1 tile made here)" in text
    assert "mapping is not calibrated: there is no classifier yet" in text
    assert "the disk may fill up" in text
    both = "\n".join(plan_lines({"zones": {"zone-32633": known, "zone-32634": PLAN}}))
    assert both.count("bands B02") == 2
    assert "zone-32634:" in both


def test_a_plan_tells_what_it_will_ask_for() -> None:
    text = "\n".join(plan_lines(PLAN))
    assert "3 overpasses, from earth-search" in text
    assert "1,200 requests for 3.4 MB, 44 of them for headers" in text
    assert "strips" not in text
    assert "no scene in 2022-01" in text
    assert "4 used, 1 not" in text
    assert "not used: S9: cloud cover 91 % is above 80 %" in text
    assert "10 B before compression; 1,440 chunks in 24 files or objects at most" in text
    assert "work      4 tiles; a tile needs" in text
    assert "takes 3 strips a tile" in "\n".join(plan_lines(PLAN | {"strips": 3}))
    unknown = {"requests": None, "requests_for_headers": None, "bytes_to_read": None}
    assert "are not known for this reader" in "\n".join(plan_lines(PLAN | unknown))
    assert "requests" not in "\n".join(plan_lines(PLAN | {"requests": 0}))
