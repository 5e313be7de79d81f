"""A classifier in, a folder out and back: safetensors and one JSON, nothing that can run.

The folder holds `classifier.json` and `weights-<hash>.safetensors`. The JSON names its weights by
their hash and is replaced in one step, so a reader sees the old classifier or the new one.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.baselines import FittedBaseline
from model.certainty.applicability import Applicability
from model.certainty.calibrate import Calibration
from model.certainty.conformal import ConformalSets
from model.classifier_weights import (
    WEIGHTS,
    Arrays,
    arrays_as_bytes,
    arrays_of,
    fill,
    read_weights,
    refuse_not_finite,
)
from model.config import TrainConfig
from model.durable import (
    below,
    is_digest,
    named_by_hash,
    remove_others,
    replace_file,
    write_by_hash,
)
from model.errors import ClassifierError
from model.features import FeatureSet
from model.fitted import Fitted
from model.networks import build_network
from model.preparation import Preparation

if TYPE_CHECKING:
    from model.classifier import SpeciesClassifier

SCHEMA = 4
"""Version of the layout; a reader of another version refuses."""

JSON_NAME = "classifier.json"

_LARGEST_JSON = 64 * 2**20


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
        "model": _describe_model(classifier.fitted, len(classifier.periods)),
        "calibration": None if calibration is None else calibration.to_dict(),
        "conformal": None if conformal is None else conformal.to_dict(),
        "applicability": None if applicability is None else sorted(applicability.spaces),
        "samples": classifier.sample_fingerprint,
        "code_version": classifier.code_version,
        "scores": classifier.scores,
    }


def _describe_model(fitted: Fitted | FittedBaseline, steps: int) -> dict[str, Any]:
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
        "steps": steps,
        "epoch": fitted.epoch,
    }


def save(classifier: "SpeciesClassifier", folder: Path) -> None:
    """Write `classifier` into `folder`, replacing the classifier that may be there.

    Raises `ClassifierError` if `folder` exists and is something else, or if a number of the
    classifier is not finite.
    """
    if folder.exists() and not folder.is_dir():
        raise ClassifierError(f"{str(folder)!r} is a file; a classifier is saved as a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JSON_NAME).is_file():
        raise ClassifierError(
            f"folder {str(folder)!r} holds something other than a classifier; choose another"
        )
    if isinstance(classifier.fitted, Fitted):  # trees may split at infinity
        refuse_not_finite(below(arrays_of(classifier), "network"))
    weights = arrays_as_bytes(classifier)
    digest = sha256(weights).hexdigest()
    name = named_by_hash(WEIGHTS, digest)
    content = describe(classifier) | {
        "weights": {"file": name, "sha256": digest, "bytes": len(weights)}
    }
    content["checksum"] = _checksum(content)
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ClassifierError(
            f"what the classifier holds beside its weights cannot be saved: {error}"
        ) from None

    folder.mkdir(parents=True, exist_ok=True)
    write_by_hash(folder, WEIGHTS, weights)
    replace_file(folder / JSON_NAME, text.encode())
    remove_others(folder, WEIGHTS, digest)


def load(folder: Path | Mapping[str, bytes], *, named: str | None = None) -> dict[str, Any]:
    """Read the fields of a `SpeciesClassifier`; nothing in the folder is trusted or run.

    In place of a folder the content of its files by name will do; errors call either what it is
    `named`. Raises `ClassifierError` if a file is missing, cut short, of another version, or was
    changed after it was saved.
    """
    where = f"classifier {named or str(folder)!r}"
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
        arrays = read_weights(folder, content["weights"], where)
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
    if not is_digest(content["samples"]):
        raise ClassifierError(f"the hash of the samples is {content['samples']!r:.80}")
    if not isinstance(content["scores"], dict | None):
        raise ClassifierError(
            f"the scores are {content['scores']!r:.80}; expected names and values"
        )
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
    found = Applicability.from_arrays(below(arrays, "applicability."))
    if sorted(found.spaces) != names:
        raise ClassifierError(
            f"the area of applicability is of spaces {sorted(found.spaces)!r}, named are {names!r}"
        )
    return found


def _model(
    entry: Any, arrays: Arrays, *, classes: int, periods: tuple[str, ...]
) -> Fitted | FittedBaseline:
    kind = entry["type"]
    if kind == "baseline":
        described = {n: value for n, value in entry.items() if n not in ("type", "definitions")}
        baseline = FittedBaseline.from_arrays(described, below(arrays, "model."))
        _refuse_redefined(entry["definitions"], baseline.features)
        return baseline
    if kind != "network":
        raise ClassifierError(f"model type {kind!r} is not known; expected network or baseline")
    config = TrainConfig.from_dict(entry["config"])
    _refuse_redefined(entry["definitions"], config.features)
    if isinstance(entry["limit"], bool):
        raise ClassifierError(f"the limit of scaled features is {entry['limit']!r}")
    preparation = Preparation(
        features=config.features,
        mean=np.array(entry["mean"], np.float32),
        deviation=np.array(entry["deviation"], np.float32),
        limit=entry["limit"],
        mask_input=config.mask_input,
        positions=periods if config.calendar_input else (),
    )
    count = entry["networks"]
    if isinstance(count, bool) or count != config.members:
        raise ClassifierError(f"{count!r} networks are stored; the settings have {config.members}")
    # an LSTM reads any number of steps, and would say something of all
    if isinstance(entry["steps"], bool) or entry["steps"] != len(periods):
        raise ClassifierError(f"it reads {entry['steps']!r} periods; {len(periods)} are named")
    networks = []
    for index in range(config.members):
        # Without memory and without drawing random numbers, until the weights are known to fit.
        with torch.device("meta"):
            network = build_network(
                config, channels=preparation.channels, classes=classes, steps=len(periods)
            )
        fill(network, below(arrays, f"network{index}."))
        networks.append(network.eval().requires_grad_(False))
    return Fitted(
        networks=tuple(networks), preparation=preparation, config=config, epoch=int(entry["epoch"])
    )


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


def _checksum(content: dict[str, Any]) -> str:
    """Hash the content however it is indented; it finds accidents and edits, not forgers."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _json_bytes(folder: Path | Mapping[str, bytes], where: str) -> bytes:
    if isinstance(folder, Mapping):
        is_there, size = JSON_NAME in folder, len(folder.get(JSON_NAME, b""))
    else:
        is_there = (folder / JSON_NAME).is_file()
        size = (folder / JSON_NAME).stat().st_size if is_there else 0
    if not is_there:
        raise ClassifierError(f"{where}: there is no {JSON_NAME}; expected a folder 'train' wrote")
    if size > _LARGEST_JSON:
        raise ClassifierError(f"{where}: {JSON_NAME} has {size} bytes, far too many")
    return folder[JSON_NAME] if isinstance(folder, Mapping) else (folder / JSON_NAME).read_bytes()


def _read_json(folder: Path | Mapping[str, bytes], where: str) -> dict[str, Any]:
    try:
        content = json.loads(_json_bytes(folder, where))
    except (ValueError, RecursionError) as error:
        raise ClassifierError(
            f"{where}: {JSON_NAME} is no whole JSON ({error}); copy the folder again, or "
            "train it again"
        ) from error
    if not isinstance(content, dict):
        raise ClassifierError(f"{where}: {JSON_NAME} holds no JSON object")
    return content
