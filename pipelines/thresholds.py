"""Numbers from the command line in, `Thresholds` out: how far two cubes may differ."""

import math
from dataclasses import dataclass

from cube.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far two cubes may differ.

    Surface reflectance is asked to be right to 0.005 + 5 % (Vermote and Kotchenova 2008,
    https://doi.org/10.1029/2007JD009662); two cubes of one sensor and year have to be nearer to
    each other than that.
    """

    max_bias: float = 0.002
    """Largest |mean difference|, reflectance 0..1, of each band and period."""
    max_rmse: float = 0.01
    """Largest root mean square difference, reflectance 0..1, of each band and period."""
    min_correlation: float = 0.95
    """Smallest Pearson correlation of each band and period; where all values agree to one stored
    unit it says nothing and is not asked."""
    max_clear_difference: float = 0.01
    """Largest share of a period's pixels that are clear in one cube only, and of all pixels with a
    label in one cube only."""
    min_agreement: float = 0.99
    """Smallest share of the pixels classified in both that have the same label."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            lowest = -1.0 if name == "min_correlation" else 0.0
            highest = math.inf if name in ("max_bias", "max_rmse") else 1.0
            if not (math.isfinite(value) and lowest <= value <= highest):
                most = "or more" if highest == math.inf else f"to {highest:g}"
                raise InputError(
                    f"--{name.replace('_', '-')} is {value}; expected {lowest:g} {most}"
                )
