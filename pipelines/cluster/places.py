"""A task in, its place among the tiles that are under way in this process out."""

import contextlib
from collections.abc import Iterator

from distributed import get_worker, secede

from pipelines.cores import Cores, own_cores


@contextlib.contextmanager
def place_under_way() -> Iterator[Cores | None]:
    """Wait for a place among the tiles that are under way in this process; keep it for the body.

    With a place a task leaves Dask's threads, so that the next one can ask: a tile is read and
    another written while as many compute as there are cores. Yields what this process keeps to,
    None where no worker has set that up; then nobody waits.
    """
    cores = own_cores()
    if cores is None:
        yield None
        return
    with cores.under_way:
        with contextlib.suppress(ValueError):  # no worker
            get_worker()
            secede()
        yield cores
