# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Tiles of 16 x 16 sums and the few operations on them: AMX instructions, or an emulation of them.

A processor with AMX has eight tiles of sixteen rows of 64 bytes. Kernels are written once for these
operations; which ones they become is decided by the type of the arithmetic. The emulation computes
on an array of eight such tiles what Intel's manual (volume 2, TDPBF16PS) says, so that kernels can
be run where there is no AMX.
"""

import ctypes
import platform
import sys
import typing
from functools import lru_cache

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload

from model.networks.kept import kept

TILE_BYTES = 1024
ROW_BYTES = 64
TILES = 8

_ARCH_PRCTL = 158
_ASK_FOR_STATE = 0x1023  # ARCH_REQ_XCOMP_PERM
_TILE_DATA = 18  # XFEATURE_XTILEDATA


@lru_cache(maxsize=1)
def tiles_allowed() -> bool:
    """Ask Linux for leave to use the tiles, for this process and its threads; say if it was given.

    Their state is large, so that the kernel saves it only for whoever asked (since Linux 5.16).
    """
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    return bool(call(_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA) == 0)


def tile_settings() -> np.ndarray:
    """Return the 64 bytes that make all eight tiles sixteen rows of 64 bytes (palette 1)."""
    settings = np.zeros(64, np.uint8)
    settings[0] = 1
    settings[16 : 16 + 2 * TILES].view(np.uint16)[:] = ROW_BYTES
    settings[48 : 48 + TILES] = 16
    return settings


@intrinsic
def word_at(typing_context, address):
    """Return the 32 bits at an address."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())
        return builder.load(place, align=4)

    return types.uint32(types.intp), generate


@intrinsic
def put_word(typing_context, address, word):
    """Write 32 bits at an address."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())
        builder.store(arguments[1], place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.uint32), generate


@intrinsic
def _float_of(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _word_of(typing_context, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


_compiled = kept()


@_compiled
@typing.no_type_check
def emulated_load(file, tile, address, stride):
    """Read sixteen rows, `stride` bytes apart, into a tile of `file` (tile, row, word) uint32."""
    for row in range(16):
        for word in range(16):
            file[tile, row, word] = word_at(address + row * stride + 4 * word)


@_compiled
@typing.no_type_check
def emulated_store(file, tile, address, stride):
    """Write a tile's sixteen rows, `stride` bytes apart."""
    for row in range(16):
        for word in range(16):
            put_word(address + row * stride + 4 * word, file[tile, row, word])


@_compiled
@typing.no_type_check
def emulated_dot(file, to, left, right):
    """Add to tile `to` (float32) the product of two tiles of pairs of bfloat16.

    Word k of a row of the left one has the values 2k and 2k + 1 of the inner dimension, as has row
    k of the right one; each half of the pairs is summed by itself, then both are added.
    """
    high = np.uint32(0xFFFF0000)
    sixteen = np.uint32(16)
    for row in range(16):
        for column in range(16):
            even, odd = np.float32(0), np.float32(0)
            for k in range(16):
                a, b = file[left, row, k], file[right, k, column]
                even += _float_of(np.uint32(a << sixteen)) * _float_of(np.uint32(b << sixteen))
                odd += _float_of(np.uint32(a & high)) * _float_of(np.uint32(b & high))
            before = _float_of(file[to, row, column])
            file[to, row, column] = _word_of(np.float32(before + np.float32(even + odd)))


def tile_load(arithmetic, file, tile, address, stride):
    """Read sixteen rows of 64 bytes, `stride` bytes apart, into a tile; its number is a constant."""
    raise NotImplementedError("for compiled functions only")


def tile_store(arithmetic, file, tile, address, stride):
    """Write a tile's sixteen rows, `stride` bytes apart."""
    raise NotImplementedError("for compiled functions only")


def tile_dot(arithmetic, file, to, left, right):
    """Add to the sums of a tile the product of two tiles of pairs of bfloat16."""
    raise NotImplementedError("for compiled functions only")


def tiles_begin(arithmetic, settings):
    """Set the tiles up in this thread, from the address of `tile_settings`."""
    raise NotImplementedError("for compiled functions only")


def tiles_end(arithmetic):
    """Give the tiles back, so that switching threads is cheap again."""
    raise NotImplementedError("for compiled functions only")


def _instruction(name, count, *, addressed):
    """Make an intrinsic of an AMX instruction whose first `count` operands are tile numbers."""

    def emit(typing_context, *operands):
        numbers = [operand.literal_value for operand in operands[:count]]
        rest = operands[count:]
        signature = types.void(*operands[:count], *[types.intp] * len(rest))

        def generate(context, builder, signature, arguments):
            values = [ir.Constant(ir.IntType(8), number) for number in numbers]
            for index, argument in enumerate(arguments[count:]):
                is_place = addressed and index == 0
                place = ir.IntType(8).as_pointer()
                values.append(builder.inttoptr(argument, place) if is_place else argument)
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, values)
            return context.get_dummy_value()

        return signature, generate

    return emit


@intrinsic(prefer_literal=True)
def _load(typing_context, tile, address, stride):
    return _instruction("llvm.x86.tileloadd64", 1, addressed=True)(
        typing_context, tile, address, stride
    )


@intrinsic(prefer_literal=True)
def _store(typing_context, tile, address, stride):
    return _instruction("llvm.x86.tilestored64", 1, addressed=True)(
        typing_context, tile, address, stride
    )


@intrinsic(prefer_literal=True)
def _dot(typing_context, to, left, right):
    return _instruction("llvm.x86.tdpbf16ps", 3, addressed=False)(typing_context, to, left, right)


@intrinsic
def _begin(typing_context, settings):
    return _instruction("llvm.x86.ldtilecfg", 0, addressed=True)(typing_context, settings)


@intrinsic
def _end(typing_context):
    return _instruction("llvm.x86.tilerelease", 0, addressed=False)(typing_context)


@overload(tile_load, prefer_literal=True)
def _choose_load(arithmetic, file, tile, address, stride):
    if arithmetic.instance_class.emulated:

        @typing.no_type_check
        def load(arithmetic, file, tile, address, stride):
            emulated_load(file, tile, address, stride)

    else:

        @typing.no_type_check
        def load(arithmetic, file, tile, address, stride):
            _load(tile, address, stride)

    return load


@overload(tile_store, prefer_literal=True)
def _choose_store(arithmetic, file, tile, address, stride):
    if arithmetic.instance_class.emulated:

        @typing.no_type_check
        def store(arithmetic, file, tile, address, stride):
            emulated_store(file, tile, address, stride)

    else:

        @typing.no_type_check
        def store(arithmetic, file, tile, address, stride):
            _store(tile, address, stride)

    return store


@overload(tile_dot, prefer_literal=True)
def _choose_dot(arithmetic, file, to, left, right):
    if arithmetic.instance_class.emulated:

        @typing.no_type_check
        def dot(arithmetic, file, to, left, right):
            emulated_dot(file, to, left, right)

    else:

        @typing.no_type_check
        def dot(arithmetic, file, to, left, right):
            _dot(to, left, right)

    return dot


@overload(tiles_begin)
def _choose_begin(arithmetic, settings):
    if arithmetic.instance_class.emulated:

        @typing.no_type_check
        def begin(arithmetic, settings):
            pass

    else:

        @typing.no_type_check
        def begin(arithmetic, settings):
            _begin(settings)

    return begin


@overload(tiles_end)
def _choose_end(arithmetic):
    if arithmetic.instance_class.emulated:

        @typing.no_type_check
        def end(arithmetic):
            pass

    else:

        @typing.no_type_check
        def end(arithmetic):
            _end()

    return end
