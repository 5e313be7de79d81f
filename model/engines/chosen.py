"""A classifier and a wish in, the engine that computes its maps out, tested on this machine.

`exact` and `fast` are our own kernels (`CompiledModel`), `cuda` and `cuda-fast` are PyTorch's on a
CUDA device (`DeviceModel`), in float32 and in float16. `auto` is `cuda` where there is a device,
else `exact`, else `torch`, which knows every model. A wish that cannot be met gets the next of
these: the log says why.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numba.core.errors import NumbaError

from model.certainty.calibrate import Calibration
from model.classifier import SpeciesClassifier
from model.engines.arithmetic import exact_arithmetics, fast_arithmetic, instructions
from model.engines.compiled import CompiledModel
from model.engines.device import DeviceModel
from model.engines.device_access import DeviceError, find_device, give_up
from model.engines.packed import UnknownNetworkError
from model.engines.pixels import reflectance_of
from model.engines.program import UnknownFeatureError
from model.engines.room import BLOCK
from model.engines.selftest import CLASSES_EQUAL, Trial
from model.errors import ConfigError
from model.fitted import Fitted

ENGINES = ("auto", "exact", "fast", "torch", "cuda", "cuda-fast")
"""What may be asked for."""

TOLERANCE = {"exact": 5e-5, "fast": 1e-2, "cuda": 5e-5, "cuda-fast": 1e-2}
"""How far a probability may be from that of double precision."""

_PRECISIONS = {"cuda": torch.float32, "cuda-fast": torch.float16}
"""What a device computes products in. On three trained networks probabilities in float16 were up to
5e-3 off (emulated on a processor), in bfloat16 4e-2, which is too far."""

_WITHOUT_DEVICE = {"cuda": "exact", "cuda-fast": "fast"}
"""What takes a device's place."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """What computes the probabilities of a classifier's maps."""

    name: str
    """One of `ENGINES` but `auto`."""
    reason: str
    """Why this one, and what it computes with, for reports and logs."""
    model: CompiledModel | DeviceModel | None
    """Our own kernels, or a device; None for PyTorch, or for the arrays of a simple model."""
    difference: float | None
    """Largest difference of a probability from double precision in the self-test; None untested."""
    arithmetic: str
    """What it computes with, in words: two that differ may differ in a result, within what
    `TOLERANCE` allows both. Of `exact` they were up to 1e-6 of a probability apart."""

    @property
    def part(self) -> int:
        """Pixels that it had best be asked about at once: some of its blocks or batches."""
        if isinstance(self.model, DeviceModel):
            return 4 * self.model.batch
        return 16 * BLOCK

    def probability(
        self,
        classifier: SpeciesClassifier,
        pixels: np.ndarray,
        chosen: Int64[np.ndarray, "band"],
        wanted: Int64[np.ndarray, "n"],
        *,
        threads: int = 1,
    ) -> Float32[np.ndarray, "n class"]:
        """Return calibrated probabilities of the `wanted` pixels; `threads` are torch's.

        `pixels` (time, band, pixel) are int16 in stored units or float32 in physical ones; `chosen`
        are the places of the classifier's `required_bands`. If a device fails, the pixels are
        computed without it, with a warning, as are all to come in this process.
        """
        if self.model is None:
            reflectance = reflectance_of(pixels, chosen, wanted)
            return classifier.probability(reflectance, classifier.required_bands, threads=threads)
        try:
            return _computed(self.model, classifier.calibration, pixels, chosen, wanted)
        except DeviceError as error:
            other = _without_device(classifier, self.name, error)
        return other.probability(classifier, pixels, chosen, wanted, threads=threads)


def _computed(
    model: CompiledModel | DeviceModel,
    calibration: Calibration | None,
    pixels: np.ndarray,
    chosen: Int64[np.ndarray, "band"],
    wanted: Int64[np.ndarray, "n"],
) -> Float32[np.ndarray, "n class"]:
    """Return what maps get; raises `DeviceError` if a device fails."""
    if isinstance(model, DeviceModel):
        temperature = None if calibration is None else calibration.temperature
        return model.probability(pixels, chosen, wanted, temperature=temperature)
    probability = model.probability(pixels, chosen, wanted)
    return probability if calibration is None else calibration.apply(probability)


_engines: WeakKeyDictionary[SpeciesClassifier, dict[tuple[str, str], Engine]] = WeakKeyDictionary()
_lock = threading.Lock()


def choose_engine(classifier: SpeciesClassifier, asked: str = "auto") -> Engine:
    """Return the engine for `classifier`, the same for each call in this process.

    The first call packs the weights, compiles what is not on disk yet, and compares the engine with
    double precision; one that is further off than its `TOLERANCE` is not used, with a warning.
    Raises `ConfigError` for another name than `ENGINES`.
    """
    if asked not in ENGINES:
        raise ConfigError(f"engine is {asked!r}; expected one of {', '.join(ENGINES)}")
    key = asked, instructions()
    with _lock:  # one thread tests, the others wait
        known = _engines.setdefault(classifier, {})
        if key not in known:
            known[key] = _chosen(classifier, asked)
            _tell(known[key], asked)
        return known[key]


def _tell(engine: Engine, asked: str) -> None:
    if engine.name == "torch" and asked not in ("auto", "torch"):
        _log.warning("engine torch, NOT %s as asked for: %s", asked, engine.reason)
    else:
        _log.info("engine %s: %s", engine.name, engine.reason)


def _chosen(classifier: SpeciesClassifier, asked: str) -> Engine:
    if asked == "torch":
        return _torch("asked for")
    fitted = classifier.fitted
    if not isinstance(fitted, Fitted):
        return _torch(f"a {fitted.kind} is computed from its own arrays")
    trial = cache(lambda: Trial.of(classifier, fitted))  # slow, and not needed for every model
    refused: list[str] = []
    if asked == "auto" or asked in _PRECISIONS:
        engine = _on_device(classifier, fitted, asked, trial, refused)
        if engine is not None:
            return engine
    wishes = [("exact", arithmetic) for arithmetic in exact_arithmetics()]
    if "fast" in (asked, _WITHOUT_DEVICE.get(asked)):
        wishes.insert(0, ("fast", fast_arithmetic()))
    for name, arithmetic in wishes:
        try:
            model = CompiledModel(fitted, arithmetic, steps=len(classifier.periods))
            wish = _wish(asked, name, refused)
            engine = _tested(name, model, classifier, trial, wish=wish, words=arithmetic.words)
        except (UnknownNetworkError, UnknownFeatureError) as unknown:
            return _torch(f"our kernels do not know the model: {unknown}")
        # the latter where numba is told to compile nothing
        except (NumbaError, NotImplementedError) as error:
            first = str(error).partition("\n")[0]
            _log.warning(
                "engine %s (%s) cannot be compiled on this machine and is NOT used: %s",
                name,
                arithmetic.words,
                first,
            )
            refused.append(f"{name} cannot be compiled on this machine: {first}")
            continue
        if engine is not None:
            return engine
        refused.append(f"{name} ({arithmetic.words}) failed its self-test")
    return _torch("our own kernels failed their self-test")


def _wish(asked: str, name: str, refused: list[str]) -> str:
    """Return what was asked for and, where that is not what is used, why."""
    if asked == name:
        return "asked for"
    why = f", which is not used: {refused[0]}" if refused and asked != "auto" else ""
    return f"asked for {asked}{why}"


def _on_device(
    classifier: SpeciesClassifier,
    fitted: Fitted,
    asked: str,
    trial: Callable[[], Trial],
    refused: list[str],
) -> Engine | None:
    """Return an engine on a device; None where there is none, or it fails: why goes to `refused`."""
    try:
        device = find_device()
        for name in dict.fromkeys(("cuda" if asked == "auto" else asked, "cuda")):
            precision = _PRECISIONS[name]
            steps = len(classifier.periods)
            model = DeviceModel(fitted, steps=steps, device=device, precision=precision)
            try:
                wish = _wish(asked, name, refused)
                engine = _tested(name, model, classifier, trial, wish=wish, words=model.words)
            except RuntimeError as error:  # PyTorch's for what a device or its libraries cannot do
                _log.warning("engine %s failed its self-test and is NOT used: %s", name, error)
                refused.append(f"{name} failed its self-test: {error}")
                continue
            if engine is not None:
                return engine
            refused.append(f"{name} failed its self-test")
    except (UnknownNetworkError, UnknownFeatureError) as unknown:
        _log.info("no device is used: it does not compute %s", unknown)
        refused.append(f"a device does not compute {unknown}")
    except DeviceError as error:
        if asked != "auto" or torch.cuda.is_available():
            _log.warning("engine %s was asked for; the device is NOT used: %s", asked, error)
        refused.append(str(error))
    return None


def _without_device(classifier: SpeciesClassifier, name: str, error: DeviceError) -> Engine:
    """Give the device up for this process and return what takes its place."""
    with _lock:
        is_first = give_up(str(error))
        for known in _engines.values():
            for key in [key for key, one in known.items() if isinstance(one.model, DeviceModel)]:
                del known[key]
    other = choose_engine(classifier, _WITHOUT_DEVICE[name])
    with _lock:  # who asks again is not told once more
        for asked in ("auto", "cuda", "cuda-fast"):
            if _WITHOUT_DEVICE.get(asked, "exact") == _WITHOUT_DEVICE[name]:
                _engines[classifier].setdefault((asked, instructions()), other)
    if is_first:
        _log.warning(
            "engine %s failed and is NOT used any more, %s is: %s", name, other.name, error
        )
    return other


def _tested(
    name: str,
    model: CompiledModel | DeviceModel,
    classifier: SpeciesClassifier,
    trial: Callable[[], Trial],
    *,
    wish: str,
    words: str,
) -> Engine | None:
    """Return the engine if it is as exact as its name says; None, with a warning, if not."""
    outcome = trial().outcome(
        partial(_computed, model, classifier.calibration), tolerance=TOLERANCE[name]
    )
    difference = outcome.difference
    if difference <= TOLERANCE[name] and outcome.classes_equal >= CLASSES_EQUAL:
        return Engine(
            name=name,
            reason=f"{wish}; {words}{_at_a_time(model)}; self-test differs by {difference:.1e}",
            model=model,
            difference=difference,
            arithmetic=words,
        )
    _log.warning(
        "engine %s (%s) failed its self-test on this machine and is NOT used: a probability "
        "differs by %.1e from double precision, %.0e is allowed; of clear classes %.2f %% are the "
        "same, %.1f %% must be",
        name,
        words,
        difference,
        TOLERANCE[name],
        100 * outcome.classes_equal,
        100 * CLASSES_EQUAL,
    )
    return None


def _at_a_time(model: CompiledModel | DeviceModel) -> str:
    return f", {model.batch:,} pixels at a time" if isinstance(model, DeviceModel) else ""


def _torch(reason: str) -> Engine:
    return Engine(
        name="torch",
        reason=reason,
        model=None,
        difference=None,
        arithmetic="float32 by PyTorch on a processor",
    )
