import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.errors import ClassifierError
from model.learn import train_classifier
from model.predict import Prediction, predict_block
from model.samples import Samples
from model.threads import torch_threads

Make = Callable[..., Samples]
FEATURES = ("B04", "B08", "NDVI")
FIELDS = ("class_value", "confidence", "margin", "months_observed")


@pytest.fixture(scope="module")
def classifier(make_samples: Make, quick: TrainConfig) -> SpeciesClassifier:
    config = TrainConfig.preset(
        "default",
        features=list(FEATURES),
        hidden=16,
        epochs=15,
        learning_rate=1e-2,
        # a network that the loop over pixels below can repeat
        bidirectional=False,
        pooling="last",
        calendar_input=False,
        input_pieces=0,
    )
    samples = make_samples()
    return train_classifier(samples, config, colours=["#1b9e77"] * len(samples.classes))


@pytest.fixture(scope="module")
def block(make_samples: Make) -> np.ndarray:
    """37 x 31 pixels in stored units: some months missing, some pixels without any."""
    samples = make_samples(groups=37, per_group=31, gap=0.4, seed=7)
    values = np.full((37 * 31, 12, 10), np.nan)
    values[: len(samples)] = samples.reflectance
    values[100:140] = np.nan
    stored = np.where(np.isnan(values), -32768, np.rint(values * 1e4)).astype(np.int16)
    return np.moveaxis(stored.reshape(37, 31, 12, 10), (2, 3), (0, 1)).copy()


def as_samples(block: np.ndarray) -> np.ndarray:
    values = np.where(block == -32768, np.float32(np.nan), block * np.float32(1e-4))
    pixels = values.reshape(12, 10, -1).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels.astype(np.float32))


def same(first: Prediction, second: Prediction) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_block_equals_samples(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    bands = make_samples(groups=3).bands
    found = predict_block(classifier, block, bands)
    probability = classifier.predict_samples(as_samples(block), bands)
    empty = np.isnan(probability[:, 0])
    assert 40 <= empty.sum() < 100
    expected = np.where(empty, 0, np.nan_to_num(probability).argmax(axis=1) + 1)
    np.testing.assert_array_equal(found.class_value.ravel(), expected)
    first, second = np.sort(probability[~empty], axis=1)[:, ::-1][:, :2].T
    np.testing.assert_array_equal(found.confidence.ravel()[~empty], np.rint(first * 100))
    np.testing.assert_array_equal(found.margin.ravel()[~empty], np.rint((first - second) * 100))
    assert set(found.confidence.ravel()[empty]) == set(found.margin.ravel()[empty]) == {255}


def test_block_equals_a_plain_loop_over_pixels(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    bands = make_samples(groups=3).bands
    network = classifier.fitted.network
    lstm = nn.LSTM(4, 16, batch_first=True)
    lstm.load_state_dict(network.lstm.state_dict())
    mean, deviation = classifier.fitted.preparation.mean, classifier.fitted.preparation.deviation
    found = predict_block(classifier, block, bands)
    red, near = bands.index("B04"), bands.index("B08")
    checked = 0
    for y, x in [(y, x) for y in range(0, 37, 6) for x in range(31)]:
        steps = []
        for t in range(12):
            if block[t, red, y, x] == -32768 or block[t, near, y, x] == -32768:
                steps.append([0.0, 0.0, 0.0, 0.0])
                continue
            r, n = block[t, red, y, x] / 10000, block[t, near, y, x] / 10000
            scaled = [
                (value - float(m)) / float(d)
                for value, m, d in zip((r, n, (n - r) / (n + r)), mean, deviation, strict=True)
            ]
            steps.append([max(-10.0, min(10.0, value)) for value in scaled] + [1.0])
        clear = sum(int(step[3]) for step in steps)
        assert found.months_observed[y, x] == clear
        if clear == 0:
            assert found.class_value[y, x] == 0
            continue
        with torch.no_grad(), torch_threads(1):
            states, _ = lstm(torch.tensor([steps], dtype=torch.float32))
            probability = torch.softmax(network.head(states[0, -1]), dim=0)
        assert found.class_value[y, x] == int(probability.argmax()) + 1
        assert abs(int(found.confidence[y, x]) - float(probability.max()) * 100) <= 0.51
        checked += 1
    assert checked > 150


@pytest.mark.parametrize("tile", [(37, 31), (1, 31), (5, 7), (16, 16)])
def test_result_is_the_same_for_any_tile(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make, tile: tuple[int, int]
) -> None:
    bands = make_samples(groups=3).bands
    whole = predict_block(classifier, block, bands)
    for y in range(0, 37, tile[0]):
        for x in range(0, 31, tile[1]):
            part = np.s_[y : y + tile[0], x : x + tile[1]]
            piece = predict_block(classifier, block[:, :, *part], bands)
            same(
                piece,
                Prediction(
                    **{name: getattr(whole, name)[part] for name in FIELDS},
                    engine=whole.engine,
                    arithmetic=whole.arithmetic,
                ),
            )


def test_float_and_stored_units_agree_and_order_of_bands_does_not_matter(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    bands = make_samples(groups=3).bands
    stored = predict_block(classifier, block, bands)
    physical = np.where(block == -32768, np.float32(np.nan), block * np.float32(1e-4))
    same(predict_block(classifier, physical.astype(np.float32), bands), stored)
    same(predict_block(classifier, block[:, ::-1], bands[::-1]), stored)


def test_parallel_tiles_give_the_same(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    bands = make_samples(groups=3).bands
    alone = predict_block(classifier, block, bands)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: predict_block(classifier, block, bands), range(8)):
            same(result, alone)


def test_pixels_that_cannot_be_classified_cost_nothing(
    classifier: SpeciesClassifier, make_samples: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the network was called for nothing")

    monkeypatch.setattr(SpeciesClassifier, "probability", refuse)
    empty = np.full((12, 10, 8, 8), -32768, np.int16)
    found = predict_block(classifier, empty, make_samples(groups=3).bands)
    assert not found.class_value.any()
    assert not found.months_observed.any()
    assert (found.confidence == 255).all()


def test_pixels_with_too_few_months_are_left_out(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    bands = make_samples(groups=3).bands
    every, some = (predict_block(classifier, block, bands, min_months=m) for m in (1, 8))
    enough = every.months_observed >= 8
    assert 0 < enough.sum() < enough.size
    np.testing.assert_array_equal(some.class_value, np.where(enough, every.class_value, 0))
    np.testing.assert_array_equal(some.months_observed, every.months_observed)


def test_more_months_than_a_byte_holds(classifier: SpeciesClassifier, make_samples: Make) -> None:
    periods = tuple(f"{index % 12 + 1:02d}" for index in range(300))
    bands = make_samples(groups=3).bands
    clear = np.array([0, 1, 253, 254, 255, 256, 300])
    block = np.where(np.arange(300)[:, None] < clear, 3000, -32768).astype(np.int16)  # (time, x)
    block = np.repeat(block[:, None, None], len(bands), axis=1)  # (time, band, 1, x)
    found = predict_block(replace(classifier, periods=periods), block, bands, min_months=255)
    assert found.months_observed[0].tolist() == [0, 1, 253, 254, 254, 254, 254]
    assert (found.class_value[0] > 0).tolist() == [False] * 4 + [True] * 3


def test_a_missing_month_is_masked_and_shifts_nothing(
    classifier: SpeciesClassifier, make_samples: Make
) -> None:
    samples = make_samples(groups=12, gap=0)
    preparation = classifier.fitted.preparation
    whole = preparation.apply(samples.reflectance, samples.bands)
    with_gap = samples.reflectance.copy()
    with_gap[:, 4, samples.bands.index("B08")] = np.nan  # one band missing is a month missing
    found = preparation.apply(with_gap, samples.bands)
    assert not found[:, 4].any()
    others = [step for step in range(12) if step != 4]
    np.testing.assert_array_equal(found[:, others], whole[:, others])

    # what the other bands hold in a masked month cannot matter
    with_gap[:, 4, samples.bands.index("B04")] = 0.9
    changed = preparation.apply(with_gap, samples.bands)
    np.testing.assert_array_equal(changed, found)
    # a band the features do not use may be missing
    with_gap = samples.reflectance.copy()
    with_gap[:, 4, samples.bands.index("B12")] = np.nan
    np.testing.assert_array_equal(preparation.apply(with_gap, samples.bands), whole)


def test_a_month_less_costs_little_where_the_year_tells_enough(
    classifier: SpeciesClassifier, make_samples: Make
) -> None:
    samples = make_samples(groups=60, gap=0, seed=3)
    whole = classifier.predict_samples(samples.reflectance, samples.bands).argmax(axis=1)
    for month in range(12):
        gap = samples.reflectance.copy()
        gap[:, month] = np.nan
        found = classifier.predict_samples(gap, samples.bands).argmax(axis=1)
        assert (found == whole).mean() > 0.9


def test_blocks_that_do_not_fit_are_refused(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    bands = make_samples(groups=3).bands
    with pytest.raises(ClassifierError, match="reads 12 periods, the block has 11"):
        predict_block(classifier, block[1:], bands)
    with pytest.raises(ClassifierError, match=r"needs bands B04 B08; .*, lacks B08"):
        predict_block(classifier, block[:, :6], bands[:6])
    for kind in (np.int32, np.float64):
        with pytest.raises(ClassifierError, match=f"the pixels are {np.dtype(kind)}; expected int"):
            predict_block(classifier, block.astype(kind), bands)
    with pytest.raises(ClassifierError, match=r"wanted has shape \(31, 37\), the block \(37, 31\)"):
        predict_block(classifier, block, bands, wanted=np.ones((31, 37), bool))
    with pytest.raises(ValueError, match="min_months is 0"):
        predict_block(classifier, block, bands, min_months=0)


def test_what_is_no_probability_has_no_class(
    classifier: SpeciesClassifier, block: np.ndarray, make_samples: Make
) -> None:
    network = copy.deepcopy(classifier.fitted.network)
    network.head.bias[0] = float("nan")
    # nothing after it, which would refuse it, too
    broken = replace(
        classifier, fitted=replace(classifier.fitted, networks=(network,)), calibration=None
    )
    with pytest.raises(ClassifierError, match="gave probabilities that are not finite"):
        predict_block(broken, block[:, :, :3, :3], make_samples(groups=3).bands)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_kind_of_network_predicts_alike_in_any_batch_position(
    make_samples: Make, quick: TrainConfig, bidirectional: bool
) -> None:
    samples = make_samples(groups=70, per_group=10)
    config = replace(quick, epochs=1, hidden=24, layers=2, bidirectional=bidirectional)
    trained = train_classifier(samples, config, colours=["#1b9e77"] * len(samples.classes))
    every = trained.predict_samples(samples.reflectance, samples.bands)
    for start in (1, 37, 511):
        rest = trained.predict_samples(samples.reflectance[start:], samples.bands)
        np.testing.assert_array_equal(rest, every[start:])
