"""Stored pixels in a device's memory in, what a network reads of them out, by PyTorch's operations.

The features are those of `program`, so that no formula is written twice. Values are float64 and
rounded where the program says so, as in the kernels for processors: that is little work beside the
network's.
"""

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from model.engines.packed import UnknownNetworkError
from model.engines.pixels import STORED_NODATA, STORED_SCALE
from model.engines.program import Code, Program, feature_program
from model.preparation import Preparation, season_of


def physical(pixels: Tensor) -> Float32[Tensor, "time band pixel"]:
    """Return reflectance, NaN where not clear, of int16 in stored units; of float32 the same."""
    if pixels.dtype != torch.int16:
        return pixels
    values = pixels.float() * float(STORED_SCALE)
    return values.masked_fill_(pixels == STORED_NODATA, float("nan"))


class DeviceInputs:
    """A preparation whose statistics and constants are in a device's memory."""

    def __init__(self, preparation: Preparation, *, steps: int, device: torch.device) -> None:
        """Place what `preparation` needs for sequences of `steps` steps.

        Raises `UnknownFeatureError` for a feature without a program, `UnknownNetworkError` for a
        calendar of another length.
        """
        positions = preparation.positions
        if positions and len(positions) != steps:
            raise UnknownNetworkError(f"a calendar of other than {steps} steps")
        self.program = feature_program(preparation.features)
        self._constants = [
            torch.tensor(value, dtype=torch.float64, device=device)
            for value in self.program.constants.tolist()
        ]
        self._mean = torch.tensor(preparation.mean, device=device)
        self._deviation = torch.tensor(preparation.deviation, device=device)
        self._limit = preparation.limit
        self._mask_input = preparation.mask_input
        season = season_of(positions) if positions else None
        self._season = None if season is None else torch.tensor(season, device=device)

    @property
    def bands(self) -> int:
        """Bands that the features are made of."""
        return len(self.program.bands)

    def __call__(
        self, reflectance: Float32[Tensor, "time band pixel"]
    ) -> Float32[Tensor, "pixel time channel"]:
        """Return the same as `Preparation.apply`; the bands are the features' `required_bands`.

        In memory time comes first, which is how cuDNN reads sequences.
        """
        clear = reflectance.isfinite().all(dim=1)  # (time, pixel)
        values = self._features(reflectance)
        values = (values - self._mean) / self._deviation
        if self._limit is not None:
            values = values.clamp(-self._limit, self._limit)
        values = values.masked_fill(~(values.isfinite() & clear[..., None]), 0)
        channels = [values, *self._others(clear)]
        return torch.cat(channels, dim=2).transpose(0, 1)  # (pixel, time, channel)

    def _others(self, clear: Bool[Tensor, "time pixel"]) -> list[Tensor]:
        """Return the channels behind the features (time, pixel, channel)."""
        others = [clear[..., None].float()] if self._mask_input else []
        if self._season is not None:
            others.append(self._season[:, None].expand(-1, clear.shape[1], -1))
        return others

    def _features(
        self, reflectance: Float32[Tensor, "time band pixel"]
    ) -> Float32[Tensor, "time pixel feature"]:
        bands = reflectance.double().unbind(dim=1)  # of (time, pixel)
        registers = run_program(self.program, [*bands, *self._constants])
        outputs = [registers[output].float() for output in self.program.outputs.tolist()]
        return torch.stack(outputs, dim=2)


def run_program(program: Program, first: list[Tensor]) -> list[Float64[Tensor, "..."]]:
    """Return all registers of `program`, whose `first` ones are bands and constants, float64."""
    registers = list(first)
    steps = zip(
        program.codes.tolist(),
        program.operands.tolist(),
        program.limits.tolist(),
        program.single.tolist(),
        strict=True,
    )
    for code, (_, a, b), (low, high), single in steps:
        made = _operation(Code(code), registers[a], registers[b], low, high)
        registers.append(made.float().double() if single else made)
    return registers


def _operation(code: Code, a: Tensor, b: Tensor, low: float, high: float) -> Tensor:
    """Do what `Code` says."""
    match code:
        case Code.ADD:
            return a + b
        case Code.SUBTRACT:
            return a - b
        case Code.MULTIPLY:
            return a * b
        case Code.DIVIDE:
            return (a / b).masked_fill(~(b.abs() >= low), float("nan"))
        case Code.RATIO:
            return (a / b).masked_fill(~(b >= low), float("nan"))
        case Code.POWER:
            return torch.pow(a, b)
        case Code.ROOT:
            return a.sqrt()
        case Code.CLIP:
            return a.clamp(low, high)
        case Code.LOGARITHM:
            return a.clamp(min=low).log()
        case Code.ROUND:
            return a.round()
