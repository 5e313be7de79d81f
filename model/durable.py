"""Bytes in, a file that holds them out: whole or not at all, also if the power fails."""

import os
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

Array = TypeVar("Array")


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step: a reader sees the old one or the new one, never a part.

    If writing fails the old file stays. Raises `OSError`.
    """
    # a name of its own for every writer, so that two do not disturb each other
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def named_by_hash(kind: str, digest: str) -> str:
    """Return the file name of arrays (`weights`, `state`) whose SHA-256 is `digest`.

    Raises `ValueError` for what is no such hash: a path that a file names leads nowhere.
    """
    if not is_digest(digest):
        raise ValueError(f"{digest!r:.80} is no hash of a file")
    return f"{kind}-{digest[:16]}.safetensors"


def write_by_hash(folder: Path, kind: str, data: bytes) -> str:
    """Write arrays under the name of their hash, which is returned; replaces nothing else."""
    digest = sha256(data).hexdigest()
    replace_file(folder / named_by_hash(kind, digest), data)
    return digest


def remove_others(folder: Path, kind: str, digest: str) -> None:
    """Remove the arrays of earlier writings, once nothing names them any more."""
    for stale in folder.glob(f"{kind}-*.safetensors"):
        if stale.name != named_by_hash(kind, digest):
            stale.unlink(missing_ok=True)


def below(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin with `prefix`, by what follows it."""
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def is_digest(text: object) -> bool:
    """Say whether `text` is a SHA-256 in hexadecimal, as `hexdigest` writes it."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")
