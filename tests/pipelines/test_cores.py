"""How many threads there are while tiles are worked on, and that nothing is left of it afterwards."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numcodecs.blosc
import pytest
import torch
import zarr
from dask.delayed import delayed
from threadpoolctl import threadpool_info

from pipelines.cluster import TileWork, connect, place_under_way, run_tasks
from pipelines.cores import Cores, kept_to, kept_to_together, own_cores, tiles_ahead
from pipelines.recipe import ClusterSection


@dataclass(frozen=True)
class _Tile:
    id: str


def _tiles(*names: str) -> list[_Tile]:
    return [_Tile(name) for name in names]


def _calls(function: Callable[[], Any]) -> TileWork[_Tile]:
    """Return work that calls a function once a tile."""
    call = delayed(function, pure=False)
    return TileWork(step="test", delay=lambda tiles: [call() for _ in tiles])


def _settings() -> dict[str, Any]:
    return {
        "blas": [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"],
        "zarr": zarr.config.get("threading.max_workers"),
        "blosc": numcodecs.blosc.use_threads,
        "numba": numba.config.NUMBA_NUM_THREADS,
        "gdal": os.environ.get("GDAL_NUM_THREADS"),
    }


@pytest.mark.parametrize(("kind", "cores"), [("threads", 2), ("local", 1)])
def test_every_library_keeps_to_the_cores_while_tasks_run(kind: str, cores: int) -> None:
    def look() -> dict[str, Any]:
        # all names from here: other processes do not know this module
        import os

        import numba
        import numcodecs.blosc
        import torch
        import zarr
        from threadpoolctl import threadpool_info

        from pipelines.cluster import place_under_way

        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        with place_under_way() as own:
            return {
                "cores": own.count,
                "torch": own.compute(torch.get_num_threads),
                "blas": set(blas),
                "zarr": zarr.config.get("threading.max_workers"),
                "blosc": numcodecs.blosc.use_threads,
                "numba": numba.config.NUMBA_NUM_THREADS,
                "gdal": os.environ["GDAL_NUM_THREADS"],
            }

    before, torch_before = _settings(), torch.get_num_threads()
    found: dict[str, Any] = {}
    with connect(ClusterSection(kind=kind, workers=2)) as client:
        run_tasks(client, _tiles("a", "b", "c"), _calls(look), on_done=found.__setitem__)
        assert own_cores() is None
    expected = {
        "cores": cores,
        "torch": 1,
        "blas": {1},
        "zarr": cores,
        "blosc": False,
        "numba": 1,
        "gdal": "1",
    }
    assert found == dict.fromkeys("abc", expected)
    assert _settings() == before
    assert torch.get_num_threads() == torch_before


def test_one_tile_more_is_under_way_than_computes() -> None:
    """Three tiles have been read before any is classified; two compute at once, never three."""
    all_read, both_compute = threading.Barrier(3), threading.Barrier(2)
    lock = threading.Lock()
    now, most = {"under way": 0, "computing": 0}, {"under way": 0, "computing": 0}
    seen = {"under way": 0, "computing": 0}

    def enter(name: str, barrier: threading.Barrier) -> None:
        with lock:
            now[name] += 1
            seen[name] += 1
            most[name] = max(most[name], now[name])
            is_first = seen[name] <= barrier.parties
        if is_first:
            barrier.wait(60)

    def leave(name: str) -> None:
        with lock:
            now[name] -= 1

    def compute() -> None:
        enter("computing", both_compute)
        leave("computing")

    def tile() -> None:
        with place_under_way() as cores:
            assert cores is not None
            enter("under way", all_read)
            cores.compute(compute)
            leave("under way")

    done: list[str] = []
    # serialisable only within this process, which is where threads run
    tiles = _tiles(*(str(number) for number in range(12)))
    with connect(ClusterSection(kind="threads", workers=2)) as client:
        run_tasks(client, tiles, _calls(_Held(tile)), on_done=lambda name, _: done.append(name))
    assert len(done) == 12
    assert most == {"under way": 2 + tiles_ahead(2), "computing": 2}


_HELD: list[Any] = []


class _Held:
    """Calls a function of this process that cannot travel."""

    def __init__(self, function: Any) -> None:
        _HELD.append(function)
        self.place = len(_HELD) - 1

    def __call__(self) -> Any:
        return _HELD[self.place]()


def test_errors_of_what_computes_come_back() -> None:
    def fail() -> None:
        raise KeyError("as it was")

    with kept_to(1) as cores, pytest.raises(KeyError, match="as it was"):
        cores.compute(fail)
    with pytest.raises(ValueError, match="0 cores; expected 1 or more"):
        Cores(0)


def test_without_a_worker_nobody_waits() -> None:
    with place_under_way() as cores:
        assert cores is None
    with kept_to(2) as kept, place_under_way() as cores:
        assert cores is kept


def test_who_leaves_first_takes_nothing_from_the_others() -> None:
    before = _settings()
    first, second = kept_to_together(2), kept_to_together(3)
    for _ in range(2):  # again after all have left
        first.__enter__()
        second.__enter__()
        cores = own_cores()
        assert cores is not None
        first.__exit__(None, None, None)
        assert own_cores() is cores
        assert cores.count == 2
        assert cores.compute(lambda: "still there") == "still there"
        second.__exit__(None, None, None)
        assert own_cores() is None
        assert _settings() == before
        first, second = kept_to_together(2), kept_to_together(1)
    with kept_to(1) as kept, kept_to_together(4):
        assert own_cores() is kept
    assert own_cores() is None
