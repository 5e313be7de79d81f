"""A `[cluster]` section in, a Dask client with workers out: the only place that makes one."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import dask
from distributed import Client, LocalCluster, Security

from cube.errors import InputError, WorkFailedError
from pipelines import stop
from pipelines.cluster.code import code_stamp
from pipelines.cluster.kinds import make_cluster
from pipelines.recipe_cluster import QUEUES, ClusterSection

_ANSWER = 30.0
"""Seconds within which a scheduler that is there answers."""

_RESTART = "120s"
"""Time within which a process of this machine that died is there again."""

_LOOK = 0.5
"""Seconds between two looks at how many workers have come."""

_SETTINGS = {
    # a failed tile is told once, by us, with its place; here and in worker processes
    "logging": {"distributed": "critical"},
    # a tile whose worker died twice may have killed it: what is tried next is our decision
    "distributed.scheduler.allowed-failures": 1,
}

_asked: WeakKeyDictionary[Client, ClusterSection] = WeakKeyDictionary()


def asked_of(client: Client) -> ClusterSection:
    """Return what the recipe says of a client's cluster; the defaults for one made elsewhere."""
    return _asked.get(client, ClusterSection())


def replace_lost(client: Client) -> None:
    """Start processes of this machine anew that are gone for good.

    Dask starts one again that died, but drops one that has not come back within seconds.
    """
    section = asked_of(client)
    if section.kind == "local" and section.maximum is None:
        cluster: Any = client.cluster
        if len(cluster.workers) < len(cluster.worker_spec):
            cluster.scale(len(cluster.worker_spec))


@contextlib.contextmanager
def connect(section: ClusterSection) -> Iterator[Client]:
    """Yield a Dask client for the recipe's cluster, which has workers; close it afterwards.

    "threads" (and "auto", unless `settled`) runs tasks in this process, "local" in processes of
    this machine, "scheduler" on a running cluster; others are made, and ended with the run.

    Raises `InputError` if a scheduler does not answer within 30 seconds, a package is missing, or
    workers have other code; `WorkFailedError` if no worker comes within `cluster.timeout`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        if section.kind in ("auto", "threads", "local"):
            cluster = stack.enter_context(_on_this_machine(section, stack))
            client = stack.enter_context(Client(cluster))
        elif section.kind == "scheduler":
            client = stack.enter_context(_client_of_scheduler(section))
        else:
            cluster = stack.enter_context(contextlib.closing(make_cluster(section)))
            client = stack.enter_context(_client_of(cluster, section))
        _asked[client] = section
        _wait_for_workers(client, section)
        if section.is_elsewhere:
            _refuse_other_code(client)
        yield client


def _on_this_machine(section: ClusterSection, stack: contextlib.ExitStack) -> LocalCluster:
    is_threads = section.kind != "local"
    workers = section.workers or section.maximum or os.cpu_count() or 1
    # else a process that takes long to import everything again is not waited for
    stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": _RESTART}))
    cluster = LocalCluster(
        **{
            "n_workers": 1 if is_threads else workers,
            "threads_per_worker": workers if is_threads else 1,
            "processes": not is_threads,
            # without an address Dask takes port 8787 even for no dashboard, and warns if it is taken
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": section.dashboard},
            "silence_logs": logging.CRITICAL,
            # tiles are bounded by plan, and other programs share the machine
            "memory_limit": 0,
            # loopback also for threads: dask's in-process protocol asks for the
            # machine's outer address, and what pickles here pickles on a cluster
            "protocol": "tcp://",
            "host": "127.0.0.1",
            **section.options,
        }
    )
    if section.maximum is not None:
        cluster.adapt(minimum=section.minimum or 0, maximum=section.maximum)
    return cluster


def _client_of(cluster: Any, section: ClusterSection) -> Client:
    try:
        found: Client = cluster.get_client() if hasattr(cluster, "get_client") else Client(cluster)
    except (OSError, TimeoutError) as error:
        raise WorkFailedError(
            f"the cluster of cluster.kind {section.kind!r} was made, but does not answer: {error}"
        ) from error
    return found


def _client_of_scheduler(section: ClusterSection) -> Client:
    where: dict[str, Any] = {"address": section.address}
    if section.scheduler_file is not None:
        if not section.scheduler_file.is_file():
            raise InputError(
                f"cluster.scheduler_file {str(section.scheduler_file)!r} does not exist; the "
                "scheduler writes it when it starts (dask scheduler --scheduler-file FILE)"
            )
        where = {"scheduler_file": str(section.scheduler_file)}
    if section.tls_ca_file is not None:
        where["security"] = Security(
            tls_ca_file=str(section.tls_ca_file),
            tls_client_cert=str(section.tls_cert),
            tls_client_key=str(section.tls_key),
            require_encryption=True,
        )
    named = section.address or str(section.scheduler_file)
    try:
        Client(**where, timeout=_ANSWER).close()
        # it may be lost later, and is waited for as long as the recipe says then
        return Client(**where, timeout=section.timeout)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"cluster.address {named!r} does not answer: {' '.join(str(error).split())[:200]}"
        ) from error


def _wait_for_workers(client: Client, section: ClusterSection) -> None:
    """Wait until the first workers are there; those that are asked for beside them may come later."""
    wanted = max(section.minimum or 0, 1)
    deadline = time.monotonic() + section.timeout
    while (found := len(client.nthreads())) < wanted:
        stop.raise_if_asked()
        if section.maximum is not None and not section.minimum:
            return  # it grows as soon as there is something to do
        if time.monotonic() > deadline:
            asked = f"{section.workers or section.minimum or 'any number of'} workers"
            raise WorkFailedError(
                f"cluster.kind {section.kind!r}: {asked} were asked for, {found} came within "
                f"cluster.timeout = {section.timeout:g} s. {_logs_of(section)}"
            )
        time.sleep(_LOOK)


def _logs_of(section: ClusterSection) -> str:
    """Return where it may stand why no worker came."""
    if section.kind in QUEUES:
        is_told = "log_directory" in section.options
        where = "in options.log_directory" if is_told else "where the command was run"
        return f"The queue says whether jobs wait; their logs are {where}"
    if section.kind == "scheduler":
        return "Start some with `dask worker ADDRESS`; the logs are with those who start them"
    if section.kind == "kubernetes":
        return "`kubectl get pods` says what they wait for, `kubectl logs POD` what they say"
    return "Their logs are with the service that starts them"


def _refuse_other_code(client: Client) -> None:
    """Raise `InputError` unless scheduler and workers have this very code."""
    try:
        found = {"the scheduler": client.run_on_scheduler(code_stamp)}
    except Exception as error:
        raise InputError(
            f"the scheduler cannot import canopycube ({' '.join(str(error).split())[:150]}); "
            "install this version there and on every worker"
        ) from error
    for address, stamp in client.run(code_stamp, on_error="return").items():
        found[f"worker {address}"] = stamp
    for who, stamp in found.items():
        if stamp != code_stamp():
            raise InputError(
                f"{who} has canopycube {stamp if isinstance(stamp, str) else repr(stamp)[:150]}, "
                f"this program is {code_stamp()}; install the same version on both"
            )
