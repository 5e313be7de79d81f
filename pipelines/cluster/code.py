"""This installation in, a stamp of its code out: workers with other code make other pixels."""

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("cube", "model", "pipelines")


@functools.cache
def code_stamp() -> str:
    """Return version and hash of the code of this process's canopycube, e.g. "0.1.0 (9f86d081)"."""
    sha = hashlib.sha256()
    for package in _PACKAGES:
        found = find_spec(package)
        assert found is not None  # this very code is in one of them
        assert found.origin is not None
        folder = Path(found.origin).parent
        for file in sorted(folder.rglob("*.py")):
            sha.update(f"{package}/{file.relative_to(folder).as_posix()}\n".encode())
            sha.update(file.read_bytes())
    try:
        number = version("canopycube")
    except PackageNotFoundError:
        number = "not installed"
    return f"{number} ({sha.hexdigest()[:8]})"
