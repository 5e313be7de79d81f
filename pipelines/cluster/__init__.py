"""Tiles in, the same tiles done out, on threads, processes or any Dask cluster.

`connect` makes the client of a recipe's cluster, and no other place does; `run_tasks` sends tiles
there, a bounded number at a time, and deals with what fails; `place_under_way` is for the tasks.
"""

from pipelines.cluster.client import asked_of, connect
from pipelines.cluster.order import along_curve
from pipelines.cluster.parcels import Parcel, carried_files, job_of
from pipelines.cluster.performance import reported
from pipelines.cluster.places import place_under_way
from pipelines.cluster.stream import run_tasks
from pipelines.cluster.work import FailedTile, TilesFailedError, TileWork

__all__ = [
    "FailedTile",
    "Parcel",
    "TileWork",
    "TilesFailedError",
    "along_curve",
    "asked_of",
    "carried_files",
    "connect",
    "job_of",
    "place_under_way",
    "reported",
    "run_tasks",
]
