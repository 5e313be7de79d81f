"""The kernels for AMX on emulated tiles, and the instructions they become where there is AMX."""

import copy
import ctypes
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.engines.arithmetic import Arithmetic, EmulatedSplitTiles, EmulatedTiles
from model.engines.bfloat import pairs_of
from model.engines.compiled import CompiledModel
from model.engines.room import BLOCK
from model.engines.tile_layer import split_inputs
from model.engines.tiles import (
    TILES,
    emulated_dot,
    emulated_load,
    emulated_store,
    tile_settings,
    tiles_allowed,
)
from model.fitted import Fitted
from model.formulas import BANDS

Model = Callable[..., Fitted]
Pixels = Callable[..., np.ndarray]
Convert = Callable[[np.ndarray], np.ndarray]

PLAIN = {"input_pieces": 0, "bidirectional": False, "pooling": "last"}


def as_float(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bfloat(values: np.ndarray) -> np.ndarray:
    """Round as PyTorch does; bits."""
    tensor = torch.from_numpy(values.astype(np.float32)).bfloat16()
    return tensor.view(torch.int16).numpy().view(np.uint16)


def test_rounding_is_that_of_torch() -> None:
    values = np.random.default_rng(0).normal(0, 1, 5000).astype(np.float32)
    values[:4] = [1.00390625, 1.01171875, -1.00390625, 0]  # halves go to the even one
    np.testing.assert_array_equal(pairs_of(values), bfloat(values))


def test_a_product_of_tiles_is_that_of_matrices() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(0, 1, (16, 32)), generator.normal(0, 1, (32, 16))
    a, b = bfloat(left), bfloat(right)
    file = np.zeros((TILES, 16, 16), np.uint32)
    emulated_load(file, 4, np.ascontiguousarray(a).ctypes.data, 64)
    paired = np.ascontiguousarray(b.reshape(16, 2, 16).transpose(0, 2, 1))  # (pair, column, of two)
    emulated_load(file, 6, paired.ctypes.data, 64)
    begun = generator.normal(0, 1, (16, 16)).astype(np.float32)
    emulated_load(file, 1, begun.ctypes.data, 64)
    emulated_dot(file, 1, 4, 6)
    expected = begun + as_float(a).astype(float) @ as_float(b).astype(float)
    found = np.empty((16, 16), np.float32)
    emulated_store(file, 1, found.ctypes.data, 64)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rows_of_tiles_lie_a_stride_apart() -> None:
    source = np.arange(16 * 40, dtype=np.uint32).reshape(16, 40)
    file = np.zeros((TILES, 16, 16), np.uint32)
    emulated_load(file, 7, source.ctypes.data + 4 * 3, 160)
    np.testing.assert_array_equal(file[7], source[:, 3:19])
    emulated_load(file, 7, source.ctypes.data, 0)  # one row for all
    np.testing.assert_array_equal(file[7], np.broadcast_to(source[0, :16], (16, 16)))
    target = np.zeros((16, 40), np.uint32)
    emulated_store(file, 7, target.ctypes.data + 4, 160)
    np.testing.assert_array_equal(target[:, 1:17], file[7])
    assert not target[:, 17:].any()


def test_settings_are_those_of_the_manual() -> None:
    settings = tile_settings()
    assert settings.nbytes == 64
    assert settings[0] == 1  # the palette of eight tiles of a kilobyte
    assert settings[16:32].view(np.uint16).tolist() == [64] * 8  # bytes of a row
    assert settings[48:56].tolist() == [16] * 8  # rows


@pytest.mark.parametrize(("answer", "allowed"), [(0, True), (-1, False)])
def test_linux_is_asked_for_leave(
    monkeypatch: pytest.MonkeyPatch, answer: int, allowed: bool
) -> None:
    asked = []

    class Library:
        def __init__(self, name: object, **_: object) -> None:
            assert name is None

        def syscall(self, *numbers: int) -> int:
            asked.append(numbers)
            return answer

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    tiles_allowed.cache_clear()
    assert tiles_allowed() is allowed
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    assert asked == [(158, 0x1023, 18)]
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    tiles_allowed.cache_clear()
    assert not tiles_allowed()
    assert len(asked) == 1
    tiles_allowed.cache_clear()


def test_inputs_are_split_into_parts_whose_sum_they_are() -> None:
    generator = np.random.default_rng(0)
    inputs = (generator.normal(0, 1, (2, 5, 40)) * 10.0 ** generator.integers(-3, 3, 40)).astype(
        "f4"
    )
    turned = np.zeros((2, 40, 32), np.uint16)
    split_inputs(inputs, 4, np.array([0, 1, 2, 0]), turned)
    parts = as_float(turned).reshape(2, 40, -1)[..., :16].reshape(2, 40, 4, 4)  # (…, part, channel)
    expected = inputs[:, :4].transpose(0, 2, 1)
    np.testing.assert_array_equal(turned[..., :4], bfloat(expected))
    np.testing.assert_allclose(parts[:, :, :3].sum(axis=2, dtype=float), expected, rtol=1e-7)
    np.testing.assert_array_equal(turned[..., 12:16], turned[..., :4])
    assert not turned[..., 16:].any()


def run(
    fitted: Fitted, arithmetic: Arithmetic, pixels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    model = CompiledModel(fitted, arithmetic, steps=len(pixels))
    chosen = np.array([BANDS.index(band) for band in fitted.features.required_bands])
    return model.probability(pixels, chosen, wanted)


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("reference", {"hidden": 32}),
        ("reference", {"hidden": 40, "layers": 1}),
        ("default", {"hidden": 16}),
        ("default", {"hidden": 33, "layers": 3, "layer_norm": True}),
        ("default", {"hidden": 16, "pooling": "mean", "input_pieces": 0}),
        ("default", {"hidden": 16, "members": 2, **PLAIN}),
    ],
)
def test_probabilities_are_those_of_double_precision(
    make_model: Model,
    make_pixels: Pixels,
    reflectance_of: Convert,
    preset: str,
    settings: dict[str, object],
) -> None:
    fitted = make_model(preset, sharpness=2.0, **settings)
    pixels = make_pixels(BLOCK + 37)
    prepared = fitted.preparation.apply(reflectance_of(pixels), BANDS)
    steps = torch.from_numpy(prepared).double()
    with torch.inference_mode():
        each = [copy.deepcopy(network).double()(steps) for network in fitted.networks]
    true = torch.stack([torch.softmax(one, dim=1) for one in each]).mean(dim=0).numpy()
    every = np.arange(pixels.shape[2])
    exact = run(fitted, EmulatedSplitTiles(), pixels, every)
    np.testing.assert_allclose(exact, true, atol=5e-5, rtol=0)
    fast = run(fitted, EmulatedTiles(), pixels, every)
    np.testing.assert_allclose(fast, true, atol=1e-2, rtol=0)
    assert np.abs(fast - true).max() > 3 * np.abs(exact - true).max()  # they do differ


@pytest.mark.parametrize("arithmetic", [EmulatedSplitTiles(), EmulatedTiles()])
def test_a_pixel_depends_on_no_other(
    make_model: Model, make_pixels: Pixels, arithmetic: Arithmetic
) -> None:
    fitted = make_model("default", hidden=24, layers=2)
    pixels = make_pixels(BLOCK + 90)
    every = run(fitted, arithmetic, pixels, np.arange(pixels.shape[2]))
    generator = np.random.default_rng(1)
    for count in (1, 15, 17, 31, 33, BLOCK):
        some = generator.choice(pixels.shape[2], count, replace=False)
        np.testing.assert_array_equal(run(fitted, arithmetic, pixels, some), every[some])


_COMPILE = """
import json

import numba
from numba import types
from model.engines.arithmetic import SplitTiles, Tiles
from model.engines.tile_layer import run_tile_layer

def array(kind, dims):
    return types.Array(kind, dims, "C")

single, half = array(types.float32, 3), array(types.uint16, 3)
for arithmetic in (Tiles(), SplitTiles()):
    signature = (
        numba.typeof(arithmetic), types.int64, types.boolean,
        single, single, array(types.int32, 3), single, single,
        half, half, array(types.uint16, 4), array(types.float32, 2), half, types.int64, single,
        array(types.uint32, 3), array(types.uint8, 1), array(types.uint8, 1),
    )
    run_tile_layer.compile(signature)
for text in run_tile_layer.inspect_asm().values():
    print(json.dumps({name: text.count(name) for name in
                      ("ldtilecfg", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease")}))
"""


@pytest.mark.slow
def test_kernels_become_amx_instructions(tmp_path: object) -> None:
    """Compiled for a processor that has them, on any that has not, and never run."""
    if platform.machine() != "x86_64":
        pytest.skip(f"LLVM compiles for the machine's own family, which is {platform.machine()}")
    environment = os.environ | {
        "NUMBA_CPU_NAME": "sapphirerapids",
        "NUMBA_CPU_FEATURES": "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512bf16,+avx2,+fma,"
        "+amx-tile,+amx-bf16",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, split = (json.loads(line) for line in done.stdout.splitlines())
    for counts in (plain, split):
        assert counts["ldtilecfg"] == 1
        assert counts["tilerelease"] >= 1
        assert counts["tileloadd"] >= 8
        assert counts["tdpbf16ps"] >= 4
        assert counts["tilestored"] >= 4
