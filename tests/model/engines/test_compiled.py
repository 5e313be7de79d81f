"""The kernels against PyTorch in double precision."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model.engines.arithmetic import Arithmetic, exact_arithmetics, fast_arithmetic
from model.engines.compiled import CompiledModel
from model.engines.packed import UnknownNetworkError
from model.engines.program import UnknownFeatureError
from model.engines.room import BLOCK
from model.errors import ClassifierError
from model.fitted import Fitted
from model.formulas import BANDS
from model.networks import LSTMClassifier

Model = Callable[..., Fitted]
Pixels = Callable[..., np.ndarray]
Convert = Callable[[np.ndarray], np.ndarray]

PLAIN = {"input_pieces": 0, "bidirectional": False, "pooling": "last"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "reference": ("reference", {"hidden": 32}),
    "reference of one layer": ("reference", {"hidden": 32, "layers": 1}),
    "default": ("default", {"hidden": 32}),
    "default of two layers": ("default", {"hidden": 32, "layers": 2}),
    "three layers": ("default", {"hidden": 16, "layers": 3, "bidirectional": False}),
    "last of both directions": ("default", {"hidden": 24, "pooling": "last", "layers": 2}),
    "mean": ("default", {"hidden": 24, "pooling": "mean"}),
    "attention": ("default", {"hidden": 24, "pooling": "attention"}),
    "layer norm": ("default", {"hidden": 20, "layer_norm": True}),
    "layer norm of the last": ("default", {"hidden": 20, "layer_norm": True, **PLAIN}),
    "five units": ("default", {"hidden": 5, "layers": 2}),
    "one unit": ("default", {"hidden": 1, **PLAIN}),
    "seventy units": ("default", {"hidden": 70, **PLAIN}),
    "no pieces": ("default", {"hidden": 32, "input_pieces": 0}),
    "no calendar": ("default", {"hidden": 32, "calendar_input": False}),
    "no mask": (
        "default",
        {"hidden": 32, "mask_input": False, "input_pieces": 0, "month_dropout": 0.0},
    ),
    "many pieces": ("default", {"hidden": 16, "features": ["NDVI", "B04"], "input_pieces": 64}),
    "ensemble": ("default", {"hidden": 16, "members": 3}),
    "forty classes": ("default", {"hidden": 16, "classes": 40}),
    "two classes": ("default", {"hidden": 16, "classes": 2}),
    "every own feature": (
        "default",
        {"hidden": 16, "features": ["AOT", "TCI_R", "NDWI", "log:B02", "shape:B04", "shape:B08"]},
    ),
    "indices of the list": ("default", {"hidden": 16, "features": ["GNDVI", "SAVI", "MSAVI"]}),
}


def true_probability(fitted: Fitted, reflectance: np.ndarray) -> np.ndarray:
    prepared = torch.from_numpy(fitted.preparation.apply(reflectance, BANDS)).double()
    with torch.inference_mode():
        each = [copy.deepcopy(network).double()(prepared) for network in fitted.networks]
    return torch.stack([torch.softmax(one, dim=1) for one in each]).mean(dim=0).numpy()


def run(
    fitted: Fitted, arithmetic: Arithmetic, pixels: np.ndarray, wanted: np.ndarray | None = None
) -> np.ndarray:
    model = CompiledModel(fitted, arithmetic, steps=len(pixels))
    chosen = np.array([BANDS.index(band) for band in fitted.features.required_bands])
    places = np.arange(pixels.shape[2]) if wanted is None else wanted
    return model.probability(pixels, chosen, places)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_double_precision(
    make_model: Model, make_pixels: Pixels, reflectance_of: Convert, kind: str
) -> None:
    preset, settings = KINDS[kind]
    fitted = make_model(preset, **settings)
    pixels = make_pixels(BLOCK + 7)
    true = true_probability(fitted, reflectance_of(pixels))
    assert true.max(axis=1).mean() > 1.2 / fitted.class_count  # not flat
    exact = run(fitted, exact_arithmetics()[-1], pixels)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact, true, atol=5e-6, rtol=0)
    np.testing.assert_allclose(exact.sum(axis=1), 1, atol=1e-6)
    fast = run(fitted, fast_arithmetic(), pixels)
    np.testing.assert_allclose(fast, true, atol=1e-2, rtol=0)
    top = np.sort(true, axis=1)
    is_clear_cut = top[:, -1] - top[:, -2] > 1e-5
    np.testing.assert_array_equal(
        exact.argmax(axis=1)[is_clear_cut], true.argmax(axis=1)[is_clear_cut]
    )


@pytest.mark.parametrize("steps", [1, 2, 24])
def test_sequences_of_other_lengths(
    make_model: Model, make_pixels: Pixels, reflectance_of: Convert, steps: int
) -> None:
    for settings in ({"hidden": 16}, {"hidden": 16, **PLAIN}, {"hidden": 16, "pooling": "mean"}):
        fitted = make_model("default", steps=steps, **settings)
        pixels = make_pixels(50, steps=steps)
        true = true_probability(fitted, reflectance_of(pixels))
        np.testing.assert_allclose(run(fitted, exact_arithmetics()[-1], pixels), true, atol=5e-6)
        np.testing.assert_allclose(run(fitted, fast_arithmetic(), pixels), true, atol=1e-2)


@pytest.mark.parametrize("arithmetic", [exact_arithmetics()[-1], fast_arithmetic()])
def test_a_pixel_depends_on_no_other(
    make_model: Model, make_pixels: Pixels, arithmetic: Arithmetic
) -> None:
    fitted = make_model("default", hidden=24, layers=2)
    pixels = make_pixels(2 * BLOCK + 31)
    every = run(fitted, arithmetic, pixels)
    generator = np.random.default_rng(1)
    for count in (1, 2, 5, 7, 17, BLOCK - 1, BLOCK, BLOCK + 1):
        some = generator.choice(pixels.shape[2], count, replace=False)
        np.testing.assert_array_equal(run(fitted, arithmetic, pixels, some), every[some])


def test_stored_and_physical_units_give_the_same(
    make_model: Model, make_pixels: Pixels, reflectance_of: Convert
) -> None:
    fitted = make_model("default", hidden=16)
    pixels = make_pixels(100)
    physical = np.ascontiguousarray(reflectance_of(pixels).transpose(1, 2, 0))
    found = run(fitted, exact_arithmetics()[-1], physical)
    np.testing.assert_array_equal(found, run(fitted, exact_arithmetics()[-1], pixels))
    physical[np.isnan(physical)] = np.inf  # is not clear either
    np.testing.assert_array_equal(found, run(fitted, exact_arithmetics()[-1], physical))
    frozen = pixels.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(found, run(fitted, exact_arithmetics()[-1], frozen))


@pytest.mark.parametrize("arithmetic", [exact_arithmetics()[-1], fast_arithmetic()])
def test_what_is_no_number_stays_none(
    make_model: Model, make_pixels: Pixels, arithmetic: Arithmetic
) -> None:
    # as a damaged weights file gives it: it must not come out as a class
    for name in ("weight_hh_l0", "bias_ih_l0", "weight_ih_l0"):
        fitted = make_model("reference", hidden=16)
        getattr(fitted.networks[0].lstm, name)[:] = torch.nan
        assert np.isnan(run(fitted, arithmetic, make_pixels(9))).all(), name


@pytest.mark.parametrize("arithmetic", [exact_arithmetics()[-1], fast_arithmetic()])
def test_gates_saturate_without_overflow(
    make_model: Model, make_pixels: Pixels, reflectance_of: Convert, arithmetic: Arithmetic
) -> None:
    fitted = make_model("reference", hidden=16)
    network = fitted.networks[0]
    assert isinstance(network, LSTMClassifier)
    for parameter in network.lstm.parameters():
        parameter.mul_(100)
    pixels = make_pixels(60)
    found, true = run(fitted, arithmetic, pixels), true_probability(fitted, reflectance_of(pixels))
    assert np.isfinite(found).all()
    # so steep that some gates are about to fall either way: not all pixels can agree
    assert np.median(np.abs(found - true)) < 5e-3


def test_a_trained_model(
    make_samples: Callable[..., object], quick: object, reflectance_of: Convert
) -> None:
    from model.learn import train_classifier

    samples = make_samples(groups=24)
    brief = replace(quick, epochs=8)  # type: ignore[type-var]
    trained = train_classifier(samples, brief, colours=["#1b9e77"] * 3)  # type: ignore[arg-type]
    fitted = trained.fitted
    assert isinstance(fitted, Fitted)
    pixels = np.ascontiguousarray(samples.reflectance.transpose(1, 2, 0))  # type: ignore[attr-defined]
    prepared = fitted.preparation.apply(samples.reflectance, samples.bands)  # type: ignore[attr-defined]
    with torch.inference_mode():
        scores = copy.deepcopy(fitted.network).double()(torch.from_numpy(prepared).double())
    true = torch.softmax(scores, dim=1).numpy()
    assert true.max(axis=1).mean() > 0.8
    for arithmetic, tolerance in ((exact_arithmetics()[-1], 5e-6), (fast_arithmetic(), 1e-2)):
        model = CompiledModel(fitted, arithmetic, steps=12)
        found = model.probability(pixels, np.arange(10), np.arange(pixels.shape[2]))
        np.testing.assert_allclose(found, true, atol=tolerance)
        assert (found.argmax(axis=1) == true.argmax(axis=1)).mean() >= 0.999


def test_inputs_are_those_that_training_saw(
    make_model: Model, make_pixels: Pixels, reflectance_of: Convert
) -> None:
    for preset in ("default", "reference"):
        fitted = make_model(preset, hidden=8)
        model = CompiledModel(fitted, exact_arithmetics()[-1], steps=12)
        pixels = make_pixels(BLOCK + 9)
        chosen = np.array([BANDS.index(band) for band in fitted.features.required_bands])
        found = model.prepared(pixels, chosen, np.arange(pixels.shape[2]))
        expected = fitted.preparation.apply(
            reflectance_of(pixels), BANDS
        )  # (sample, time, channel)
        count = len(fitted.features)
        np.testing.assert_array_equal(
            found[:, :count], expected[..., :count].transpose(1, 2, 0), err_msg=preset
        )
        clear = fitted.features.is_clear(reflectance_of(pixels), BANDS)
        np.testing.assert_array_equal(found[:, count], clear.T)
        np.testing.assert_array_equal(
            model.prepared_probability(found),
            model.probability(pixels, chosen, np.arange(pixels.shape[2])),
        )


def test_unknown_networks_are_refused(make_model: Model) -> None:
    for architecture in ("tempcnn", "ltae", "inception"):
        with pytest.raises(UnknownNetworkError, match="is no LSTM"):
            CompiledModel(make_model(architecture=architecture), exact_arithmetics()[-1], steps=12)

    class Changed(LSTMClassifier):
        """Reads in a way of its own."""

    fitted = make_model("reference", hidden=16)
    fitted.networks[0].__class__ = Changed
    with pytest.raises(UnknownNetworkError, match="a Changed is no LSTM"):
        CompiledModel(fitted, exact_arithmetics()[-1], steps=12)
    fitted = make_model("reference", hidden=16)
    fitted.networks[0].encoding = nn.ReLU()  # type: ignore[assignment]
    with pytest.raises(UnknownNetworkError, match="an encoding that is a ReLU"):
        CompiledModel(fitted, exact_arithmetics()[-1], steps=12)
    fitted = make_model("default", hidden=16)
    with pytest.raises(UnknownNetworkError, match="a calendar of other than 11 steps"):
        CompiledModel(fitted, exact_arithmetics()[-1], steps=11)


def test_unknown_features_are_refused(make_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.engines.program._DIFFERENCES", {})
    with pytest.raises(UnknownFeatureError, match="feature 'NDVI' has no program"):
        CompiledModel(make_model("default", hidden=16), exact_arithmetics()[-1], steps=12)


def test_pixels_that_do_not_fit_the_kernels_are_refused(
    make_model: Model, make_pixels: Pixels
) -> None:
    fitted = make_model("default", hidden=8)
    model = CompiledModel(fitted, exact_arithmetics()[-1], steps=12)
    bands = len(fitted.features.required_bands)
    chosen, wanted = np.arange(bands), np.arange(5)
    for steps in (1, 11, 13, 400):
        pixels = make_pixels(5, steps=steps)
        for ask in (model.probability, model.prepared):
            with pytest.raises(ClassifierError, match=rf"reads 12 steps .* shape \({steps}, "):
                ask(pixels, chosen, wanted)
        prepared = np.zeros((steps, len(fitted.features) + 1, 5), np.float32)
        with pytest.raises(ClassifierError, match=rf"read 12 steps of .* shape \({steps}, "):
            model.prepared_probability(prepared)
    with pytest.raises(ClassifierError, match="read 12 steps of"):
        model.prepared_probability(np.zeros((12, 1, 5), np.float32))
    pixels = make_pixels(5)
    with pytest.raises(ClassifierError, match=f"reads {bands} bands; {bands - 1} are chosen"):
        model.probability(pixels, chosen[1:], wanted)
    with pytest.raises(ClassifierError, match="pixels 1 to 5 are asked for; there are 5"):
        model.probability(pixels, chosen, wanted + 1)
    with pytest.raises(ClassifierError, match="pixels -1 to 3 are asked for; there are 5"):
        model.probability(pixels, chosen, wanted - 1)
    with pytest.raises(ClassifierError, match=r"bands 10 to 1\d are asked for; there are 14"):
        model.probability(pixels, chosen + 10, wanted)
    for kind in (np.int32, np.float64, np.uint16):
        with pytest.raises(ClassifierError, match=f"the pixels are {np.dtype(kind)}; expected int"):
            model.probability(pixels.astype(kind), chosen, wanted)


def test_memory_is_told(make_model: Model) -> None:
    one = CompiledModel(make_model("default", hidden=16), exact_arithmetics()[-1], steps=12)
    two = make_model("default", hidden=16, members=2)
    weights, room = one.bytes()
    assert weights >= 4 * 2 * 4 * 16 * 16  # states to gates, in both directions
    assert room >= 4 * 12 * BLOCK * (10 + 2 * 16)  # values of bands, and states
    assert CompiledModel(two, exact_arithmetics()[-1], steps=12).bytes() == (2 * weights, room)
