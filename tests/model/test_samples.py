from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.config import TrainConfig
from model.errors import SampleError
from model.features import DEFAULT_FEATURES, FeatureSet
from model.preparation import Preparation
from model.samples import Samples

Make = Callable[..., Samples]


def test_names_become_indices_in_the_order_of_the_classes(make_samples: Make) -> None:
    samples = make_samples(groups=3, per_group=1, gap=0)
    build = {
        "reflectance": samples.reflectance,
        "bands": samples.bands,
        "periods": samples.periods,
        "group": samples.group.astype(np.int32),
        "block": samples.block,
    }
    named = Samples.from_names(labels=["larch", "beech", "larch"], **build)
    assert named.classes == ("beech", "larch")
    assert named.label.tolist() == [1, 0, 1]
    assert named.class_counts == {"beech": 1, "larch": 2}
    with pytest.raises(SampleError, match=r"labels \['larch'\] are no class; classes are"):
        Samples.from_names(labels=["larch", "oak", "oak"], classes=["oak", "beech"], **build)
    with pytest.raises(SampleError, match="1 labels are empty, first at sample 1"):
        Samples.from_names(labels=["larch", " ", "oak"], **build)


def test_fill_values_and_raw_counts_are_refused(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    for value in (-999.0, 1834.0, np.inf):
        broken = samples.reflectance.copy()
        broken[4, 2, 1] = value
        with pytest.raises(SampleError, match=f"first {value} in sample 4, 2022-03, B03"):
            replace(samples, reflectance=broken)


def test_shapes_labels_and_periods_are_checked(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    with pytest.raises(SampleError, match=r"\(12, 10\); periods and bands name \(11, 10\)"):
        replace(samples, periods=samples.periods[1:])
    with pytest.raises(SampleError, match="labels reach from 0 to 2; 2 classes allow 0 to 1"):
        replace(samples, classes=("a", "b"))
    with pytest.raises(SampleError, match="periods must rise"):
        replace(samples, periods=samples.periods[::-1])
    with pytest.raises(SampleError, match="there twice"):
        replace(samples, classes=("a", "a", "b"))


def test_acquisitions_are_refused_for_training_in_two_lines(make_samples: Make) -> None:
    samples = make_samples(groups=3)
    instants = tuple(f"2022-01-{day:02d}T10:30:21" for day in range(1, 13))
    with pytest.raises(SampleError, match="does not come again in another year\nbuild the cube"):
        replace(samples, periods=instants)


def test_samples_without_a_clear_month_are_left_out(make_samples: Make) -> None:
    samples = make_samples(groups=6, gap=0)
    gaps = samples.reflectance.copy()
    gaps[3] = np.nan
    gaps[5, 1:, 0] = np.nan
    kept = replace(samples, reflectance=gaps).with_clear_periods(DEFAULT_FEATURES)
    assert len(kept) == len(samples) - 1
    two = replace(samples, reflectance=gaps).with_clear_periods(DEFAULT_FEATURES, at_least=2)
    assert len(two) == len(samples) - 2


def test_fingerprint_tells_every_change_but_not_the_kind_of_nan(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    other_nan = samples.reflectance.copy()
    other_nan[np.isnan(other_nan)] = np.uint32(0xFFC00001).view(np.float32)
    assert replace(samples, reflectance=other_nan).fingerprint == samples.fingerprint
    changed = samples.reflectance.copy()
    changed[0, int(np.isfinite(changed[0, :, 0]).argmax()), 0] += 1e-4
    different = [
        replace(samples, reflectance=changed),
        replace(samples, label=samples.label[::-1].copy()),
        replace(samples, block=samples.block + 1),
        replace(samples, classes=("a", "b", "c")),
    ]
    assert len({samples.fingerprint, *(other.fingerprint for other in different)}) == 5


def test_statistics_rest_on_clear_training_values_only(make_samples: Make) -> None:
    samples = make_samples(groups=12)
    config = TrainConfig.preset("default", features=["B04", "NDVI"])
    learned = Preparation.learn(samples, config)
    red, near = samples.reflectance[..., 2].astype(float), samples.reflectance[..., 6].astype(float)
    ndvi = (near - red) / (near + red)
    np.testing.assert_allclose(learned.mean, [np.nanmean(red), np.nanmean(ndvi)], rtol=1e-5)
    np.testing.assert_allclose(learned.deviation, [np.nanstd(red), np.nanstd(ndvi)], rtol=1e-5)

    prepared = learned.apply(samples.reflectance, samples.bands)
    clear = np.isfinite(red) & np.isfinite(near)
    np.testing.assert_array_equal(prepared[..., 2], clear)
    assert not prepared[~clear][:, :3].any()  # the calendar follows
    np.testing.assert_allclose(prepared[clear][:, :2].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(prepared[clear][:, :2].std(axis=0), 1, rtol=1e-4)


def test_one_wild_pixel_is_limited_and_a_constant_feature_is_silent(make_samples: Make) -> None:
    samples = make_samples(groups=12, gap=0)
    constant = samples.reflectance.copy()
    constant[..., 0] = 0.05
    samples = replace(samples, reflectance=constant)
    learned = Preparation.learn(samples, TrainConfig.preset("default", features=["B02", "B03"]))
    wild = samples.reflectance.copy()
    wild[0, 0, 1] = 3.2
    prepared = learned.apply(wild, samples.bands)
    assert prepared[0, 0, 1] == 10
    assert np.abs(prepared[..., 0]).max() < 1e-6


def test_reference_preset_is_not_scaled_and_gaps_are_zero(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    config = TrainConfig.preset("reference", features=["B04", "TCI_R"])
    prepared = Preparation.learn(samples, config).apply(samples.reflectance, samples.bands)
    expected = np.nan_to_num(samples.reflectance[..., 2])
    np.testing.assert_array_equal(prepared[..., 0], expected)
    assert prepared.shape[-1] == 2
    assert prepared[..., 1].max() > 50


def test_a_feature_that_is_never_clear_is_named(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    dark = samples.reflectance.copy()
    dark[..., 6] = -0.3  # the denominator of NDVI is negative everywhere
    with pytest.raises(SampleError, match="feature 'NDVI' has no clear value in 48 samples"):
        Preparation.learn(
            replace(samples, reflectance=dark), TrainConfig(features=FeatureSet(names=("NDVI",)))
        )


def test_the_label_of_a_mixed_sample_is_its_largest_share(make_samples: Make) -> None:
    samples = make_samples(groups=6, classes=3)
    share = np.tile(np.array([0.4, 0.4, 0.2], np.float32), (len(samples), 1))
    share[samples.label == 2] = [0, 0, 1]
    replace(samples, share=share)
    share[samples.label == 1] = [0.7, 0.3, 0]
    with pytest.raises(SampleError, match="16 samples have a label that is not their largest sha"):
        replace(samples, share=share)
