"""The demo, as `make demo` runs it, on a quarter of its forest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import rasterio


def test_the_demo_ends_with_what_it_found_and_resumes(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ("--scale", "0.25", "--set", "training.epochs=2", "--set", "training.hidden=8")
    words += ("--set", 'training.baselines=["lda"]', "--set", "training.importance=false")
    code, printed, _ = command("demo", tmp_path / "demo", *words)
    assert code == 0
    for word in ("cube ", "samples ", "random ", "grouped ", "block ", "map ", "peak memory"):
        assert word in printed
    with rasterio.open(tmp_path / "demo" / "map.tif") as file:
        assert file.shape == (120, 120)
        assert file.colormap(1)[1][3] == 255
    map_bytes = (tmp_path / "demo" / "map.tif").read_bytes()
    code, again, _ = command("demo", tmp_path / "demo", *words)
    assert code == 0
    assert (tmp_path / "demo" / "map.tif").read_bytes() == map_bytes
    assert again.splitlines()[:-1] == printed.splitlines()[:-1]

    code, _, complaint = command("demo", tmp_path / "demo", "--scale", "0.5")
    assert code == 2
    assert "choose another folder" in complaint
