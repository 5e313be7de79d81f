import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config

from model.engines import arithmetic
from model.networks import kept as module
from model.networks import target
from model.networks.kept import kept, sources

_CALL = """
import logging
logging.basicConfig()
import model.networks.kept as kept
kept._SOURCES = {sources!r}
from model.engines.preparing import count_clear
import numpy as np
count_clear(np.zeros((2, 1, 3), np.int16), np.array([0]), np.int16(-32768), np.empty(3, np.uint16))
print(sum(count_clear.stats.cache_hits.values()), sum(count_clear.stats.cache_misses.values()))
"""


@pytest.mark.slow
def test_kernels_are_compiled_again_when_what_they_are_made_of_changed(tmp_path: Path) -> None:
    found = []
    for changed in ("one", "one", "two"):
        done = subprocess.run(
            [sys.executable, "-c", _CALL.format(sources=changed)],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found.append(done.stdout.split())
    assert found == [["0", "1"], ["1", "0"], ["0", "1"]]


def test_every_file_that_emits_is_a_source() -> None:
    engines = Path(arithmetic.__file__).parent
    listed = set(sources())
    assert set(engines.glob("*.py")) < listed
    emitting = {path for path in Path(module.__file__).parent.glob("*.py")
                if "llvmlite" in path.read_text() or "def target_features" in path.read_text()}  # fmt: skip
    assert emitting - {Path(module.__file__)} <= listed


def plus(first, second):  # type: ignore[no-untyped-def]
    return first + second


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "_told", [])
    return tmp_path


def test_processes_that_compile_at_once_get_their_own_code(folder: Path) -> None:
    # both begin before either has saved, as with numba's numbers
    one, other = kept()(plus), kept()(plus)
    assert one(1, 2) == 3
    assert other(1.5, 2.0) == 3.5
    assert len(list(folder.rglob("*.nbc"))) == 2
    assert len(list(folder.rglob("*.nbi"))) == 2
    again = kept()(plus)
    assert (again(1.5, 2.0), again(1, 2)) == (3.5, 3)
    assert sum(again.stats.cache_hits.values()) == 2


@pytest.mark.parametrize("damaged", ["*.nbc", "*.nbi"])
def test_what_is_cut_off_is_compiled_again(folder: Path, damaged: str) -> None:
    kept()(plus)(1, 2)
    [path] = folder.rglob(damaged)
    path.write_bytes(path.read_bytes()[:-20])
    again = kept()(plus)
    assert again(1, 2) == 3
    assert not again.stats.cache_hits


def test_without_a_folder_functions_are_compiled_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("cannot cache function 'plus': no locator available")

    monkeypatch.setattr(module, "_Cache", refuse)
    assert kept()(plus)(1, 2) == kept()(plus)(1, 2) == 3
    [record] = caplog.records
    assert record.getMessage().startswith("compiled functions are not kept on disk, every process ")
    assert "cannot cache function 'plus'" in record.getMessage()


def test_a_full_disk_costs_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Files, "save", full)
    function = kept()(plus)
    assert (function(1, 2), function(1.5, 2)) == (3, 3.5)
    [record] = caplog.records
    assert "No space left on device" in record.getMessage()


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [("+avx2,+fma,-avx512f", "avx2"), ("", "baseline"), ("+sse4.2,+avx2", "baseline")],
)
def test_instructions_are_those_that_numba_compiles_for(
    monkeypatch: pytest.MonkeyPatch, setting: str, allowed: str
) -> None:
    monkeypatch.delenv(arithmetic.VARIABLE, raising=False)
    monkeypatch.setattr(config, "CPU_FEATURES", setting)
    assert arithmetic.instructions() == allowed
    assert target.target_features() == {n[1:] for n in setting.split(",") if n.startswith("+")}


def test_without_avx_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    monkeypatch.setattr(config, "ENABLE_AVX", 0)
    assert not [name for name in target.target_features() if name.startswith("avx")]
    assert arithmetic.instructions() == "baseline"
