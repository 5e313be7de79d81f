"""Fixtures shared by all tests: where the real data lies."""

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scenes; absent it skips, except on CI where it fails."""
    folder = Path(os.environ.get("CANOPYCUBE_TEST_DATA", _DEFAULT))
    if folder.is_dir():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail(f"no test data at {folder}; set CANOPYCUBE_TEST_DATA")
    pytest.skip(f"needs the real scenes at {folder} (set CANOPYCUBE_TEST_DATA)")
