"""Fixtures shared by all tests: where the real data lies, and forests that are written once."""

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cube.forest import Forest, ForestSpec

_LONG = (
    "tests/chaos/test_chaos.py",
    "tests/test_notebooks.py",
    "tests/pipelines/test_map_memory.py",
    "tests/pipelines/test_earthengine.py",
    "tests/pipelines/test_changqing_export.py",
    "tests/pipelines/test_object_store.py",
    "tests/pipelines/test_learning.py",
    "tests/pipelines/test_failing_servers.py",
    "tests/pipelines/test_run.py",
    "tests/pipelines/test_demo.py",
    "tests/cube/test_forest_traps.py",
    "tests/cube/test_composite_methods.py",
    "tests/model/test_learn.py",
)
"""Files of some half a minute and more. A file's tests stay in one process: what begins last would
keep one process busy while the others have nothing left."""

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; within a file, and among the rest, the order stays."""
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(_LONG)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scenes; absent it skips, except on CI where it fails."""
    folder = Path(os.environ.get("CANOPYCUBE_TEST_DATA", _DEFAULT))
    if folder.is_dir():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail(f"no test data at {folder}; set CANOPYCUBE_TEST_DATA")
    pytest.skip(f"needs the real scenes at {folder} (set CANOPYCUBE_TEST_DATA)")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[ForestSpec], Forest]":
    """Return a function that gives the forest of a spec, written once for all processes of a run.

    Whoever wants to change one copies it first.
    """
    from cube.forest import forest_in, write_forest  # seconds, which not every process needs

    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    shared = run / "forests"
    shared.mkdir(exist_ok=True)

    def give(spec: "ForestSpec") -> "Forest":
        folder = shared / hashlib.sha256(repr(spec).encode()).hexdigest()[:16]
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be writing it
            return forest_in(folder, spec) if folder.exists() else write_forest(folder, spec)

    return give
