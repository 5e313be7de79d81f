"""A folder in, the right to work in it alone out."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cube.errors import InputError


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system gives back however the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise InputError(
            f"outputs.folder {str(folder)!r} cannot be written: {error.strerror}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run is at work in {str(folder)!r}; wait for it, or choose another "
                "outputs.folder"
            ) from error
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == [".lock"]:
                # nothing was made: leave no trace
                (folder / ".lock").unlink()
                folder.rmdir()
