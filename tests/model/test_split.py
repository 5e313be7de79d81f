from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import SplitError
from model.samples import Samples
from model.split import NEVER_HELD_OUT, SPLITS, Split, make_folds

Make = Callable[..., Samples]


def labelled(label: list[int], group: list[int]) -> Samples:
    count = len(label)
    return Samples(
        reflectance=np.full((count, 1, 1), 0.1, np.float32),
        bands=("B04",),
        periods=("2022-01",),
        label=np.array(label, np.int64),
        classes=tuple(f"species {index}" for index in range(max(label) + 1)),
        group=np.array(group, np.int64),
        block=np.array(group, np.int64) // 2,
    )


# One (class, size) per group. Samples are built outside the strategy: beartype looks at random
# items of tuples, which hypothesis does not allow there.
group_sizes = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=4, max_size=40)


def of_single_class_groups(sizes: list[tuple[int, int]]) -> Samples:
    label = [c for c, size in sizes for _ in range(size)]
    group = [1000 - unit for unit, (_, size) in enumerate(sizes) for _ in range(size)]
    return labelled(label, group)


@given(group_sizes, st.sampled_from(SPLITS), st.integers(2, 6), st.integers(0, 9))
@settings(deadline=None)
def test_no_unit_is_on_both_sides(
    sizes: list[tuple[int, int]], split: Split, folds: int, seed: int
) -> None:
    samples = of_single_class_groups(sizes)
    try:
        made = make_folds(samples, split, folds=folds, seed=seed)
    except SplitError:
        return
    unit = {"random": np.arange(len(samples)), "grouped": samples.group, "block": samples.block}
    for member in np.unique(unit[split]):
        assert len(set(made.fold[unit[split] == member])) == 1
    assert set(made.fold) - {NEVER_HELD_OUT} == set(range(made.count))
    for fold in range(made.count):
        together = np.concatenate([made.held_out(fold), made.trained_on(fold)])
        assert sorted(together) == list(range(len(samples)))


@given(group_sizes, st.integers(2, 6), st.integers(0, 9))
@settings(deadline=None)
def test_a_class_with_two_groups_is_trained_and_scored(
    sizes: list[tuple[int, int]], folds: int, seed: int
) -> None:
    samples = of_single_class_groups(sizes)
    groups = {c: set(samples.group[samples.label == c]) for c in set(samples.label.tolist())}
    several = [c for c, members in groups.items() if len(members) >= 2]
    if len(several) < 2:
        with pytest.raises(SplitError, match="two classes are the least"):
            make_folds(samples, "grouped", folds=folds, seed=seed)
        return
    made = make_folds(samples, "grouped", folds=folds, seed=seed)
    for c in groups:
        fold = made.fold[samples.label == c]
        if c in several:
            assert len(set(fold)) >= 2
            assert NEVER_HELD_OUT not in fold
        else:
            assert set(fold) == {NEVER_HELD_OUT}
            assert any(f"species {c}" in note and "never scored" in note for note in made.notes)


def test_folds_have_the_class_shares_of_the_whole(make_samples: Make) -> None:
    samples = make_samples(groups=150, per_group=6)
    for split in SPLITS:
        made = make_folds(samples, split, folds=5, seed=3)
        for fold in range(5):
            held = np.bincount(samples.label[made.held_out(fold)], minlength=3)
            share = held / np.bincount(samples.label)
            np.testing.assert_allclose(share, 0.2, atol=0.02)
        assert made.notes == ()


def test_one_seed_one_split(make_samples: Make) -> None:
    samples = make_samples()
    for split in SPLITS:
        first, again, other = (make_folds(samples, split, seed=seed).fold for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_fold_0_has_every_class_that_can_be_scored() -> None:
    # the third class has two groups, so only two of five folds can score it
    label = [0] * 50 + [1] * 50 + [2] * 8
    group = [i // 5 for i in range(100)] + [90] * 4 + [91] * 4
    for seed in range(10):
        made = make_folds(labelled(label, group), "grouped", folds=5, seed=seed)
        assert set(labelled(label, group).label[made.held_out(0)]) == {0, 1, 2}
        assert made.notes == (
            "class 'species 2' lies in 2 groups: it is scored in some folds only",
        )


def test_fewer_units_than_folds_makes_fewer_folds() -> None:
    made = make_folds(labelled([0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 2, 3]), "grouped", folds=5)
    assert made.count == 4
    assert made.notes[0] == "4 folds instead of 5: there are no more groups to hold out"


def test_a_block_that_holds_a_lonely_class_always_trains() -> None:
    samples = labelled([0, 1, 2, 0, 1, 0, 1], [0, 0, 0, 2, 2, 4, 4])
    made = make_folds(samples, "block", folds=3)
    assert made.fold[:3].tolist() == [NEVER_HELD_OUT] * 3
    assert made.count == 2


@pytest.mark.parametrize(
    ("label", "group", "text"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], "finds 0 classes in two groups or more among 2 groups"),
        ([0, 0, 0, 1], [0, 1, 2, 3], "finds 1 classes in two groups or more among 4 groups"),
        ([0, 1, 2, 0, 1], [0, 0, 0, 1, 1], "finds 1 groups that can be held out"),
    ],
)
def test_an_impossible_split_is_refused(label: list[int], group: list[int], text: str) -> None:
    with pytest.raises(SplitError, match=text):
        make_folds(labelled(label, group), "grouped")


def test_one_fold_is_refused(make_samples: Make) -> None:
    with pytest.raises(SplitError, match="1 folds were asked for"):
        make_folds(replace(make_samples()), "random", folds=1)
