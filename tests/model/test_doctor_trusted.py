from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.assess import Scores
from model.baselines import fit_baseline
from model.doctor.trusted import Doubt, trusted, weigh_doubt, with_trusted
from model.features import default_features
from model.samples import Samples
from model.split import make_folds

Make = Callable[..., Samples]


def mislabelled(samples: Samples, share: float, seed: int = 0) -> tuple[Samples, np.ndarray]:
    """Give whole groups another class; return them and which groups were changed."""
    random = np.random.default_rng(seed)
    groups = np.unique(samples.group)
    wrong = random.permutation(groups)[: round(share * len(groups))]
    moved = (samples.label + 1) % len(samples.classes)
    label = np.where(np.isin(samples.group, wrong), moved, samples.label)
    return replace(samples, label=label), wrong


def test_wrong_groups_are_not_trusted_and_right_ones_are(make_samples: Make) -> None:
    samples = make_samples(groups=90, per_group=4, noise=0.05)
    wrong, changed = mislabelled(samples, 0.2)
    left_out = np.setdiff1d(np.arange(len(wrong)), trusted(wrong))
    found = np.unique(wrong.group[left_out])
    assert len(np.intersect1d(found, changed)) >= 0.8 * len(changed)
    assert len(np.setdiff1d(found, changed)) <= 0.1 * 90
    assert len(trusted(samples)) >= 0.95 * len(samples)


def test_a_model_forgets_what_is_doubted(make_samples: Make) -> None:
    samples = make_samples(groups=120, per_group=4, noise=0.08, classes=3)
    folds = make_folds(samples, "grouped", folds=4)
    train, test = samples.take(folds.trained_on(0)), samples.take(folds.held_out(0))
    wrong, _ = mislabelled(train, 0.3)
    features = default_features(samples.bands)

    def score(part: Samples) -> float:
        answer = fit_baseline("random forest", part, features).probability(
            test.reflectance, test.bands
        )
        predicted = answer.argmax(axis=1).astype(np.int64)
        return Scores.from_labels(test.label, predicted, test.classes).macro_f1

    assert score(wrong.take(trusted(wrong))) >= (score(wrong) + score(train)) / 2


def test_held_out_labels_have_no_say_and_are_scored_as_they_are(make_samples: Make) -> None:
    samples, _ = mislabelled(make_samples(groups=60, per_group=4), 0.2)
    made = make_folds(samples, "grouped", folds=3)
    folds = with_trusted(made, samples)
    assert folds.doubted is not None
    for fold in range(3):
        np.testing.assert_array_equal(folds.held_out(fold), made.held_out(fold))
        kept, before = folds.trained_on(fold), made.trained_on(fold)
        assert set(kept) < set(before)
        np.testing.assert_array_equal(np.setdiff1d(before, kept), folds.doubted[fold])
    # other labels of what is held out change nothing of what trains
    held = made.held_out(0)
    label = samples.label.copy()
    label[held] = 0
    other = with_trusted(made, replace(samples, label=label))
    np.testing.assert_array_equal(other.trained_on(0), folds.trained_on(0))


def test_too_few_groups_are_all_believed(make_samples: Make) -> None:
    samples = make_samples(groups=3, per_group=2)
    assert len(trusted(samples)) == len(samples)


def test_doubt_is_weighed_by_what_unseen_groups_are_called(make_samples: Make) -> None:
    samples = make_samples(groups=120, per_group=4, noise=0.16, classes=3)
    wrong, changed = mislabelled(samples, 0.2)
    doubt = weigh_doubt(wrong)
    assert doubt.gained > doubt.lost
    assert doubt.helps
    np.testing.assert_array_equal(doubt.kept, trusted(wrong))
    left_out = np.unique(wrong.group[np.setdiff1d(np.arange(len(wrong)), doubt.kept)])
    assert doubt.groups == len(left_out)
    assert len(np.intersect1d(left_out, changed)) >= 0.8 * len(changed)


def test_classes_that_overlap_are_no_reason_to_leave_samples_out(make_samples: Make) -> None:
    overlapping = make_samples(groups=120, per_group=4, noise=0.2, classes=3)
    doubt = weigh_doubt(overlapping)
    assert doubt.groups > 0  # hard to tell, so doubted
    assert not doubt.helps


@pytest.mark.parametrize(
    ("groups", "gained", "lost", "helps"),
    [(0, 0, 0, False), (24, 0, 0, True), (3, 1, 1, False), (9, 6, 2, True), (9, 5, 3, False)],
)
def test_it_helps_if_nothing_is_lost_or_more_is_gained_than_by_chance(
    groups: int, gained: int, lost: int, helps: bool
) -> None:
    doubt = Doubt(kept=np.arange(3, dtype=np.int64), groups=groups, gained=gained, lost=lost)
    assert doubt.helps is helps
    assert doubt.to_dict() == {"groups": groups, "gained": gained, "lost": lost, "helps": helps}


def test_labels_of_mixed_plots_are_not_doubted(make_samples: Make) -> None:
    wrong, _ = mislabelled(make_samples(groups=90, per_group=4), 0.2)
    share = np.full((len(wrong), len(wrong.classes)), 0.0, np.float32)
    share[np.arange(len(wrong)), wrong.label] = 1
    mixed = replace(wrong, share=share)
    assert weigh_doubt(mixed).groups == 0
    assert len(trusted(mixed)) == len(mixed)
