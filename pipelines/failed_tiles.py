"""Tiles that a step gave up in, a list of them for people and programs out, until they are done."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cube.durable import replace_text
from pipelines.cluster import FailedTile

FILE_NAME = "failed.json"
"""Name of the list in the output folder."""


def keep_failed(folder: Path, step: str, failed: Sequence[FailedTile]) -> list[dict[str, Any]]:
    """Note what a step gave up in place of what it gave up before; return all that is noted.

    Each entry has `step`, `tile`, `reason` and `tries`. A list in which nothing is left is removed.
    """
    file = folder / FILE_NAME
    others = [entry for entry in read_failed(folder) if entry["step"] != step]
    listed = sorted(failed, key=lambda one: one.tile)
    entries = others + [{"step": step, **vars(one)} for one in listed]
    if entries:
        replace_text(file, json.dumps(entries, indent=1) + "\n")
    else:
        file.unlink(missing_ok=True)
    return entries


def read_failed(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of the list; empty without one, or with one that is damaged."""
    try:
        entries = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # the ledger knows what is missing; this only says why
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "step" in entry]
