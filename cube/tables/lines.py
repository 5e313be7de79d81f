"""A text file in, plain or gzip; blocks of whole lines out, with their place in the file."""

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cube.errors import InputError

BLOCK_BYTES = 4 * 2**20
"""Bytes that are read at once: few enough that two threads' blocks and what becomes of them stay
below 200 MB, enough that starting on one costs nothing."""

_LONGEST_LINE = 2**20
"""Bytes of a row; more is no table."""

_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LONE_RETURN = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True, kw_only=True)
class LineBlock:
    """Some consecutive lines of a file."""

    text: bytes
    """Whole lines, as they are in the file."""
    first: int
    """Number of the first of them; the file's first line, its header, is 1."""
    is_open: bool = False
    """Whether the last line has no end, as in a file that was cut off."""

    @cached_property
    def count(self) -> int:
        """How many lines it has."""
        # NumPy counts eight times as fast as bytes do
        ends = np.count_nonzero(np.frombuffer(self.text, np.uint8) == ord("\n"))
        return int(ends) + self.is_open

    @property
    def lines(self) -> list[bytes]:
        """The lines, without their ends."""
        lines = self.text.split(b"\n")
        return [line.removesuffix(b"\r") for line in (lines if self.is_open else lines[:-1])]


def is_gzip(path: Path) -> bool:
    """Say whether a file begins as gzip does, whatever its name; raises `InputError`."""
    try:
        with path.open("rb") as file:
            return file.read(2) == _GZIP
    except OSError as error:
        raise InputError(f"{path.name!r} cannot be read: {error.strerror}") from error


def line_blocks(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Iterator[LineBlock]:
    """Yield a file's lines in order; the first block is the header line alone.

    Lines end in `\\n` or `\\r\\n`, mixed or not. Raises `InputError` for a file that is empty,
    cannot be read, ends before its gzip data do, is UTF-16 or HTML, or has a line that ends in a
    lone `\\r` or is longer than a megabyte.
    """
    with _open(path) as file:
        _refuse_no_text(_from(path, lambda: file.peek(1000)), path)
        header = _from(path, lambda: file.readline(_LONGEST_LINE)).removeprefix(_BYTE_ORDER_MARK)
        if not header:
            raise InputError(f"{path.name!r} is empty (0 bytes); export it again")
        yield _checked(LineBlock(text=header, first=1, is_open=not header.endswith(b"\n")), path)
        first = 2
        while text := _from(path, lambda: file.read(block_bytes)):
            if not text.endswith(b"\n"):
                text += _from(path, lambda: file.readline(_LONGEST_LINE))
            block = LineBlock(text=text, first=first, is_open=not text.endswith(b"\n"))
            yield _checked(block, path)
            first += block.count


@contextlib.contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    is_packed = is_gzip(path)
    with path.open("rb") as file:
        yield io.BufferedReader(gzip.GzipFile(fileobj=file)) if is_packed else file


def _from(path: Path, read: Callable[[], bytes]) -> bytes:
    """Return what `read` gives of a file; `InputError` where its gzip data are broken."""
    try:
        return read()
    except EOFError as error:
        raise InputError(
            f"{path.name!r} ends before its gzip data do: it was cut off; export it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path.name!r} has damaged gzip data ({error}); fetch it again"
        ) from error


def _refuse_no_text(start: bytes, path: Path) -> None:
    if start.startswith(_WIDE_MARKS) or b"\0" in start[:1000]:
        raise InputError(f"{path.name!r} is UTF-16 or binary, no CSV in UTF-8; save it as UTF-8")
    text = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if text[:1] == b"<":
        raise InputError(
            f"{path.name!r} is a web page saved as a table (row 1 begins with "
            f"{text[:20].decode('utf-8', 'replace')!r}); export it again"
        )


def _checked(block: LineBlock, path: Path) -> LineBlock:
    """Refuse a block whose last line is too long, or with a line end of another kind."""
    last = len(block.text) - block.text.rfind(b"\n") - 1 if block.is_open else 0
    if last >= _LONGEST_LINE or (block.first == 1 and len(block.text) >= _LONGEST_LINE):
        row = block.first + block.count - 1
        raise InputError(f"{path.name!r}, row {row} is longer than a megabyte: no table")
    if b"\r" in block.text and (lone := _LONE_RETURN.search(block.text)):
        row = block.first + block.text.count(b"\n", 0, lone.start())
        raise InputError(
            f"{path.name!r}, row {row} has a line end of its own kind (a lone carriage return); "
            "rows end in \\n or \\r\\n: save the table again"
        )
    return block
