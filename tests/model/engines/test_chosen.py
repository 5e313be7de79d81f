import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numba.core.errors import TypingError

from model.certainty.calibrate import Calibration
from model.classifier import SpeciesClassifier
from model.engines import choose_engine, chosen, measure_difference
from model.engines.arithmetic import (
    INSTRUCTIONS,
    VARIABLE,
    EmulatedSplitTiles,
    exact_arithmetics,
    instructions,
)
from model.engines.compiled import CompiledModel
from model.errors import ClassifierError, ConfigError
from model.fitted import Fitted
from model.formulas import BANDS
from model.predict import predict_block

Make = Callable[..., Fitted]
Pixels = Callable[..., np.ndarray]


def as_classifier(fitted: Fitted, steps: int = 12) -> SpeciesClassifier:
    classes = tuple(f"species {index}" for index in range(fitted.class_count))
    return SpeciesClassifier(
        fitted=fitted,
        periods=tuple(f"{month % 12 + 1:02d}" for month in range(steps)),
        classes=classes,
        colours=("#1b9e77",) * len(classes),
        sample_fingerprint="0" * 64,
        code_version="0",
        scores=None,
    )


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` mean the same on every machine; devices and tiles have tests of their own."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    newest = INSTRUCTIONS.index(instructions())
    monkeypatch.setenv(VARIABLE, INSTRUCTIONS[max(newest, INSTRUCTIONS.index("avx512"))])


@pytest.fixture
def classifier(make_model: Make) -> SpeciesClassifier:
    return as_classifier(make_model("default", hidden=16))


def test_auto_is_exact_for_networks_that_kernels_know(
    classifier: SpeciesClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "model.engines"):
        engine = choose_engine(classifier)
        assert choose_engine(classifier) is engine  # and is tested once
    assert engine.name == "exact"
    assert engine.difference is not None
    assert engine.difference < 5e-6
    assert engine.reason.startswith("asked for auto; float32 in ")
    assert engine.arithmetic in engine.reason
    assert [record.getMessage() for record in caplog.records] == [f"engine exact: {engine.reason}"]


def test_what_is_asked_for_is_given(classifier: SpeciesClassifier) -> None:
    assert choose_engine(classifier, "exact").name == "exact"
    assert choose_engine(classifier, "fast").name == "fast"
    torch = choose_engine(classifier, "torch")
    assert (torch.name, torch.reason, torch.model) == ("torch", "asked for", None)
    with pytest.raises(
        ConfigError,
        match=r"engine is 'opencl'; expected one of auto, exact, fast, torch, cuda, cuda",
    ):
        choose_engine(classifier, "opencl")


@pytest.mark.parametrize("asked", ["auto", "exact", "fast"])
def test_unknown_networks_are_left_to_torch(
    make_model: Make, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    classifier = as_classifier(make_model(architecture="tempcnn", hidden=16))
    with caplog.at_level(logging.INFO, "model.engines"):
        engine = choose_engine(classifier, asked)
    assert engine.name == "torch"
    assert engine.reason == "our kernels do not know the model: a TempCNN is no LSTM"
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == (logging.INFO if asked == "auto" else logging.WARNING)
    assert ("torch, NOT fast as asked for: our kernels do" in caplog.text) is (asked == "fast")


def test_a_broken_kernel_is_not_used(
    classifier: SpeciesClassifier,
    make_pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from model.engines import compiled, layer

    def broken(*arguments: object) -> None:
        right(*arguments)
        arguments[-3][...] *= 1.01  # type: ignore[index]

    right = layer.run_layer
    monkeypatch.setattr(compiled, "run_layer", broken)
    with caplog.at_level(logging.WARNING, "model.engines"):
        engine = choose_engine(classifier)
    assert (engine.name, engine.reason) == ("torch", "our own kernels failed their self-test")
    assert len(caplog.records) == 1
    assert ") failed its self-test on this machine and is NOT used: a prob" in caplog.text
    block = make_pixels(64)[:, [BANDS.index(b) for b in classifier.required_bands]]
    block = np.ascontiguousarray(block.reshape(12, -1, 8, 8))
    found = predict_block(classifier, block, classifier.required_bands)
    same = predict_block(classifier, block, classifier.required_bands, engine="torch")
    np.testing.assert_array_equal(found.class_value, same.class_value)


def test_broken_tiles_are_not_used(
    classifier: SpeciesClassifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from model.engines import compiled, tile_layer

    def broken(*arguments: object) -> None:
        right(*arguments)
        arguments[-4][...] *= 1.01  # type: ignore[index]

    vectors = exact_arithmetics()[-1]
    monkeypatch.setattr(chosen, "exact_arithmetics", lambda: (EmulatedSplitTiles(), vectors))
    tiles = choose_engine(classifier)
    assert (tiles.name, tiles.arithmetic) == ("exact", "emulated split bfloat16 tiles")
    right = tile_layer.run_tile_layer
    monkeypatch.setattr(compiled, "run_tile_layer", broken)
    with caplog.at_level(logging.WARNING, "model.engines"):
        engine = choose_engine(classifier, "exact")
    assert (engine.name, engine.arithmetic) == ("exact", vectors.words)
    assert "engine exact (emulated split bfloat16 tiles) failed its self-test" in caplog.text


def test_calibration_is_tested_too(
    classifier: SpeciesClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = choose_engine(classifier, "fast")
    sharp = choose_engine(replace(classifier, calibration=Calibration(temperature=0.2)), "fast")
    assert plain.difference is not None
    assert sharp.difference is not None
    assert sharp.difference > 2 * plain.difference
    monkeypatch.setitem(chosen.TOLERANCE, "fast", 1.5 * plain.difference)
    again = replace(classifier, calibration=Calibration(temperature=0.2))
    assert choose_engine(again, "fast").name == "exact"


class _Nudged(CompiledModel):
    """Gives a pixel whose first class leads by 0.2 to 0.39 the second one."""

    def probability(self, *arguments: np.ndarray) -> np.ndarray:
        found = super().probability(*arguments)
        order = found.argsort(axis=1)
        for values, (second, first) in zip(found, order[:, -2:], strict=True):
            lead = values[first] - values[second]
            if 0.2 < lead < 0.39:
                values[first] -= lead / 2 + 1e-4
                values[second] += lead / 2 + 1e-4
        return found


def test_fast_must_give_the_same_classes(
    classifier: SpeciesClassifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chosen, "CompiledModel", _Nudged)
    monkeypatch.setitem(chosen.TOLERANCE, "fast", 0.199)
    with caplog.at_level(logging.WARNING, "model.engines"):
        assert choose_engine(classifier, "fast").name == "torch"
    assert "engine fast (" in caplog.text
    assert " % are the same, 99.9 % must be" in caplog.text


@pytest.mark.parametrize("what", ["stored units", "places of bands", "places of pixels"])
def test_what_maps_do_is_tested(
    classifier: SpeciesClassifier, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    class Broken(CompiledModel):
        """Errs where pixels are as they are in maps."""

        def probability(
            self, pixels: np.ndarray, chosen: np.ndarray, wanted: np.ndarray
        ) -> np.ndarray:
            if what == "places of bands":
                chosen = np.arange(len(chosen))
            if what == "places of pixels":
                wanted = np.arange(len(wanted))
            found = super().probability(pixels, chosen, wanted)
            return found[::-1].copy() if what == "stored units" and pixels.itemsize == 2 else found

    monkeypatch.setattr(chosen, "CompiledModel", Broken)
    assert choose_engine(classifier).name == "torch"


@pytest.mark.parametrize("kind", [TypingError, NotImplementedError])
def test_a_kernel_that_cannot_be_compiled_is_not_used(
    classifier: SpeciesClassifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    from model.engines import compiled

    def refuse(*_: object) -> None:
        raise kind("no such instruction\nand much more")

    monkeypatch.setattr(compiled, "run_layer", refuse)
    with caplog.at_level(logging.WARNING, "model.engines"):
        assert choose_engine(classifier, "exact").name == "torch"
    assert "cannot be compiled on this machine and is NOT used: no such instruct" in caplog.text
    assert "much more" not in caplog.text


def test_fast_that_is_not_good_enough_becomes_exact(
    classifier: SpeciesClassifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(chosen.TOLERANCE, "fast", 1e-12)
    with caplog.at_level(logging.WARNING, "model.engines"):
        engine = choose_engine(classifier, "fast")
    assert engine.name == "exact"
    assert engine.reason.startswith("asked for fast, which is not used: fast (float32 in ")
    assert "engine fast (" in caplog.text


def test_a_model_whose_truth_is_no_number_fails_the_test(make_model: Make) -> None:
    fitted = make_model("default", hidden=16)
    fitted.networks[0].head.bias[0] = float("nan")
    assert choose_engine(as_classifier(fitted)).name == "torch"


def test_differences_are_measured(
    classifier: SpeciesClassifier, make_pixels: Pixels, reflectance_of: Callable[..., np.ndarray]
) -> None:
    reflectance = reflectance_of(make_pixels(300))
    calibrated = replace(classifier, calibration=Calibration(temperature=0.7))
    for one in (classifier, calibrated):
        exact = measure_difference(one, reflectance, BANDS, engine="exact")
        assert exact.pixels == 300 - len(range(0, 300, 41))
        assert exact.classes_equal == 1
        assert exact.largest < 5e-6
        fast = measure_difference(one, reflectance, BANDS, engine="fast", against="exact")
        assert 0 < fast.largest < 1e-2
        assert fast.classes_equal > 0.98
    nothing = measure_difference(classifier, reflectance[:1], BANDS, engine="fast")
    assert (nothing.pixels, nothing.largest) == (0, 0.0)
    assert np.isnan(nothing.classes_equal)


def test_older_instructions_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = instructions()
    assert newest in INSTRUCTIONS
    for name in INSTRUCTIONS[INSTRUCTIONS.index(newest) :]:
        monkeypatch.setenv(VARIABLE, name)
        assert instructions() == name
    monkeypatch.setenv(VARIABLE, "sse9")
    with pytest.raises(ConfigError, match="CANOPYCUBE_ENGINE_ISA is 'sse9'; expected one of amx"):
        instructions()


@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_other_processors(
    classifier: SpeciesClassifier,
    make_pixels: Pixels,
    reflectance_of: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    isa: str,
) -> None:
    order = INSTRUCTIONS.index
    if order(isa) < order(instructions()):
        pytest.skip(f"this processor has no {isa}")
    monkeypatch.setenv(VARIABLE, isa)
    reflectance = reflectance_of(make_pixels(200))
    exact, fast = choose_engine(classifier, "exact"), choose_engine(classifier, "fast")
    assert (exact.name, fast.name) == ("exact", "fast")
    assert isinstance(exact.model, CompiledModel)
    assert exact.model.arithmetic.lanes == {"avx512": 16, "avx2": 8, "baseline": 4}[isa]
    assert measure_difference(classifier, reflectance, BANDS, engine="exact").largest < 5e-6
    assert measure_difference(classifier, reflectance, BANDS, engine="fast").largest < 1e-3


@pytest.mark.parametrize("engine", ["exact", "fast"])
@pytest.mark.parametrize("tile", [(1, 1), (1, 29), (23, 1), (7, 5), (16, 16)])
def test_tiles_give_the_same_bytes(
    classifier: SpeciesClassifier, make_pixels: Pixels, engine: str, tile: tuple[int, int]
) -> None:
    rows, columns = (6, 7) if tile == (1, 1) else (23, 29)
    block = make_pixels(rows * columns, gap=0.4).reshape(12, -1, rows, columns)
    whole = predict_block(classifier, block, BANDS, engine=engine)
    layers = ("class_value", "confidence", "margin", "months_observed")
    for y in range(0, rows, tile[0]):
        for x in range(0, columns, tile[1]):
            part = np.s_[y : y + tile[0], x : x + tile[1]]
            piece = predict_block(classifier, block[:, :, *part], BANDS, engine=engine)
            for layer in layers:
                expected = getattr(whole, layer)[part]
                np.testing.assert_array_equal(getattr(piece, layer), expected, err_msg=layer)


@pytest.mark.parametrize("engine", ["exact", "fast", "torch"])
def test_threads_change_nothing(
    classifier: SpeciesClassifier, make_pixels: Pixels, engine: str
) -> None:
    block = make_pixels(64 * 100).reshape(12, -1, 64, 100)
    one, two = (
        predict_block(classifier, block, BANDS, engine=engine, threads=threads)
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one.class_value, two.class_value)
    np.testing.assert_array_equal(one.confidence, two.confidence)


def test_engines_agree_on_a_block(classifier: SpeciesClassifier, make_pixels: Pixels) -> None:
    block = make_pixels(40 * 50, gap=0.4).reshape(12, -1, 40, 50)
    exact = predict_block(classifier, block, BANDS, engine="exact", min_months=8)
    torch = predict_block(classifier, block, BANDS, engine="torch", min_months=8)
    np.testing.assert_array_equal(exact.class_value, torch.class_value)
    np.testing.assert_array_equal(exact.months_observed, torch.months_observed)
    assert (exact.class_value == 0).sum() > 100
    assert np.abs(exact.confidence.astype(int) - torch.confidence).max() <= 1
    assert np.abs(exact.margin.astype(int) - torch.margin).max() <= 1


@pytest.mark.parametrize("steps", [1, 11, 400])
@pytest.mark.parametrize("engine", ["exact", "torch"])
def test_differences_of_other_sequences_are_refused(
    classifier: SpeciesClassifier, engine: str, steps: int
) -> None:
    reflectance = np.full((3, steps, len(BANDS)), 0.3, np.float32)
    with pytest.raises(ClassifierError, match=f"reads 12 periods, the pixels have {steps}"):
        measure_difference(classifier, reflectance, BANDS, engine=engine)
