"""Decisions mend labels as plain loops would; files of any content are data or refused by line."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.decisions import Decision, guarded, read_decisions, unguarded, write_decisions
from cube.errors import InputError
from cube.relabel import apply_decisions, sample_names, samples_fingerprint

HEADER = "group,given,decision,label,sample,note,samples_fingerprint\n"


def make_samples(*, has_grid: bool = True) -> xr.Dataset:
    """Three stands: two oak samples, three beech, one oak."""
    group = np.array(["a", "a", "b", "b", "b", "c"])
    label = np.array(["oak", "oak", "beech", "beech", "beech", "oak"])
    grid = {
        "row": ("sample", np.array([0, 0, 1, 1, 2, 5], np.int32)),
        "column": ("sample", np.array([4, 5, 6, 7, 6, 9], np.int32)),
    }
    return xr.Dataset(
        {
            "reflectance": (("sample", "time", "band"), np.zeros((6, 2, 1), np.float32)),
            "label": ("sample", label, {"long_name": "class"}),
            "group": ("sample", group),
            **(grid if has_grid else {}),
        },
        attrs={"canopycube": {"kind": "samples", "dropped": {"cells at the edge": 3}}},
    )


def file_of(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "decisions.csv"
    path.write_text(header + rows, encoding="utf-8", newline="")
    return path


def test_groups_are_kept_fixed_and_dropped(tmp_path: Path) -> None:
    samples = make_samples()
    path = file_of(tmp_path, "a,oak,fix,beech,,seen,\nb,beech,accept,,,,\nc,oak,drop,,,,\n")
    mended = apply_decisions(samples, path)
    assert mended["label"].values.tolist() == ["beech"] * 5
    assert mended["group"].values.tolist() == ["a", "a", "b", "b", "b"]
    assert mended["label"].attrs == {"long_name": "class"}
    ours = mended.attrs["canopycube"]
    assert ours["dropped"] == {"cells at the edge": 3, "samples that decisions drop": 1}
    assert {name: ours["decisions"][name] for name in ("accept", "fix", "drop")} == {
        "accept": 3, "fix": 2, "drop": 1,
    }  # fmt: skip
    assert samples["label"].values.tolist()[:2] == ["oak", "oak"]
    assert samples.attrs["canopycube"]["dropped"] == {"cells at the edge": 3}


def test_a_fix_says_what_the_whole_of_a_mixed_plot_is(tmp_path: Path) -> None:
    samples = make_samples().assign_coords({"class": ["beech", "oak"]})
    mixed = np.tile(np.array([[0.4, 0.6]], np.float32), (6, 1))
    samples["share"] = (("sample", "class"), mixed)
    mended = apply_decisions(samples, file_of(tmp_path, "a,oak,fix,beech,,,\nb,beech,drop,,,,\n"))
    np.testing.assert_array_equal(mended["share"], np.array([[1, 0], [1, 0], [0.4, 0.6]], "f4"))


def test_names_are_compared_however_they_are_composed(tmp_path: Path) -> None:
    samples = make_samples()
    group = np.array([" a\u0308 "] * 3 + ["b"] * 3)
    label = np.array(["che\u0302ne "] * 2 + ["he\u0302tre"] * 4)
    samples = samples.assign(group=("sample", group), label=("sample", label))
    path = file_of(tmp_path, "\u00e4,ch\u00eane,fix,h\u00eatre,,,\nb,h\u00eatre,drop,,,,\n")
    mended = apply_decisions(samples, path)
    # classes stay spelt as the samples spell them
    assert mended["label"].values.tolist() == ["he\u0302tre"] * 3


def test_decisions_over_other_samples_are_counted(tmp_path: Path) -> None:
    samples = make_samples()
    own = samples_fingerprint(samples)
    rows = f"a,oak,accept,,,,{own}\nb,beech,drop,,,,0123456789abcdef\nc,oak,accept,,,,\n"
    mended = apply_decisions(samples, file_of(tmp_path, rows))
    assert mended.attrs["canopycube"]["decisions"]["of_other_samples"] == 1


def test_a_row_of_a_sample_goes_before_that_of_its_group(tmp_path: Path) -> None:
    path = file_of(tmp_path, "b,beech,accept,,1/7,,\nb,beech,drop,,,,\na,oak,fix,beech,0/5,,\n")
    mended = apply_decisions(make_samples(), path)
    assert sample_names(mended).tolist() == ["0/4", "0/5", "1/7", "5/9"]
    assert mended["label"].values.tolist() == ["oak", "beech", "beech", "oak"]


def test_samples_without_a_grid_are_named_by_their_place(tmp_path: Path) -> None:
    samples = make_samples(has_grid=False)
    mark = samples_fingerprint(samples)
    path = file_of(tmp_path, f"b,beech,drop,,#3,,{mark}\n")
    assert apply_decisions(samples, path).sizes["sample"] == 5
    others = samples.isel(sample=slice(1, None))
    with pytest.raises(InputError, match=rf"'#3' of other samples \({mark}, these are"):
        apply_decisions(others, path)
    relabelled = samples.assign(label=("sample", np.array(["oak"] * 6)))
    assert samples_fingerprint(relabelled) == mark


def test_the_same_file_twice_changes_nothing_more(tmp_path: Path) -> None:
    """A label file that was mended meanwhile needs the fix no more."""
    path = file_of(tmp_path, "a,oak,fix,beech,,,\n")
    once = apply_decisions(make_samples(), path)
    twice = apply_decisions(once, path)
    assert twice["label"].values.tolist() == once["label"].values.tolist()
    assert twice.attrs["canopycube"]["decisions"]["fix"] == 0


def test_no_rows_change_nothing(tmp_path: Path) -> None:
    mended = apply_decisions(make_samples(), file_of(tmp_path, "\n\n"))
    assert mended.sizes["sample"] == 6
    assert mended.attrs["canopycube"]["dropped"] == {"cells at the edge": 3}


def test_columns_may_come_in_any_order_and_be_more(tmp_path: Path) -> None:
    path = file_of(tmp_path, "DROP, a ,x,oak\n", header="\ufeffDecision,group,own column,Given\n")
    assert read_decisions(path) == (Decision(group="a", given="oak", action="drop"),)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("z,oak,drop,,,,\n", "decides about group 'z', which the samples do not have"),
        ("a,beech,drop,,,,\n", "group 'a' given as 'beech', but it is 'oak' in the samples"),
        ("a,oak,fix,baech,,,\n", "'baech', which no sample has; classes are beech, oak"),
        ("a,oak,fix,,,,\n", "line 2: group 'a' is to be fixed, but label is blank"),
        ("a,oak,drop,beech,,,\n", "line 2: group 'a' has label 'beech', which goes with fix"),
        ("a,oak,delete,,,,\n", "line 2: decision 'delete' does not exist; expected accept, fix"),
        (",oak,drop,,,,\n", "line 2: a decision has a blank group or given class"),
        ("a,oak,drop,,9/9,,\n", "sample '9/9' of group 'a', which the samples do not have"),
        ("a,oak,drop,,,,\n\na,oak,accept,,,,\n", "lines 2 and 4 contradict each other about group"),
        ("a,oak,drop\n", "line 2: 3 cells where the header has 7; mend or quote that line"),
        ('a,"oak,drop,,,,\n', "line 2 is no CSV"),
        ("a,oak,drop,,,,\nb,beech,drop,,,,\nc,oak,drop,,,,\n", "drops all 6 samples"),
    ],
)
def test_wrong_rows_are_refused_by_name(tmp_path: Path, rows: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_decisions(make_samples(), file_of(tmp_path, rows))
    assert text in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    with pytest.raises(InputError, match=r"d.csv' cannot be read: No such file"):
        read_decisions(path)
    path.write_bytes(b"group,given,decision\n\xff,oak,drop\n")
    with pytest.raises(InputError, match="is not UTF-8 text; save it as UTF-8"):
        read_decisions(path)
    path.write_text("stand;class\n")
    with pytest.raises(InputError, match="no column group, given, decision; its header is"):
        read_decisions(path)
    path.write_text("group,given,decision,group\n")
    with pytest.raises(InputError, match="has column 'group' twice; rename one"):
        read_decisions(path)
    path.write_text("")
    with pytest.raises(InputError, match="has no column group"):
        read_decisions(path)
    path.write_text(HEADER + "x" * 200_000 + ",oak,drop,,,,\n")
    with pytest.raises(InputError, match="is no CSV: field larger than field limit"):
        read_decisions(path)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_decisions(tmp_path)


def test_equal_rows_count_once(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a,oak,drop,,,one,\na,oak,drop,,,two,\n")
    assert [one.note for one in read_decisions(path)] == ["one"]


def test_hostile_content_is_data(tmp_path: Path) -> None:
    """Formulas and markup are names like others, and a spreadsheet finds no formula."""
    nasty = ['=cmd|"/c calc"!A1', "<script>alert(1)</script>", "@SUM(1)", "'=1", "-2", "a\nb"]
    samples = make_samples().assign(group=("sample", np.array(nasty)))
    decisions = [
        Decision(group=name, given=given, action="accept", note=f"+{name}")
        for name, given in zip(nasty, samples["label"].values.tolist(), strict=True)
    ]
    path = tmp_path / "d.csv"
    write_decisions(path, decisions)
    assert read_decisions(path) == tuple(decisions)
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert apply_decisions(samples, path).attrs["canopycube"]["decisions"]["accept"] == 6


@given(st.text(alphabet=st.sampled_from("'=+-@\t\rab "), max_size=6))
@settings(deadline=None)
def test_guards_come_off_again(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r"))


name = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=5
)


@given(st.lists(st.tuples(name, name, st.sampled_from(["accept", "drop"]), name), max_size=5))
@settings(deadline=None, max_examples=40)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str]]
) -> None:
    import unicodedata

    path = tmp_path_factory.mktemp("decisions") / "d.csv"
    made = {}
    for group, given_class, action, note in rows:
        cells = [unicodedata.normalize("NFC", text) for text in (group, given_class, note)]
        made[cells[0], cells[1]] = Decision(
            group=cells[0],
            given=cells[1],
            action="drop" if action == "drop" else "accept",
            note=cells[2],
        )
    write_decisions(path, made.values())
    assert read_decisions(path) == tuple(made.values())
