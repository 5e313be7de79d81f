"""What is known of a trained classifier in, a STAC item with the machine-learning model extension out."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pystac
from pystac.extensions.classification import Classification
from pystac.extensions.mlm import (
    InputStructure,
    MLMExtension,
    ModelBand,
    ModelInput,
    ModelOutput,
    ResultStructure,
    TaskType,
)
from pystac.extensions.raster import DataType
from shapely.geometry import box, mapping

ROLES = {
    "weights": ["mlm:model", "mlm:weights"],
    "settings": ["mlm:model", "metadata"],
    "onnx": ["mlm:model"],
    "report": ["overview"],
}
"""Assets that an item may have, and what they are for."""

_TYPES = {
    "weights": "application/octet-stream; framework=safetensors",
    "settings": pystac.MediaType.JSON,
    "onnx": "application/octet-stream; framework=onnx; profile=onnx",
    "report": pystac.MediaType.HTML,
}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a catalogue should know of a classifier."""

    id: str
    """Id of the item: letters, digits and hyphens."""
    title: str
    """Name for people."""
    architecture: str
    """What was trained, e.g. `lstm`."""
    parameters: int
    """Number of trained values of networks; 0 for the simple models, which have none."""
    code_version: str
    """Version of canopycube that trained it."""
    bands: tuple[str, ...]
    """Stored bands that it needs."""
    features: tuple[str, ...]
    """What it computes of them at each step."""
    periods: tuple[str, ...]
    """Steps of the year that it reads."""
    classes: Mapping[str, str]
    """Class to colour `#rrggbb`, in the order of the map's values 1, 2 …."""
    start: datetime
    """Begin of the training series."""
    end: datetime
    """End of the training series."""
    bounds: tuple[float, float, float, float] | None
    """Longitude and latitude (left, bottom, right, top) of the samples; None if unknown."""
    created: datetime
    """When it was trained."""
    settings: Mapping[str, Any]
    """How it was trained, as JSON can hold."""
    assets: Mapping[str, str]
    """Kind (a key of `ROLES`) to file name beside the item."""


def model_item(facts: ModelFacts) -> dict[str, Any]:
    """Return the item as JSON can hold: STAC 1.1, extensions mlm and classification.

    The extension is described at https://github.com/stac-extensions/mlm.
    """
    bounds = facts.bounds
    item = pystac.Item(
        id=facts.id,
        geometry=None if bounds is None else mapping(box(*bounds)),
        bbox=None if bounds is None else list(bounds),
        datetime=None,
        start_datetime=facts.start.astimezone(UTC),
        end_datetime=facts.end.astimezone(UTC),
        properties={
            "title": facts.title,
            "created": facts.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    )
    steps, channels = len(facts.periods), len(facts.bands)
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=facts.title,
        architecture=facts.architecture,
        tasks=[TaskType.CLASSIFICATION],
        framework="PyTorch" if facts.parameters else "scikit-learn",
        total_parameters=facts.parameters,
        pretrained=True,
        input=[_input(facts, steps, channels)],
        output=[_output(facts)],
    )
    item.properties["mlm:hyperparameters"] = dict(facts.settings)
    item.properties["canopycube:version"] = facts.code_version
    item.properties["canopycube:periods"] = list(facts.periods)
    item.properties["canopycube:features"] = list(facts.features)
    for kind, href in facts.assets.items():
        item.add_asset(
            kind, pystac.Asset(href=f"./{href}", media_type=_TYPES[kind], roles=ROLES[kind])
        )
    found: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    return found


def _input(facts: ModelFacts, steps: int, channels: int) -> ModelInput:
    return ModelInput.create(
        name="series",
        description="reflectance 0..1 of a pixel, NaN where a period was not clear",
        bands=[ModelBand.create(name=band) for band in facts.bands],
        input=InputStructure.create(
            shape=[-1, steps, channels],
            dim_order=["batch", "time", "bands"],
            data_type=DataType.FLOAT32,
        ),
    )


def _output(facts: ModelFacts) -> ModelOutput:
    return ModelOutput.create(
        name="probability",
        tasks=[TaskType.CLASSIFICATION],
        description="probability of each class; the map's value is the place of the largest, from 1",
        result=ResultStructure.create(
            shape=[-1, len(facts.classes)], dim_order=["batch", "class"], data_type=DataType.FLOAT32
        ),
        classes=[
            Classification.create(
                value=value,
                name=short,
                description=name,
                color_hint=colour.removeprefix("#"),
            )
            for value, ((name, colour), short) in enumerate(
                zip(facts.classes.items(), _short_names(tuple(facts.classes)), strict=True), start=1
            )
        ],
    )


def _short_names(names: tuple[str, ...]) -> list[str]:
    """Return names as the classification extension takes them: ASCII letters, digits, - and _.

    Letters lose their accents; a name without any, or that another has, gets its number.
    """
    short = []
    for value, name in enumerate(names, start=1):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        found = re.sub(r"[^0-9A-Za-z_-]+", "_", plain).strip("_")
        if not found:
            found = f"class_{value}"
        short.append(f"{found}_{value}" if found in short else found)
    return short
