import json
from dataclasses import replace
from datetime import UTC, datetime

import pystac
from pystac.extensions.mlm import MLMExtension

from cube.stac.modelitem import ModelFacts, model_item

FACTS = ModelFacts(
    id="reserve-2022",
    title="Reserve, 2022",
    architecture="lstm",
    parameters=83_207,
    code_version="0.1.0",
    bands=("B02", "B8A"),
    features=("B02", "B8A", "NDMI"),
    periods=("01", "02", "03"),
    classes={"Lärche, jung": "#e8a33d", "oak": "#8bc34a"},
    start=datetime(2022, 1, 1, tzinfo=UTC),
    end=datetime(2022, 3, 31, tzinfo=UTC),
    bounds=(107.5, 33.6, 107.7, 33.8),
    created=datetime(2026, 5, 1, 12, tzinfo=UTC),
    settings={"hidden": 128, "features": ["B02", "B8A", "NDMI"]},
    assets={"weights": "weights-00.safetensors", "settings": "classifier.json"},
)


def test_another_program_reads_what_the_model_takes_and_gives() -> None:
    text = json.dumps(model_item(FACTS), allow_nan=False)
    item = pystac.Item.from_dict(json.loads(text))
    assert "mlm" in "".join(item.stac_extensions)
    found = MLMExtension.ext(item)
    assert found.architecture == "lstm"
    assert found.total_parameters == 83_207
    assert found.input[0].input.shape == [-1, 3, 2]
    assert [band.name for band in found.input[0].bands] == ["B02", "B8A"]
    classes = found.output[0].classes
    assert [one.value for one in classes] == [1, 2]
    assert classes[0].description == "Lärche, jung"
    assert classes[0].color_hint == "e8a33d"
    assert item.bbox == [107.5, 33.6, 107.7, 33.8]
    assert item.properties["start_datetime"] == "2022-01-01T00:00:00Z"
    assert set(item.assets) == {"weights", "settings"}
    assert item.assets["weights"].href == "./weights-00.safetensors"


def test_samples_without_places_make_an_item_without_a_footprint() -> None:
    found = model_item(replace(FACTS, bounds=None))
    assert found["geometry"] is None
    assert "bbox" not in found


def test_classes_without_a_latin_letter_have_names_of_their_own() -> None:
    classes = {"落叶松": "#000001", "油松": "#000002", "Lärche": "#000003", "Larche": "#000004"}
    found = model_item(replace(FACTS, classes=classes))["properties"]["mlm:output"][0]
    names = [one["name"] for one in found["classification:classes"]]
    assert names == ["class_1", "class_2", "Larche", "Larche_4"]


def test_a_simple_model_is_not_of_pytorch() -> None:
    found = model_item(replace(FACTS, architecture="random forest", parameters=0))
    assert found["properties"]["mlm:framework"] == "scikit-learn"
    assert model_item(FACTS)["properties"]["mlm:framework"] == "PyTorch"
