"""A processor's features in, the ways of computing that its instructions allow out.

A way of computing is the type of a kernel's first argument, so that one source is compiled, and
kept on disk, once for each.
"""

import os
from typing import ClassVar, NamedTuple

from model.engines.tiles import tiles_allowed
from model.errors import ConfigError
from model.networks.target import target_features

VARIABLE = "CANOPYCUBE_ENGINE_ISA"
"""Environment variable that holds the engines to an older processor's instructions."""

INSTRUCTIONS = ("amx", "avx512bf16", "avx512", "avx2", "baseline")
"""What `VARIABLE` may name, from the newest; `baseline` is what every processor has."""

_NEEDED = {
    "amx": ("amx-tile", "amx-bf16", "avx512f", "avx512bw", "avx512vl", "avx512bf16"),
    "avx512bf16": ("avx512f", "avx512bw", "avx512vl", "avx512bf16"),
    "avx512": ("avx512f",),
    "avx2": ("avx2", "fma"),
    "baseline": (),
}


class _Mark(NamedTuple):
    """Nothing at run time: numba compiles by its class."""

    mark: int = 0


class Arithmetic(_Mark):
    """How a kernel computes: what a vector holds and how exact it is."""

    words: ClassVar[str]
    """What it is, for reports."""
    lanes: ClassVar[int]
    """Float32 values in a vector."""
    rows: ClassVar[int]
    """Pixels whose sums, four vectors each, are held in registers."""
    units: ClassVar[int]
    """What the number of a layer's units is filled up to a multiple of."""
    pairs: ClassVar[bool] = False
    """Whether states are held and multiplied in pairs of bfloat16, and added in float32."""
    cheap: ClassVar[bool] = False
    """Whether gates have an error of 1e-4 rather than 1e-7."""
    tiles: ClassVar[bool] = False
    """Whether products are those of tiles (`model.engines.tiles`); states are pairs then."""
    paired_tables: ClassVar[bool] = False
    """Whether entries of tables are pairs of bfloat16: a value, and how far it is to another."""
    split: ClassVar[bool] = False
    """Whether tiles hold weights and states as two bfloat16 each, their sum right to 2^-16."""
    emulated: ClassVar[bool] = False
    """Whether the tiles are emulated, and nothing is asked of the processor."""


class Exact16(Arithmetic):
    """Float32, sixteen lanes."""

    words = "float32 in 16 lanes"
    lanes = 16
    rows = 6
    units = 16


class Exact8(Arithmetic):
    """Float32, eight lanes."""

    words = "float32 in 8 lanes"
    lanes = 8
    rows = 3
    units = 8


class Exact4(Arithmetic):
    """Float32, four lanes."""

    words = "float32 in 4 lanes"
    lanes = 4
    rows = 3
    units = 4


class Cheap16(Exact16):
    """Float32, sixteen lanes, cheap gates."""

    words = "float32 in 16 lanes with short polynomials"
    cheap = True


class Cheap8(Exact8):
    """Float32, eight lanes, cheap gates."""

    words = "float32 in 8 lanes with short polynomials"
    cheap = True


class Cheap4(Exact4):
    """Float32, four lanes, cheap gates."""

    words = "float32 in 4 lanes with short polynomials"
    cheap = True


class Pairs16(Cheap16):
    """Products of bfloat16 added in float32, sixteen lanes, cheap gates."""

    paired_tables = True

    words = "bfloat16 products in 16 lanes"
    pairs = True


class Tiles(Arithmetic):
    """Products of bfloat16 in AMX tiles, sixteen lanes, cheap gates."""

    words = "bfloat16 products in AMX tiles"
    lanes = 16
    rows = 32
    units = 32
    pairs = True
    cheap = True
    tiles = True
    paired_tables = True


class SplitTiles(Tiles):
    """Products of split bfloat16 in AMX tiles, sixteen lanes."""

    words = "split bfloat16 products in AMX tiles"
    cheap = False
    split = True
    paired_tables = False


class EmulatedTiles(Tiles):
    """What `Tiles` computes, without AMX; for tests."""

    words = "emulated bfloat16 tiles"
    emulated = True


class EmulatedSplitTiles(SplitTiles):
    """What `SplitTiles` computes, without AMX; for tests."""

    words = "emulated split bfloat16 tiles"
    emulated = True


_EXACT: dict[str, Arithmetic] = {"avx512": Exact16(), "avx2": Exact8(), "baseline": Exact4()}
_FAST: dict[str, Arithmetic] = {
    "amx": Tiles(), "avx512bf16": Pairs16(), "avx512": Cheap16(), "avx2": Cheap8(),
    "baseline": Cheap4(),
}  # fmt: skip


def instructions() -> str:
    """Return the newest of `INSTRUCTIONS` that numba compiles for here and `VARIABLE` allows.

    Raises `ConfigError` if the variable names something else.
    """
    most = os.environ.get(VARIABLE) or INSTRUCTIONS[0]
    if most not in INSTRUCTIONS:
        raise ConfigError(f"{VARIABLE} is {most!r}; expected one of {', '.join(INSTRUCTIONS)}")
    features = target_features()
    return next(
        name
        for name in INSTRUCTIONS[INSTRUCTIONS.index(most) :]
        if features.issuperset(_NEEDED[name]) and (name != "amx" or tiles_allowed())
    )


def exact_arithmetics() -> tuple[Arithmetic, ...]:
    """Return what is right to 5e-5 of a probability on this processor, the quickest first.

    The tiles' split numbers are less exact than float32 where inputs are large, so that there is a
    second choice behind them.
    """
    newest = instructions()
    return (*((SplitTiles(),) if newest == "amx" else ()), _best(_EXACT, newest))


def fast_arithmetic() -> Arithmetic:
    """Return what is quickest on this processor and right to 1e-2 of a probability."""
    return _best(_FAST, instructions())


def _best(known: dict[str, Arithmetic], newest: str) -> Arithmetic:
    allowed = INSTRUCTIONS[INSTRUCTIONS.index(newest) :]
    return next(known[name] for name in allowed if name in known)
