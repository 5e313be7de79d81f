"""Text or written files in, the same on the disk out: what a power cut may not take back."""

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)
"""What a system says of a disk that is full, read-only, broken or gone."""

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that keep no folder entries back, and so cannot flush them."""


def replace_text(path: Path, text: str) -> None:
    """Write a small text file as UTF-8, as `replace_bytes` does."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a small file: afterwards `path` holds all of `content`, also if power fails.

    A reader sees the old file or the new one, never a part; if writing fails the old one stays.
    Two writers do not disturb each other: the later one's text remains. Raises `OSError`.
    """
    # a name of its own: another host may use the same process id on a shared disk
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        _write_draft(draft, content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    flush_folders([path.parent])


def create_bytes(path: Path, content: bytes) -> bool:
    """Write a small file where there is none; False, and nothing changed, if there is one.

    Of two that try at once, on whatever hosts, one succeeds: a name is linked once. Raises `OSError`.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        _write_draft(draft, content)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    flush_folders([path.parent])
    return True


def _write_draft(draft: Path, content: bytes) -> None:
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_files(paths: Iterable[Path]) -> None:
    """Wait until the bytes of files that were written are on the disk; raises `OSError`."""
    for path in paths:
        _flush(path)


def flush_folders(paths: Iterable[Path]) -> None:
    """Wait until it is on the disk which files lie in folders; raises `OSError`."""
    for path in paths:
        try:
            _flush(path)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
