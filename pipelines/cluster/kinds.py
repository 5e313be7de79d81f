"""A kind of cluster in, the cluster out: imported only when asked for."""

import contextlib
import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import dask
from distributed import LocalCluster

from cube.errors import InputError, WorkFailedError
from pipelines.recipe_cluster import ENTRY_POINTS, QUEUES, ClusterSection

_CLASSES = {
    "slurm": ("dask_jobqueue", "SLURMCluster"),
    "pbs": ("dask_jobqueue", "PBSCluster"),
    "sge": ("dask_jobqueue", "SGECluster"),
    "lsf": ("dask_jobqueue", "LSFCluster"),
    "htcondor": ("dask_jobqueue", "HTCondorCluster"),
    "oar": ("dask_jobqueue", "OARCluster"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster"),
    "coiled": ("coiled", "Cluster"),
}
"""Module and class of a kind."""

_IN_EXTRA = ("dask_jobqueue", "dask_kubernetes", "dask_gateway")
"""Packages that the optional group `cluster` installs."""

_SCALED_AT_ONCE = ("kubernetes", "coiled")
"""Kinds whose class would begin with workers of its own choice."""

_HIDDEN = "…"


def make_cluster(section: ClusterSection) -> Any:
    """Return the cluster of a recipe, of a kind that makes one; its workers are asked for.

    Raises `InputError` if a package is missing or the class refuses `options`, `WorkFailedError` if
    what makes the cluster cannot be reached. No value of `options` is in their texts.
    """
    make = cluster_class(section.kind)
    options = _options_for(make, section)
    try:
        # what serves workers and dashboard is ours to choose here, as for `local`
        with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
            cluster = make(**options)
        with contextlib.ExitStack() as unasked:
            # or jobs and machines that nobody uses would stay
            unasked.enter_context(contextlib.closing(cluster))
            _ask_for_workers(cluster, section)
            unasked.pop_all()
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(_text(section, error)) from None
    except Exception as error:  # noqa: BLE001 - of packages that we do not know
        raise WorkFailedError(_text(section, error)) from None
    return cluster


def cluster_class(kind: str) -> Callable[..., Any]:
    """Return what makes clusters of a kind; `InputError` if its package is missing."""
    if kind == "gateway":
        return _gateway_cluster
    if kind == "local":
        return LocalCluster
    if kind not in _CLASSES:
        return _added(kind)
    module, name = _CLASSES[kind]
    found: Callable[..., Any] = getattr(_imported(kind, module), name)
    return found


def _imported(kind: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        wanted = "canopycube[cluster]" if package in _IN_EXTRA else package
        raise InputError(
            f"cluster.kind {kind!r} needs a package that is not here ({error}); "
            f"pip install '{wanted}'"
        ) from error


def _added(kind: str) -> Callable[..., Any]:
    """Return what an installed package adds under a name; `InputError` if it cannot be had."""
    found = list(entry_points(group=ENTRY_POINTS, name=kind))
    if not found:
        raise InputError(f"cluster.kind {kind!r} is of a package that is not installed any more")
    try:
        made: Callable[..., Any] = found[0].load()
    except Exception as error:
        raise InputError(
            f"cluster.kind {kind!r} cannot be had from {found[0].value!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return made


def _gateway_cluster(*, cluster_options: dict[str, Any] | None = None, **options: Any) -> Any:
    """Make a cluster on a Dask Gateway; `cluster_options` are the gateway's own."""
    gateway = _imported("gateway", "dask_gateway").Gateway(**options)
    return gateway.new_cluster(shutdown_on_close=True, **(cluster_options or {}))


def _options_for(make: Callable[..., Any], section: ClusterSection) -> dict[str, Any]:
    """Return the recipe's options; of a queue with a scheduler that takes any free port."""
    options = dict(section.options)
    if section.kind in QUEUES:
        # without an address Dask takes port 8787 even for no dashboard, and warns if it is taken
        wanted = {"dashboard_address": ":0", "dashboard": section.dashboard}
        options["scheduler_options"] = wanted | options.get("scheduler_options", {})
    elif section.kind in _SCALED_AT_ONCE and section.workers is not None:
        options.setdefault("n_workers", section.workers)
    elif not section.dashboard and "dashboard_address" in inspect.signature(make).parameters:
        options.setdefault("dashboard_address", "127.0.0.1:0")
    return options


def _ask_for_workers(cluster: Any, section: ClusterSection) -> None:
    if section.maximum is not None:
        cluster.adapt(minimum=section.minimum or 0, maximum=section.maximum)
    elif section.workers is not None and section.kind in QUEUES:
        # a queue's `scale` does not hand in again what was preempted or cancelled, `adapt` does
        cluster.adapt(minimum=section.workers, maximum=section.workers)
    elif section.workers is not None:
        cluster.scale(section.workers)


def _text(section: ClusterSection, error: Exception) -> str:
    text = str(error)
    for value in _texts_in(section.options):
        for shown in (value, repr(value)[1:-1]):  # as a dict would show it
            text = text.replace(shown, _HIDDEN)
    return (
        f"the cluster of cluster.kind {section.kind!r} cannot be made: "
        f"{type(error).__name__}: {' '.join(text.split())[:300]}"
    )


def _texts_in(value: Any) -> list[str]:
    """Return all texts in nested options, the longest first; none of them is to be told."""
    if isinstance(value, dict):
        found = [text for one in value.values() for text in _texts_in(one)]
    elif isinstance(value, list):
        found = [text for one in value for text in _texts_in(one)]
    else:
        found = [str(value)] if len(str(value)) > 2 else []
    return sorted(found, key=len, reverse=True)
