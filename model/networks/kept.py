"""A function in, the same compiled out, kept on disk for as long as what it is made of.

Numba keeps a compiled function until the file changes that it stands in. Ours are also made of
what other files emit (`cell`, `vectors` …), so that after an upgrade an old kernel would go on. And
numba numbers its files by an index that two processes may write at once, so that one could get the
code of other types: ours have an index for each.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

_NETWORKS = Path(__file__).parent

_log = logging.getLogger(__name__)


def sources() -> tuple[Path, ...]:
    """Return the files whose contents may go into functions of other files."""
    own = (_NETWORKS / f"{name}.py" for name in ("kernel", "target", "vectors"))
    return (*sorted((_NETWORKS.parent / "engines").glob("*.py")), *own)


_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()


class _Files:
    """Numba's files, but with an index for each key, which nobody else's code is entered in."""

    def __init__(self, *, cache_path: str, filename_base: str, source_stamp: Any) -> None:
        self._folder, self._base = cache_path, filename_base
        self._stamp = source_stamp, _SOURCES

    def _of(self, key: tuple[Any, ...]) -> IndexDataCacheFile:
        # what is out of date has the name of what takes its place
        digest = hashlib.sha256(repr(key[:2]).encode()).hexdigest()[:32]
        return IndexDataCacheFile(  # type: ignore[no-untyped-call]
            cache_path=self._folder,
            filename_base=f"{self._base}.{digest}",
            source_stamp=self._stamp,
        )

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        files = self._of(key)
        if self.load(key) is None:  # so is a damaged index, which could not be added to
            files.flush()  # type: ignore[no-untyped-call]
        files.save(key, data)  # type: ignore[no-untyped-call]

    def load(self, key: tuple[Any, ...]) -> Any:
        try:
            return self._of(key).load(key)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - whatever numba makes of a damaged file
            return None

    def flush(self) -> None:
        """Remove nothing: what is out of date is not read."""


class _Cache(FunctionCache):
    """Numba's, with files of our own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = _Files(  # type: ignore[assignment]
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            _tell_once(str(error))


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the interpreter's lock; `options` are those of `numba.njit`.

    Where no folder can be written, every process compiles it again, with a warning.
    """

    def compile_kept(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        if not isinstance(dispatcher, Dispatcher):  # numba is told to compile nothing
            return dispatcher
        try:
            dispatcher._cache = _Cache(function)  # type: ignore[attr-defined]
        except RuntimeError as error:  # numba's for having found no folder
            _tell_once(str(error))
        return dispatcher

    return compile_kept


_told: list[str] = []


def _tell_once(reason: str) -> None:
    """Warn of the first of what is mostly the same for all functions."""
    if not _told:
        _log.warning(
            "compiled functions are not kept on disk, every process compiles them again: %s; set "
            "NUMBA_CACHE_DIR to a folder that can be written",
            reason,
        )
    _told.append(reason)
