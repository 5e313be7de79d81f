"""A function in, the same compiled out, kept on disk for as long as what it is made of.

Numba keeps a compiled function until the file changes that it stands in. Ours are also made of
what other files emit (`cell`, `vectors` …), so that after an upgrade an old kernel would go on. And
numba numbers its files by an index that two processes may write at once, so that one could get the
code of other types: our files are named by what is in them, and say it themselves.
"""

import hashlib
import logging
import pickle
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


class _Files(IndexDataCacheFile):
    """A file for each key, without an index: what it was made of, then the compiled function."""

    def _path(self, key: tuple[Any, ...]) -> str:
        # what is out of date has the name of what takes its place
        digest = hashlib.sha256(repr(key[:2]).encode()).hexdigest()[:32]
        base = self._index_name.removesuffix(".nbi")
        return str(self._data_path(f"{base}.{digest}.nbc"))  # type: ignore[no-untyped-call]

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        made_of = self._version, self._source_stamp, _SOURCES
        body = self._dump((key, data))  # type: ignore[no-untyped-call]
        with self._open_for_write(self._path(key)) as file:
            pickle.dump(made_of, file)
            file.write(body)

    def load(self, key: tuple[Any, ...]) -> Any:
        try:
            with Path(self._path(key)).open("rb") as file:
                # numba's own format, in a folder whose owner could as well change the code; compared
                # first, for the rest may be of classes that there are no more
                if pickle.load(file) != (self._version, self._source_stamp, _SOURCES):  # noqa: S301
                    return None
                saved, data = pickle.load(file)  # noqa: S301
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        return data if saved == key else None

    def flush(self) -> None:
        """Remove nothing: what is out of date is not read."""


class _Cache(FunctionCache):
    """Numba's, with files of our own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = _Files(  # type: ignore[no-untyped-call]
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
