"""Samples, folds and a way to learn in, probabilities for what was held out out."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from model.assess import Scores
from model.classifier import code_version
from model.durable import replace_file
from model.errors import SampleError
from model.predictor import Predictor
from model.samples import Samples
from model.split import Folds, Split

Learn = Callable[[Samples, int], Predictor]
"""Trains a model on samples, given the number of the fold; must not know of any other samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """Predictions for samples that were held out when their model was trained."""

    split: Split
    """How samples were held out."""
    model: str
    """`lstm`, `random forest`, `majority class` …."""
    index: Int64[np.ndarray, "held_out"]
    """Which samples, rising."""
    probability: Float32[np.ndarray, "held_out class"]
    """Probability of each class."""
    fold: Int64[np.ndarray, "held_out"]
    """The fold each sample was held out in."""
    folds: int
    """Number of folds the samples were split into."""
    folds_used: int
    """Number of folds that were held out in turn."""
    notes: tuple[str, ...]
    """What could not be done as asked."""

    @property
    def predicted(self) -> Int64[np.ndarray, "held_out"]:
        """The most probable class of each."""
        best: np.ndarray = self.probability.argmax(axis=1)
        return best.astype(np.int64)

    def scores(self, samples: Samples) -> Scores:
        """Score the predictions against the labels of `samples`."""
        return Scores.from_labels(samples.label[self.index], self.predicted, samples.classes)


def out_of_fold(
    samples: Samples,
    learn: Learn,
    *,
    model: str,
    folds: Folds,
    folds_used: int | None = None,
    keep: Path | None = None,
    settings: str = "",
) -> OutOfFold:
    """Hold out the first `folds_used` folds in turn (all by default) and predict them.

    `keep` is a folder for the result of each fold: a fold that was done by the same version for the
    same samples, folds and `settings` (text that decides what `learn` does) is not done again.
    Raises what `learn`
    raises, and `SampleError` if a model gives other than one finite probability per class.
    """
    used = folds.count if folds_used is None else min(folds_used, folds.count)
    index, probability, number = [], [], []
    for fold in range(used):
        held_out, trained = folds.held_out(fold), folds.trained_on(fold)
        place = None
        if keep is not None:
            told = (samples.fingerprint, folds.split, model, settings, _made_by())
            content = (*told, held_out, trained)
            place = keep / f"{_digest(content)}.npy"
        found = None if place is None else _read(place, len(held_out), len(samples.classes))
        if found is None:
            test = samples.take(held_out)
            found = learn(samples.take(trained), fold).probability(test.reflectance, test.bands)
            _refuse_odd(found, model, len(held_out), len(samples.classes))
            if place is not None:
                _write(place, found)
        index.append(held_out)
        probability.append(found)
        number.append(np.full(len(held_out), fold, np.int64))
    joined = np.concatenate(index)
    order = np.argsort(joined)
    return OutOfFold(
        split=folds.split,
        model=model,
        index=joined[order],
        probability=np.concatenate(probability)[order],
        fold=np.concatenate(number)[order],
        folds=folds.count,
        folds_used=used,
        notes=folds.notes,
    )


def _made_by() -> str:
    """Return the versions that decide what a simple model learns from the same samples."""
    return f"canopycube {code_version()}, scikit-learn {version('scikit-learn')}"


def _refuse_odd(probability: np.ndarray, model: str, samples: int, classes: int) -> None:
    if probability.shape != (samples, classes) or not np.isfinite(probability).all():
        raise SampleError(
            f"{model} gave probabilities of shape {probability.shape!r} or not finite ones for "
            f"{samples} samples and {classes} classes; its training did not succeed"
        )


def _digest(content: tuple[str | np.ndarray, ...]) -> str:
    digest = sha256()
    for part in content:
        is_text = isinstance(part, str)
        digest.update(part.encode() if is_text else part.astype("<i8").tobytes())  # type: ignore[union-attr]
        digest.update(b"\x1e")
    return digest.hexdigest()


def _write(place: Path, probability: Float32[np.ndarray, "held_out class"]) -> None:
    """Store the result of a fold in one step: another process sees all of it or nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, probability, allow_pickle=False)
    replace_file(place, buffer.getvalue())


def _read(place: Path, samples: int, classes: int) -> np.ndarray | None:
    """Return what `_write` stored; None if it is not there or cannot be what is needed."""
    try:
        with place.open("rb") as file:
            probability = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # not done yet, or cut short: the fold is done (again)
    is_right = probability.dtype == np.float32 and probability.shape == (samples, classes)
    return probability if is_right and np.isfinite(probability).all() else None
