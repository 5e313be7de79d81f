"""Kinds of clusters: what is made of a recipe's `[cluster]`, and what is said when it cannot be."""

import gc
import socket
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from dask.delayed import delayed
from distributed import LocalCluster
from pydantic import ValidationError

from cube.errors import InputError, WorkFailedError
from pipelines import recipe_cluster
from pipelines.cluster import TileWork, client, connect, kinds, run_tasks
from pipelines.cluster.kinds import cluster_class, make_cluster
from pipelines.recipe import ClusterSection
from pipelines.recipe_cluster import ENTRY_POINTS, FEW_TILES

QUEUE_OPTIONS = {
    "cores": 4,
    "processes": 2,
    "memory": "16GB",
    "walltime": "02:00:00",
    "interface": "lo",
    "job_script_prologue": ["module load canopycube"],
}


@pytest.fixture
def _adds_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this module add the kinds "mine" and "broken"."""
    added = EntryPoints(
        EntryPoint(name=name, value=f"{module}:Mine", group=ENTRY_POINTS)
        for name, module in (("mine", "a_package_of_the_tests"), ("broken", "no_such_package"))
    )
    found: Callable[..., EntryPoints] = lambda **named: added.select(**named)  # noqa: E731
    monkeypatch.setattr(kinds, "entry_points", found)
    monkeypatch.setattr(recipe_cluster, "entry_points", found)
    package = type(sys)("a_package_of_the_tests")
    package.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_package_of_the_tests", package)


class Mine(LocalCluster):  # type: ignore[misc]
    """A cluster that another package could bring."""

    made: dict[str, Any] = {}  # noqa: RUF012 - what it was made with

    def __init__(self, *, colour: str = "none", **more: Any) -> None:
        Mine.made = {"colour": colour, **more}
        super().__init__(
            n_workers=0, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", **more,
        )  # fmt: skip


def test_auto_takes_threads_for_few_tiles_and_processes_for_more() -> None:
    section = ClusterSection(workers=3)
    assert section.settled(FEW_TILES).kind == "threads"
    assert section.settled(FEW_TILES + 1).kind == "local"
    assert section.settled(FEW_TILES + 1).workers == 3
    assert ClusterSection(workers=1).settled(10_000).kind == "threads"
    assert ClusterSection(kind="threads").settled(10_000).kind == "threads"
    assert not section.is_elsewhere
    assert ClusterSection(kind="slurm", maximum=8).is_elsewhere
    assert ClusterSection(kind="slurm", maximum=8).most_workers == 8


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "slrm"}, "found 'slrm'; expected 'auto', 'threads', .*'coiled', or one that an"),
        ({"kind": "scheduler"}, "address goes with kind = 'scheduler', and only with it, or sched"),
        ({"address": "tcp://a:1"}, "address goes with kind = 'scheduler'"),
        ({"kind": "scheduler", "address": "10.0.0.5:8786"}, "expected e.g. 'tcp://10.0.0.5:8786'"),
        ({"kind": "scheduler", "address": "tls://a:1"}, "tls:// needs tls_ca_file, tls_cert and"),
        ({"kind": "slurm"}, "kind = 'slurm' needs workers, or minimum and maximum"),
        ({"kind": "slurm", "minimum": 1}, "give either workers, or maximum with or without"),
        ({"kind": "slurm", "maximum": 1, "workers": 1}, "give either workers, or maximum"),
        ({"kind": "slurm", "minimum": 3, "maximum": 2}, "minimum 3 is above maximum 2"),
        ({"kind": "threads", "maximum": 2}, "minimum and maximum do not go with kind = 'threads'"),
        ({"options": {"a": 1}}, "options do not go with kind = 'auto'"),
        ({"kind": "slurm", "workers": 1, "options": "secret"}, "expected a table of keys and val"),
        ({"timeout": 0.0}, "greater than 0"),
        ({"retries": -1}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ClusterSection(**values)


def test_options_are_not_shown() -> None:
    section = ClusterSection(kind="slurm", workers=1, options={"password": "hunter2"})
    assert "hunter2" not in f"{section!r} {section}"


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("slurm", {"queue": "long", "account": "forest"},
         ["#SBATCH -p long", "#SBATCH -A forest", "#SBATCH -n 1", "#SBATCH --cpus-per-task=4",
          "#SBATCH --mem=15G", "#SBATCH -t 02:00:00"]),
        ("pbs", {"queue": "long"},
         ["#PBS -q long", "#PBS -l select=1:ncpus=4:mem=15GB", "#PBS -l walltime=02:00:00"]),
        ("sge", {"queue": "long"}, ["#$ -q long", "#$ -l h_rt=02:00:00"]),
        ("lsf", {"queue": "long", "use_stdin": True}, ["#BSUB -q long", "#BSUB -n 4"]),
        ("oar", {"queue": "long"}, ["#OAR -q long", "#OAR -l /nodes=1/core=4,walltime=02:00:00"]),
    ],
)  # fmt: skip
def test_queues_get_a_job_that_starts_workers(
    kind: str, options: dict[str, Any], expected: list[str]
) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue (canopycube[cluster])")
    make = cluster_class(kind)
    section = ClusterSection(kind=kind, workers=1, options={**QUEUE_OPTIONS, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that we only call
        cluster = make(**kinds._options_for(make, section))
        try:
            script = cluster.job_script()
        finally:
            cluster.close()
    for line in expected:
        assert line in script, script
    assert "module load canopycube" in script
    assert "--nworkers 2" in script
    assert "--nthreads 2" in script
    assert "distributed.cli.dask_worker tcp://127.0.0.1:" in script or "dask worker" in script


def test_htcondor_gets_a_job_that_starts_workers() -> None:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue (canopycube[cluster])")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = cluster_class("htcondor")
        options = {"cores": 4, "memory": "16GB", "disk": "8GB", "interface": "lo"}
        section = ClusterSection(kind="htcondor", maximum=2, options=options)
        cluster = make(**kinds._options_for(make, section))
        try:
            script = cluster.job_script()
        finally:
            cluster.close()
    assert "RequestCpus = MY.DaskWorkerCores" in script
    assert "DaskWorkerCores = 4" in script


def test_kubernetes_gets_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the real class would create is kept in place of being created."""
    found = pytest.importorskip(
        "dask_kubernetes.operator.kubecluster.kubecluster",
        reason="needs dask-kubernetes (canopycube[cluster])",
    )
    manifests: list[dict[str, Any]] = []

    class Server:
        """Stands for what the class tells the cluster's server."""

        def __init__(self, named: Any, namespace: str) -> None:
            if isinstance(named, dict):
                manifests.append({**named, "namespace": namespace})

        def __await__(self) -> Any:
            return self
            yield

        async def exists(self) -> bool:
            return False

        async def create(self) -> None:
            raise PermissionError("no rights to create anything")

    async def watch(self: Any) -> None:
        pass

    monkeypatch.setattr(found, "DaskCluster", Server)
    monkeypatch.setattr(found.KubeCluster, "_watch_component_status", watch)
    options = {
        "name": "forest", "namespace": "maps", "image": "ours:1.0", "quiet": True,
        "env": {"AWS_REGION": "eu-central-1"}, "resources": {"limits": {"memory": "8Gi"}},
    }  # fmt: skip
    section = ClusterSection(kind="kubernetes", workers=5, options=options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what is half made is closed by nobody
        with pytest.raises(WorkFailedError, match="'kubernetes' cannot be made: PermissionError"):
            make_cluster(section)
        gc.collect()
    (manifest,) = manifests
    assert manifest["kind"] == "DaskCluster"
    assert manifest["metadata"]["name"] == "forest"
    assert manifest["namespace"] == "maps"
    assert manifest["spec"]["worker"]["replicas"] == 5
    (container,) = manifest["spec"]["worker"]["spec"]["containers"]
    assert container["image"] == "ours:1.0"
    assert container["resources"] == {"limits": {"memory": "8Gi"}}
    assert {"name": "AWS_REGION", "value": "eu-central-1"} in container["env"]


@pytest.mark.usefixtures("_adds_kinds")
def test_other_packages_add_kinds() -> None:
    section = ClusterSection(kind="mine", workers=2, options={"colour": "green"}, dashboard=False)
    found: dict[str, int] = {}
    with connect(section) as opened:
        work: TileWork[Any] = TileWork(
            step="test", delay=lambda some: [delayed(len)(one.id) for one in some]
        )
        run_tasks(opened, [_Named("a"), _Named("bcd")], work, on_done=found.__setitem__)
    assert found == {"a": 1, "bcd": 3}
    assert Mine.made["colour"] == "green"


class _Named:
    def __init__(self, name: str) -> None:
        self.id = name


@pytest.mark.usefixtures("_adds_kinds")
def test_a_package_that_is_broken_or_missing_is_told() -> None:
    with pytest.raises(InputError, match=r"cluster.kind 'broken' cannot be had from 'no_such_pack"):
        cluster_class("broken")
    with pytest.raises(InputError, match="of a package that is not installed any more"):
        cluster_class("gone")


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dask_jobqueue", "coiled"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"'slurm' needs .*pip install 'canopycube\[cluster\]'"):
        make_cluster(ClusterSection(kind="slurm", workers=1))
    with pytest.raises(InputError, match=r"cluster.kind 'coiled' needs .*pip install 'coiled'"):
        make_cluster(ClusterSection(kind="coiled", workers=1))


@pytest.mark.usefixtures("_adds_kinds")
def test_what_a_class_refuses_is_told_without_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise ValueError(f"cannot log in with {options}")

    monkeypatch.setattr(kinds, "cluster_class", lambda kind: refuse)
    section = ClusterSection(
        kind="mine",
        workers=1,
        options={"login": {"token": "hunter2", "key": "a\nb  c"}, "hosts": ["secret.host"]},
    )
    with pytest.raises(InputError, match="'mine' cannot be made: ValueError: cannot log") as raised:
        make_cluster(section)
    for part in ("hunter2", "b  c", "b c", "secret.host"):
        assert part not in str(raised.value)


@pytest.mark.usefixtures("_adds_kinds")
def test_a_cluster_that_gives_no_workers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    class Stingy:
        def scale(self, workers: int) -> None:
            raise PermissionError(f"no rights to have {workers}")

        def close(self) -> None:
            ended.append(True)

    monkeypatch.setattr(kinds, "cluster_class", lambda kind: Stingy)
    with pytest.raises(WorkFailedError, match="PermissionError: no rights to have 2"):
        make_cluster(ClusterSection(kind="mine", workers=2))
    assert ended == [True]


@pytest.mark.usefixtures("_adds_kinds")
def test_a_cluster_without_workers_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_ask_for_workers", lambda cluster, section: None)
    section = ClusterSection(kind="mine", workers=2, timeout=0.5, dashboard=False)
    with (
        pytest.raises(
            WorkFailedError,
            match=r"'mine': 2 workers were asked for, 0 came within cluster.timeout = 0.5 s\. Their",
        ),
        connect(section),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "_ANSWER", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        section = ClusterSection(kind="scheduler", address=address)
        with (
            pytest.raises(InputError, match=f"cluster.address '{address}' does not answer"),
            connect(section),
        ):
            pass
    section = ClusterSection(kind="scheduler", scheduler_file=tmp_path / "none.json")
    with (
        pytest.raises(InputError, match=r"scheduler_file .*none.json' does not exist; the sched"),
        connect(section),
    ):
        pass


def test_a_cluster_of_this_machine_grows_with_the_work() -> None:
    """From no worker to two and back to none, as there is something to do."""

    def wait(name: str) -> str:
        import time

        time.sleep(0.2)
        return name

    task = delayed(wait, pure=False)
    work: TileWork[Any] = TileWork(step="test", delay=lambda some: [task(one.id) for one in some])
    tiles = [_Named(str(number)) for number in range(12)]
    found: dict[str, str] = {}
    section = ClusterSection(kind="local", minimum=0, maximum=2, options={"n_workers": 0})
    with connect(section) as opened:
        assert not opened.nthreads()
        run_tasks(opened, tiles, work, on_done=found.__setitem__)
        assert 1 <= len(opened.nthreads()) <= 2
    assert len(found) == 12


def test_a_gateway_is_asked_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Gateway:
        def __init__(self, **options: Any) -> None:
            asked["gateway"] = options

        def new_cluster(self, **options: Any) -> str:
            asked["cluster"] = options
            return "a cluster"

    package = type(sys)("dask_gateway")
    package.Gateway = Gateway  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_gateway", package)
    monkeypatch.setattr(kinds, "_ask_for_workers", lambda cluster, section: None)
    options = {"address": "https://gateway.example", "cluster_options": {"worker_cores": 4}}
    section = ClusterSection(kind="gateway", maximum=4, options=options)
    assert make_cluster(section) == "a cluster"
    assert asked == {
        "gateway": {"address": "https://gateway.example"},
        "cluster": {"shutdown_on_close": True, "worker_cores": 4},
    }


def test_a_graphics_card_has_one_tile_at_a_time() -> None:
    def alone(name: str) -> bool:
        import time

        import numpy as np

        under_way = getattr(np, "_under_way", 0) + 1  # a place that the process's threads share
        np._under_way = under_way
        time.sleep(0.1)
        np._under_way -= 1
        return under_way == 1

    task = delayed(alone, pure=False)
    work: TileWork[Any] = TileWork(
        step="test", delay=lambda some: [task(one.id) for one in some], resource="GPU"
    )
    found: dict[str, bool] = {}
    options = {"threads_per_worker": 3, "resources": {"GPU": 1}}
    with connect(ClusterSection(kind="local", workers=1, options=options)) as opened:
        tiles = [_Named(str(number)) for number in range(6)]
        run_tasks(opened, tiles, work, on_done=found.__setitem__)
    assert found == {str(number): True for number in range(6)}
