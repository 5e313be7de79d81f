"""Numba's settings in, the processor features that it compiles for out.

`NUMBA_ENABLE_AVX`, `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` may hold it to fewer than there are, and
an instruction that LLVM was not allowed ends the process.
"""

from numba.core import config
from numba.core.codegen import get_host_cpu_features


def target_features() -> frozenset[str]:
    """Return the names, as LLVM has them, of what compiled code may use."""
    listed = config.CPU_FEATURES  # type: ignore[attr-defined]
    if listed is None:
        listed = get_host_cpu_features()  # type: ignore[no-untyped-call]
    return frozenset(name[1:] for name in listed.split(",") if name.startswith("+"))
