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
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from model.config import TrainConfig
from model.errors import ClassifierError
from model.network import LSTMClassifier
from model.preparation import Preparation
from model.train import Fitted

if TYPE_CHECKING:
    from model.classifier import SpeciesClassifier

SCHEMA = 2
"""Version of the layout; a reader of another version refuses."""

JSON_NAME = "classifier.json"

_LARGEST_JSON = 64 * 2**20
_LARGEST_WEIGHTS = 4 * 2**30


def describe(classifier: "SpeciesClassifier") -> dict[str, Any]:
    """Return everything but the weights as what JSON can hold."""
    preparation = classifier.fitted.preparation
    return {
        "schema": SCHEMA,
        "bands": list(classifier.required_bands),
        "periods": list(classifier.periods),
        "classes": list(classifier.classes),
        "colours": list(classifier.colours),
        "mean": preparation.mean.tolist(),
        "deviation": preparation.deviation.tolist(),
        "limit": preparation.limit,
        "config": classifier.fitted.config.to_dict(),
        "epoch": classifier.fitted.epoch,
        "samples": classifier.sample_fingerprint,
        "code_version": classifier.code_version,
        "scores": classifier.scores,
    }


def weights_of(network: LSTMClassifier) -> bytes:
    """Return the weights in safetensors form; equal weights give equal bytes."""
    return safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in sorted(network.state_dict().items())}
    )


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
    weights = weights_of(classifier.fitted.network)
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
        config = TrainConfig.from_dict(content["config"])
        preparation = Preparation(
            features=config.features,
            mean=np.array(content["mean"], np.float32),
            deviation=np.array(content["deviation"], np.float32),
            limit=content["limit"],
            mask_input=config.mask_input,
        )
        weights = _read_weights(folder, content["weights"], where)
        # Without memory and without drawing random numbers, until the weights are known to fit.
        with torch.device("meta"):
            network = LSTMClassifier.from_config(
                config, channels=preparation.channels, classes=len(content["classes"])
            )
        _fill(network, weights, where)
        return {
            "fitted": Fitted(
                network=network.eval().requires_grad_(False),
                preparation=preparation,
                config=config,
                epoch=int(content["epoch"]),
            ),
            "periods": tuple(str(period) for period in content["periods"]),
            "classes": tuple(str(name) for name in content["classes"]),
            "colours": tuple(str(colour) for colour in content["colours"]),
            "sample_fingerprint": str(content["samples"]),
            "code_version": str(content["code_version"]),
            "scores": content["scores"],
        }
    except ClassifierError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ClassifierError(f"{where}: {JSON_NAME} has a wrong entry: {error}") from error


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


def _read_weights(folder: Path, entry: dict[str, Any], where: str) -> dict[str, Tensor]:
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
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise ClassifierError(f"{where}: {path.name} is no safetensors file ({error})") from error


def _fill(network: LSTMClassifier, weights: dict[str, Tensor], where: str) -> None:
    wanted = {n: (tuple(t.shape), t.dtype) for n, t in network.state_dict().items()}
    found = {n: (tuple(t.shape), t.dtype) for n, t in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ClassifierError(
                f"{where}: weights {name!r} are {found.get(name)!r}, "
                f"the settings call for {wanted.get(name)!r}"
            )
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise ClassifierError(f"{where}: weights are not finite")
    network.load_state_dict(weights, assign=True)
