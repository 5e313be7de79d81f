"""Folds by region, year and distance, and buffers: plain loops over all pairs are the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from model.errors import SplitError
from model.samples import Samples
from model.split import ALL_SPLITS, NEVER_HELD_OUT, SPLITS, Split, make_folds, splits_of
from model.split.knndm import places_between


def placed(
    seed: int,
    *,
    groups: int = 60,
    per_group: int = 2,
    centres: int = 6,
    classes: int = 3,
    extent: float = 60_000,
    spread: float = 600,
) -> Samples:
    """Groups round a few centres far apart, as field campaigns leave them."""
    random = np.random.default_rng(seed)
    centre = random.uniform(0, extent, (centres, 2))
    home = random.integers(0, centres, groups)
    stand = centre[home] + random.normal(0, spread, (groups, 2))
    place = np.repeat(stand, per_group, axis=0)
    place += random.normal(0, 10, place.shape)
    square = np.floor(place / 1000).astype(int)
    count = groups * per_group
    return Samples(
        reflectance=np.full((count, 1, 1), 0.1, np.float32),
        bands=("B04",),
        periods=("2022-01",),
        label=np.repeat(np.arange(groups) % classes, per_group).astype(np.int64),
        classes=tuple(f"species {index}" for index in range(classes)),
        group=np.repeat(np.arange(groups), per_group).astype(np.int64),
        block=np.unique(square, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64),
        place=place,
        region=np.repeat(home, per_group).astype(np.int64),
        year=np.repeat(2019 + random.integers(0, 3, groups), per_group).astype(np.int64),
    )


def between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Metres between all pairs, by the plain formula."""
    return np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=2))


@given(
    st.integers(0, 500),
    st.sampled_from(ALL_SPLITS),
    st.integers(2, 6),
    st.sampled_from([0.0, 15.0, 400.0, 1500.0]),
)
@settings(deadline=None, max_examples=40)
def test_no_unit_is_on_both_sides_and_the_buffer_is_kept(
    seed: int, split: Split, folds: int, buffer: float
) -> None:
    samples = placed(seed, centres=3 + seed % 4)
    try:
        made = make_folds(samples, split, folds=folds, seed=seed, buffer=buffer)
    except SplitError as error:
        assert "smaller buffer" in str(error)  # noqa: PT017 - the others go on below
        return
    assert samples.region is not None
    assert samples.year is not None
    assert samples.place is not None
    units = {
        "random": [np.arange(len(samples))],
        "grouped": [samples.group],
        "block": [samples.block, samples.group],
        "region": [samples.region, samples.group],
        "year": [samples.year],
        "knndm": [samples.group],
    }[split]
    scored = []
    for fold in range(made.count):
        held, train = made.held_out(fold), made.trained_on(fold)
        scored.append(held)
        in_fold = np.flatnonzero(made.fold == fold)
        for unit in units:
            assert not set(unit[in_fold]) & set(unit[train])
        assert set(samples.label[held]) <= set(samples.label[train])
        if buffer:
            assert between(samples.place[held], samples.place[train]).min(initial=np.inf) > buffer
        # nothing is left out without a reason
        reach = between(samples.place, samples.place[in_fold]).min(axis=1)
        shares = np.zeros(len(samples), dtype=bool)
        if split in ("block", "region"):
            shares = np.isin(samples.group, samples.group[in_fold])
        expected = (made.fold != fold) & ~shares & ((reach > buffer) | (buffer == 0))
        assert train.tolist() == np.flatnonzero(expected).tolist()
    together = np.concatenate(scored)
    assert len(set(together)) == len(together)
    unscored = np.setdiff1d(np.flatnonzero(made.fold != NEVER_HELD_OUT), together)
    for index in unscored:
        assert samples.label[index] not in samples.label[made.trained_on(int(made.fold[index]))]
    names = {samples.classes[index] for index in samples.label[unscored]}
    noted = {name for name in samples.classes if any(f"{name!r}: " in note for note in made.notes)}
    assert noted == names
    assert any(note.startswith(f"the buffer of {buffer:g} m") for note in made.notes) == (
        buffer > 0
    )


@pytest.mark.parametrize("seed", range(6))
def test_distances_of_knndm_are_nearer_to_those_of_the_map(seed: int) -> None:
    samples = placed(seed, groups=120)
    assert samples.place is not None
    mapped = np.random.default_rng(77).uniform(0, 60_000, (400, 2))
    wanted = between(mapped, samples.place).min(axis=1)
    away: dict[str, float] = {}
    for split in (*SPLITS, "knndm"):
        made = make_folds(samples, split, seed=seed, prediction=mapped)
        found = [
            between(samples.place[index : index + 1], samples.place[made.fold != fold]).min()
            for index, fold in enumerate(made.fold)
        ]
        away[split] = wasserstein_distance(found, wanted)
        if split == "knndm":
            assert made.distance == pytest.approx(away[split])
            assert np.bincount(made.fold).max() <= len(samples) / 2
    assert away["knndm"] <= min(away.values())
    assert away["knndm"] < 0.8 * away["random"]


def test_knndm_of_samples_as_dense_as_the_map_is_like_a_grouped_split() -> None:
    random = np.random.default_rng(5)
    samples = replace(placed(0, groups=400, per_group=1), place=random.uniform(0, 1000, (400, 2)))
    made = make_folds(samples, "knndm", folds=5)
    assert made.distance is not None
    assert made.distance < 15  # metres, where samples are 50 m apart
    assert np.bincount(made.fold).min() > 50


def test_knndm_takes_its_own_places_where_none_are_given_and_follows_the_seed() -> None:
    samples = placed(3)
    first, again = (make_folds(samples, "knndm", seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.fold, again.fold)
    assert first.distance == again.distance
    assert samples.place is not None
    line = replace(samples, place=samples.place * [1.0, 0.0])
    assert make_folds(line, "knndm").count == 5
    one = replace(samples, place=np.zeros_like(samples.place))
    assert make_folds(one, "knndm").distance == 0


def test_twenty_thousand_samples_are_split_with_few_distances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    from model.split import knndm

    plain = knndm.linkage

    def counting(middle: np.ndarray, method: str) -> np.ndarray:
        asked.append(len(middle))
        return np.asarray(plain(middle, method=method))

    monkeypatch.setattr(knndm, "linkage", counting)
    monkeypatch.setattr(knndm, "_CANDIDATES", 4)
    samples = placed(1, groups=20_000, per_group=1, centres=40, extent=300_000, spread=5000)
    made = make_folds(samples, "knndm")
    assert len(made.fold) == 20_000
    assert asked
    assert max(asked) <= 2000


def test_one_region_or_year_is_left_out_at_a_time() -> None:
    samples = placed(2, centres=4)
    for split, unit in (("region", samples.region), ("year", samples.year)):
        assert unit is not None
        made = make_folds(samples, split, folds=9)  # type: ignore[arg-type]
        assert made.count == len(set(unit.tolist()))
        assert {frozenset(unit[made.fold == fold].tolist()) for fold in range(made.count)} == {
            frozenset([one]) for one in unit.tolist()
        }
        assert made.notes == ()
        dealt = make_folds(samples, split, folds=2)  # type: ignore[arg-type]
        assert dealt.count == 2
        assert set(dealt.fold.tolist()) == {0, 1}


def test_a_class_of_one_region_is_held_out_but_not_scored() -> None:
    samples = placed(2, centres=4)
    assert samples.region is not None
    label = np.where(samples.region == 0, 2, samples.label % 2).astype(np.int64)
    label[np.flatnonzero(samples.region == 0)[:6]] = [0, 1, 0, 1, 0, 1]
    odd = replace(samples, label=label)
    made = make_folds(odd, "region")
    lost = int((label == 2).sum())
    assert made.notes == (
        f"class 'species 2': {lost} samples are held out while none of the class trains; "
        "they are not scored",
    )
    scored = np.concatenate([made.held_out(fold) for fold in range(made.count)])
    assert sorted(scored.tolist()) == np.flatnonzero(label != 2).tolist()


def test_a_region_that_nothing_can_be_scored_of_always_trains() -> None:
    samples = placed(2, centres=4)
    assert samples.region is not None
    label = np.where(samples.region == 0, 2, samples.label % 2).astype(np.int64)
    made = make_folds(replace(samples, label=label), "region")
    assert made.count == 3
    assert made.notes[-1] == "1 folds always train, for nothing of them could be scored"
    assert not any("are held out while none" in note for note in made.notes)
    np.testing.assert_array_equal(made.fold == NEVER_HELD_OUT, samples.region == 0)
    assert made.is_scored is None
    for fold in range(3):
        assert len(made.held_out(fold))
        assert set(np.flatnonzero(samples.region == 0)) <= set(made.trained_on(fold).tolist())


def test_what_a_split_needs_is_said() -> None:
    samples = placed(0)
    bare = replace(samples, place=None, region=None, year=None)
    assert splits_of(samples) == ALL_SPLITS
    assert splits_of(bare) == SPLITS
    assert samples.place is not None
    lost = samples.place.copy()
    lost[:3] = np.nan
    cases: list[tuple[Samples, Split, dict[str, float], str]] = [
        (bare, "region", {}, "the region split needs a region of every sample; these have none"),
        (bare, "year", {}, "the year split needs a year of every sample"),
        (bare, "knndm", {}, "the knndm split needs the places of samples; these have none"),
        (bare, "block", {"buffer": 50.0}, "a buffer of 50 m needs the places of samples"),
        (replace(samples, place=lost), "knndm", {}, "3 of 120 lack theirs"),
        (samples, "grouped", {"buffer": -1.0}, "a buffer of -1.0 m was asked for"),
        (samples, "grouped", {"buffer": 1e6}, "leaves no sample to train on when .* smaller"),
        (
            replace(samples, region=np.zeros(len(samples), np.int64)),
            "region",
            {},
            "^all samples are of one region; two regions are the least for the region split$",
        ),
        (
            replace(samples, year=np.full(len(samples), 2018)),
            "year",
            {},
            "^all samples are of 2018; two years are the least for the year split$",
        ),
    ]
    for given_samples, split, options, text in cases:
        with pytest.raises(SplitError, match=text):
            make_folds(given_samples, split, **options)  # type: ignore[arg-type]
    for prediction, text in (
        (np.empty((0, 2)), "no place of prediction was given"),
        (np.array([[0.0, 1.0], [np.nan, 2.0]]), "1 of 2 places of prediction have no finite"),
    ):
        with pytest.raises(SplitError, match=text):
            make_folds(samples, "knndm", prediction=prediction)


def test_knndm_says_when_the_hull_stands_for_the_map() -> None:
    samples = placed(3)
    assert samples.place is not None
    without = make_folds(samples, "knndm")
    assert without.is_of_hull
    assert without.notes[0].startswith("nothing says what will be mapped: places all over the con")
    known = make_folds(samples, "knndm", prediction=samples.place + 50)
    assert not known.is_of_hull
    assert not any("hull" in note for note in known.notes)
    assert not make_folds(samples, "grouped").is_of_hull


def test_a_year_of_the_same_stands_is_told() -> None:
    samples = placed(2)
    twice = replace(samples, year=np.arange(len(samples)) % 2 + 2020)
    notes = make_folds(twice, "year").notes
    assert notes[-1].startswith("60 groups lie in several years: the same stand is on both sides")


def test_samples_almost_in_a_line_get_places_along_it() -> None:
    along = np.linspace(0, 50_000, 40)
    for aside in (0.0, 1e-6, 0.01):
        line = np.column_stack([along, 80_000 - along])  # falling to the east
        line[::2] += aside
        found = places_between(line)
        assert 1000 <= len(found) <= 4000
        assert np.abs(found.sum(axis=1) - 80_000).max() < 50
        assert np.ptp(found[:, 0]) > 49_000
