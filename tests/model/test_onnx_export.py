from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.baselines import fit_baseline
from model.certainty.calibrate import Calibration
from model.config import TrainConfig
from model.errors import ClassifierError
from model.learn import train_classifier
from model.onnx_export import INPUTS, OUTPUT, write_onnx
from model.samples import Samples

onnxruntime = pytest.importorskip("onnxruntime", reason="the group onnx is not installed")


PLAIN: dict[str, Any] = {
    "bidirectional": False,
    "pooling": "last",
    "calendar_input": False,
    "input_pieces": 0,
    "mask_input": False,
    "month_dropout": 0.0,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"members": 2},
        {"layer_norm": True, "pooling": "attention", "input_pieces": 0},
        {"architecture": "tempcnn"},
        {"architecture": "ltae"},
        {"architecture": "inception"},
        PLAIN,
        PLAIN | {"standardise": False, "noise": 0.0},
    ],
    ids=["default", "attention", "tempcnn", "ltae", "inception", "plain", "raw"],
)
def test_another_runtime_gives_the_same_probabilities(
    settings: dict[str, Any], make_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = make_samples(groups=12)
    config = TrainConfig.preset("default", **({"epochs": 2, "hidden": 8} | settings))
    made = train_classifier(samples, config, colours=["#1b9e77"] * 3)
    made = replace(made, calibration=Calibration(temperature=1.7))
    write_onnx(made, tmp_path / "classifier.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "classifier.onnx"))
    features = made.fitted.features
    given = (
        features.compute(samples.reflectance, samples.bands),
        features.is_clear(samples.reflectance, samples.bands).astype(np.float32),
    )
    (found,) = session.run([OUTPUT], dict(zip(INPUTS, given, strict=True)))
    expected = made.probability(samples.reflectance, samples.bands)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    empty, odd = given[0].copy(), given[0].copy()
    # a feature without a value is none, and beyond the limit is at the limit
    empty[0, 0], odd[0, 0] = (1e30, np.inf) if config.standardise else (np.nan, np.inf)
    values = [session.run([OUTPUT], {INPUTS[0]: f, INPUTS[1]: given[1]})[0] for f in (empty, odd)]
    np.testing.assert_array_equal(*values)
    assert np.isfinite(values[1]).all()
    told = session.get_modelmeta().custom_metadata_map
    assert told["features"].split("\n") == list(features.names)
    assert told["classes"].split("\n") == list(made.classes)


def test_a_simple_model_is_no_network(make_samples: Callable[..., Samples], tmp_path: Path) -> None:
    samples = make_samples(groups=6)
    made = train_classifier(
        samples, TrainConfig.preset("default", epochs=1, hidden=4), colours=["#1b9e77"] * 3
    )
    made = replace(made, fitted=fit_baseline("lda", samples, made.fitted.features))
    with pytest.raises(ClassifierError, match="a lda is not written as ONNX; train a network"):
        write_onnx(made, tmp_path / "classifier.onnx")
