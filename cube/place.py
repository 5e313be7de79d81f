"""A path or an address in, the few things that stores ask of a folder out: on a disk or elsewhere.

A `Place` is a `Path`, or a `RemoteFolder` of an object store. What both know by the same name
(`/`, `name`, `parent`, `with_name`, `exists`, `read_text`, `read_bytes`, `unlink`) is called as it
is; the rest stands here as functions.
"""

import contextlib
import fnmatch
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from cube.durable import create_bytes, flush_folders, replace_bytes
from cube.errors import InputError, PlaceRefusedError

SCHEMES = ("s3", "gs", "az")
"""Kinds of object store, as their addresses begin."""

_AT_ONCE = 1000
"""Objects that are read or removed at once."""

_DRAFT = ".draft"
"""Object of a store that is being made or removed, so that it counts as none."""

_PARTS = re.compile(r"[^\s?#\\%\x00-\x1f]+")
"""What a bucket and the names below it may be made of."""


@dataclass(frozen=True)
class RemoteFolder:
    """A folder, or an object, of an object store; nothing of it is secret."""

    url: str
    """`s3://bucket/folder`, without a slash at its end; also `gs://` and `az://`."""

    def __post_init__(self) -> None:
        scheme, mark, rest = self.url.partition("://")
        parts = rest.split("/")
        if "@" in self.url or "?" in self.url:
            # not repeated: it may hold a key
            raise InputError(
                "the address of a store holds '@' or '?'; expected s3://bucket/folder, with "
                "credentials in the environment and nowhere else"
            )
        is_plain = all(part not in ("", ".", "..") and _PARTS.fullmatch(part) for part in parts)
        if scheme not in SCHEMES or not mark or not is_plain:
            raise InputError(
                f"{self.url!r} is no address of an object store; expected bucket and folder after "
                f"{', '.join(f'{one}://' for one in SCHEMES)}"
            )

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name less what follows its last dot."""
        return Path(self.name).stem

    @property
    def parent(self) -> "RemoteFolder":
        """The folder that this lies in."""
        return RemoteFolder(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> "RemoteFolder":
        """Return the neighbour of another name."""
        return self.parent / name

    def resolve(self) -> "RemoteFolder":
        """Return itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Say whether this is an object, or has objects below it and is no draft of a store."""
        if _bucket().exist([self.url])[0]:
            return True
        first = next(_bucket().below(self.url), None)
        return first is not None and not _bucket().exist([f"{self.url}/{_DRAFT}"])[0]

    def is_symlink(self) -> bool:
        """Return False: there are no links."""
        return False

    def read_bytes(self) -> bytes:
        """Return the object; `FileNotFoundError` if there is none."""
        content: bytes = _bucket().read(self.url)
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the object as text; `FileNotFoundError` if there is none."""
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; `FileNotFoundError` if there is none, unless that is fine."""
        if not missing_ok and not _bucket().exist([self.url])[0]:
            raise FileNotFoundError(f"there is no object {self.url!r}")
        _bucket().remove([self.url])


Place: TypeAlias = Path | RemoteFolder
"""Where a store is."""


def as_place(given: str | Place) -> Place:
    """Return a path, or an address such as `s3://bucket/folder` or `file:///folder`, as a place.

    Raises `InputError` for an address that cannot be one.
    """
    if not isinstance(given, str):
        return given
    if "://" not in given:
        return Path(given)
    parts = urlsplit(given)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return RemoteFolder(given.rstrip("/"))


def check_place(place: Place) -> None:
    """Ask the server of a place whether it lets us look there; a path is left to who uses it.

    Raises `InputError` if it refuses or its bucket does not exist, `PlaceError` if it does not
    answer.
    """
    if isinstance(place, Path):
        return
    try:
        next(_bucket().below(place.url), None)
    except PlaceRefusedError as error:
        raise InputError(str(error)) from None


def zarr_place(place: Place) -> Any:
    """Return what Zarr and xarray open for a place; pickled, it holds an address and no secret."""
    return place if isinstance(place, Path) else _bucket().zarr_store(place.url)


def replace_content(place: Place, content: bytes | str) -> None:
    """Write a small file or object: afterwards it is there for good, and never a part of it."""
    content = content.encode() if isinstance(content, str) else content
    if isinstance(place, Path):
        replace_bytes(place, content)
    else:
        _bucket().write(place.url, content)


def create_content(place: Place, content: bytes) -> bool:
    """Write a small file or object where there is none, whole; False if there is one already."""
    if isinstance(place, Path):
        return create_bytes(place, content)
    return bool(_bucket().write_new(place.url, content))


def names_below(folder: Place, pattern: str = "*") -> list[str]:
    """Return the sorted names of the files right below a folder that fit a pattern of `fnmatch`.

    None of a folder that is not there; raises `OSError` for one that cannot be read.
    """
    return sorted(fnmatch.filter(_right_below(folder)[1], pattern))


def read_each(folder: Place, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of files in a folder, of objects many at once; not of those gone."""
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        if isinstance(folder, Path):
            contents = map(_content, (folder / name for name in some))
        else:
            contents = iter(_bucket().read_each([f"{folder.url}/{name}" for name in some]))
        for name, content in zip(some, contents, strict=True):
            if content is not None:
                yield name, content


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def count_there(places: Iterable[Place]) -> int:
    """Return how many files or objects are there."""
    places = list(places)
    urls = [place.url for place in places if isinstance(place, RemoteFolder)]
    here = sum(place.exists() for place in places if isinstance(place, Path))
    return here + (sum(_bucket().exist(urls)) if urls else 0)


def files_below(folder: Place) -> Iterator[tuple[str, int]]:
    """Yield (name as seen from the folder, bytes) of every file below it; as `names_below`."""
    if not isinstance(folder, Path):
        yield from _bucket().below(folder.url)
        return
    for name in all_names(folder):
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:  # a writer that is done with it has removed it meanwhile
            continue
        yield name, size


def all_names(folder: Place) -> Iterator[str]:
    """Yield the name, as seen from the folder, of every file below it, unsorted; as `names_below`."""
    if not isinstance(folder, Path):
        yield from (name for name, _ in _bucket().below(folder.url))
        return
    for above, _, names in os.walk(folder, onerror=_raise_unless_gone):
        inside = Path(above).relative_to(folder).as_posix()
        yield from (name if inside == "." else f"{inside}/{name}" for name in names)


def remove_files(places: Sequence[Place]) -> None:
    """Remove files or objects, those too that are not there."""
    for place in places:
        if isinstance(place, Path):
            place.unlink(missing_ok=True)
    if urls := [place.url for place in places if isinstance(place, RemoteFolder)]:
        _bucket().remove(urls)


def folder_names(folder: Place, pattern: str) -> list[str]:
    """Return the sorted names of the folders right below a folder that fit; as `names_below`."""
    return sorted(fnmatch.filter(_right_below(folder)[0], pattern))


def _right_below(folder: Place) -> tuple[list[str], list[str]]:
    """(names of the folders, names of the files) right below a folder."""
    if isinstance(folder, RemoteFolder):
        folders, names = _bucket().right_below(folder.url)
        return folders, names
    above, below = list[str](), list[str]()
    # not by `glob`, which takes a folder that it may not read for an empty one
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            (above if entry.is_dir() else below).append(entry.name)
    return above, below


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def move_store(store: Place, target: Place) -> None:
    """Give a store another name beside it; an object store copies each object for that.

    A stop half-way leaves the store whole under one name, or under both.
    """
    if isinstance(store, Path) and isinstance(target, Path):
        store.rename(target)
        flush_folders({store.parent, target.parent})
        return
    assert isinstance(store, RemoteFolder)  # a name beside it is of the same kind
    assert isinstance(target, RemoteFolder)
    _sweep_draft(target)
    _bucket().write(f"{target.url}/{_DRAFT}", b"")
    names = (name for name, _ in _bucket().below(store.url))
    while some := list(itertools.islice(names, _AT_ONCE)):
        _bucket().copy_each([(f"{store.url}/{name}", f"{target.url}/{name}") for name in some])
    _bucket().remove([f"{target.url}/{_DRAFT}"])
    remove_store(store)


def remove_store(store: Place) -> None:
    """Remove a store; a stop half-way leaves no half of it in place."""
    if isinstance(store, Path):
        aside = store.with_name(f".{store.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        store.rename(aside)
        shutil.rmtree(aside)
        return
    _bucket().write(f"{store.url}/{_DRAFT}", b"")
    _sweep_draft(store)


def _sweep_draft(store: RemoteFolder) -> None:
    """Remove what is left of a store that was being made or removed."""
    if not _bucket().exist([f"{store.url}/{_DRAFT}"])[0]:
        return
    names = (name for name, _ in _bucket().below(store.url) if name != _DRAFT)
    while some := list(itertools.islice(names, _AT_ONCE)):
        _bucket().remove([f"{store.url}/{name}" for name in some])
    _bucket().remove([f"{store.url}/{_DRAFT}"])  # last: as long as it is there, there is no store


def put_store(store: RemoteFolder, objects: Iterable[tuple[str, bytes]]) -> None:
    """Put the objects (name, content) of a new store; it is there when all of them are.

    Raises `FileExistsError` if something else lies there.
    """
    _sweep_draft(store)
    if store.exists():
        raise FileExistsError(f"something lies at {store.url!r} already")
    _bucket().write(f"{store.url}/{_DRAFT}", b"")
    for name, content in objects:
        _bucket().write(f"{store.url}/{name}", content)
    _bucket().remove([f"{store.url}/{_DRAFT}"])


def _bucket() -> ModuleType:
    """Return what asks object stores, which is optional; `InputError` if it is not installed."""
    from cube import bucket

    return bucket
