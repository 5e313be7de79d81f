"""A comparison and thresholds in, every figure that exceeds one out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cube.bands import REFLECTANCE_BANDS
from cube.compare import Agreement
from cube.errors import WorkFailedError
from pipelines.compare_cubes import Comparison
from pipelines.thresholds import Thresholds

FEWEST = 30
"""Values below which a band's period is not judged alone: chance decides so few. They count in the
figures over all periods, which are always judged."""

ALL_PERIODS = "all periods"


@dataclass(frozen=True, kw_only=True)
class Excess:
    """One figure beyond its threshold."""

    threshold: str
    """Name of the threshold, e.g. `max_bias`; `values` or `labels` where none can be compared."""
    limit: float | None
    """What it allows."""
    value: float | None
    """What was found."""
    band: str | None = None
    """The band, where it is of one."""
    period: str | None = None
    """The period, or `ALL_PERIODS`."""

    @property
    def size(self) -> float:
        """How far the figure lies beyond its threshold."""
        if self.value is None or self.limit is None:
            return 0.0
        if self.threshold.startswith("min"):
            return self.limit - self.value
        return abs(self.value) - self.limit


class CubesDifferError(WorkFailedError):
    """Cubes differ by more than is allowed; `found` is what `--json` prints of it."""

    def __init__(self, text: str, found: dict[str, Any]) -> None:
        super().__init__(text)
        self.found = found


def exceeded(made: Comparison, limits: Thresholds) -> list[Excess]:
    """Return every figure beyond its threshold: of bands, of periods, of labels.

    Bias, RMSE and correlation are asked of reflectance bands, not of AOT and WVP, which have other
    units. Where no pixel has a value in both cubes nothing has been compared, which is one too.
    """
    found = [*_of_bands(made, limits), *_of_periods(made, limits), *_of_labels(made, limits)]
    if not any(sums.both for pairs in made.tally.pairs for sums in pairs):
        found.append(Excess(threshold="values", limit=None, value=None))
    return found


def not_judged(made: Comparison) -> dict[str, list[str]]:
    """Return the bands that are not judged, and the places with too few values to be judged alone."""
    bands = made.shared.bands
    few = [
        f"{band} {period}"
        for band, period, found in made.by_place()
        if found.pixels < FEWEST and band in REFLECTANCE_BANDS
    ]
    return {"bands": [band for band in bands if band not in REFLECTANCE_BANDS], "few_values": few}


def _of_bands(made: Comparison, limits: Thresholds) -> Iterator[Excess]:
    for band, found in made.by_band().items():
        if band in REFLECTANCE_BANDS:
            yield from _of_place(found, limits, band, ALL_PERIODS)
    for band, period, found in made.by_place():
        if band in REFLECTANCE_BANDS and found.pixels >= FEWEST:
            yield from _of_place(found, limits, band, period)


def _of_place(agreement: Agreement, limits: Thresholds, band: str, period: str) -> Iterator[Excess]:
    if agreement.bias is None or agreement.rmse is None:
        return
    place = {"band": band, "period": period}
    if abs(agreement.bias) > limits.max_bias:
        yield Excess(threshold="max_bias", limit=limits.max_bias, value=agreement.bias, **place)
    if agreement.rmse > limits.max_rmse:
        yield Excess(threshold="max_rmse", limit=limits.max_rmse, value=agreement.rmse, **place)
    found, least = agreement.correlation, limits.min_correlation
    if found is not None and found < least and agreement.within_one != 1:
        yield Excess(threshold="min_correlation", limit=least, value=found, **place)


def _of_periods(made: Comparison, limits: Thresholds) -> Iterator[Excess]:
    most = limits.max_clear_difference
    for period, found in made.clear_by_period().items():
        if found.differs > most:
            yield Excess(
                threshold="max_clear_difference", limit=most, value=found.differs, period=period
            )


def _of_labels(made: Comparison, limits: Thresholds) -> Iterator[Excess]:
    if made.labels is None:
        return
    found = made.labels.agreement
    if found is None:
        yield Excess(threshold="labels", limit=None, value=None)
    elif found < limits.min_agreement:
        yield Excess(threshold="min_agreement", limit=limits.min_agreement, value=found)
    most = limits.max_clear_difference
    if made.labels.one_only > most:
        yield Excess(threshold="max_clear_difference", limit=most, value=made.labels.one_only)
