"""One forest built and mapped by other numbers and kinds of workers, in other orders: the same bytes."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cube.errors import InputError
from pipelines.cluster.parcels import Parcel, close_parcel, open_parcel
from pipelines.lazy_map import classifier_files, classifier_stamp, load_once
from pipelines.recipe import read_recipe
from pipelines.run import open_run
from tests.chaos.cluster import free_port
from tests.chaos.hosts import Host
from tests.chaos.processes import Process, start, wait_until
from tests.chaos.site import Site, write_site
from tests.chaos.stores import differences

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("site"), tile=32, last="2022-06")


@pytest.fixture(name="made_by")
def _made_by(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Return a function that builds and maps on a cluster: what differs from the undisturbed run."""
    monkeypatch.setenv("CANOPYCUBE_CACHE", site.environment["CANOPYCUBE_CACHE"])
    with site.outputs("other") as outputs:

        def make(*overrides: str) -> list[str]:
            recipe = read_recipe(site.recipe, (f"outputs.folder='{outputs}'", *overrides))
            with open_run(recipe) as run:
                assert run.build()["built_now"] == 16
                assert run.map()["mapped_now"] == 16
            stores = ("cube.zarr", "map.zarr")
            return [
                told
                for store in stores
                for told in differences(site.undisturbed / store, outputs / store)
            ]

        yield make


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("threads", 2),
        ("threads", 4),
        ("local", 2),
        pytest.param("local", 1, marks=pytest.mark.slow),
        pytest.param("local", 4, marks=pytest.mark.slow),
    ],
)
def test_workers_do_not_change_a_byte(
    made_by: Callable[..., list[str]], kind: str, workers: int
) -> None:
    assert made_by(f"cluster.kind={kind}", f"cluster.workers={workers}") == []


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_tiles_does_not_change_a_byte(
    made_by: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    orders: list[list[str]] = []

    def shuffled(tiles: Sequence[Any]) -> list[Any]:
        mixed = random.Random(seed).sample(list(tiles), len(tiles))
        orders.append([tile.id for tile in mixed])
        return mixed

    monkeypatch.setattr("pipelines.build_cube.along_curve", shuffled)
    monkeypatch.setattr("pipelines.map_species.along_curve", shuffled)
    assert made_by("cluster.kind=threads", "cluster.workers=2") == []
    assert [len(order) for order in orders] == [16, 16]
    assert all(order != sorted(order) for order in orders)


@pytest.mark.slow
@pytest.mark.skipif(FAKETIME is None, reason="needs Debian's libfaketime")
def test_clocks_of_workers_that_are_a_day_off_do_not_change_a_byte(
    made_by: Callable[..., list[str]], tmp_path: Path
) -> None:
    here, address = Host(address="127.0.0.1"), f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    with ExitStack() as stack:

        def run(name: str, *words: str, clock: str | None = None) -> Process:
            skew = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": clock} if clock else {}
            process = start(
                name,
                ["dask", *words],
                host=here,
                folder=tmp_path,
                # only dates are wrong: what the system measures waits by is not
                environment={**skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
            )
            stack.callback(process.kill)
            return process

        run("scheduler", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        workers = [
            run(f"worker{clock}", "worker", address, "--nthreads", "1", "--no-nanny", clock=clock)
            for clock in ("+1d", "-1d")
        ]
        for worker in workers:
            wait_until(
                lambda worker=worker: "Registered to" in worker.last_words(9000),
                seconds=120,
                what="both workers joined",
                processes=workers,
            )
        assert made_by("cluster.kind=scheduler", f"cluster.address={address}") == []
        dates = {worker.last_words(9000)[:10] for worker in workers}
        assert len(dates) == 2, "the clocks do not differ"


def test_a_worker_refuses_a_classifier_that_is_not_the_clients(site: Site, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(site.undisturbed / "classifier", tmp_path / "classifier"))
    stamp = classifier_stamp(folder)
    files = classifier_files(folder, stamp)
    changed = {name: content.replace(b"lda", b"LDA") for name, content in files.items()}
    assert changed != files
    parcel = Parcel(files=changed)
    open_parcel(parcel)
    try:
        with pytest.raises(InputError, match="did not arrive as it was sent; run again"):
            load_once(folder, stamp)
    finally:
        close_parcel(parcel)
    assert load_once(folder, stamp).fingerprint
    (folder / "classifier.json").write_bytes((folder / "classifier.json").read_bytes() + b"\n")
    with pytest.raises(InputError, match="was replaced while it was in use; run again"):
        classifier_files(folder, stamp)
