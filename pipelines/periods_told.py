"""Periods that a model was left with, one after another in; what a table of them says out."""

from collections.abc import Sequence
from itertools import pairwise

_RUN = 3
"""Neighbours from which on only the first and the last are named."""


def joined(chosen: Sequence[str], every: Sequence[str]) -> str:
    """Return the names of the `chosen` periods, three or more neighbours as `first to last`.

    Neighbours are those side by side in `every`, which holds all periods in their order.
    """
    runs: list[list[str]] = []
    is_chosen = set(chosen)
    before = False
    for name in every:
        here = name in is_chosen
        if here and before:
            runs[-1].append(name)
        elif here:
            runs.append([name])
        before = here
    return ", ".join(
        f"{run[0]} to {run[-1]}" if len(run) >= _RUN else ", ".join(run) for run in runs
    )


def left_out(steps: Sequence[Sequence[str]]) -> list[str]:
    """Return what each of the `steps`, which hold the periods that are left, leaves out anew.

    The first leaves out nothing; the last also says what then remains.
    """
    told = ["none"]
    for before, kept in pairwise(steps):
        here = set(kept)
        told.append(joined([name for name in before if name not in here], steps[0]))
    if len(steps) > 1:
        told[-1] += f"; what remains is {joined(steps[-1], steps[0])}"
    return told
