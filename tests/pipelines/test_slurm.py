"""A map on a real Slurm: jobs are handed in, one is taken away half-way, the map is the same."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.hosts import Host
from tests.chaos.processes import start, wait_until
from tests.chaos.site import write_site
from tests.chaos.slurm import NEEDS, Slurm, is_there, slurm
from tests.chaos.stores import differences, tiles_recorded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not is_there(), reason=NEEDS),
]


@pytest.fixture(name="queue")
def _queue() -> Iterator[Slurm]:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: Slurm's sockets lie there
    try:
        with slurm(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_job_that_is_cancelled_costs_no_tile(queue: Slurm, tmp_path: Path) -> None:
    site = write_site(tmp_path)
    options = {
        "queue": "forest",
        "cores": 1,
        "processes": 1,
        "memory": "2GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "python": sys.executable,
        "log_directory": str(tmp_path / "jobs"),
        "local_directory": str(tmp_path / "scratch"),
    }
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    settings = {"kind": "'slurm'", "workers": "2", "timeout": "120", "options": f"{{ {table} }}"}
    with site.outputs("on-slurm") as outputs:
        shutil.copytree(site.undisturbed / "cube.zarr", outputs / "cube.zarr")
        words = ["pipelines", "map", str(site.recipe), "--json"]
        words += ["--set", f"outputs.folder={json.dumps(str(outputs))}"]
        for key, value in settings.items():
            words += ["--set", f"cluster.{key}={value}"]
        command = start(
            "map",
            words,
            host=Host(address="127.0.0.1"),
            folder=tmp_path,
            environment={**site.environment, **queue.environment, "PATH": os.environ["PATH"]},
        )
        try:
            recorded = outputs / "map.zarr"
            wait_until(
                lambda: len(tiles_recorded(recorded)) > 2 or command.code is not None,
                seconds=180,
                what="the first tiles are mapped",
                processes=[command],
            )
            assert command.code is None, command.last_words()
            taken = queue.jobs()
            assert len(taken) == 2
            queue.cancel(taken[0])
            assert len(tiles_recorded(recorded)) < 64, "the map was done before a job was taken"
            command.wait(240)
        finally:
            command.kill()
        assert command.code == 0, command.last_words()
        assert json.loads(command.last_words().splitlines()[-1])["tiles"] == "64 of 64, 0 failed"
        assert differences(site.undisturbed / "map.zarr", recorded) == []
    wait_until(lambda: not queue.jobs(), seconds=60, what="no job is left")
