"""A classifier in, a folder out and back: safetensors and one JSON, nothing that can run.

The folder holds `classifier.json` and `weights-<hash>.safetensors`. The JSON names its weights by
their hash and is replaced in one step, so a reader sees the old classifier or the new one.
"""

import contextlib
import json
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from model.baselines import FittedBaseline
from model.certainty.applicability import Applicability
from model.certainty.calibrate import Calibration
from model.certainty.conformal import ConformalSets
from model.config import TrainConfig
from model.errors import ClassifierError
from model.features import FeatureSet
from model.fitted import Fitted
from model.networks import Network, build_network
from model.preparation import Preparation

if TYPE_CHECKING:
    from model.classifier import SpeciesClassifier

SCHEMA = 3
"""Version of the layout; a reader of another version refuses."""

JSON_NAME = "classifier.json"

_LARGEST_JSON = 64 * 2**20
_LARGEST_WEIGHTS = 4 * 2**30


Arrays = dict[str, np.ndarray]


def describe(classifier: "SpeciesClassifier") -> dict[str, Any]:
    """Return everything but the arrays as what JSON can hold."""
    calibration, conformal = classifier.calibration, classifier.conformal
    applicability = classifier.applicability
    return {
        "schema": SCHEMA,
        "bands": list(classifier.required_bands),
        "periods": list(classifier.periods),
        "classes": list(classifier.classes),
        "colours": list(classifier.colours),
        "parents": dict(classifier.parents),
        "model": _describe_model(classifier.fitted),
        "calibration": None if calibration is None else calibration.to_dict(),
        "conformal": None if conformal is None else conformal.to_dict(),
        "applicability": None if applicability is None else sorted(applicability.spaces),
        "samples": classifier.sample_fingerprint,
        "code_version": classifier.code_version,
        "scores": classifier.scores,
    }


def _describe_model(fitted: Fitted | FittedBaseline) -> dict[str, Any]:
    definitions = fitted.features.definitions
    if isinstance(fitted, FittedBaseline):
        return {"type": "baseline", "definitions": definitions, **fitted.to_arrays()[0]}
    preparation = fitted.preparation
    return {
        "type": "network",
        "definitions": definitions,
        "mean": preparation.mean.tolist(),
        "deviation": preparation.deviation.tolist(),
        "limit": preparation.limit,
        "config": fitted.config.to_dict(),
        "networks": len(fitted.networks),
        "epoch": fitted.epoch,
    }


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


def save(classifier: "SpeciesClassifier", folder: Path) -> None:
    """Write `classifier` into `folder`, replacing the classifier that may be there.

    Raises `ClassifierError` if `folder` exists and is something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ClassifierError(f"{str(folder)!r} is a file; a classifier is saved as a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JSON_NAME).is_file():
        raise ClassifierError(
            f"folder {str(folder)!r} holds something other than a classifier; choose another"
        )
    weights = arrays_as_bytes(classifier)
    digest = sha256(weights).hexdigest()
    content = describe(classifier) | {
        "weights": {"file": _weights_name(digest), "sha256": digest, "bytes": len(weights)}
    }
    content["checksum"] = _checksum(content)
    text = json.dumps(content, indent=1, allow_nan=False)

    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / _weights_name(digest), weights)
    _replace(folder / JSON_NAME, text.encode())
    for stale in folder.glob("weights-*.safetensors"):
        if stale.name != _weights_name(digest):
            stale.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any]:
    """Read the fields of a `SpeciesClassifier`; nothing in the folder is trusted or run.

    Raises `ClassifierError` if a file is missing, cut short, of another version, or was changed
    after it was saved.
    """
    where = f"classifier {str(folder)!r}"
    content = _read_json(folder, where)
    stored = content.pop("checksum", None)
    if content.get("schema") != SCHEMA:
        raise ClassifierError(
            f"{where} has layout version {content.get('schema')!r}, this program reads {SCHEMA}; "
            "train it again or use the version that wrote it"
        )
    if stored != _checksum(content):
        raise ClassifierError(
            f"{where}: {JSON_NAME} was changed after it was saved; train it again"
        )
    try:
        arrays = _read_weights(folder, content["weights"], where)
        parts = _parts(content, arrays)
        _refuse_more(arrays, content)
    except ClassifierError as error:
        text = str(error)
        raise ClassifierError(text if text.startswith(where) else f"{where}: {text}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ClassifierError(f"{where}: {JSON_NAME} has a wrong entry: {error}") from error
    return parts


def _parts(content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Return the fields of a `SpeciesClassifier`; what is stored is believed nowhere."""
    classes = tuple(str(name) for name in content["classes"])
    periods = tuple(str(period) for period in content["periods"])
    calibration, conformal = content["calibration"], content["conformal"]
    parents = content["parents"]
    if not isinstance(parents, dict):
        raise ClassifierError(f"the legend is {parents!r}; expected names and what lies above them")
    return {
        "fitted": _model(content["model"], arrays, classes=len(classes), periods=periods),
        "periods": periods,
        "classes": classes,
        "colours": tuple(str(colour) for colour in content["colours"]),
        "parents": {str(name): str(above) for name, above in parents.items()},
        "calibration": None if calibration is None else Calibration.from_dict(calibration),
        "conformal": None
        if conformal is None
        else ConformalSets.from_dict(conformal, classes=len(classes)),
        "applicability": _applicability(content["applicability"], arrays),
        "sample_fingerprint": str(content["samples"]),
        "code_version": str(content["code_version"]),
        "scores": content["scores"],
    }


def _applicability(names: Any, arrays: Arrays) -> Applicability | None:
    if names is None:
        return None
    found = Applicability.from_arrays(_under(arrays, "applicability."))
    if sorted(found.spaces) != names:
        raise ClassifierError(
            f"the area of applicability is of spaces {sorted(found.spaces)!r}, named are {names!r}"
        )
    return found


def _under(arrays: Arrays, prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _model(
    entry: Any, arrays: Arrays, *, classes: int, periods: tuple[str, ...]
) -> Fitted | FittedBaseline:
    kind = entry["type"]
    if kind == "baseline":
        described = {n: value for n, value in entry.items() if n not in ("type", "definitions")}
        baseline = FittedBaseline.from_arrays(described, _under(arrays, "model."))
        _refuse_redefined(entry["definitions"], baseline.features)
        return baseline
    if kind != "network":
        raise ClassifierError(f"model type {kind!r} is not known; expected network or baseline")
    config = TrainConfig.from_dict(entry["config"])
    _refuse_redefined(entry["definitions"], config.features)
    preparation = Preparation(
        features=config.features,
        mean=np.array(entry["mean"], np.float32),
        deviation=np.array(entry["deviation"], np.float32),
        limit=entry["limit"],
        mask_input=config.mask_input,
        positions=periods if config.calendar_input else (),
    )
    count = entry["networks"]
    if count != config.members:
        raise ClassifierError(f"{count!r} networks are stored; the settings have {config.members}")
    networks = []
    for index in range(config.members):
        # Without memory and without drawing random numbers, until the weights are known to fit.
        with torch.device("meta"):
            network = build_network(
                config, channels=preparation.channels, classes=classes, steps=len(periods)
            )
        _fill(network, _under(arrays, f"network{index}."))
        networks.append(network.eval().requires_grad_(False))
    return Fitted(
        networks=tuple(networks), preparation=preparation, config=config, epoch=int(entry["epoch"])
    )


def weights_name(classifier: "SpeciesClassifier") -> str:
    """Return the name of the file that holds the arrays of a classifier."""
    return _weights_name(sha256(arrays_as_bytes(classifier)).hexdigest())


def _refuse_redefined(stored: Any, features: FeatureSet) -> None:
    """Refuse indices that another edition of the list of indices defined otherwise."""
    if not isinstance(stored, dict):
        raise ClassifierError(f"definitions of the features are {stored!r}; expected formulas")
    current = features.definitions
    for name in sorted(stored.keys() | current.keys()):
        if stored.get(name) != current.get(name):
            raise ClassifierError(
                f"it was trained with {name!r} as {stored.get(name)!r}, which is "
                f"{current.get(name)!r} now; install the version of spyndex that it was trained "
                "with, or train it again"
            )


def _refuse_more(arrays: Arrays, content: dict[str, Any]) -> None:
    """Refuse arrays that nothing reads: what is loaded is what was saved."""
    entry = content["model"]
    known = {"applicability"} if content["applicability"] is not None else set()
    known |= (
        {"model"}
        if entry["type"] == "baseline"
        else {f"network{index}" for index in range(entry["networks"])}
    )
    for name in arrays:
        if name.partition(".")[0] not in known:
            raise ClassifierError(f"array {name!r} belongs to nothing")


def _weights_name(digest: str) -> str:
    return f"weights-{digest[:16]}.safetensors"


def _checksum(content: dict[str, Any]) -> str:
    """Hash the content however it is indented; it finds accidents and edits, not forgers."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that only their owner can read
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _read_json(folder: Path, where: str) -> dict[str, Any]:
    path = folder / JSON_NAME
    if not path.is_file():
        raise ClassifierError(f"{where}: there is no {JSON_NAME}; expected a folder 'train' wrote")
    if path.stat().st_size > _LARGEST_JSON:
        raise ClassifierError(f"{where}: {JSON_NAME} has {path.stat().st_size} bytes, far too many")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ClassifierError(f"{where}: {JSON_NAME} is no whole JSON ({error})") from error
    if not isinstance(content, dict):
        raise ClassifierError(f"{where}: {JSON_NAME} holds no JSON object")
    return content


def _read_weights(folder: Path, entry: dict[str, Any], where: str) -> Arrays:
    digest, size = str(entry["sha256"]), int(entry["bytes"])
    path = folder / _weights_name(digest)
    # The name is rebuilt from the hash, so a path in the JSON can lead nowhere else.
    if entry["file"] != path.name or path.parent != folder or not path.is_file():
        raise ClassifierError(f"{where}: weights {entry['file']!r} are not there")
    if not path.stat().st_size == size <= _LARGEST_WEIGHTS:
        raise ClassifierError(
            f"{where}: {path.name} has {path.stat().st_size} bytes, {size} were saved; "
            "copy the folder again or train it again"
        )
    data = path.read_bytes()
    if sha256(data).hexdigest() != digest:
        raise ClassifierError(
            f"{where}: {path.name} was changed after it was saved; train it again"
        )
    try:
        return safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{where}: {path.name} is no safetensors file ({error})") from error


def _fill(network: Network, weights: Arrays) -> None:
    wanted = {n: (tuple(t.shape), t.dtype) for n, t in network.state_dict().items()}
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    found = {n: (tuple(t.shape), t.dtype) for n, t in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ClassifierError(
                f"weights {name!r} are {found.get(name)!r}, the settings call for "
                f"{wanted.get(name)!r}"
            )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ClassifierError("weights are not finite")
    network.load_state_dict(tensors, assign=True)
