"""Two stored cubes and a piece of their overlap in, its tally out; only finished cubes count."""

from typing import Any

import numpy as np
import zarr

from cube.compare.overlap import Overlap, Piece
from cube.compare.tally import Tally, tally_period
from cube.errors import InputError
from cube.ledger import Ledger
from cube.place import Place, zarr_place
from cube.spec import CubeSpec, Region
from cube.store import count_files
from cube.zarrstore import stored_array


def check_complete(path: Place, spec: CubeSpec, *, rows: slice, columns: slice) -> None:
    """Refuse a cube of which a tile is not done, or has lost files within `rows` and `columns`.

    A lost file reads as nodata, which would pass for pixels that were never clear. All tiles must
    have been made with the same settings. Raises `InputError`.
    """
    records, regions = Ledger(store=path, inputs=None).records(), spec.regions()
    if not records:
        raise InputError(
            f"the cube at {str(path)!r} is incomplete: no tile is done; run `canopycube build` first"
        )
    if missing := [region.id for region in regions if region.id not in records]:
        raise InputError(
            f"the cube at {str(path)!r} is incomplete: {len(missing)} of its {len(regions)} tiles "
            f"are not done ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}); "
            "run `canopycube build` first"
        )
    settings = {_settings(records[region.id]) for region in regions}
    if len(settings) > 1:
        raise InputError(
            f"the cube at {str(path)!r} is incomplete: its tiles were made with {len(settings)} "
            "different settings; run `canopycube build` first"
        )
    for region in regions:
        if _apart(region.rows, rows) or _apart(region.columns, columns):
            continue
        expected, found = records[region.id].get("files"), count_files(path, region)
        if expected is not None and expected != found:
            raise InputError(
                f"tile {region.id} of the cube at {str(path)!r} has {found} files, its record says "
                f"{expected}; run `canopycube build` again"
            )


def _settings(record: dict[str, Any]) -> str:
    """Return the mark of the settings that a tile was made with; empty of older records."""
    parts = record.get("made_from")
    return str(parts.get("settings", "")) if isinstance(parts, dict) else ""


def _apart(one: slice, other: slice) -> bool:
    return bool(one.stop <= other.start or other.stop <= one.start)


def tally_piece(first: Place, second: Place, shared: Overlap, piece: Piece) -> Tally:
    """Count one piece of two cubes, a period at a time.

    Needs 2 x (bands + 1) x 2 bytes for each of its pixels. Raises `InputError` with the place for
    stored data that cannot be decoded.
    """
    one = _Reader(first, shared.first, piece.first, name="A")
    two = _Reader(second, shared.second, piece.second, name="B")
    first_bands = tuple(map(shared.first.bands.index, shared.bands))
    second_bands = tuple(map(shared.second.bands.index, shared.bands))
    return Tally.of_periods(
        tally_period(
            one.read("reflectance", period),
            two.read("reflectance", period),
            first_bands=first_bands,
            second_bands=second_bands,
            first_count=one.read("clear_count", period),
            second_count=two.read("clear_count", period),
        )
        for period in shared.periods
    )


class _Reader:
    """One region of a stored cube, read a period at a time."""

    def __init__(self, path: Place, spec: CubeSpec, region: Region, *, name: str) -> None:
        self.path, self.region, self.name = path, region, name
        self.group = zarr.open_group(zarr_place(path), mode="r")
        self.places = {str(period): place for place, period in enumerate(spec.periods)}

    def read(self, variable: str, period: str) -> np.ndarray:
        """Return (…, y, x) of one period, as stored."""
        array: zarr.Array[Any] = stored_array(self.group, variable)
        place = self.places[period]
        try:
            return np.asarray(array[place, ..., self.region.rows, self.region.columns])
        except Exception as error:
            raise InputError(
                f"{variable} of {period} at rows {self.region.top}, columns {self.region.left} of "
                f"cube {self.name} ({str(self.path)!r}) cannot be read ({type(error).__name__}); "
                "run `canopycube build` again"
            ) from error
