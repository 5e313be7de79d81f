"""The engine for CUDA devices, on the processor; what only a device can show is skipped without."""

import copy
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from computable import computable_indices
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.certainty.calibrate import Calibration
from model.classifier import SpeciesClassifier
from model.engines import choose_engine, chosen, device_access, measure_difference
from model.engines.device import DeviceModel, gather_stored
from model.engines.device_access import DeviceError, arithmetic_on, find_device
from model.engines.device_inputs import DeviceInputs, physical
from model.engines.packed import UnknownNetworkError
from model.errors import ClassifierError
from model.features import FEATURES, FeatureSet
from model.fitted import Fitted
from model.formulas import BANDS
from model.predict import predict_block
from model.preparation import Preparation

Make = Callable[..., Fitted]
Pixels = Callable[..., np.ndarray]
Convert = Callable[[np.ndarray], np.ndarray]

CPU = torch.device("cpu")
WITH_RADAR = (*BANDS, "VH")
OWN = (*FEATURES, "band:VH", "log:B04", "log:VH", "shape:B04", "shape:B08", "shape:VH")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "reference": ("reference", {"hidden": 16}),
    "reference of one layer": ("reference", {"hidden": 16, "layers": 1}),
    "default": ("default", {"hidden": 16}),
    "three layers": ("default", {"hidden": 8, "layers": 3, "bidirectional": False}),
    "last of both directions": ("default", {"hidden": 8, "pooling": "last", "layers": 2}),
    "mean": ("default", {"hidden": 8, "pooling": "mean", "layer_norm": True}),
    "no pieces": ("default", {"hidden": 8, "input_pieces": 0, "pooling": "attention"}),
    "no calendar": ("default", {"hidden": 8, "calendar_input": False}),
    "no mask": (
        "default",
        {"hidden": 8, "mask_input": False, "input_pieces": 0, "month_dropout": 0.0},
    ),
    "ensemble": ("default", {"hidden": 8, "members": 3}),
    "TempCNN": ("default", {"hidden": 16, "architecture": "tempcnn"}),
    "L-TAE": ("default", {"hidden": 16, "architecture": "ltae"}),
    "inception": ("default", {"hidden": 16, "architecture": "inception"}),
}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test give the device up for another."""
    monkeypatch.setattr(device_access, "_given_up", [])


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the processor for a small device; its LSTM knows bfloat16 only."""
    monkeypatch.setattr(chosen, "find_device", _still_there)
    monkeypatch.setattr(chosen, "DeviceModel", _SmallModel)
    monkeypatch.setitem(chosen._PRECISIONS, "cuda-fast", torch.bfloat16)


class _SmallModel(DeviceModel):
    def __init__(self, fitted: Fitted, **options: object) -> None:
        super().__init__(fitted, batch=64, **options)  # type: ignore[arg-type]


def _still_there() -> torch.device:
    if device_access._given_up:
        raise DeviceError(device_access._given_up[0])
    return CPU


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """Return the device, or skip."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield torch.device("cuda")
    torch.cuda.empty_cache()


def places(fitted: Fitted) -> np.ndarray:
    return np.array([BANDS.index(band) for band in fitted.features.required_bands])


def as_classifier(fitted: Fitted) -> SpeciesClassifier:
    classes = tuple(f"species {index}" for index in range(fitted.class_count))
    return SpeciesClassifier(
        fitted=fitted,
        periods=tuple(f"{month % 12 + 1:02d}" for month in range(12)),
        classes=classes,
        colours=("#1b9e77",) * len(classes),
        sample_fingerprint="0" * 64,
        code_version="0",
        scores=None,
    )


def run(
    fitted: Fitted,
    pixels: np.ndarray,
    wanted: np.ndarray | None = None,
    *,
    device: torch.device = CPU,
    batch: int = 64,
    **options: object,
) -> np.ndarray:
    model = DeviceModel(fitted, steps=len(pixels), device=device, batch=batch, **options)  # type: ignore[arg-type]
    which = np.arange(pixels.shape[2]) if wanted is None else wanted
    return model.probability(pixels, places(fitted), which)


def true_probability(fitted: Fitted, reflectance: np.ndarray) -> np.ndarray:
    prepared = torch.from_numpy(fitted.preparation.apply(reflectance, BANDS)).double()
    with torch.inference_mode():
        each = [copy.deepcopy(network).double()(prepared) for network in fitted.networks]
    return torch.stack([torch.softmax(one, dim=1) for one in each]).mean(dim=0).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_double_precision(
    make_model: Make, make_pixels: Pixels, reflectance_of: Convert, kind: str
) -> None:
    preset, options = KINDS[kind]
    fitted, pixels = make_model(preset, **options), make_pixels(150)
    true = true_probability(fitted, reflectance_of(pixels))
    found = run(fitted, pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, true, atol=1e-5, rtol=0)
    half = run(fitted, pixels, precision=torch.bfloat16)
    assert 0 < np.abs(half - true).max() < 5e-2


def test_a_pixel_depends_on_no_other(make_model: Make, make_pixels: Pixels) -> None:
    fitted, pixels = make_model("default", hidden=16, layers=2), make_pixels(200)
    every = run(fitted, pixels)
    generator = np.random.default_rng(1)
    for count in (1, 7, 63, 64, 65, 130):
        some = generator.choice(200, count, replace=False)
        np.testing.assert_array_equal(run(fitted, pixels, some), every[some])
        np.testing.assert_array_equal(run(fitted, pixels, some[:0]), every[:0])


def test_stored_and_physical_units_give_the_same(
    make_model: Make, make_pixels: Pixels, reflectance_of: Convert
) -> None:
    fitted, pixels = make_model("default", hidden=8), make_pixels(100)
    found = run(fitted, pixels)
    values = np.ascontiguousarray(reflectance_of(pixels).transpose(1, 2, 0))
    np.testing.assert_array_equal(run(fitted, values), found)
    values[np.isnan(values)] = np.inf  # is not clear either
    np.testing.assert_array_equal(run(fitted, values), found)
    values.flags.writeable = False
    np.testing.assert_array_equal(run(fitted, values), found)


def spectra(seed: int, count: int = 120) -> np.ndarray:
    """Return reflectance (sample, time, band) with gaps, zeros, negatives and what is too bright."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0.2, 0.2, (count, 3, len(WITH_RADAR)))
    odd = generator.random(values.shape) < 0.05
    values[odd] = generator.choice([0, -0.1, 1e-7, 1.8, np.nan, np.inf], int(odd.sum()))
    return values.astype(np.float32)


def prepared_both_ways(
    preparation: Preparation, reflectance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    inputs = DeviceInputs(preparation, steps=reflectance.shape[1], device=CPU)
    chosen_bands = [WITH_RADAR.index(band) for band in inputs.program.bands]
    values = np.ascontiguousarray(reflectance[..., chosen_bands].transpose(1, 2, 0))
    with np.errstate(invalid="ignore"):  # infinity over infinity
        return inputs(torch.from_numpy(values)).numpy(), preparation.apply(reflectance, WITH_RADAR)


def preparation_of(features: FeatureSet, **options: object) -> Preparation:
    generator = np.random.default_rng(len(features))
    mean = generator.normal(0, 1, len(features)).astype(np.float32)
    deviation = generator.uniform(0.1, 2, len(features)).astype(np.float32)
    both = {"limit": 10.0, "mask_input": True, **options}
    return Preparation(features=features, mean=mean, deviation=deviation, **both)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"limit": None, "mask_input": False},
                                     {"positions": ("03", "04", "05")}])  # fmt: skip
def test_inputs_are_those_that_training_saw(options: dict[str, object]) -> None:
    found, expected = prepared_both_ways(preparation_of(FeatureSet(names=OWN), **options),
                                         spectra(0))  # fmt: skip
    is_log = np.array([name.startswith("log:") for name in OWN])
    is_log = np.append(is_log, np.zeros(found.shape[2] - len(OWN), bool))
    np.testing.assert_array_equal(found[..., ~is_log], expected[..., ~is_log])
    # NumPy's logarithm of float32 is not always the nearest
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    listed=st.lists(st.sampled_from(computable_indices()), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 1000),
)
def test_indices_of_the_list(listed: list[str], seed: int) -> None:
    found, expected = prepared_both_ways(
        preparation_of(FeatureSet(names=tuple(listed))), spectra(seed, 40)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_stored_values_become_physical(make_pixels: Pixels, reflectance_of: Convert) -> None:
    pixels = make_pixels(50)
    found = physical(torch.from_numpy(pixels)).numpy().transpose(2, 0, 1)
    np.testing.assert_array_equal(found, reflectance_of(pixels))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), count=st.integers(0, 12), is_stored=st.booleans())
def test_pixels_are_gathered_as_they_are(data: st.DataObject, count: int, is_stored: bool) -> None:
    pixels = np.random.default_rng(0).integers(-9, 9, (3, 4, 20)).astype(np.int16)
    if not is_stored:
        pixels = pixels.astype(np.float32)
    first = data.draw(st.integers(0, 20 - count))
    listed = data.draw(st.permutations(range(20)))[:count]
    is_run = data.draw(st.booleans())
    wanted = np.array(range(first, first + count) if is_run else listed, np.int64)
    into = np.full((3, 2, 12), 7, pixels.dtype)
    gather_stored(pixels, np.array([3, 1]), wanted, into)
    np.testing.assert_array_equal(into[..., :count], pixels[:, [3, 1]][..., wanted])
    rest = into[..., count:]
    assert (rest == -32768).all() if is_stored else np.isnan(rest).all()


def test_a_calendar_of_other_steps_is_refused(make_model: Make) -> None:
    with pytest.raises(UnknownNetworkError, match="a calendar of other than 11 steps"):
        DeviceModel(make_model("default", hidden=8), steps=11, device=CPU)


def scarce(monkeypatch: pytest.MonkeyPatch, most: int, error: type[Exception]) -> list[int]:
    """Let batches of more than `most` pixels fail; return the sizes that were tried."""
    right, tried = DeviceModel._score, []

    def score(self: DeviceModel, pixels: Tensor, temperature: float | None) -> Tensor:
        tried.append(pixels.shape[2])
        if pixels.shape[2] > most:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore about it")
        return right(self, pixels, temperature)

    monkeypatch.setattr(DeviceModel, "_score", score)
    return tried


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_too_large_batches_are_halved(
    make_model: Make,
    make_pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    fitted, pixels = make_model("reference", hidden=8), make_pixels(700)
    expected = run(fitted, pixels, batch=512)
    tried = scarce(monkeypatch, 512, error)
    model = DeviceModel(fitted, steps=12, device=CPU, batch=2048)
    with caplog.at_level(logging.WARNING, "model.engines"):
        for _ in range(2):
            found = model.probability(pixels, places(fitted), np.arange(700))
            np.testing.assert_array_equal(found, expected)
    assert tried == [2048, 1024, 512, 512, 512, 512]  # and stays with what fits
    assert [record.getMessage() for record in caplog.records] == [
        "the device is out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.); "
        f"batches are of {size} pixels from now on"
        for size in (1024, 512)
    ]


def test_memory_for_next_to_nothing_is_an_error(
    make_model: Make, make_pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = scarce(monkeypatch, 0, torch.OutOfMemoryError)
    with pytest.raises(DeviceError, match=r"the device's memory does not hold 256 pixels .CUDA out "
                       "of memory.* end other processes that nvidia-smi lists, or ask for"):  # fmt: skip
        run(make_model("reference", hidden=8), make_pixels(9), batch=1024)
    assert tried == [1024, 512, 256]


def test_weights_that_do_not_fit_are_an_error(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def placed(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("model.engines.device._placed", placed)
    with pytest.raises(DeviceError, match=r"memory does not hold the networks .CUDA out of memory"):
        DeviceModel(make_model("reference", hidden=8), steps=12, device=CPU)


def test_other_errors_are_not_those_of_a_device(
    make_model: Make, make_pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, pixels = make_model("reference", hidden=8), make_pixels(200)
    model = DeviceModel(fitted, steps=12, device=CPU, batch=64)
    expected = model.probability(pixels, places(fitted), np.arange(200))
    right, calls = DeviceModel._score, []

    def score(self: DeviceModel, pixels: Tensor, temperature: float | None) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("shapes do not fit")
        return right(self, pixels, temperature)

    monkeypatch.setattr(DeviceModel, "_score", score)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        model.probability(pixels, places(fitted), np.arange(200))
    found = model.probability(pixels[..., :64], places(fitted), np.arange(64))
    np.testing.assert_array_equal(found, expected[:64])  # nothing is left of what failed


def test_one_tile_at_a_time(
    make_model: Make, make_pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, pixels = make_model("reference", hidden=8), make_pixels(150)
    right, inside, most = DeviceModel._run, [], []

    def one_run(self: DeviceModel, *arguments: object) -> np.ndarray:
        inside.append(threading.get_ident())
        most.append(len(inside))
        time.sleep(0.01)
        found = right(self, *arguments)  # type: ignore[arg-type]
        inside.pop()
        return found

    expected = run(fitted, pixels)
    monkeypatch.setattr(DeviceModel, "_run", one_run)
    models = [DeviceModel(fitted, steps=12, device=CPU, batch=64) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(models[i % 2].probability, pixels, places(fitted), np.arange(150))
                 for i in range(8)]  # fmt: skip
        for task in tasks:
            np.testing.assert_array_equal(task.result(), expected)
    assert set(most) == {1}


def test_settings_of_torch_are_put_back(request: pytest.FixtureRequest) -> None:
    matmul = torch.backends.cuda.matmul
    request.addfinalizer(partial(setattr, matmul, "allow_tf32", matmul.allow_tf32))
    matmul.allow_tf32 = True
    before = torch.backends.cudnn.allow_tf32
    with arithmetic_on(CPU, torch.float32):
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        assert torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
    with arithmetic_on(CPU, torch.bfloat16):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_where_there_is_no_device_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(
        DeviceError, match=r"no CUDA device: PyTorch .* is built without CUDA; inst"
    ):
        find_device()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(
        DeviceError, match="no CUDA device: PyTorch finds none; see that nvidia-smi"
    ):
        find_device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device() == torch.device("cuda")
    device_access.give_up("it was lost")
    with pytest.raises(DeviceError, match="it was lost"):
        find_device()


def test_auto_is_the_device_where_there_is_one(make_model: Make, processor: None) -> None:
    classifier = as_classifier(make_model("default", hidden=8))
    engine = choose_engine(classifier)
    assert engine.name == "cuda"
    assert engine.difference is not None
    assert engine.difference < 5e-6
    assert engine.reason.startswith(
        "asked for auto; float32 on a processor, 64 pixels at a time; self-test differs by "
    )
    assert [choose_engine(classifier, name).name for name in ("exact", "fast", "torch")] == [
        "exact", "fast", "torch",
    ]  # fmt: skip
    fast = choose_engine(classifier, "cuda-fast")
    assert fast.name == "cuda-fast"
    assert fast.reason.startswith("asked for; bfloat16 on a processor")
    other = as_classifier(make_model("default", hidden=8, architecture="tempcnn"))
    assert choose_engine(other).name == "cuda"


@pytest.mark.parametrize(("asked", "given"), [("cuda", "exact"), ("cuda-fast", "fast")])
def test_without_a_device_the_processor_computes(
    make_model: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: str,
    given: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    classifier = as_classifier(make_model("default", hidden=16))
    with caplog.at_level(logging.WARNING, "model.engines"):
        assert choose_engine(classifier).name == "exact"
        assert not caplog.records  # nobody asked for one
        engine = choose_engine(classifier, asked)
    assert engine.name == given
    assert engine.reason.startswith(f"asked for {asked}, which is not used: no CUDA device")
    assert f"engine {asked} was asked for; the device is NOT used: no CUDA device" in caplog.text


def test_a_device_that_is_wrong_is_not_used(
    make_model: Make,
    processor: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    classifier = as_classifier(make_model("default", hidden=16))
    monkeypatch.setitem(chosen.TOLERANCE, "cuda-fast", 1e-12)
    with caplog.at_level(logging.WARNING, "model.engines"):
        engine = choose_engine(classifier, "cuda-fast")
        assert engine.name == "cuda"
        assert engine.reason.startswith(
            "asked for cuda-fast, which is not used: cuda-fast failed its self-test; float32 on a processor"
        )
        assert "engine cuda-fast (bfloat16 on a processor" in caplog.text
        monkeypatch.setitem(chosen.TOLERANCE, "cuda", 1e-12)
        assert choose_engine(classifier, "auto").name == "exact"
    assert "engine cuda (float32 on a processor) failed its self-test on" \
        in caplog.text  # fmt: skip


def test_a_device_that_cannot_is_not_used(
    make_model: Make,
    processor: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def score(self: DeviceModel, pixels: Tensor, temperature: float | None) -> Tensor:
        if self.precision != torch.float32:
            raise RuntimeError("LSTM is not implemented for this type")
        return right(self, pixels, temperature)

    right = DeviceModel._score
    monkeypatch.setattr(DeviceModel, "_score", score)
    with caplog.at_level(logging.WARNING, "model.engines"):
        engine = choose_engine(as_classifier(make_model("default", hidden=16)), "cuda-fast")
    assert engine.name == "cuda"
    assert "engine cuda-fast failed its self-test and is NOT used: LSTM is not imp" in caplog.text


def test_unknown_features_are_left_to_others(
    make_model: Make,
    processor: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("model.engines.program._DIFFERENCES", {})
    with caplog.at_level(logging.INFO, "model.engines"):
        assert choose_engine(as_classifier(make_model("default", hidden=8))).name == "torch"
    assert "no device is used: it does not compute feature 'NDVI' has no program" in caplog.text


@pytest.mark.parametrize(("asked", "other"), [("auto", "exact"), ("cuda-fast", "fast")])
def test_a_lost_device_is_replaced(
    make_model: Make,
    make_pixels: Pixels,
    processor: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: str,
    other: str,
) -> None:
    classifier = as_classifier(make_model("default", hidden=16))
    block = make_pixels(150).reshape(12, -1, 10, 15)
    first = choose_engine(classifier, asked)
    assert first.name in ("cuda", "cuda-fast")

    scored, right = [], DeviceModel._score

    def lost(self: DeviceModel, pixels: Tensor, temperature: float | None) -> Tensor:
        scored.append(len(pixels))
        if len(scored) < 4:
            return right(self, pixels, temperature)
        raise RuntimeError(
            "CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA"
        )

    monkeypatch.setattr(DeviceModel, "_score", lost)
    monkeypatch.setattr(chosen.Engine, "part", 20)  # lost amid the block
    with caplog.at_level(logging.WARNING, "model.engines"):
        found = predict_block(classifier, block, BANDS, engine=asked)
    assert len(caplog.records) == 1
    assert len(scored) == 4
    expected = predict_block(classifier, block, BANDS, engine=other)
    assert (found.engine, found.arithmetic) == (other, expected.arithmetic)
    np.testing.assert_array_equal(found.class_value, expected.class_value)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert (
        f"engine {first.name} failed and is NOT used any more, {other} is: device cpu failed (CUDA "
        "error: unspecified launch failure); see what nvidia-smi says of it and start again, or "
    ) in caplog.text
    assert choose_engine(classifier, asked).name == other
    # who has the engine in hand, as another thread may, gets the same
    some = np.arange(7), block.reshape(12, -1, 150)
    again = first.probability(classifier, some[1], places(classifier.fitted), some[0])  # type: ignore[arg-type]
    assert again.shape == (7, 5)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("tile", [(1, 17), (11, 1), (4, 5)])
def test_tiles_give_the_same_bytes(
    make_model: Make,
    make_pixels: Pixels,
    processor: None,
    tile: tuple[int, int],
) -> None:
    classifier = as_classifier(make_model("default", hidden=8))
    block = make_pixels(11 * 17, gap=0.4).reshape(12, -1, 11, 17)
    whole = predict_block(classifier, block, BANDS, engine="cuda", threads=2)
    expected = predict_block(classifier, block, BANDS, engine="torch")
    np.testing.assert_array_equal(whole.months_observed, expected.months_observed)
    np.testing.assert_array_equal(whole.class_value, expected.class_value)
    for y in range(0, 11, tile[0]):
        for x in range(0, 17, tile[1]):
            part = np.s_[y : y + tile[0], x : x + tile[1]]
            piece = predict_block(classifier, block[:, :, *part], BANDS, engine="cuda")
            for layer in ("class_value", "confidence", "margin", "months_observed"):
                np.testing.assert_array_equal(getattr(piece, layer), getattr(whole, layer)[part])


def test_calibration_is_that_of_the_processor(
    make_model: Make, make_pixels: Pixels, reflectance_of: Convert, processor: None
) -> None:
    classifier = as_classifier(make_model("default", hidden=8, sharpness=40.0))
    for temperature in (0.5, 3.0):
        calibrated = replace(classifier, calibration=Calibration(temperature=temperature))
        reflectance = reflectance_of(make_pixels(100))
        found = measure_difference(calibrated, reflectance, BANDS, engine="cuda")
        assert found.largest < 1e-5
        plain = measure_difference(calibrated, reflectance, BANDS, engine="torch", against="cuda")
        assert plain.largest < 1e-5


@pytest.mark.slow
def test_pixels_that_do_not_fit_are_refused(make_model: Make, make_pixels: Pixels) -> None:
    fitted = make_model("default", hidden=8)
    model = DeviceModel(fitted, steps=12, device=CPU, batch=64)
    with pytest.raises(ClassifierError, match=r"reads 12 steps .* shape \(13, "):
        model.probability(make_pixels(5, steps=13), places(fitted), np.arange(5))
    with pytest.raises(ClassifierError, match="the pixels are int32; expected int16"):
        model.probability(make_pixels(5).astype(np.int32), places(fitted), np.arange(5))


def test_the_benchmark_says_that_there_is_no_device() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    made = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu", "--json"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(made.stdout)["skipped"].startswith("no CUDA device: ")


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_device_probabilities_are_those_of_double_precision(
    make_model: Make, make_pixels: Pixels, reflectance_of: Convert, cuda: torch.device, kind: str
) -> None:
    preset, options = KINDS[kind]
    fitted, pixels = make_model(preset, **options), make_pixels(1500)
    true = true_probability(fitted, reflectance_of(pixels))
    exact = run(fitted, pixels, device=cuda, batch=512)
    np.testing.assert_allclose(exact, true, atol=5e-5, rtol=0)
    half = run(fitted, pixels, device=cuda, batch=512, precision=torch.float16)
    np.testing.assert_allclose(half, true, atol=1e-2, rtol=0)
    assert (half.argmax(axis=1) == true.argmax(axis=1)).mean() >= 0.995


def test_on_a_device_a_pixel_depends_on_no_other(
    make_model: Make, make_pixels: Pixels, cuda: torch.device
) -> None:
    fitted, pixels = make_model("default", hidden=64), make_pixels(5000)
    model = DeviceModel(fitted, steps=12, device=cuda, batch=1024)
    every = model.probability(pixels, places(fitted), np.arange(5000))
    for count in (1, 7, 1024, 3000):
        some = np.random.default_rng(count).choice(5000, count, replace=False)
        found = model.probability(pixels, places(fitted), some)
        np.testing.assert_array_equal(found, every[some])


def test_on_a_device_memory_that_is_used_up_halves_batches(
    make_model: Make, make_pixels: Pixels, cuda: torch.device
) -> None:
    fitted, pixels = make_model("reference", hidden=128), make_pixels(3000)
    expected = run(fitted, pixels, device=cuda, batch=4096)
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 700e6 / total))
    try:
        model = DeviceModel(fitted, steps=12, device=cuda, batch=65536)
        found = model.probability(pixels, places(fitted), np.arange(3000))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.batch < 65536
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
