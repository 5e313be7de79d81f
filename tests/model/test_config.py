import json
from collections.abc import Iterator

import jaxtyping
import pytest

from model.config import TrainConfig
from model.errors import ConfigError
from model.features import REFERENCE_FEATURES, FeatureSet


@pytest.fixture
def _unchecked() -> Iterator[None]:
    """Let wrong types in, as they come from a user's file when nothing checks annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_reference_preset_is_the_reference_workflow() -> None:
    config = TrainConfig.preset("reference")
    assert config.features == REFERENCE_FEATURES
    assert (config.hidden, config.layers, config.dropout, config.head_dropout) == (128, 2, 0.2, 0)
    assert (config.learning_rate, config.batch_size, config.epochs) == (1e-3, 32, 100)
    assert (config.schedule, config.weight_decay, config.gradient_limit) == ("constant", 0, None)
    assert (config.standardise, config.mask_input, config.class_weights) == (False, False, "none")
    assert (config.patience, config.month_dropout, config.bidirectional) == (None, 0, False)
    assert (config.architecture, config.pooling, config.layer_norm) == ("lstm", "last", False)
    assert (config.calendar_input, config.members, config.weight_average) == (False, 1, 0)
    assert (config.label_smoothing, config.shift_days, config.noise, config.mixup) == (0, 0, 0, 0)
    assert (config.balanced_sampling, config.logit_adjustment, config.focal_gamma) == (False, 0, 0)


def test_default_preset_is_made_for_other_years_and_gaps() -> None:
    config = TrainConfig.preset("default")
    assert config.shift_days > 15  # a season 15 days off is one of those it was trained on
    assert config.month_dropout >= 0.4  # four of twelve months may be missing
    assert (config.mixup, config.members) == (0, 1)


def test_presets_can_be_overridden() -> None:
    config = TrainConfig.preset("reference", layers=1, features=["NDVI", "B8"])
    assert config.layers == 1
    assert config.features == FeatureSet(names=("NDVI", "B08"))


@pytest.mark.parametrize("architecture", ["tempcnn", "ltae", "inception"])
def test_another_architecture_brings_its_own_shape(architecture: str) -> None:
    config = TrainConfig.preset("default", architecture=architecture)
    assert (config.pooling, config.layer_norm, config.bidirectional) == ("last", False, False)
    assert TrainConfig.preset("default", architecture=architecture, hidden=32).hidden == 32
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_survive_json() -> None:
    config = TrainConfig.preset("default", hidden=64, patience=None)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("override", "text"),
    [
        ({"hidden": 0}, "hidden is 0; expected 1 to 4096"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0.0 to 0.99"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected int or float"),
        ({"layers": 1.5}, "layers is 1.5; expected int"),
        ({"layers": True}, "layers is True; expected int"),
        ({"mask_input": 1}, "mask_input is 1; expected bool"),
        ({"patience": 0}, "patience is 0"),
        ({"epochs": None}, "epochs is None; expected int"),
        ({"class_weights": "equal"}, "class_weights is 'equal'; expected one of none, root"),
        ({"mask_input": False}, "could not tell a hidden period"),
        ({"architecture": "tempcnn", "pooling": "mean"}, "only an lstm has it"),
        ({"architecture": "ltae", "layers": 2}, "layers is 2; an ltae has one"),
        ({"architecture": "cnn"}, "architecture is 'cnn'; expected one of lstm, tempcnn, ltae"),
        ({"pooling": "first"}, "pooling is 'first'; expected one of last, mean, attention"),
        ({"balanced_sampling": True}, "class_weights and balanced_sampling all make up for rare"),
        ({"logit_adjustment": 1.0}, "class_weights and logit_adjustment all make up for rare"),
        ({"standardise": False, "noise": 0.1}, "noise is 0.1 but standardise is off"),
        ({"mask_input": False, "month_dropout": 0.0}, "standardise or mask_input is off"),
        ({"members": 65}, "members is 65; expected 1 to 64"),
        ({"shift_days": 91}, "shift_days is 91.0; expected 0.0 to 90.0"),
        ({"weight_average": 1.0}, "weight_average is 1.0; expected 0.0 to 0.9"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"mixup": float("inf")}, "mixup is inf"),
        ({"focal_gamma": "2"}, "focal_gamma is '2'; expected int or float"),
        ({"hiden": 3}, "training has no setting hiden"),
        ({"features": 3}, "features is 3; expected FeatureSet"),
        ({"features": ["NDVI", 3]}, r"features are \['NDVI', 3\]; expected a list of names"),
        ({"seed": 10**400}, "seed is 1000"),
        ({"noise": 10**400}, "noise is beyond all floating-point numbers"),
        ({"architecture": ["lstm"]}, r"architecture is \['lstm'\]; expected str"),
    ],
)
def test_impossible_settings_are_refused(override: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        TrainConfig.preset("default", **override)


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="preset 'best' does not exist; known are default, ref"):
        TrainConfig.preset("best")


def test_settings_with_a_missing_or_unknown_field_are_refused() -> None:
    settings = TrainConfig().to_dict()
    del settings["seed"]
    with pytest.raises(ConfigError, match=r"lack \['seed'\] and have unknown \['sed'\]"):
        TrainConfig.from_dict(settings | {"sed": 1})
