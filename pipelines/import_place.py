"""A folder for an import in, a place beside it to work in out; what is finished appears whole."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cube.durable import flush_files, flush_folders
from cube.errors import InputError, WorkFailedError
from pipelines.import_report import is_import

STACK, SAMPLES, RECIPE = "scenes.zarr", "samples.zarr", "recipe.toml"

_FLUSHED_AT_ONCE = 16
"""Files that are waited for at once; a disk makes many safe in the time of one."""

_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class ImportPlace:
    """Where an import is made, beside the folder that it will be."""

    folder: Path
    """Where the finished import appears."""
    beside: Path
    """Folder that holds everything unfinished, whatever process it was of."""

    @property
    def draft(self) -> Path:
        """The import while it is made."""
        return self.beside / "draft"

    @property
    def scratch(self) -> Path:
        """What is needed only while it is made."""
        return self.beside / "scratch"

    @property
    def old(self) -> Path:
        """The import that is replaced."""
        return self.beside / "old"

    def put_in_place(self) -> None:
        """Let the finished import appear, in place of an older one."""
        every = sorted(self.draft.rglob("*"))
        files = [path for path in every if path.is_file()]
        folders = [self.draft, *(path for path in every if path.is_dir())]
        with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
            for _ in pool.map(lambda file: flush_files([file]), files):
                pass
            for _ in pool.map(lambda part: flush_folders([part]), folders):
                pass
        if self.folder.exists():
            self.folder.rename(self.old)
        try:
            self.draft.rename(self.folder)
        finally:
            if not self.folder.exists() and self.old.exists():
                self.old.rename(self.folder)
        flush_folders([self.folder.parent])
        shutil.rmtree(self.old, ignore_errors=True)

    def put_back(self) -> None:
        """Give the older import its place again where a process was ended before another took it.

        Raises `InputError` where something else lies there now.
        """
        if not self.old.exists():
            return
        if not self.folder.exists() or _is_empty(self.folder):
            self.old.rename(self.folder)  # in place of an empty folder too
        elif is_import(self.folder):
            shutil.rmtree(self.old, ignore_errors=True)
        else:
            raise InputError(
                f"{str(self.folder)!r} is no import, and the one that was there lies in "
                f"{str(self.old)!r} since an import was ended; move one of them away"
            )

    def clear(self) -> None:
        """Delete everything unfinished."""
        for part in (self.draft, self.scratch):
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def import_place(folder: Path) -> Iterator[ImportPlace]:
    """Hold the place where an import into `folder` is made; what others left there is mended.

    Raises `InputError` if another import is at work, or something other than an unchanged import
    lies in `folder`; `WorkFailedError` if the disk is full.
    """
    place = ImportPlace(folder=folder, beside=folder.with_name(f".{folder.name}.import"))
    with _locked(place):
        try:
            place.put_back()
            place.clear()
            _refuse_other(folder)
            for part in (place.draft, place.scratch):
                part.mkdir()
            yield place
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise WorkFailedError(
                f"the disk of {str(folder)!r} is full ({error.strerror}); make room, or choose a "
                "folder on a larger disk with --to"
            ) from error
        finally:
            place.clear()
            (place.beside / _LOCK).unlink()
            # what an import that was ended has left to be put back stays, and so does another's lock
            with contextlib.suppress(OSError):
                place.beside.rmdir()


@contextmanager
def _locked(place: ImportPlace) -> Iterator[None]:
    """Hold the lock, which the system gives back however the process ends."""
    try:
        place.beside.mkdir(parents=True, exist_ok=True)
        file = (place.beside / _LOCK).open("a")
    except OSError as error:
        raise InputError(
            f"{str(place.folder.parent)!r} cannot be written: {error.strerror}; choose another --to"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the one before may have taken its file away, so that another is locked by now
            is_ours = os.path.samestat(os.fstat(file.fileno()), (place.beside / _LOCK).stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise InputError(
                f"another import into {str(place.folder)!r} is at work; wait for it, or choose "
                "another --to"
            )
        yield


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _refuse_other(folder: Path) -> None:
    """Refuse to write where something other than an unchanged import lies."""
    if not folder.exists():
        return
    if not folder.is_dir() or not is_import(folder):
        if _is_empty(folder):
            return
        raise InputError(
            f"{str(folder)!r} exists and is no import, or its recipe was edited; choose another "
            "folder"
        )
    ours = {STACK, SAMPLES, RECIPE, "import.json", "import.md"}
    if other := sorted(file.name for file in folder.iterdir() if file.name not in ours):
        raise InputError(
            f"{str(folder)!r} holds {other[0]!r} beside an import, such as the outputs of a run; move "
            "it away, or choose another folder"
        )
