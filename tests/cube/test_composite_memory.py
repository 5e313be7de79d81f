"""What a composite needs beside its looks, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import json
import sys
from pathlib import Path
import numpy as np
from cube.composite import (
    geomedian_composite, mean_composite, median_composite, medoid_composite
)

def kilobytes(mark):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(mark))

ways = {
    "median": median_composite, "mean": mean_composite, "medoid": medoid_composite,
    "geomedian": geomedian_composite,
}
generator = np.random.default_rng(1)
grown = {}
kept = []
for rows in (8, 512):
    reflectance = generator.integers(0, 9000, (9, 10, rows, 768), dtype=np.int16)
    is_clear = generator.random((9, rows, 768)) < 0.6
    for name, way in ways.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = kilobytes("VmRSS")
        composite, clear_count = way(reflectance, is_clear)
        made = (composite.nbytes + clear_count.nbytes) / 1024
        grown[name] = kilobytes("VmHWM") - before - made
        kept.append((composite, clear_count))  # memory given back would be taken again unseen
print(json.dumps({"looks": reflectance.nbytes / 1024, "grown": grown}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs the kernel's mark of a peak"
)
def test_no_method_copies_the_looks():
    """Beside looks of 70 MB and what is returned, less than 4 MB, not a float64 copy of 280."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["looks"] > 60_000
    assert max(found["grown"].values()) < 4096, found["grown"]
