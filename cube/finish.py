"""A tile's whole series in, the same with late outliers taken out and gaps filled, if so wished."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from cube.gapfill import GapFill, fill_gaps
from cube.outlier import OutlierScreen, screen_series
from cube.periods import Period
from cube.store import CubeBlocks


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What is done to a series once every period has its composite."""

    screen: OutlierScreen | None = None
    """Takes out composites that are brighter than both their neighbours in time."""
    gaps: GapFill | None = None
    """Fills periods without a clear look, after the screen."""

    def apply(
        self, blocks: CubeBlocks, *, periods: tuple[Period, ...], bands: tuple[str, ...]
    ) -> CubeBlocks:
        """Return the finished blocks of a tile; what is filled keeps a clear count of 0.

        Each composite stands at the middle of its period. A value that the screen takes out has
        neither a clear count, nor a share, nor a mean day.
        """
        if self.screen is None and self.gaps is None:
            return blocks
        days = _middles(periods)
        if self.screen is not None:
            reflectance, clear_count = screen_series(
                blocks.reflectance, blocks.clear_count, self.screen, days=days, bands=bands
            )
            is_gone = (clear_count == 0) & (blocks.clear_count > 0)
            blocks = replace(
                blocks,
                reflectance=reflectance,
                clear_count=clear_count,
                clear_share=np.where(is_gone, np.uint8(0), blocks.clear_share),
                mean_day=np.where(is_gone, np.uint16(0), blocks.mean_day),
            )
        if self.gaps is not None:
            filled, is_filled = fill_gaps(blocks.reflectance, self.gaps, days=days)
            blocks = replace(blocks, reflectance=filled, is_filled=is_filled.astype(np.uint8))
        return blocks


def _middles(periods: tuple[Period, ...]) -> Int32[np.ndarray, " time"]:
    """Days since 1970-01-01; two acquisitions of one day stand a day apart, to ascend."""
    days = np.array([period.middle.astype("M8[D]").astype(np.int64) for period in periods])
    steps = np.arange(len(days))
    return np.asarray(np.maximum.accumulate(days - steps) + steps, np.int32)
