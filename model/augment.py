"""Prepared sequences of a batch in, the same made harder to learn by heart out."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from model.config import TrainConfig
from model.periods import calendar_positions, middle_of_year
from model.preparation import Preparation
from model.samples import Samples

YEAR = 365.0
"""Days in the year of the calendar's places."""

MOVED = 0.5
"""Share of the samples whose season is moved. The others are as they are to be predicted:
interpolation smooths, and a network that only ever saw smooth sequences is worse on others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmentation:
    """What is done to the sequences of a batch, in the order of the fields."""

    shift_days: float
    """Most days the season is moved by, either way; a share `MOVED` of the samples is."""
    noise: float
    """Standard deviation of what is added to clear values."""
    month_dropout: float
    """Largest chance that a period is hidden; each sample draws its own."""
    mixup: float
    """Parameter of the beta distribution of the share of a second sample; 0 mixes none."""
    days: Float32[Tensor, "time"]
    """Day of the middle of each step, rising from the first."""
    features: int
    """Channels that hold features; the mask, if any, follows."""
    mask_input: bool
    """Whether the channel after the features is the mask."""
    changeable: int
    """Channels before the calendar's, which stay as they are."""

    @classmethod
    def from_config(
        cls, config: TrainConfig, preparation: Preparation, samples: Samples
    ) -> "Augmentation":
        """Set up what `config` asks for, on sequences that `preparation` made."""
        return cls(
            shift_days=config.shift_days,
            noise=config.noise,
            month_dropout=config.month_dropout,
            mixup=config.mixup,
            days=days_of_steps(samples.periods),
            features=len(preparation.features),
            mask_input=preparation.mask_input,
            changeable=preparation.channels - preparation.calendar_channels,
        )

    def apply(
        self, steps: Float[Tensor, "sample time channel"]
    ) -> Float[Tensor, "sample time channel"]:
        """Move, disturb and hide; the calendar's channels stay. Draws from torch's generator."""
        if self.shift_days:
            steps = self._moved(steps)
        if self.noise:
            disturbed = steps.clone()
            values = disturbed[..., : self.features]
            # a missing step stays one
            values += torch.randn(values.shape) * self.noise * self._known(steps)[..., None]
            steps = disturbed
        if self.month_dropout > 0:
            chance = torch.rand(len(steps), 1) * self.month_dropout
            shown = torch.rand(steps.shape[:2]) >= chance
            # a sample of which nothing would be left to see is shown as it is
            shown = (shown | ~(shown & self._known(steps)).any(dim=1, keepdim=True))[..., None]
            if self.changeable == steps.shape[2]:
                steps = steps * shown  # a hidden period looks like a missing one
            else:
                changed = steps[..., : self.changeable] * shown
                steps = torch.cat([changed, steps[..., self.changeable :]], dim=2)
        return steps

    def _moved(
        self, steps: Float[Tensor, "sample time channel"]
    ) -> Float[Tensor, "sample time channel"]:
        """Read half of the samples some days earlier or later, between the two steps around.

        A step is clear if the nearer of the two is; a missing one has no part in the value. Beyond
        the ends a series that goes once round the year goes on at its other end, another stands
        still.
        """
        samples = len(steps)
        drawn = (2 * torch.rand(samples, 1) - 1) / MOVED
        moved_by = torch.where(drawn.abs() < 1, drawn, 0.0) * self.shift_days  # (sample, 1)
        wanted = self.days + moved_by  # (sample, time)
        before, after, share = _neighbours(self.days, wanted)
        rows = torch.arange(samples)[:, None]
        changeable = steps[..., : self.changeable]
        known = self._known(steps).to(steps.dtype)  # (sample, time)
        weight_before = (1 - share) * known[rows, before]
        weight_after = share * known[rows, after]
        whole = weight_before + weight_after
        mixed = (
            changeable[rows, before] * weight_before[..., None]
            + changeable[rows, after] * weight_after[..., None]
        ) / whole.clamp_min(1e-6)[..., None]
        nearer = torch.where(share < 0.5, known[rows, before], known[rows, after])
        return torch.cat([mixed * nearer[..., None], steps[..., self.changeable :]], dim=2)

    def _known(self, steps: Float[Tensor, "sample time channel"]) -> Bool[Tensor, "sample time"]:
        """Tell clear steps from missing ones; without a mask those are missing that are all 0."""
        if self.mask_input:
            return steps[..., self.features] > 0
        return (steps[..., : self.features] != 0).any(dim=2)

    def mixed(
        self, steps: Float[Tensor, "sample time channel"], target: Float[Tensor, "sample class"]
    ) -> tuple[Float[Tensor, "sample time channel"], Float[Tensor, "sample class"]]:
        """Blend each sample with another of the batch, and what is true of both likewise."""
        share = torch.distributions.Beta(self.mixup, self.mixup).sample((len(steps),))
        share = torch.maximum(share, 1 - share)  # the first of the two stays the larger
        other = torch.randperm(len(steps))
        blended = steps * share[:, None, None] + steps[other] * (1 - share)[:, None, None]
        return blended, target * share[:, None] + target[other] * (1 - share)[:, None]


def days_of_steps(periods: tuple[str, ...]) -> Float32[Tensor, "time"]:
    """Return the day of the middle of each period, counted so that days rise over the new year."""
    days: list[float] = []
    for position in calendar_positions(periods):
        day = middle_of_year(position) * YEAR
        while days and day <= days[-1]:
            day += YEAR
        days.append(day)
    return torch.tensor(days, dtype=torch.float32)


def _neighbours(
    days: Float32[Tensor, "time"], wanted: Float[Tensor, "sample time"]
) -> tuple[Tensor, Tensor, Float[Tensor, "sample time"]]:
    """Return the steps before and after each wanted day, and how far towards the latter it is."""
    times = len(days)
    whole = float(days[-1] - days[0])
    goes_round = times > 1 and YEAR - whole <= 1.5 * whole / (times - 1) and whole < YEAR
    if goes_round:
        # a year before and a year after, so that every wanted day lies between two steps
        around = torch.cat([days - YEAR, days, days + YEAR])
    else:
        around = days
        wanted = wanted.clamp(days[0], days[-1])
    after = torch.searchsorted(around, wanted.contiguous()).clamp(1, max(len(around) - 1, 1))
    if times == 1:
        return torch.zeros_like(after), torch.zeros_like(after), torch.zeros_like(wanted)
    before = after - 1
    share = (wanted - around[before]) / (around[after] - around[before])
    return before % times, after % times, share
