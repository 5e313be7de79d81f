"""Periods that a model was left with, one after another in; what a table of them says out."""

from collections.abc import Sequence

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


def changes(steps: Sequence[Sequence[str]]) -> list[str]:
    """Return what changes with each of the `steps`, which hold the periods that are left.

    The first is told as `all of them`, each other as the periods that go with it, the last with
    what then remains.
    """
    told = []
    for number, kept in enumerate(steps):
        if number == 0:
            told.append("all of them")
            continue
        here = set(kept)
        gone = joined([name for name in steps[number - 1] if name not in here], steps[0])
        is_last = number == len(steps) - 1
        told.append(
            f"without {gone}; {joined(kept, steps[0])} is left" if is_last else f"without {gone}"
        )
    return told
