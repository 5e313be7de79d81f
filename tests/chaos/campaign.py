"""A number of faults and a seed in; what all of them together did to a forest's cube and map out."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.cluster import cluster
from tests.chaos.faults import BETWEEN, DURING
from tests.chaos.hosts import hosts
from tests.chaos.round import Outcome, Round
from tests.chaos.site import Site

WORKERS = 3
"""Hosts with a worker."""


@dataclass(kw_only=True)
class Found:
    """What came of all rounds."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Each of them."""
    replaced: int = 0
    """Workers that had to be replaced."""
    seconds: float = 0.0
    """How long all took."""
    stuck: list[str] = field(default_factory=list)
    """What did not come to its end within its time, each with what the processes said last."""

    @property
    def faults(self) -> Counter[str]:
        """How often each fault was done."""
        return Counter(fault for one in self.outcomes for fault in one.faults)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        every = self.outcomes
        given_up = [text for one in every for text in one.given_up]
        stops = [seconds for one in every for seconds in one.stops]
        return {
            "rounds": len(every),
            "faults": self.faults.total(),
            "faults_by_kind": dict(self.faults.most_common()),
            "mismatches": sum(len(one.wrong) for one in every),
            "wrong": [text for one in every for text in one.wrong][:20],
            "tiles": sum(one.tiles for one in every),
            "tiles_lost": sum(one.lost for one in every),
            "tiles_repeated": sum(one.repeated for one in every),
            "tiles_recorded_again": sum(max(one.recorded - one.tiles, 0) for one in every),
            "workers_replaced": self.replaced,
            "commands_that_gave_up": len(given_up),
            "given_up": dict(Counter(given_up).most_common(20)),
            "slowest_stop_seconds": round(max(stops), 1) if stops else None,
            "rounds_stuck": len(self.stuck),
            "left_over": sum(one.left_over for one in every),
            "seconds": round(self.seconds, 1),
        }


def campaign(
    site: Site,
    folder: Path,
    plan: Iterator[tuple[str, Sequence[str], Sequence[str]]],
    *,
    seed: int,
    until: Callable[[Found], bool] = lambda found: False,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    found: Found | None = None,
) -> Found:
    """Carry rounds out on one cluster: (step, faults while it runs, faults of the finished store).

    A `build` makes new outputs, a `map` goes on with those of the build before it. Ends with `plan`,
    or when `until` says so after a round. `seed` decides which worker and tile is hit, and when.
    What is found is added to `found`, where that is given. Raises `TooLateError` for what does not
    come to its end.
    """
    found, random = found or Found(), Random(seed)
    began, replaced = time.monotonic() - found.seconds, found.replaced
    with hosts(WORKERS + 1) as places, cluster(places, folder) as made:
        for number, rounds in enumerate(_by_build(plan)):
            with site.outputs(f"round-{number}") as outputs:
                for step, during, between in rounds:
                    one = Round(site, made, outputs, step=step, random=random)
                    outcome = one.carry_out(during)
                    if between:
                        one.damage_and_repair(between)
                    found.outcomes.append(outcome)
                    found.replaced = replaced + made.replaced
                    found.seconds = time.monotonic() - began
                    tell(outcome)
                    if until(found):
                        return found
    return found


def by_chance(
    random: Random, *, during: int, between: int
) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Yield rounds without end: build and map in turn, with so many faults each, drawn by chance."""
    while True:
        for step in ("build", "map"):
            yield (
                step,
                random.choices(sorted(DURING), k=during),
                random.choices(sorted(BETWEEN), k=between),
            )


def _by_build(
    plan: Iterator[tuple[str, Sequence[str], Sequence[str]]],
) -> Iterator[list[tuple[str, Sequence[str], Sequence[str]]]]:
    """Yield the rounds from one build to the next."""
    together: list[tuple[str, Sequence[str], Sequence[str]]] = []
    for one in plan:
        if one[0] == "build" and together:
            yield together
            together = []
        together.append(one)
    if together:
        yield together
