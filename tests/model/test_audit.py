"""Every fault, alone in otherwise clean sequences, is found under its name; clean ones are clean."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_series import SeriesSpec, simulated_series

from model.audit import CODES, LEAKS, NO_DAY, Audited, audit
from model.audit.canary import canaries, thinned
from model.audit.duplicates import identical_series, shared
from model.audit.fill import find_fill
from model.audit.finding import Finding
from model.audit.missing import is_fill
from model.audit.robust import median_known, spread_known
from model.audit.telling import class_told_by, find_telling
from model.errors import SampleError
from model.samples import Samples
from model.split import Folds, make_folds

CLEAN = SeriesSpec(seed=2, classes=4, groups=100)
"""Sequences in which nothing at all is found."""

Fault = Callable[[Audited, np.random.Generator], Audited]


def audited_of(samples: Samples, *splits: str, **more: Any) -> Audited:
    folds = tuple(make_folds(samples, split, seed=1) for split in splits or ("grouped", "block"))
    return Audited.of(samples, folds=folds, **more)


@pytest.fixture(scope="module")
def clean() -> Audited:
    return audited_of(simulated_series(CLEAN))


@pytest.fixture(scope="module")
def hazy() -> Audited:
    """Clean sequences with AOT and WVP."""
    return audited_of(simulated_series(replace(CLEAN, has_atmosphere=True)))


def codes(audited: Audited) -> set[str]:
    return {finding.code for finding in audit(audited)}


def changed(audited: Audited, values: np.ndarray) -> Audited:
    return replace(audited, values=values.astype(np.float32))


def test_clean_sequences_have_no_finding(clean: Audited, hazy: Audited) -> None:
    assert codes(clean) == set()
    assert codes(hazy) == set()


# --- faults of values -------------------------------------------------------------------------


def filled(fill: float, *, bands: slice = slice(None)) -> Fault:
    def put(audited: Audited, random: np.random.Generator) -> Audited:
        values = audited.values.copy()
        chosen = np.flatnonzero(random.random(len(values)) < 0.1)
        values[chosen, 5, bands] = fill
        return changed(audited, values)

    return put


def padded(audited: Audited, random: np.random.Generator) -> Audited:
    """Drop what is missing, close up, and repeat the last row, as the reference workflow does."""
    values = audited.values.copy()
    for sample in range(0, len(values), 3):
        known = values[sample][np.isfinite(values[sample]).all(axis=1)]
        values[sample] = np.concatenate([known, np.repeat(known[-1:], 12 - len(known), axis=0)])
    return changed(audited, values)


def carried_forward(audited: Audited, random: np.random.Generator) -> Audited:
    values = audited.values.copy()
    for step in range(1, 11):
        gap = np.isnan(values[:, step]).all(axis=1) & (random.random(len(values)) < 0.3)
        values[gap, step] = values[gap, step - 1]
    return changed(audited, values)


def filled_down(audited: Audited, random: np.random.Generator) -> Audited:
    values = audited.values.copy()
    for step in range(12):
        for sample in range(1, len(values)):
            if np.isnan(values[sample, step]).all() and random.random() < 0.2:
                values[sample, step] = values[sample - 1, step]
    return changed(audited, values)


def shifted(amount: float, *, steps: slice = slice(None), share: float = 1.0) -> Fault:
    """Add to reflectance; with a share below 1 only in so many of the groups."""

    def put(audited: Audited, random: np.random.Generator) -> Audited:
        values = audited.values.copy()
        groups = np.unique(audited.group)
        some = random.choice(groups, max(1, round(share * len(groups))), replace=False)
        of_some = np.isin(audited.group, some)
        values[of_some, steps] += np.float32(amount)
        return changed(audited, values)

    return put


def swapped(one: str, other: str, *, steps: slice = slice(None)) -> Fault:
    def put(audited: Audited, random: np.random.Generator) -> Audited:
        values = audited.values.copy()
        a, b = audited.bands.index(one), audited.bands.index(other)
        values[:, steps, [a, b]] = values[:, steps, [b, a]]
        return changed(audited, values)

    return put


def constant(audited: Audited, random: np.random.Generator) -> Audited:
    values = audited.values.copy()
    at = audited.bands.index("B05")
    values[..., at] = np.where(np.isnan(values[..., at]), np.nan, 0.2)
    return changed(audited, values)


def empty_band(audited: Audited, random: np.random.Generator) -> Audited:
    values = audited.values.copy()
    values[..., audited.bands.index("B11")] = np.nan
    return changed(audited, values)


def zeros(audited: Audited, random: np.random.Generator) -> Audited:
    values = audited.values.copy()
    values[:8, 3:7, audited.bands.index("B11")] = 0
    return changed(audited, values)


def clouded(audited: Audited, random: np.random.Generator) -> Audited:
    values = audited.values.copy()
    is_cloud = random.random(values.shape[:2]) < 0.03
    values[is_cloud] = values[is_cloud] * 0.3 + 0.45
    return changed(audited, values)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (filled(-999.0), {"fill-value"}),
        (filled(-0.0999), {"fill-value"}),
        (filled(6.5535, bands=slice(0, 1)), {"fill-value"}),
        (filled(65535.0), {"fill-value"}),
        (filled(-3.2768), {"fill-value"}),
        (filled(0.0), {"fill-value"}),
        (zeros, {"zero-run"}),
        (padded, {"padded-end"}),
        (carried_forward, {"repeated-step"}),
        (filled_down, {"filled-down"}),
        (shifted(0.1), {"offset-left-in"}),
        (shifted(0.1, steps=slice(4, 6)), {"offset-left-in"}),
        (shifted(0.1, share=0.2), {"offset-left-in"}),
        (shifted(-0.1), {"offset-removed-twice"}),
        (shifted(-0.1, steps=slice(7, 8)), {"offset-removed-twice"}),
        (swapped("B04", "B08"), {"swapped-bands"}),
        (swapped("B05", "B06"), {"swapped-bands"}),
        (swapped("B02", "B03"), {"swapped-bands"}),
        (swapped("B11", "B12", steps=slice(6, 8)), {"swapped-bands"}),
        (constant, {"constant-band"}),
        (empty_band, {"empty-band"}),
        (clouded, {"cloud-inside"}),
    ],
)
def test_fault_of_values_is_found_under_its_name(
    clean: Audited, fault: Fault, expected: set[str]
) -> None:
    broken = fault(clean, np.random.default_rng(3))
    found = audit(broken)
    assert {one.code for one in found} - {"label-envelope"} == expected
    touched = np.flatnonzero(
        ~np.isclose(broken.values, clean.values, equal_nan=True).all(axis=(1, 2))
    )
    for one in found:
        if one.code in expected and one.rows:
            assert one.count > 0
            assert np.isin(one.rows, touched).mean() > 0.9  # the rows to look at are the right ones


def test_offset_names_the_dates_it_was_left_in(clean: Audited) -> None:
    found = audit(shifted(0.1, steps=slice(4, 6))(clean, np.random.default_rng(0)))
    assert "2022-05, 2022-06" in found[0].what
    assert found[0].severity == "severe"


def test_negative_reflectance_that_was_cut_off_is_an_offset_removed_twice(clean: Audited) -> None:
    values = np.maximum(clean.values - np.float32(0.1), 0)
    assert "offset-removed-twice" in codes(changed(clean, values))


def test_swapped_bands_are_named(clean: Audited) -> None:
    found = audit(swapped("B05", "B06")(clean, np.random.default_rng(0)))
    assert "B05 > B06" in found[0].what


# --- indices ----------------------------------------------------------------------------------


def evi(audited: Audited, unit: float) -> np.ndarray:
    blue, red, near = (audited.band(band).astype(float) * unit for band in ("B02", "B04", "B08"))
    return np.asarray(2.5 * (near - red) / (near + 6 * red - 7.5 * blue + 1), np.float32)


def test_index_on_counts_is_told_from_one_on_reflectance(clean: Audited) -> None:
    assert codes(replace(clean, columns={"EVI": evi(clean, 1.0)})) == set()
    assert codes(replace(clean, columns={"EVI": evi(clean, 1e4)})) == {"index-on-counts"}


def test_index_that_contradicts_its_bands_is_found(clean: Audited) -> None:
    red, near = clean.band("B04"), clean.band("B08")
    ndvi = (near - red) / (near + red)
    assert codes(replace(clean, columns={"NDVI": ndvi})) == set()
    moved = np.where(np.arange(len(clean))[:, None] < 100, np.roll(ndvi, 1, axis=0), ndvi)
    assert codes(replace(clean, columns={"NDVI": moved})) == {"index-contradicts-bands"}


# --- what tells the class ---------------------------------------------------------------------


def test_class_told_by_gaps_and_by_the_number_of_dates(clean: Audited) -> None:
    values = clean.values.copy()
    of_class = clean.label == 1
    values[np.ix_(of_class, [0, 1, 2, 10, 11])] = np.nan
    found = audit(changed(clean, values))
    grave = {one.code for one in found if one.severity == "severe"}
    assert grave == {"class-by-date-count", "class-by-gaps"}
    assert "species 1" in found[0].what


def test_class_told_by_its_dates(clean: Audited) -> None:
    start = np.datetime64("2022-01-05", "D").astype(np.int32)
    day = (start + 30 * np.arange(12, dtype=np.int32))[None].repeat(len(clean), axis=0)
    dated = replace(clean, periods=None, day=day)
    assert codes(dated) == set()
    late = np.where(clean.label[:, None] == 2, day + 20, day).astype(np.int32)
    found = audit(replace(dated, day=late))
    assert [one.code for one in found] == ["class-by-dates"]
    assert found[0].severity == "severe"
    # another year is no other season, so that no network can see it
    other = np.where(clean.label[:, None] == 2, day + 365, day).astype(np.int32)
    found = audit(replace(dated, day=other))
    assert [(one.code, one.severity) for one in found] == [("class-by-dates", "warning")]


def test_uneven_numbers_of_dates_are_told(clean: Audited) -> None:
    day = np.arange(12, dtype=np.int32)[None].repeat(len(clean), axis=0) * 30
    values = clean.values.copy()
    values[::3, 11], day[::3, 11] = np.nan, NO_DAY
    broken = replace(clean, periods=None, day=day, values=values)
    assert codes(broken) == {"uneven-dates"}


@pytest.mark.parametrize("blocks", [6, 12, 40])
def test_dates_of_a_place_are_no_dates_of_a_class(clean: Audited, blocks: int) -> None:
    """Few blocks suffice to tell a class that was sampled otherwise from a place that was."""
    label = (clean.group % 2).astype(np.int64)
    # half of the groups of one class lie in a block of theirs, all others anywhere else
    is_alone = clean.group % 4 == 0
    block = np.where(is_alone, 0, 1 + clean.group % (blocks - 1)).astype(np.int64)
    places = replace(clean, block=block, label=label, folds=(), classes=("a", "b"))
    for lacks, severity in ((label == 0, "severe"), (is_alone, "warning")):
        values = np.nan_to_num(clean.values, nan=0.1)
        values[lacks, 3:] = np.nan
        found = {one.code: one for one in find_telling(replace(places, values=values))}
        assert found["class-by-date-count"].severity == severity
        assert "too few blocks" not in found["class-by-date-count"].what


def test_too_few_blocks_are_told(clean: Audited) -> None:
    block = (clean.group % 2).astype(np.int64)
    values = clean.values.copy()
    values[clean.label == 2, 8:] = np.nan
    found = {one.code: one for one in find_telling(replace(clean, values=values, block=block))}
    assert found["class-by-date-count"].severity == "severe"
    assert "too few blocks to say whether that is but the place" in (
        found["class-by-date-count"].what
    )


@pytest.mark.parametrize("band", ["AOT", "WVP"])
def test_class_told_by_the_atmosphere(hazy: Audited, band: str) -> None:
    values = hazy.values.copy()
    values[hazy.label == 0, :, hazy.bands.index(band)] += np.float32(0.05)
    code = f"class-by-{band.lower()}"
    found = audit(changed(hazy, values))
    assert [(one.code, one.severity) for one in found] == [(code, "warning")]
    seen = replace(changed(hazy, values), features=(*hazy.bands,))
    assert [(one.code, one.severity) for one in audit(seen)] == [(code, "severe")]


def test_trees_tell_what_a_threshold_tells() -> None:
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 400)
    told = class_told_by(
        label[:, None] + random.normal(0, 0.1, (400, 1)), label, np.arange(400, dtype=np.int64)
    )
    assert told is not None
    assert told.accuracy == 1.0
    assert told.majority == max(label.mean(), 1 - label.mean())
    nothing = class_told_by(random.random((400, 3)), label, np.arange(400, dtype=np.int64))
    assert nothing is not None
    assert not nothing.is_told


# --- splits -----------------------------------------------------------------------------------


def with_fold(audited: Audited, at: int, fold: np.ndarray) -> Audited:
    folds = list(audited.folds)
    folds[at] = replace(folds[at], fold=fold.astype(np.int64))
    return replace(audited, folds=tuple(folds))


def test_grouped_split_by_sample_is_severe(clean: Audited) -> None:
    fold = np.random.default_rng(0).integers(0, 5, len(clean))
    found = audit(with_fold(clean, 0, fold))
    assert {one.code for one in found} == {"split-canary", "group-on-both-sides"}
    assert all(one.severity == "severe" for one in found)


def test_block_and_region_splits_must_not_cut_groups(clean: Audited) -> None:
    samples = simulated_series(CLEAN)
    # a fifth of the groups lies in two regions and blocks
    half = np.where(samples.group % 5 == 0, np.arange(len(samples)), samples.group // 5) % 2
    divided = replace(samples, region=half, block=half + 2 * (samples.group % 20))
    folds = [make_folds(divided, split, seed=1) for split in ("block", "region")]
    sound = Audited.of(divided, folds=tuple(folds))
    assert "group-on-both-sides" not in {one.code for one in audit(sound)}
    cut = tuple(replace(made, group=None) for made in folds)  # divided groups train after all
    found = [one for one in audit(replace(sound, folds=cut)) if one.code == "group-on-both-sides"]
    assert [one.severity for one in found] == ["severe", "severe"]
    assert {one.what.split()[1] for one in found} == {"block", "region"}


def test_random_split_is_only_noted(clean: Audited) -> None:
    samples = simulated_series(CLEAN)
    found = audit(audited_of(samples, "random", "grouped"))
    assert [(one.code, one.severity) for one in found] == [("split-canary", "note")]
    assert "Never believe the score of the random split" in found[0].advice
    believed = audit(
        replace(audited_of(samples, "random"), believed=frozenset({"random", "grouped"}))
    )
    assert [(one.code, one.severity) for one in believed] == [("split-canary", "severe")]


def test_same_pixel_and_same_series_on_both_sides(clean: Audited) -> None:
    assert clean.place is not None
    held, trained = clean.folds[0].held_out(0)[:6], clean.folds[0].trained_on(0)[:6]
    label = clean.label.copy()
    label[held] = label[trained]
    place = clean.place.copy()
    place[held] = place[trained]
    found = audit(replace(clean, place=place, label=label, folds=clean.folds[:1]))
    assert "same-pixel" in {one.code for one in found}
    values = clean.values.copy()
    values[held] = values[trained]
    broken = replace(clean, values=values, label=label, folds=clean.folds[:1])
    by_code = {one.code: one for one in audit(broken)}
    assert "identical-series" in by_code
    assert set(held.tolist()) <= set(by_code["identical-series"].rows)
    assert by_code["identical-series"].severity == "severe"
    assert set(by_code) <= {"identical-series", "mixed-group", "label-envelope"}


def test_shared_units_as_a_plain_loop_finds_them(clean: Audited) -> None:
    random = np.random.default_rng(5)
    split = replace(clean.folds[0], fold=random.integers(-1, 3, len(clean)), count=3)
    unit = random.integers(-1, 300, len(clean))
    expected = [
        unit[at] >= 0
        and split.fold[at] >= 0
        and any(unit[other] == unit[at] and split.fold[other] != split.fold[at] for other in range(len(clean)))
        for at in range(len(clean))
    ]  # fmt: skip
    np.testing.assert_array_equal(shared(unit, split), expected)


def test_canary_lies_at_chance_for_groups_and_far_above_for_samples() -> None:
    samples = simulated_series(SeriesSpec(seed=4, classes=3, groups=90))
    random, grouped = canaries(audited_of(samples, "random", "grouped"))
    assert random is not None
    assert grouped is not None
    assert random.accuracy > 0.95
    assert random.is_dead
    assert grouped.sigmas < 1
    assert not grouped.recognised
    # effective number of groups: all of nearly one size
    assert 60 < grouped.groups <= 90


def test_rare_classes_do_not_hide_a_leak() -> None:
    samples = simulated_series(SeriesSpec(seed=4, classes=2, groups=53))
    rare = replace(samples, label=(samples.group < 5).astype(np.int64))
    random, grouped = canaries(audited_of(rare, "random", "grouped"))
    assert random is not None
    assert grouped is not None
    assert random.is_dead
    assert not grouped.is_dead


def test_few_large_groups_are_enough_to_tell_a_leak() -> None:
    samples = simulated_series(SeriesSpec(seed=4, classes=2, groups=6, per_group=40, gap=0))
    (random,) = canaries(audited_of(samples, "random"))
    assert random is not None
    assert random.is_dead


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(4, 500), st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_large_groups_are_thinned_before_any_is_left_out(
    sizes: list[int], most: int, seed: int
) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    group = np.random.default_rng(seed).permutation(group)
    chosen = thinned(group, most)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) <= max(most, 0)
    kept = np.bincount(group[chosen], minlength=len(sizes))
    if sum(sizes) <= most:
        np.testing.assert_array_equal(kept, sizes)
    elif sum(min(size, 4) for size in sizes) <= most:
        # the plain way: raise the most of a group until it no longer fits
        level = max(n for n in range(4, 401) if sum(min(size, n) for size in sizes) <= most)
        np.testing.assert_array_equal(kept, np.minimum(sizes, level))
    else:
        assert ((kept == 0) | (kept == np.minimum(sizes, 4))).all()


# --- labels -----------------------------------------------------------------------------------


def test_duplicate_of_another_class_is_a_conflict(clean: Audited) -> None:
    samples = simulated_series(CLEAN)
    label = samples.label.copy()
    label[1] = (label[0] + 1) % 4
    values = samples.reflectance.copy()
    values[1] = values[0]
    broken = replace(samples, reflectance=values, label=label)
    found = {one.code: one for one in audit(audited_of(broken))}
    assert set(found) - {"label-envelope"} == {"label-conflict", "mixed-group"}
    assert found["label-conflict"].rows == (0, 1)


def test_label_far_from_its_class_is_told_with_its_row(clean: Audited) -> None:
    values = clean.values.copy()
    values[17] = values[17] * 0.5 + 0.06
    found = audit(changed(clean, values))
    assert [one.code for one in found] == ["label-envelope"]
    assert found[0].rows == (17,)
    assert found[0].severity == "warning"


def test_few_groups_mixed_groups_and_empty_sequences(clean: Audited) -> None:
    samples = simulated_series(CLEAN)
    rare = samples.take(
        np.flatnonzero((samples.label != 0) | (samples.group < 12)).astype(np.int64)
    )
    assert codes(audited_of(rare)) == {"few-groups"}
    label = samples.label.copy()
    label[3] = (label[3] + 1) % 4
    mixed = codes(audited_of(replace(samples, label=label)))
    assert mixed - {"label-envelope"} == {"mixed-group"}
    values = clean.values.copy()
    values[5] = np.nan
    assert codes(changed(clean, values)) == {"empty-sequence"}


def test_labels_outside_the_cube_are_told(clean: Audited) -> None:
    found = audit(replace(clean, outside={"points outside the cube": 7}))
    assert [one.code for one in found] == ["label-outside"]
    assert "7 points outside the cube" in found[0].what


def test_pixels_that_are_groups_of_their_own_make_the_grouped_split_random() -> None:
    samples = simulated_series(CLEAN)
    alone = replace(samples, group=np.arange(len(samples), dtype=np.int64))
    found = {one.code: one for one in audit(audited_of(alone, "grouped"))}
    assert found["groups-too-fine"].severity == "severe"
    # a few polygons among them change nothing
    some = np.where(samples.group < 5, samples.group, 1000 + np.arange(len(samples)))
    mostly = replace(samples, group=some.astype(np.int64))
    assert "groups-too-fine" in codes(audited_of(mostly, "grouped"))
    # one pixel a place is a group by right
    far = samples.take(np.unique(samples.group, return_index=True)[1].astype(np.int64))
    assert "groups-too-fine" not in codes(audited_of(far, "grouped"))


# --- no false alarm ---------------------------------------------------------------------------


def leaks_of(seed: int) -> list[str]:
    """Return what is told of a grouped and a block split of clean samples, and should not be."""
    random = np.random.default_rng(seed)
    spec = SeriesSpec(
        seed=seed,
        classes=int(random.integers(2, 13)),
        groups=int(random.integers(30, 200)),
        per_group=int(random.choice([1, 4, 9])),
        gap=float(random.choice([0.0, 0.2, 0.5])),
        noise=float(random.choice([0.003, 0.01])),
        has_atmosphere=bool(random.random() < 0.5),
    )
    samples = simulated_series(spec)
    folds = tuple(make_folds(samples, split, seed=seed) for split in ("grouped", "block"))
    found = audit(Audited.of(samples, folds=folds))
    return [f"{seed}: {one.what}" for one in found if one.severity == "severe" or one.code in LEAKS]


def test_no_false_alarm_on_ten_clean_splits() -> None:
    assert [told for seed in range(5) for told in leaks_of(seed)] == []


@pytest.mark.slow
def test_no_false_alarm_on_a_hundred_clean_splits() -> None:
    assert [told for seed in range(100, 200) for told in leaks_of(seed)] == []


# --- parts ------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_median_of_what_is_known_is_that_of_numpy(seed: int, rows: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, columns))
    values[random.random(values.shape) < 0.4] = np.nan
    for column in range(columns):
        known = values[~np.isnan(values[:, column]), column]
        expected = np.median(known) if len(known) else np.nan
        np.testing.assert_allclose(median_known(values)[column], expected)
        deviation = np.median(np.abs(known - expected)) * 1.4826 if len(known) else np.nan
        np.testing.assert_allclose(spread_known(values)[column], deviation)


def test_fill_values_that_could_be_real_must_stand_out() -> None:
    random = np.random.default_rng(0)
    # an offset removed twice reaches down to -0.1, through the scaled -999
    values = np.rint(random.normal(-0.09, 0.01, (3000, 1, 1)) * 1e4).astype(np.float32) / 1e4
    assert not is_fill(values.astype(np.float32), ("B02",)).any()
    values[:300] = -0.0999
    assert is_fill(values.astype(np.float32), ("B02",)).sum() >= 300


def test_fill_of_other_sensors_must_stand_out() -> None:
    random = np.random.default_rng(0)
    decibels = np.rint(random.normal(-11, 2, (2000, 12, 1)) * 1e3) / 1e3
    decibels[5, 5] = -9.999
    assert not is_fill(decibels.astype(np.float32), ("VH",)).any()
    counts = np.rint(random.uniform(-1000, 1000, (2000, 12, 1)))
    assert (counts == -999).any()
    assert not is_fill(counts.astype(np.float32), ("NDVI",)).any()
    counts[:300, 3] = -999
    assert is_fill(counts.astype(np.float32), ("NDVI",)).sum() >= 300
    ndvi = random.uniform(-0.2, 0.9, (2000, 12, 1))
    ndvi[7, 7], ndvi[8, 8] = -999, 65535
    found = is_fill(ndvi.astype(np.float32), ("NDVI",))
    assert np.argwhere(found).tolist() == [[7, 7, 0], [8, 8, 0]]
    # one is enough where no such value can be
    ndvi[:] = 0.05
    ndvi[7, 7] = -999
    assert is_fill(ndvi.astype(np.float32), ("B02",)).sum() == 1


def an_index(seed: int = 0, *, decimals: int = 4) -> np.ndarray:
    """Return NDVI between -0.15 and 0.95."""
    values = np.random.default_rng(seed).uniform(-0.15, 0.95, (400, 12, 1))
    return np.round(values, decimals).astype(np.float32)


def findings_of(values: np.ndarray, name: str = "NDVI") -> dict[str, Finding]:
    """Return what is found of fill in a column of an index."""
    units = np.arange(len(values))
    audited = Audited(
        values=values, bands=(name,), label=units % 2, classes=("a", "b"), group=units
    )
    return {one.code: one for one in find_fill(audited) if one.code.startswith("fill")}


def test_fill_that_was_mixed_into_an_index_is_told() -> None:
    values = an_index()
    assert not findings_of(values)
    values[3, 3], values[4, 4] = 1.5, 3.1
    assert not findings_of(values)  # of negative reflectance, maybe
    values[5, 5], values[6, 6] = 65535, 23_000.5
    found = findings_of(values)
    assert found["fill-value"].what.startswith("1 values in 1 samples stand for nothing (65535)")
    assert found["fill-mixed"].what == (
        "3 values of NDVI in 3 samples are beyond 1, beside fill values"
    )
    assert set(found["fill-mixed"].rows) == {3, 4, 6}
    assert set(findings_of(values, "CIre")) == {"fill-value"}  # may well be beyond 1


def test_the_scaled_fill_of_modis_is_told_where_it_stands_alone() -> None:
    values = an_index()
    values[:20, 3] = -0.3
    found = findings_of(values)["fill-value"]
    assert found.severity == "warning"
    assert found.what.startswith("20 values of NDVI in 20 samples are -0.3, the scaled fill value")
    values[30, 3] = -0.25  # another sensor, whose indices reach there
    assert not findings_of(values)
    rounded = an_index(decimals=1)
    rounded[:20, 3] = -0.3
    assert not findings_of(rounded)
    assert not findings_of(an_index() - np.float32(0.15))


def test_identical_series_are_numbered_alike_and_short_ones_not_at_all() -> None:
    values = np.random.default_rng(0).random((5, 6, 2)).astype(np.float32)
    values[3] = values[1]
    values[[1, 3], 2] = np.nan
    values[4, 2:] = np.nan
    number = identical_series(values)
    assert number[1] == number[3] >= 0
    assert len(set(number[:3].tolist())) == 3
    assert number[4] == -1


def test_every_code_is_known_and_nothing_is_changed(clean: Audited) -> None:
    before = clean.values.copy()
    broken = filled(-999.0)(clean, np.random.default_rng(0))
    assert codes(broken) <= CODES
    assert LEAKS <= CODES
    np.testing.assert_array_equal(clean.values, before)
    assert audit(broken) == audit(broken)


def test_no_samples_no_findings(clean: Audited) -> None:
    assert audit(clean.take(np.empty(0, np.int64))) == ()


def test_other_sensors_and_single_bands_are_audited_without_spectrum() -> None:
    samples = simulated_series(CLEAN)
    red, near = (samples.reflectance[..., samples.bands.index(band)] for band in ("B04", "B08"))
    ndvi = np.round((near - red) / (near + red), 4)[..., None].astype(np.float32)
    single = replace(samples, reflectance=ndvi, bands=("NDVI",))
    assert codes(audited_of(single)) - {"label-envelope"} == set()


def test_single_band_that_stands_still_in_winter_is_no_severe_padding() -> None:
    samples = simulated_series(CLEAN)
    red, near = (samples.reflectance[..., samples.bands.index(band)] for band in ("B04", "B08"))
    ndvi = np.round((near - red) / (near + red), 2)[..., None].astype(np.float32)
    ndvi[:, 11] = np.where(np.arange(len(ndvi))[:, None] % 3 == 0, ndvi[:, 10], ndvi[:, 11])
    found = audit(audited_of(replace(samples, reflectance=ndvi, bands=("NDVI",))))
    padded_ends = [one.severity for one in found if one.code == "padded-end"]
    assert padded_ends == ["warning"]


def test_one_pair_of_near_bands_in_a_month_is_a_warning(clean: Audited) -> None:
    values = clean.values.copy()
    red, green = clean.bands.index("B04"), clean.bands.index("B03")
    values[:, 6, red] = values[:, 6, green] * 1.05
    found = [one.severity for one in audit(changed(clean, values)) if one.code == "swapped-bands"]
    assert found == ["warning"]
    broken = swapped("B11", "B12", steps=slice(6, 8))(clean, np.random.default_rng(3))
    found = [one.severity for one in audit(broken) if one.code == "swapped-bands"]
    assert found == ["severe"]


def test_folds_of_other_samples_are_refused(clean: Audited) -> None:
    with pytest.raises(SampleError, match="folds in 'grouped'"):
        replace(clean, folds=(short_folds(clean.folds[0]),))


def short_folds(folds: Folds) -> Folds:
    return replace(folds, fold=folds.fold[:3])
