"""A trained classifier in; beside it a page for people, a STAC item for catalogues and, if asked, ONNX."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cube.durable import replace_text
from cube.periods import Period
from cube.samplestore import open_samples
from cube.stac.modelitem import ModelFacts, model_item
from model.classifier import SpeciesClassifier
from model.classifier_weights import weights_name
from model.fitted import Fitted
from pipelines.classifier_report import classifier_page
from pipelines.label_names import LabelNames, write_label_names
from pipelines.layout import Layout
from pipelines.recipe import LearningRecipe

PAGE, ITEM, ONNX = "report.html", "item.json", "classifier.onnx"
"""What lies in a classifier's folder beside the classifier itself."""


def write_beside(
    recipe: LearningRecipe,
    classifier: SpeciesClassifier,
    found: dict[str, Any],
    audit: dict[str, Any] | None,
) -> None:
    """Write the page, the STAC item and, if asked, a network's ONNX into the classifier's folder.

    `found` and `audit` are the sections of the run's report.
    """
    folder = Path(found["path"])
    assets = {"settings": "classifier.json", "weights": weights_name(classifier)}
    if recipe.training.onnx and isinstance(classifier.fitted, Fitted):
        from model.onnx_export import write_onnx

        write_onnx(classifier, folder / ONNX)
        assets["onnx"] = ONNX
    write_label_names(folder, LabelNames.of(recipe.reference))
    assets["report"] = PAGE
    replace_text(folder / PAGE, classifier_page(recipe.name, found, audit))
    facts = _facts(recipe, classifier, assets)
    replace_text(folder / ITEM, json.dumps(model_item(facts), indent=2, allow_nan=False))


def _facts(
    recipe: LearningRecipe, classifier: SpeciesClassifier, assets: dict[str, str]
) -> ModelFacts:
    stored = open_samples(Layout.of(recipe.outputs).samples)
    start, end = _years_of(stored)
    bounds = None
    if {"lon", "lat"} <= set(stored.variables):
        lon, lat = stored["lon"].values, stored["lat"].values
        if (is_placed := np.isfinite(lon) & np.isfinite(lat)).any():
            lon, lat = lon[is_placed], lat[is_placed]
            bounds = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    fitted = classifier.fitted
    return ModelFacts(
        id=f"canopycube-{classifier.fingerprint[:16]}",
        title=recipe.name,
        architecture=fitted.kind,
        parameters=sum(
            weight.numel() for network in fitted.networks for weight in network.parameters()
        )
        if isinstance(fitted, Fitted)
        else 0,
        code_version=classifier.code_version,
        bands=classifier.required_bands,
        features=fitted.features.names,
        periods=classifier.periods,
        classes=dict(zip(classifier.classes, classifier.colours, strict=True)),
        start=_moment(start),
        end=_moment(end),
        bounds=bounds,
        created=datetime.now(UTC),
        settings=fitted.config.to_dict() if isinstance(fitted, Fitted) else {"model": fitted.kind},
        assets=assets,
    )


def _years_of(stored: xr.Dataset) -> tuple[np.datetime64, np.datetime64]:
    """Return begin and end of the training series: periods may be of a nominal year."""
    periods = [Period.parse(str(name)) for name in stored["period"].values]
    first, last = periods[0].start, periods[-1].end - np.timedelta64(1, "s")
    if "year" not in stored:
        return first, last
    years = stored["year"].values.astype(np.int64)
    nominal = int(first.astype("M8[Y]").astype(np.int64)) + 1970
    return _moved(first, int(years.min()) - nominal), _moved(last, int(years.max()) - nominal)


def _moved(time: np.datetime64, years: int) -> np.datetime64:
    """Return the same time of the year some years later; 29 February may become 1 March."""
    month = time.astype("M8[M]")
    into = time.astype("M8[s]") - month.astype("M8[s]")
    moved: np.datetime64 = (month + 12 * years).astype("M8[s]") + into
    return moved


def _moment(time64: Any) -> datetime:
    return datetime.fromtimestamp(int(time64.astype("datetime64[s]").astype(int)), UTC)
