"""A classifier of networks in, an ONNX file out that other programs can run; needs the group `onnx`."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.certainty.calibrate import FLOOR
from model.classifier import SpeciesClassifier
from model.durable import replace_file
from model.errors import ClassifierError
from model.fitted import Fitted
from model.preparation import season_of

INPUTS = ("features", "clear")
"""Names of what the file takes: features (sample, time, feature), in physical units, and clear
(sample, time), 1 where a period is clear, 0 where it is missing (features there do not matter)."""

OUTPUT = "probability"
"""Name of what it gives: the calibrated probability of each class (sample, class)."""

_OPSET = 18


class _Graph(nn.Module):
    """What `SpeciesClassifier.probability` does after the features, as one graph."""

    mean: Tensor
    deviation: Tensor
    season: Tensor

    def __init__(self, fitted: Fitted, steps: int, temperature: float | None) -> None:
        super().__init__()
        preparation = fitted.preparation
        season = np.zeros((steps, 0), np.float32)
        if preparation.positions:
            season = season_of(preparation.positions)
        self.networks = nn.ModuleList(fitted.networks)
        self.register_buffer("mean", torch.from_numpy(preparation.mean))
        self.register_buffer("deviation", torch.from_numpy(preparation.deviation))
        self.register_buffer("season", torch.from_numpy(season))
        self.limit, self.mask_input = preparation.limit, preparation.mask_input
        self.temperature = temperature

    def forward(
        self, features: Float[Tensor, "sample time feature"], clear: Float[Tensor, "sample time"]
    ) -> Float[Tensor, "sample class"]:
        """Prepare, apply every network, average, calibrate."""
        values = (features - self.mean) / self.deviation
        if self.limit is not None:
            values = values.clamp(-self.limit, self.limit)
        # infinite less infinite is no number either
        is_seen = (clear[..., None] > 0) & ~torch.isnan(values - values)
        channels = [torch.where(is_seen, values, torch.zeros_like(values))]
        if self.mask_input:
            channels.append(clear[..., None])
        if self.season.shape[1]:
            # added to zeros: a number of samples read from the example would stay in the graph
            channels.append(torch.zeros_like(clear)[..., None] + self.season)
        steps = torch.cat(channels, dim=-1)  # (sample, time, channel)
        scores = [torch.softmax(network(steps), dim=1) for network in self.networks]
        probability = torch.stack(scores).mean(dim=0)  # (sample, class)
        if self.temperature is None:
            return probability
        logs = torch.log(probability.clamp(min=FLOOR))
        return torch.softmax(logs / self.temperature, dim=1)


def write_onnx(classifier: SpeciesClassifier, target: Path) -> None:
    """Write the classifier's networks, scaling and calibration as ONNX.

    Features are computed before it (their names and order are in the file's metadata and in
    `classifier.json`). Raises `ClassifierError` for a simple model, or without the package.
    """
    fitted = classifier.fitted
    if not isinstance(fitted, Fitted):
        raise ClassifierError(f"a {fitted.kind} is not written as ONNX; train a network for that")
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError:
        raise ClassifierError("ONNX needs more packages: pip install 'canopycube[onnx]'") from None
    calibration = classifier.calibration
    steps = len(classifier.periods)
    temperature = None if calibration is None else calibration.temperature
    graph = _Graph(fitted, steps, temperature).eval()
    example = (torch.zeros(2, steps, len(fitted.features)), torch.ones(2, steps))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch 2.13 warns of its own older exporter, the one that writes an LSTM as one node
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            buffer,  # type: ignore[arg-type]  # takes one, whatever its annotation says
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "sample"} for name in (*INPUTS, OUTPUT)},
            opset_version=_OPSET,
            dynamo=False,
        )
    made = onnx.load_from_string(buffer.getvalue())
    for key, names in (
        ("features", fitted.features.names),
        ("periods", classifier.periods),
        ("classes", classifier.classes),
    ):
        made.metadata_props.add(key=key, value="\n".join(names))
    onnx.checker.check_model(made)
    replace_file(target, made.SerializeToString())
