"""A plan and what was built before in, what of it each tile can take over out, and then its pixels.

A pixel of a period depends on the scenes near it and on the settings, not on the tile that it was made
in. So a tile of a larger area, or of a cube with further months, takes over from earlier tiles, whole
ones, whose inputs would be the same today: wherever they lay in the earlier grid, period by period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cube.errors import InputError
from cube.ledger import Ledger, digest
from cube.place import Place
from cube.soundness import is_damage
from cube.spec import CubeSpec, Region, tile_region
from cube.store import CubeBlocks, read_blocks, read_spec, refuse_other_cube
from cube.touched import numbers_of
from pipelines.earlier import earlier_stores, set_aside
from pipelines.tile_inputs import CubeInputs, TileInputs


@dataclass(frozen=True, kw_only=True)
class Piece:
    """An earlier tile that others take over from."""

    region: Region
    """Its place in the earlier grid."""
    digest: str
    """What its record says of its pixels."""


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What one tile takes over; small, for it travels with the tile's task."""

    store: Place
    """The earlier cube, or the cube itself."""
    pieces: tuple[Piece, ...]
    """The earlier tiles that together cover the tile."""
    down: int
    """Rows by which the new grid's first row lies below the earlier grid's."""
    right: int
    """Columns by which its first column lies to the right."""
    periods: tuple[tuple[int, int], ...]
    """(number in the new cube, in the earlier one) of each period that is taken over."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CarriedBlocks:
    """Pixels that were taken over, checked against their records."""

    blocks: CubeBlocks
    """The pixels of all of the tile's periods; those that are not taken over are empty."""
    scenes: Mapping[int, tuple[str, ...]]
    """By number of the period what it was made of."""


def pixel_shift(earlier: CubeSpec, spec: CubeSpec) -> tuple[int, int] | None:
    """Return by how many (rows, columns) a grid begins after an earlier one; None on other pixels."""
    one, other = earlier.geobox, spec.geobox
    step = one.transform.a
    if earlier.crs != spec.crs or (step, one.transform.e) != (other.transform.a, other.transform.e):
        return None
    right, down = (
        (other.transform.c - one.transform.c) / step,
        (one.transform.f - other.transform.f) / step,
    )
    if max(abs(right - round(right)), abs(down - round(down))) > _ROUNDING:
        return None
    return round(down), round(right)


_ROUNDING = 1e-6
"""Share of a pixel that is a rounding error of the grids' corners."""


def can_follow(earlier: CubeSpec, spec: CubeSpec) -> bool:
    """Say whether a cube may take the place of an earlier one and take over what is unchanged.

    It may have other periods, of which some are the same, and a larger area on the same pixels; all
    that the earlier one covers must be in it.
    """
    shift = pixel_shift(earlier, spec)
    if shift is None or earlier.bands != spec.bands:
        return False
    layout = [(one.tile, one.chunk, one.sharded, one.zarr_format) for one in (earlier, spec)]
    if layout[0] != layout[1] or not set(earlier.periods) & set(spec.periods):
        return False
    return _covers(spec, earlier, shift)


def _covers(spec: CubeSpec, earlier: CubeSpec, shift: tuple[int, int]) -> bool:
    """Say whether all that belongs to an earlier cube lies in tiles of the new one."""
    down, right = shift
    _, _, height, width = spec.shape
    if down > 0 or right > 0:
        return False
    if earlier.shape[2] - down > height or earlier.shape[3] - right > width:
        return False
    if spec.touched is None:
        return True
    own = set(numbers_of(spec.touched).tolist())
    columns = -(-width // spec.tile)
    moved = (replace(one, top=one.top - down, left=one.left - right) for one in earlier.regions())
    # any: of the new tiles that share an earlier one, the area need not touch all
    return all(
        any(tile.row * columns + tile.column in own for tile in _overlapping(spec, one))
        for one in moved
    )


def _overlapping(spec: CubeSpec, region: Region) -> list[Region]:
    """Return the tiles of a grid that share pixels with a region that lies within it."""
    rows = range(region.top // spec.tile, -(-(region.top + region.height) // spec.tile))
    columns = range(region.left // spec.tile, -(-(region.left + region.width) // spec.tile))
    return [
        tile_region(spec.shape[2:], spec.tile, row, column) for row in rows for column in columns
    ]


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What is kept of an earlier tile's record."""

    digest: str
    scenes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EarlierCube:
    """A cube whose tiles may be taken over."""

    store: Place
    """Where it is."""
    spec: CubeSpec
    """What it is."""
    shift: tuple[int, int]
    """(rows, columns) by which the new grid begins after its own."""
    made_from: CubeInputs
    """What its tiles would be made from today."""
    made: Mapping[str, _Made] = field(repr=False)
    """By id its tiles that were made with the settings of today, and without a loss."""

    def carried(
        self, regions: Sequence[Region], inputs: Sequence[TileInputs], *, is_finished: bool
    ) -> list[Carried | None]:
        """Return what each tile takes over from this cube; None for nothing.

        With `is_finished` series, whose values depend on each other, all periods or none.
        """
        tiles = [self._tiles(region) for region in regions]
        asked = {tile for some in tiles for tile in some if tile.id in self.made}
        listed = sorted(asked)
        now = dict(zip(listed, self.made_from.of_all(listed), strict=True))
        return [
            self._carried(some, now, of, is_finished=is_finished) if some else None
            for some, of in zip(tiles, inputs, strict=True)
        ]

    def _tiles(self, region: Region) -> list[Region]:
        """Return the tiles that a region of the new grid lies in; none if it reaches beyond."""
        top, left = region.top + self.shift[0], region.left + self.shift[1]
        _, _, height, width = self.spec.shape
        if top < 0 or left < 0 or top + region.height > height or left + region.width > width:
            return []
        return _overlapping(self.spec, replace(region, top=top, left=left))

    def _carried(
        self,
        tiles: list[Region],
        now: Mapping[Region, TileInputs],
        inputs: TileInputs,
        *,
        is_finished: bool,
    ) -> Carried | None:
        if not all(tile in now for tile in tiles):
            return None
        numbers = {str(period): number for number, period in enumerate(self.spec.periods)}
        same = set(inputs.scenes).intersection(numbers)
        for tile in tiles:
            then = self.made[tile.id].scenes
            same &= {name for name, mark in now[tile].scenes.items() if then.get(name) == mark}
        is_all = list(numbers) == list(inputs.scenes) and len(same) == len(numbers)
        if not same or (is_finished and not is_all):
            return None
        return Carried(
            store=self.store,
            pieces=tuple(Piece(region=tile, digest=self.made[tile.id].digest) for tile in tiles),
            down=self.shift[0],
            right=self.shift[1],
            periods=tuple(
                (number, numbers[name]) for number, name in enumerate(inputs.scenes) if name in same
            ),
        )


def make_room(path: Place, spec: CubeSpec) -> bool:
    """Set a cube aside whose place one of `spec` may take; say whether that was done.

    Raises `InputError` for what is no cube.
    """
    if not path.exists():
        return False
    stored = read_spec(path)
    if stored.to_json() == spec.to_json() or not can_follow(stored, spec):
        return False  # it goes on there, or is refused
    set_aside(path)
    return True


def refuse_unlike(path: Place, spec: CubeSpec, *, is_series: bool = False) -> None:
    """Refuse to plan a cube that cannot take the place of the one at `path`.

    Of a raw series (`is_series`) the periods are not known yet. Raises `InputError`.
    """
    if not path.exists():
        return
    stored = read_spec(path)
    asked = replace(spec, periods=stored.periods) if is_series else spec
    if not can_follow(stored, asked):
        refuse_other_cube(path, asked)


def carried_by_tile(
    earlier: Sequence[EarlierCube],
    regions: Sequence[Region],
    inputs: Sequence[TileInputs],
    *,
    is_finished: bool,
) -> list[Carried | None]:
    """Return for each tile what it takes over, of all earlier cubes the one that has most."""
    best: list[Carried | None] = [None] * len(regions)
    for cube in earlier:
        for number, one in enumerate(cube.carried(regions, inputs, is_finished=is_finished)):
            held = best[number]
            if one is not None and (held is None or len(held.periods) < len(one.periods)):
                best[number] = one
    return best


def earlier_cubes(path: Place, spec: CubeSpec, made_from: CubeInputs) -> list[EarlierCube]:
    """Return what may be taken over: from the cube at `path` itself, then from what was set aside."""
    found = []
    for store in (path, *earlier_stores(path)):
        try:
            earlier = read_spec(store)
            shift = pixel_shift(earlier, spec)
            if shift is None or earlier.bands != spec.bands:
                continue
            made = _made(store, made_from)
        except InputError:
            continue  # nothing can be told of a damaged one: its tiles are made anew
        if made:
            then = replace(made_from, spec=replace(earlier, periods=spec.periods))
            found.append(
                EarlierCube(store=store, spec=earlier, shift=shift, made_from=then, made=made)
            )
    return found


def _made(store: Place, made_from: CubeInputs) -> dict[str, _Made]:
    """Return what is kept of the records of tiles that may be taken over; little of many."""
    found: dict[str, _Made] = {}
    shared: dict[str, Mapping[str, Any]] = {}  # neighbours have the same scenes
    for tile, record in Ledger(store=store, inputs=None).each():
        parts = record.get("made_from")
        if not isinstance(parts, dict) or record.get("lost") or "digest" not in record:
            continue
        if (parts.get("code"), parts.get("settings")) != (made_from.code, made_from.mark):
            continue
        if isinstance(scenes := parts.get("scenes"), dict):
            scenes = shared.setdefault(repr(scenes), scenes)
            found[tile] = _Made(digest=str(record["digest"]), scenes=scenes)
    return found


def read_carried(carried: Carried, spec: CubeSpec, region: Region) -> CarriedBlocks | None:
    """Read what a tile takes over; None if any of it is not what its record says.

    Each earlier tile is read whole, and its digest compared: damage is not to be taken over.
    """
    blocks = CubeBlocks.empty(len(spec.periods), len(spec.bands), region.height, region.width)
    ledger = Ledger(store=carried.store, inputs=None)
    names = [str(period) for period in spec.periods]
    scenes: dict[int, dict[str, None]] = {new: {} for new, _ in carried.periods}
    for piece in carried.pieces:
        record = ledger.record_of(piece.region)
        try:
            found = read_blocks(carried.store, piece.region)
        except Exception as error:
            if not is_damage(error):
                raise
            return None
        if not piece.digest == record.get("digest") == digest(*found.layers.values()):
            return None
        _place(found, piece.region, blocks, region, carried)
        for new, seen in scenes.items():
            seen.update(dict.fromkeys(record["scenes"].get(names[new], ())))
    return CarriedBlocks(blocks=blocks, scenes={new: tuple(seen) for new, seen in scenes.items()})


def _place(
    found: CubeBlocks, tile: Region, blocks: CubeBlocks, region: Region, carried: Carried
) -> None:
    """Copy the part of an earlier tile that lies in `region` into `blocks`."""
    top, left = region.top + carried.down, region.left + carried.right
    rows = max(top, tile.top), min(top + region.height, tile.top + tile.height)
    columns = max(left, tile.left), min(left + region.width, tile.left + tile.width)
    into = (slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))
    of = (
        slice(rows[0] - tile.top, rows[1] - tile.top),
        slice(columns[0] - tile.left, columns[1] - tile.left),
    )
    for name, layer in blocks.layers.items():
        for new, old in carried.periods:
            layer[(new, ..., *into)] = found.layers[name][(old, ..., *of)]
