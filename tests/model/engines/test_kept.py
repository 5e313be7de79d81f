import os
import subprocess
import sys
from pathlib import Path

import pytest

_CALL = """
import model.networks.kept as kept
kept._SOURCES = {sources!r}
from model.engines.preparing import count_clear
import numpy as np
count_clear(np.zeros((2, 1, 3), np.int16), np.array([0]), np.int16(-32768), np.empty(3, np.uint16))
print(sum(count_clear.stats.cache_hits.values()), sum(count_clear.stats.cache_misses.values()))
"""


@pytest.mark.slow
def test_kernels_are_compiled_again_when_what_they_are_made_of_changed(tmp_path: Path) -> None:
    found = []
    for sources in ("one", "one", "two"):
        done = subprocess.run(
            [sys.executable, "-c", _CALL.format(sources=sources)],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found.append(done.stdout.split())
    assert found == [["0", "1"], ["1", "0"], ["0", "1"]]
