"""Records in any order in, a stack's layers out: the file that it is filled in."""

from pathlib import Path

import numpy as np
from jaxtyping import Int16

from cube.bands import NODATA


class Scratch:
    """The stack while it is filled: (time, y, x, band) in a sparse file, with no data as 0.

    A record's bands lie together, so that one row of a table is one write. The file is mapped anew
    for each part: pages that stayed mapped would count as memory of the process.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        self._values, self._places = folder / "values", folder / "places"
        for file, size in (
            (self._values, 2 * int(np.prod(shape, dtype=np.int64))),
            (self._places, 16 * shape[1] * shape[2]),
        ):
            with file.open("wb") as out:
                out.truncate(size)

    def values(self) -> np.ndarray:
        """Map the values, (slot, band)."""
        return np.memmap(self._values, np.int16, "r+").reshape(-1, self.shape[3])

    def places(self) -> np.ndarray:
        """Map longitude and latitude of each pixel's first record, (pixel, 2); both 0 for none."""
        return np.memmap(self._places, np.float64, "r+").reshape(-1, 2)

    def layers(
        self, dates: slice, rows: slice, columns: slice
    ) -> Int16[np.ndarray, "time y x band"]:
        """Return some dates of a window, as stored units."""
        part = self.values().reshape(self.shape)[dates, rows, columns]
        return np.asarray(part ^ np.int16(NODATA))
