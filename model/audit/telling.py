"""Sequences in; whether something that is no spectrum tells the class, by trees on that alone, out."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64, Num
from scipy.stats import norm
from sklearn.tree import DecisionTreeClassifier

from model.audit.audited import NO_DAY, Audited
from model.audit.finding import Finding, Severity, rows_of, some

FEWEST_GROUPS = 20
"""Groups below which nothing can be said."""

_FEWEST_BLOCKS = 5
"""Blocks, each held out once, below which nothing can be said of other places."""

_MOST_GROUPS = 4_000
_FOLDS = 5
_FEWEST_OF_CLASS = 10
"""Groups that a class, and all others, need to be told apart."""

_OVERDISPERSION = 1.4
"""Standard deviation of what trees score on noise, in binomial ones: folds share their trees' luck
(measured over 5,700 classes of 5 to 100 groups: 0.9 to 1.4)."""

_TAIL = float(norm.sf(3))
"""Chance of 3 sigma; shared out among the questions that are asked of one kind of evidence."""

_BLUR = 5.0
"""Days by which dates differ from year to year without telling anything."""

_NOTICEABLE, _GRAVE = 0.05, 0.15
"""Share of groups above the majority's from which it is told, and from which it is severe."""

_NOTICEABLE_CLASS, _GRAVE_CLASS = 0.7, 0.85
"""The same of one class against the others: mean of both shares found, 0.5 by chance."""


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """What might tell the class."""

    code: str
    what: str
    """How a sentence names it."""
    table: Num[np.ndarray, "sample column"]
    """What a tree sees; NaN where missing."""
    is_seen: bool
    """Whether the network sees it, so that scores rest on it."""
    advice: str
    is_of_place: bool = True
    """Whether neighbours share it by nature."""
    is_grave_alone: bool = True
    """Whether it is severe where blocks are too few to say if it is but the place."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """How well a tree tells the class of groups held out."""

    accuracy: float
    majority: float
    sigmas: float
    classes: tuple[tuple[int, float], ...]
    """Classes that are told from all others, with the mean of both shares found, best first."""
    is_told: bool
    is_grave: bool


def find_telling(audited: Audited) -> list[Finding]:
    """Return findings of what tells the class though it should not: dates, gaps, AOT, WVP."""
    found: list[Finding] = []
    for evidence in _evidence(audited):
        if any(one.code == evidence.code for one in found):
            continue
        told = class_told_by(evidence.table, audited.label, audited.group)
        if told is None or not told.is_told:
            continue
        is_grave, beyond = told.is_grave and evidence.is_seen, ""
        if is_grave and evidence.is_of_place and audited.block is not None:
            # clouds and orbits are shared by neighbours, as classes are: only what tells the class
            # in other blocks, too, is more than a place
            elsewhere = class_told_by(
                evidence.table, audited.label, audited.group, block=audited.block
            )
            is_grave = evidence.is_grave_alone if elsewhere is None else elsewhere.is_grave
            if elsewhere is None:
                beyond = "; too few blocks to say whether that is but the place"
        severity: Severity = "severe" if is_grave else "warning"
        named = [f"{audited.classes[at]} {share:.2f}" for at, share in told.classes]
        chosen = np.isin(audited.label, [at for at, _ in told.classes])
        found.append(
            Finding(
                code=evidence.code,
                severity=severity,
                what=f"{evidence.what} alone tells "
                + (f"{some(named)} from all others (0.5 by chance), and " if named else "")
                + f"the class of {told.accuracy:.3f} of held-out groups, where the majority has "
                f"{told.majority:.3f} ({told.sigmas:.1f} sigma){beyond}",
                count=int(chosen.sum()) if named else len(audited),
                rows=rows_of(chosen) if named else (),
                advice=evidence.advice,
            )
        )
    return found


def _evidence(audited: Audited) -> Iterator[_Evidence]:
    dates = audited.is_seen if audited.clear_count is None else audited.clear_count
    yield _Evidence(
        code="class-by-date-count",
        what="the number of dates",
        table=dates.sum(axis=1)[:, np.newaxis].astype(np.float64),
        is_seen=True,
        advice="Sample all classes from the same scenes, and never pad sequences",
    )
    if audited.day is not None:
        for table, is_seen in ((_day_of_year(audited.day), True), (_day(audited.day), False)):
            yield _Evidence(
                code="class-by-dates",
                what="the season of the dates" if is_seen else "the dates, with their years,",
                table=table,
                is_seen=is_seen,
                advice="Composite to common periods, and sample all classes from the same scenes",
            )
    if audited.periods is not None:
        yield _Evidence(
            code="class-by-gaps",
            what="which periods are missing",
            table=audited.is_seen.astype(np.float64),
            is_seen=True,
            is_grave_alone=False,
            advice="See whether classes come from other orbits or tiles; month dropout helps little",
        )
    for band, what in (("AOT", "aerosol (AOT)"), ("WVP", "water vapour (WVP)")):
        if audited.has(band):
            values = audited.band(band).astype(np.float64)
        elif band in audited.columns:
            values = audited.columns[band].astype(np.float64)
        else:
            continue
        yield _Evidence(
            code=f"class-by-{band.lower()}",
            what=what,
            table=values,
            is_seen=audited.sees(band),
            is_of_place=False,
            advice=f"Leave {band} out of the features: it identifies date and place",
        )


def _day(day: Int32[np.ndarray, "sample time"]) -> Float64[np.ndarray, "sample time"]:
    return np.where(day == NO_DAY, np.nan, day.astype(np.float64))


def _day_of_year(day: Int32[np.ndarray, "sample time"]) -> Float64[np.ndarray, "sample time"]:
    """Return days of the year, some days off: what a network sees of dates, who knows no leap year."""
    dates = np.where(day == NO_DAY, 0, day).astype("datetime64[D]")
    of_year = (dates - dates.astype("datetime64[Y]")).astype(np.float64)
    blur = np.random.default_rng(0).normal(0, _BLUR, day.shape)
    return np.asarray(np.where(day == NO_DAY, np.nan, of_year + blur))


def class_told_by(
    table: Num[np.ndarray, "sample column"],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
    *,
    block: Int64[np.ndarray, "sample"] | None = None,
) -> Told | None:
    """Return how well small trees tell the class of groups that they have not seen.

    A group counts once, with its most frequent class and the mean of its samples; so the groups
    held out are independent, and shares have the binomial's sigma. With `block` whole blocks are
    held out, so that what neighbours share tells nothing. None with fewer than `FEWEST_GROUPS`
    groups or `_FEWEST_BLOCKS` blocks, or where all are alike.
    """
    rows, target = _by_group(table, label, group)
    area = np.arange(len(target))
    if block is not None:
        area = np.unique(block[np.unique(group, return_index=True)[1]], return_inverse=True)[1]
        if area.max(initial=-1) + 1 < _FEWEST_BLOCKS:
            return None
    if len(target) < FEWEST_GROUPS or np.all(
        np.nan_to_num(rows, nan=-1) == np.nan_to_num(rows[0], nan=-1)
    ):
        return None
    random = np.random.default_rng(0)
    if len(target) > _MOST_GROUPS:
        drawn = random.choice(len(target), _MOST_GROUPS, replace=False)
        rows, target, area = rows[drawn], target[drawn], area[drawn]
    fold = (
        _dealt(target, random)
        if block is None
        else (random.permutation(area.max() + 1) % _FOLDS)[area]
    )
    classes, counts = np.unique(target, return_counts=True)
    if len(classes) < 2:
        return None
    needed = float(norm.isf(_TAIL / (len(classes) + 1)))
    right = _held_out(rows, target, fold, is_balanced=False) == target
    accuracy, majority = float(right.mean()), float(counts.max() / len(target))
    sigmas = (accuracy - majority) / np.sqrt(majority * (1 - majority) / len(target))
    told = []
    for at, count in zip(classes.tolist(), counts.tolist(), strict=True):
        others = len(target) - count
        if min(count, others) < _FEWEST_OF_CLASS:
            continue
        is_it = (target == at).astype(np.int64)
        guess = _held_out(rows, is_it, fold, is_balanced=True)
        share = float((guess[is_it == 1].mean() + 1 - guess[is_it == 0].mean()) / 2)
        # of the mean of two shares near a half
        sigma = _OVERDISPERSION * np.sqrt((1 / count + 1 / others) / 16)
        if share >= _NOTICEABLE_CLASS and (share - 0.5) / sigma > needed:
            told.append((at, share))
    told.sort(key=lambda one: -one[1])
    is_above = sigmas > needed and accuracy - majority >= _NOTICEABLE
    return Told(
        accuracy=accuracy,
        majority=majority,
        sigmas=float(sigmas),
        classes=tuple(told),
        is_told=bool(is_above or told),
        is_grave=bool(
            (is_above and accuracy - majority >= _GRAVE) or (told and told[0][1] >= _GRAVE_CLASS)
        ),
    )


def _by_group(
    table: Num[np.ndarray, "sample column"],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
) -> tuple[Float64[np.ndarray, "group column"], Int64[np.ndarray, "group"]]:
    """Return the mean of what is known of each group, and its most frequent class."""
    _, member = np.unique(group, return_inverse=True)
    groups = int(member.max(initial=-1)) + 1
    total, known = np.zeros((groups, table.shape[1])), np.zeros((groups, table.shape[1]))
    np.add.at(total, member, np.nan_to_num(table))
    np.add.at(known, member, np.isfinite(table))
    mean = np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)
    votes = np.zeros((groups, int(label.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (member, label), 1)
    return mean, votes.argmax(axis=1).astype(np.int64)


def _dealt(
    target: Int64[np.ndarray, "group"], random: np.random.Generator
) -> Int64[np.ndarray, "group"]:
    """Deal the groups of each class to the folds in turn."""
    fold = np.empty(len(target), np.int64)
    dealt = 0
    for at in np.unique(target):
        members = random.permutation(np.flatnonzero(target == at))
        fold[members] = (np.arange(len(members)) + dealt) % _FOLDS
        dealt += len(members)
    return fold


def _held_out(
    rows: Float64[np.ndarray, "group column"],
    target: Int64[np.ndarray, "group"],
    fold: Int64[np.ndarray, "group"],
    *,
    is_balanced: bool,
) -> Int64[np.ndarray, "group"]:
    """Return what trees say of groups that they have not seen."""
    guess = np.empty(len(target), np.int64)
    for number in range(_FOLDS):
        is_test = fold == number
        if not is_test.any():
            continue
        tree = DecisionTreeClassifier(
            max_depth=4,
            min_samples_leaf=max(2, (~is_test).sum() // 100),
            class_weight="balanced" if is_balanced else None,
            random_state=0,
        )
        with warnings.catch_warnings():
            # a column that a training part knows nothing of is no reason to speak
            warnings.simplefilter("ignore", RuntimeWarning)
            tree.fit(rows[~is_test], target[~is_test])
            guess[is_test] = tree.predict(rows[is_test])
    return guess
