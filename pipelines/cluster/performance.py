"""A client in, a page of where its cluster's time went out."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from distributed import performance_report

from cube.errors import InputError


@contextlib.contextmanager
def reported(file: Path) -> Iterator[None]:
    """Write Dask's performance report of the body, which has a client, as HTML.

    Raises `InputError` if what draws it is not installed, or `file` cannot be written.
    """
    if find_spec("bokeh") is None:
        raise InputError("--performance-report needs bokeh; pip install 'canopycube[viewer]'")
    try:
        file.touch()
    except OSError as error:
        raise InputError(
            f"--performance-report {str(file)!r} cannot be written: {error.strerror}"
        ) from error
    with performance_report(filename=str(file)):
        yield
