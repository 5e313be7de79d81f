"""A Dask worker in, a file of the tiles that it begins and records out.

`dask worker --preload witness.py` runs this in the worker before its first task, and imports what
tiles need, so that a worker that is up is ready. The file is `$CANOPYCUBE_WITNESS/<pid>.txt`.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Worker

import pipelines.build_cube
import pipelines.map_tile
from cube.ledger import Ledger
from cube.spec import Region

WITNESS = "CANOPYCUBE_WITNESS"
"""Variable of the environment that names the folder of such files."""


def dask_setup(worker: Worker) -> None:
    del worker
    file = os.open(
        Path(os.environ[WITNESS]) / f"{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND
    )

    def recorded(ledger: Ledger, region: Region, *words: Any, **named: Any) -> None:
        record(ledger, region, *words, **named)
        _write(file, "recorded", str(ledger.store), region.id)

    record, Ledger.record = Ledger.record, recorded  # type: ignore[method-assign]
    for module, name in ((pipelines.build_cube, "build_tile"), (pipelines.map_tile, "map_tile")):
        setattr(module, name, _telling(getattr(module, name), file))


def _telling(function: Callable[..., Any], file: int) -> Callable[..., Any]:
    """Return a function that writes a line whenever it is called."""

    @functools.wraps(function)
    def called(*words: Any, **named: Any) -> Any:
        _write(file, "began", function.__name__)
        return function(*words, **named)

    return called


def _write(file: int, *words: str) -> None:
    os.write(file, ("\t".join(words) + "\n").encode())  # whole, also beside other writers
