from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.errors import FeatureError, SampleError
from model.samples import Samples
from model.train import EpochReport, fit

Make = Callable[..., Samples]


def last(reports: list[EpochReport]) -> dict[str, torch.Tensor]:
    return reports[-1].best.network.state_dict()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_loss_falls(make_samples: Make, quick: TrainConfig) -> None:
    losses = [report.loss for report in fit(make_samples(), quick)]
    assert losses[-1] < 0.2 * losses[0]


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
    train, validation = make_samples(groups=12), make_samples(groups=12, seed=1)
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
        config = replace(quick, class_weights=weights, epochs=6)
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
