"""A classifier in, its arrays as a safetensors file out and back; nothing of it is believed."""

from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from model.baselines import FittedBaseline
from model.durable import named_by_hash
from model.errors import ClassifierError
from model.networks import Network

if TYPE_CHECKING:
    from model.classifier import SpeciesClassifier

WEIGHTS = "weights"
"""How the names of files with arrays begin."""

_LARGEST = 4 * 2**30

Arrays = dict[str, np.ndarray]


def arrays_of(classifier: "SpeciesClassifier") -> Arrays:
    """Return the arrays of a classifier by name: of each network, or of the simple model."""
    arrays: Arrays = {}
    fitted = classifier.fitted
    if isinstance(fitted, FittedBaseline):
        arrays |= {f"model.{name}": values for name, values in fitted.to_arrays()[1].items()}
    else:
        for index, network in enumerate(fitted.networks):
            for name, tensor in network.state_dict().items():
                arrays[f"network{index}.{name}"] = tensor.numpy()
    if classifier.applicability is not None:
        kept = classifier.applicability.to_arrays()
        arrays |= {f"applicability.{name}": values for name, values in kept.items()}
    return {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}


def arrays_as_bytes(classifier: "SpeciesClassifier") -> bytes:
    """Return the arrays in safetensors form; equal arrays give equal bytes."""
    return safetensors.numpy.save(arrays_of(classifier))


def weights_name(classifier: "SpeciesClassifier") -> str:
    """Return the name of the file that holds the arrays of a classifier."""
    return named_by_hash(WEIGHTS, sha256(arrays_as_bytes(classifier)).hexdigest())


def refuse_not_finite(arrays: Arrays) -> None:
    """Raise `ClassifierError` if a number is NaN or infinite: it would answer anything."""
    if not all(np.isfinite(values).all() for values in arrays.values()):
        raise ClassifierError("weights are not finite; the training did not succeed")


def read_weights(folder: Path | Mapping[str, bytes], entry: dict[str, Any], where: str) -> Arrays:
    """Read the arrays that `entry` names; raise `ClassifierError` if they are not what was saved."""
    if isinstance(folder, Mapping):
        return _carried_weights(folder, entry, where)
    digest, size = str(entry["sha256"]), int(entry["bytes"])
    path = folder / named_by_hash(WEIGHTS, digest)
    # The name is rebuilt from the hash, so a path in the JSON can lead nowhere else.
    if entry["file"] != path.name or path.parent != folder or not path.is_file():
        raise ClassifierError(
            f"{where}: weights {entry['file']!r} are not there; copy the whole folder again, or "
            "train it again"
        )
    if not path.stat().st_size == size <= _LARGEST:
        raise ClassifierError(
            f"{where}: {path.name} has {path.stat().st_size} bytes, {size} were saved; "
            "copy the folder again or train it again"
        )
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ClassifierError(
            f"{where}: {path.name} was changed after it was saved; train it again"
        )
    try:
        # mapped and copied array by array: from bytes each would be in memory three times
        return safetensors.numpy.load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{where}: {path.name} is no safetensors file ({error})") from error


def _carried_weights(files: Mapping[str, bytes], entry: dict[str, Any], where: str) -> Arrays:
    """Read the arrays that `entry` names from the content of files."""
    digest = str(entry["sha256"])
    name = named_by_hash(WEIGHTS, digest)
    data = files.get(name)
    if data is None or sha256(data).hexdigest() != digest:
        raise ClassifierError(f"{where}: {name} is missing or not what was saved; run again")
    try:
        return safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{where}: {name} is no safetensors file ({error})") from error


def fill(network: Network, weights: Arrays) -> None:
    """Give a network its weights; raise `ClassifierError` if they do not fit or are not finite."""
    wanted = {n: (tuple(t.shape), t.dtype) for n, t in network.state_dict().items()}
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    found = {n: (tuple(t.shape), t.dtype) for n, t in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ClassifierError(
                f"weights {name!r} are {found.get(name)!r}, the settings call for "
                f"{wanted.get(name)!r}"
            )
    refuse_not_finite(weights)
    network.load_state_dict(tensors, assign=True)
