from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.errors import ConfigError, FeatureError, SampleError
from model.features import FeatureSet
from model.member import Member
from model.predictor import Predictor
from model.samples import Samples
from model.train import EpochReport, fit

Make = Callable[..., Samples]


def elsewhere(samples: Samples) -> Samples:
    """The same samples in groups that no others are of."""
    return replace(samples, group=samples.group + 1000)


def last(reports: list[EpochReport]) -> dict[str, torch.Tensor]:
    return reports[-1].best.network.state_dict()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_loss_falls(make_samples: Make, quick: TrainConfig) -> None:
    losses = [report.loss for report in fit(make_samples(), quick)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("layers", [1, 2])
def test_one_seed_one_set_of_weights_whatever_the_caller_does(
    make_samples: Make, quick: TrainConfig, layers: int
) -> None:
    samples = make_samples(groups=12)
    config = replace(quick, epochs=3, layers=layers)
    first = last(list(fit(samples, config)))
    torch.manual_seed(99)
    interrupted = []
    for report in fit(samples, config):
        torch.rand(7)
        interrupted.append(report)
    assert equal(first, last(interrupted))
    assert not equal(first, last(list(fit(samples, replace(config, seed=1)))))


def test_training_leaves_random_state_and_threads_of_the_caller_alone(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=6)
    torch.manual_seed(3)
    expected = torch.rand(4)
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    for _ in fit(samples, replace(quick, epochs=2, threads=threads + 1)):
        assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(4), expected)


def test_the_epoch_of_lowest_validation_loss_is_kept(
    make_samples: Make, quick: TrainConfig
) -> None:
    # shuffled labels cannot be learned: the validation loss rises soon
    train, validation = make_samples(groups=12), elsewhere(make_samples(groups=12, seed=1))
    wrong = np.random.default_rng(0).permutation(train.label)
    config = replace(quick, patience=4, epochs=60, learning_rate=2e-2)
    reports = list(fit(replace(train, label=wrong), config, validation=validation))
    losses = [report.validation_loss for report in reports]
    assert all(loss is not None for loss in losses)
    best = reports[-1].best
    assert best.epoch == int(np.argmin(np.array(losses, float))) + 1
    assert len(reports) == best.epoch + 4 < 60
    shorter = list(fit(replace(train, label=wrong), config, validation=validation))[: best.epoch]
    assert equal(best.network.state_dict(), last(shorter))


def test_without_validation_the_last_weights_are_kept(
    make_samples: Make, quick: TrainConfig
) -> None:
    reports = list(fit(make_samples(groups=6), replace(quick, epochs=4, patience=1)))
    assert [report.best.epoch for report in reports] == [1, 2, 3, 4]
    assert reports[-1].validation_loss is None


def test_order_of_samples_does_not_change_what_is_predicted(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=130)  # more than one batch
    fitted = list(fit(samples, replace(quick, epochs=2)))[-1].best
    shuffle = np.random.default_rng(0).permutation(len(samples)).astype(np.int64)
    straight = fitted.probability(samples.reflectance, samples.bands)
    shuffled = fitted.probability(samples.take(shuffle).reflectance, samples.bands)
    np.testing.assert_array_equal(shuffled, straight[shuffle])
    np.testing.assert_allclose(straight.sum(axis=1), 1, rtol=1e-5)


def test_class_weights_help_the_rare_class(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=60, classes=2, noise=0.12)
    rare = np.flatnonzero((samples.label == 0) | (samples.group % 12 == 1)).astype(np.int64)
    train, test = samples.take(rare), make_samples(groups=60, classes=2, noise=0.12, seed=5)
    recall = {}
    for weights in ("none", "balanced"):
        config = replace(quick, class_weights=weights, epochs=15)
        fitted = list(fit(train, config))[-1].best
        found = fitted.probability(test.reflectance, test.bands).argmax(axis=1)
        recall[weights] = (found[test.label == 1] == 1).mean()
    assert recall["balanced"] > recall["none"]


def test_reference_preset_trains(make_samples: Make) -> None:
    samples = make_samples(groups=12)
    config = TrainConfig.preset("reference", epochs=2, features=["B2", "B8", "NDVI", "TCI_R"])
    reports = list(fit(samples, config))
    network = reports[-1].best.network
    assert network.lstm.input_size == 4
    assert (network.lstm.num_layers, network.lstm.hidden_size, network.lstm.dropout) == (
        2,
        128,
        0.2,
    )
    assert reports[1].loss < reports[0].loss


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("lstm", {"hidden": 16, "pooling": "attention", "layer_norm": True, "epochs": 15}),
        ("lstm", {"hidden": 16, "pooling": "mean", "calendar_input": True, "epochs": 15}),
        ("tempcnn", {"hidden": 16, "epochs": 10}),
        ("ltae", {"hidden": 32, "epochs": 15}),
        ("inception", {"hidden": 32, "epochs": 10}),
    ],
)
def test_every_architecture_separates_what_is_separable_with_gaps(
    make_samples: Make, architecture: str, settings: dict[str, object]
) -> None:
    config = TrainConfig.preset(
        "default", architecture=architecture, batch_size=32, learning_rate=1e-2, **settings
    )
    reports = list(fit(make_samples(gap=0.35), config))
    test = make_samples(gap=0.35, seed=1)
    fitted = reports[-1].best
    found = fitted.probability(test.reflectance, test.bands).argmax(axis=1)
    assert (found == test.label).mean() > 0.9
    assert isinstance(fitted, Predictor)
    assert (fitted.kind, fitted.class_count) == (architecture, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": "none", "balanced_sampling": True},
        {"class_weights": "none", "logit_adjustment": 1.0},
        {"focal_gamma": 2.0, "label_smoothing": 0.1},
        {"mixup": 0.3, "noise": 0.1, "shift_days": 15.0},
        {"weight_average": 0.3, "calendar_input": True},
    ],
)
def test_options_learn_what_is_separable(
    make_samples: Make, quick: TrainConfig, settings: dict[str, Any]
) -> None:
    samples, test = make_samples(), make_samples(seed=1)
    fitted = list(fit(samples, replace(quick, **settings)))[-1].best
    found = fitted.probability(test.reflectance, test.bands).argmax(axis=1)
    assert (found == test.label).mean() > 0.9


def test_members_are_trained_one_after_another_and_averaged(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=12)
    config = replace(quick, epochs=2, members=3)
    reports = list(fit(samples, config))
    assert [(report.member, report.epoch) for report in reports] == [
        (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)
    ]  # fmt: skip
    assert [len(report.best.networks) for report in reports] == [1, 1, 2, 2, 3, 3]
    best = reports[-1].best
    alone = list(fit(samples, replace(config, members=1)))[-1].best
    assert equal(best.networks[0].state_dict(), alone.network.state_dict())
    assert not equal(best.networks[1].state_dict(), best.networks[2].state_dict())
    parts = [
        replace(best, networks=(network,)).probability(samples.reflectance, samples.bands)
        for network in best.networks
    ]
    np.testing.assert_allclose(
        best.probability(samples.reflectance, samples.bands), np.mean(parts, axis=0), rtol=1e-5
    )
    vectors = best.hidden(samples.reflectance, samples.bands)
    assert vectors.shape == (len(samples), 3 * 64)  # two directions, mean and largest
    with pytest.raises(ValueError, match="there are 3 networks; take them from networks"):
        best.network  # noqa: B018


def test_averaged_weights_are_the_mean_of_the_last_epochs(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples, config = make_samples(groups=12), replace(quick, epochs=4)
    each = [report.best.network.state_dict() for report in fit(samples, config)]
    averaged = last(list(fit(samples, replace(config, weight_average=0.5))))
    assert averaged.keys() == each[0].keys()
    for name, value in averaged.items():
        torch.testing.assert_close(value, (each[2][name] + each[3][name]) / 2)


def test_soft_labels_are_learned(make_samples: Make, quick: TrainConfig) -> None:
    """Two plots in three are pure, one is half and half: the network says so."""
    samples = make_samples(classes=2, gap=0.0)
    share = np.eye(2, dtype=np.float32)[samples.label]
    mixed = samples.group % 3 == 0
    share[mixed] = (0.6, 0.4)
    values = samples.reflectance.copy()
    values[mixed] = values[:8].mean(axis=0)
    soft = replace(samples, reflectance=values, share=share, label=share.argmax(axis=1))
    fitted = list(fit(soft, replace(quick, month_dropout=0.0, epochs=40)))[-1].best
    error = np.abs(fitted.probability(values, samples.bands) - share).mean(axis=1)
    assert error[mixed].mean() < 0.15
    assert error[~mixed].mean() < 0.15


def test_few_samples_are_seen_more_often(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=12)  # 96 samples are 3 batches
    reports = list(fit(samples, replace(quick, epochs=2, least_steps=10)))
    assert (len(reports), reports[-1].epochs) == (4, 4)
    assert TrainConfig.preset("default").least_steps > 0
    assert TrainConfig.preset("default", epochs=3).least_steps == 0


def test_edges_of_the_encoding_are_quantiles_of_clear_training_values(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=12)
    config = replace(quick, epochs=1, input_pieces=0)
    config = replace(config, features=FeatureSet(names=("B08", "NDVI")), input_pieces=12)
    fitted = list(fit(samples, config))[-1].best
    prepared = fitted.preparation.apply(samples.reflectance, samples.bands)
    values = prepared[prepared[..., 2] == 1][:, :2].astype(np.float64)
    expected = np.quantile(values, np.linspace(0, 1, 7), axis=0).T  # 12 pieces for two features
    edges = fitted.network.state_dict()["encoding.edges"]
    np.testing.assert_allclose(edges, expected, atol=1e-5)


def test_a_calendar_of_other_length_is_refused(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=6)
    fitted = list(fit(samples, replace(quick, epochs=1, calendar_input=True)))[-1].best
    with pytest.raises(SampleError, match=r"sequences have 11 steps; the calendar has 12 \(01 02"):
        fitted.probability(samples.reflectance[:, 1:], samples.bands)


def test_unusable_samples_are_refused(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=6)
    none = np.array([], np.int64)
    with pytest.raises(SampleError, match="no sample to train on"):
        next(iter(fit(samples.take(none), quick)))
    with pytest.raises(SampleError, match="all samples are of class 'species 1'"):
        next(iter(fit(samples.take(np.flatnonzero(samples.label == 1)), quick)))
    empty = samples.reflectance.copy()
    empty[:3] = np.nan
    with pytest.raises(SampleError, match="3 of 48 samples have no clear period"):
        next(iter(fit(replace(samples, reflectance=empty), quick)))
    config = TrainConfig.preset("reference", features=["AOT"])
    with pytest.raises(FeatureError, match="need bands AOT"):
        next(iter(fit(samples, config)))
    other = replace(samples, classes=("a", "b", "c"))
    with pytest.raises(SampleError, match="other classes or periods"):
        next(iter(fit(samples, quick, validation=other)))


def test_validation_that_would_mislead_is_refused(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=6)
    held = elsewhere(samples)
    with pytest.raises(SampleError, match="validation shares 6 groups with the training, first 0"):
        next(iter(fit(samples, quick, validation=samples)))
    spring = tuple(f"{period}-01/{period}-20" for period in samples.periods)
    with pytest.raises(SampleError, match="other classes or periods"):
        next(iter(fit(samples, quick, validation=replace(held, periods=spring))))
    empty = held.reflectance.copy()
    empty[:2] = np.nan
    with pytest.raises(SampleError, match="2 of 48 validation samples have no clear period"):
        next(iter(fit(samples, quick, validation=replace(held, reflectance=empty))))


def test_classes_that_only_mixed_samples_have_are_learned(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=6, classes=2)
    share = np.tile(np.array([0.6, 0.4], np.float32), (len(samples), 1))
    mixed = replace(samples, label=np.zeros_like(samples.label), share=share)
    report = list(fit(mixed, replace(quick, epochs=2, least_steps=0)))[-1]
    found = report.best.probability(mixed.reflectance, mixed.bands)
    assert np.isfinite(found).all()


def test_divergence_ends_training_with_what_to_do(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    radar = replace(
        samples,
        bands=("V",),
        reflectance=np.ascontiguousarray(samples.reflectance[..., :1]) * np.float32(3e38),
    )
    config = TrainConfig.preset(
        "reference", architecture="tempcnn", features=["band:V"], hidden=4, epochs=3
    )
    with pytest.raises(ConfigError, match="training diverged: in epoch 1 the loss"):
        list(fit(radar, config))


@pytest.mark.parametrize("architecture", ["tempcnn", "inception"])
def test_a_batch_of_one_sample_has_no_spread_to_learn_from(
    make_samples: Make, architecture: str
) -> None:
    samples = make_samples(groups=3, per_group=3, gap=0)
    one = replace(samples, reflectance=samples.reflectance[:, :1], periods=samples.periods[:1])
    config = TrainConfig.preset(
        "default", architecture=architecture, hidden=4, epochs=1, batch_size=4
    )
    assert np.isfinite(next(iter(fit(one, config))).loss)


@pytest.mark.parametrize(
    ("epochs", "share", "expected"), [(10, 0.9, 9), (3, 1 / 3, 1), (7, 0.0, 0)]
)
def test_weights_of_a_share_of_the_epochs_are_averaged(
    quick: TrainConfig, epochs: int, share: float, expected: int
) -> None:
    config = replace(quick, hidden=2, weight_average=share)
    member = Member(config, epochs=epochs, member=0, channels=19, classes=2, steps=12)
    for epoch in range(epochs):
        member.epoch = epoch + 1
        member.candidate(config)
    assert member.averaged == expected
