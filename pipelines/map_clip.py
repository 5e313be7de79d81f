"""A map's clip in, a file beside the map out, which each process reads once.

A coast has a hundred thousand vertices: they are not to travel with each of as many tiles.
"""

import functools
import glob
import hashlib
import threading
from pathlib import Path

from cube.errors import InputError
from cube.place import Place, names_below, remove_files, replace_content

_loading = threading.Lock()


def keep_clip(wkb: bytes, path: Place) -> Place:
    """Write the clip (WKB, in the cube's CRS) of the map at `path` beside it; return its file.

    The file is named by a hash of its content. Clips that the map had before are removed.
    """
    file = path.with_name(f"{path.name}-clip-{_hash(wkb)}.wkb")
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not (file.exists() and file.read_bytes() == wkb):
        replace_content(file, wkb)
    names = names_below(path.parent, f"{glob.escape(path.name)}-clip-*.wkb")
    remove_files([path.parent / name for name in names if name != file.name])
    return file


def clip_bytes(file: Place) -> bytes:
    """Return the WKB that `keep_clip` wrote; read once per process.

    Raises `InputError` if it cannot be read or is not what was written.
    """
    with _loading:
        return _read(file)


@functools.lru_cache(maxsize=2)
def _read(file: Place) -> bytes:
    try:
        wkb = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"the map's clip {str(file)!r} cannot be read ({error}); run again"
        ) from error
    if not file.stem.endswith(_hash(wkb)):
        raise InputError(f"the map's clip {str(file)!r} is not what was written; run again")
    return wkb


def _hash(wkb: bytes) -> str:
    return hashlib.sha256(wkb).hexdigest()[:16]
