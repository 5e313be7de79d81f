"""A NetCDF file of the classic formats in, the bytes it must have out: what tells a cut-off one.

The NetCDF library reads beyond the end of such a file as zeros, without an error, and zero is what
most products call nodata. HDF5, under NetCDF-4, notices itself. Format: NetCDF Users Guide,
"File Format Specifications" (CDF-1, CDF-2 and CDF-5).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Bytes of one value by the number of its type: byte, char, short … uint64."""

_UNKNOWN_RECORDS = (2**32 - 1, 2**64 - 1)
"""Number of records in a file that was streamed and never finished."""


def classic_size(path: Path) -> int | None:
    """Return how many bytes a classic NetCDF file has at least, by its header.

    None for a file of another format. Raises `ValueError` for a header that is cut off or damaged.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\1", b"\2", b"\5"):
            return None
        try:
            return _Header(file=file, version=magic[3], length=path.stat().st_size).size()
        except IndexError as error:
            raise ValueError("its header names a dimension that is not there") from error


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The header of one file, read from front to back."""

    file: BinaryIO
    """Open after the magic number."""
    version: int
    """1, 2 (64-bit offsets) or 5 (64-bit sizes too)."""
    length: int
    """Bytes of the file."""

    def size(self) -> int:
        """Where the last value ends."""
        records = self._size()
        dims = [self._dim() for _ in range(self._length())]
        self._skip_attributes()
        variables = [self._variable(dims) for _ in range(self._length())]
        ends = [self.file.tell()]
        ends += [begin + size for is_record, size, begin in variables if not is_record]
        slices = [(size, begin) for is_record, size, begin in variables if is_record]
        if records and records not in _UNKNOWN_RECORDS:
            # one record variable alone is not padded
            step = slices[0][0] if len(slices) == 1 else sum(_padded(size) for size, _ in slices)
            ends += [begin + (records - 1) * step + size for size, begin in slices]
        return max(ends)

    def _variable(self, dims: list[int]) -> tuple[bool, int, int]:
        """(whether it has the record dimension, bytes of it or of one record, where it begins)."""
        self._skip_name()
        own = [dims[place] for place in (self._size() for _ in range(self._size()))]
        self._skip_attributes()
        value = self._value_bytes()
        self._size()  # the size as the writer counted it, which cannot tell beyond 4 GB
        begin = self._number(4 if self.version == 1 else 8)
        is_record = bool(own) and own[0] == 0
        return is_record, value * math.prod(own[1:] if is_record else own), begin

    def _dim(self) -> int:
        self._skip_name()
        return self._size()

    def _skip_attributes(self) -> None:
        for _ in range(self._length()):
            self._skip_name()
            value = self._value_bytes()
            self._skip(self._size() * value)

    def _skip_name(self) -> None:
        self._skip(self._size())

    def _skip(self, count: int) -> None:
        if count > self.length:
            raise ValueError("its header is cut off")
        self.file.seek(_padded(count), 1)

    def _length(self) -> int:
        """Read the head of a list: its tag, and how many entries follow."""
        self._number(4)
        return self._size()

    def _value_bytes(self) -> int:
        kind = self._number(4)
        if kind not in _VALUE_BYTES:
            raise ValueError(f"its header names a type {kind}")
        return _VALUE_BYTES[kind]

    def _size(self) -> int:
        return self._number(8 if self.version == 5 else 4)

    def _number(self, count: int) -> int:
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError("its header is cut off")
        return int.from_bytes(data, "big")


def _padded(count: int) -> int:
    return -(-count // 4) * 4
