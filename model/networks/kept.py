"""A function in, the same compiled out, kept on disk for as long as what it is made of.

Numba keeps a compiled function until the file changes that it stands in. Ours are also made of
what other files emit (`cell`, `vectors` …), so that after an upgrade an old kernel would go on.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

_NETWORKS = Path(__file__).parent
_ENGINES = _NETWORKS.parent / "engines"

_SOURCES = hashlib.sha256(
    b"".join(
        path.read_bytes()
        for path in (
            *(
                _ENGINES / f"{name}.py"
                for name in ("arithmetic", "block", "cell", "program", "tiles")
            ),
            *(_NETWORKS / f"{name}.py" for name in ("kernel", "vectors")),
        )
    )
).hexdigest()
"""Of the files whose contents go into functions of other files."""


class _Cache(FunctionCache):
    """Numba's, whose keys know those files too."""

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        key: tuple[Any, ...] = super()._index_key(signature, codegen)  # type: ignore[no-untyped-call]
        return (*key, _SOURCES)


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the interpreter's lock; `options` are those of `numba.njit`."""

    def compile_kept(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, cache=True, **options)(function)
        dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
        return dispatcher

    return compile_kept
