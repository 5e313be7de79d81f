"""NetCDF from many threads at once: in a process of its own, for what goes wrong kills it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr

THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from cube import arrayfile

def read(number):
    path = sys.argv[1 + number % 8]
    dataset = arrayfile.open_array_file(path)
    return int(arrayfile._values(dataset.variables["B02"][number % 20], path, "B02").sum())

with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(read, range(400))))
"""


def test_threads_may_open_and_read_files_at_once(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 4000, (20, 64, 64), dtype=np.uint16)
    stack = xr.Dataset({"B02": (("time", "y", "x"), counts)})
    paths = [tmp_path / f"{number}.nc" for number in range(8)]
    for path in paths:
        stack.to_netcdf(path, engine="netcdf4")
    done = subprocess.run(
        [sys.executable, "-c", THREADS, *map(str, paths)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-500:]}"
    assert int(done.stdout) == counts.sum(axis=(1, 2), dtype=int)[np.arange(400) % 20].sum()
