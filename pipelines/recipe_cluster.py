"""The `[cluster]` table of a recipe in, where the work runs out: checked, and nothing of it made."""

import re
from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipelines.recipe_values import AnyPath, ExistingPath, Flag, Number, Section, Whole

FEW_TILES = 16
"""Up to so many tiles "auto" takes threads of this process: processes take five seconds and half a
GB each before their first tile."""

ENTRY_POINTS = "canopycube.clusters"
"""Group of entry points by which other packages add kinds."""

QUEUES = ("slurm", "pbs", "sge", "lsf", "htcondor", "oar")
"""Kinds that hand jobs in to a queue; they have to be told how many workers."""

HERE = ("threads", "local")
"""Kinds of which all workers are on this machine."""

KINDS = ("auto", *HERE, "scheduler", *QUEUES, "kubernetes", "gateway", "coiled")
"""Kinds that are known here; `ENTRY_POINTS` has more."""


def _kind(value: str) -> str:
    if value in KINDS:
        return value
    others = sorted(entry_points(group=ENTRY_POINTS).names)
    if value not in others:
        known = ", ".join(map(repr, (*KINDS, *others)))
        raise ValueError(
            f"found {value!r:.40}; expected {known}, or one that an installed package adds "
            f"(entry points {ENTRY_POINTS!r})"
        )
    return value


def _options(value: object) -> object:
    if not isinstance(value, dict):
        # what was found is not repeated: it may be a password
        raise ValueError("expected a table of keys and values, e.g. { queue = 'long' }")
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s@]+", value):
        raise ValueError("expected e.g. 'tcp://10.0.0.5:8786', or 'tls://…' with tls_ca_file")
    return value


Kind = Annotated[str, AfterValidator(_kind)]
Options = Annotated[dict[str, Any], BeforeValidator(_options)]
Address = Annotated[str, AfterValidator(_address)]


class ClusterSection(Section):
    """Where the work runs, and how long it may fail there."""

    kind: Kind = "auto"
    """Threads of this process, processes of this machine ("local"), a running scheduler, a queue, or
    what a package adds; "auto" takes threads for a few tiles and processes for more."""
    workers: Whole | None = Field(default=None, ge=1)
    """Threads, processes or workers; on this machine one per core by default."""
    minimum: Whole | None = Field(default=None, ge=0)
    """Fewest workers of a cluster that grows and shrinks with the work."""
    maximum: Whole | None = Field(default=None, ge=1)
    """Most workers of a cluster that grows and shrinks with the work."""
    timeout: Number = Field(default=300.0, gt=0)
    """Seconds until the first workers must be there, and a scheduler that is lost must be back."""
    retries: Whole = Field(default=3, ge=0, le=100)
    """Times that a tile is done again whose worker died or which a server or disk failed."""
    address: Address | None = None
    """Address of a running scheduler, e.g. "tcp://10.0.0.5:8786"."""
    scheduler_file: AnyPath | None = None
    """In place of `address`: the file in which a scheduler tells it."""
    tls_ca_file: ExistingPath | None = None
    """Certificate of who signed those of a "tls://" cluster."""
    tls_cert: ExistingPath | None = None
    """This program's certificate."""
    tls_key: ExistingPath | None = None
    """The key of that certificate."""
    options: Options = Field(default_factory=dict, repr=False)
    """Handed as they are to what makes the cluster, e.g. { queue = "long", cores = 4 }."""
    dashboard: Flag = True
    """Let a cluster that is made here serve Dask's dashboard."""

    @model_validator(mode="after")
    def _names_its_scheduler(self) -> "ClusterSection":
        given = [key for key in ("address", "scheduler_file") if getattr(self, key) is not None]
        if (self.kind == "scheduler") != (len(given) == 1):
            raise ValueError(
                "address goes with kind = 'scheduler', and only with it, or scheduler_file in its "
                "place"
            )
        tls = [self.tls_ca_file, self.tls_cert, self.tls_key]
        if any(tls) and (self.kind != "scheduler" or not all(tls)):
            raise ValueError(
                "tls_ca_file, tls_cert and tls_key go together, and with kind = 'scheduler'"
            )
        if (self.address or "").startswith("tls://") and not all(tls):
            raise ValueError("an address with tls:// needs tls_ca_file, tls_cert and tls_key")
        if self.options and self.kind in ("auto", "threads", "scheduler"):
            raise ValueError(f"options do not go with kind = {self.kind!r}, which makes no cluster")
        return self

    @model_validator(mode="after")
    def _has_workers(self) -> "ClusterSection":
        grows = self.minimum is not None or self.maximum is not None
        if grows and self.kind in ("auto", "threads", "scheduler"):
            raise ValueError(
                f"minimum and maximum do not go with kind = {self.kind!r}; give workers, or 'local'"
            )
        if grows and (self.maximum is None or self.workers is not None):
            raise ValueError("give either workers, or maximum with or without minimum")
        if (self.minimum or 0) > (self.maximum or self.minimum or 0):
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.kind in QUEUES and self.workers is None and self.maximum is None:
            raise ValueError(f"kind = {self.kind!r} needs workers, or minimum and maximum")
        return self

    @property
    def is_elsewhere(self) -> bool:
        """Whether the workers may be on other machines."""
        return self.kind not in ("auto", *HERE)

    @property
    def most_workers(self) -> int | None:
        """How many workers there may be; None where the recipe does not say."""
        return self.workers or self.maximum

    def settled(self, tiles: int) -> "ClusterSection":
        """Return the same for a run of so many tiles, with the kind that "auto" stands for."""
        if self.kind != "auto":
            return self
        kind = "threads" if tiles <= FEW_TILES or self.workers == 1 else "local"
        return self.model_copy(update={"kind": kind})
