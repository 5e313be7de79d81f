"""A file or a store in, a hash that changes when it does out."""

import glob
import hashlib
from pathlib import Path


def content_of_file(path: Path) -> str:
    """Return the SHA-256 of a label file and of what belongs to it (a shapefile is several)."""
    sha = hashlib.sha256()
    for part in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")):
        if part.is_file():
            sha.update(part.suffix.encode() + b"\0")
            with part.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def content_of_store(folder: Path) -> str:
    """Return the SHA-256 of every file of a store, with its name."""
    sha = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha.update(str(file.relative_to(folder)).encode() + b"\0")
        with file.open("rb") as opened:
            sha.update(hashlib.file_digest(opened, "sha256").digest())
    return sha.hexdigest()
