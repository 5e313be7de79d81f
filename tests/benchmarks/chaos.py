"""Numbers of faults and minutes in; what they did to builds and maps on a cluster of this machine out.

`python -m tests.benchmarks.chaos --faults 200 --minutes 40 --seed 1 --json` simulates a forest of 64
tiles and builds and maps it over and over on a scheduler and three workers, real processes, each on
a host of its own where the machine allows network namespaces. Meanwhile workers, scheduler and
command are killed, suspended and cut off, and finished stores are damaged, by chance. After every
fault what is recorded must hold the bytes of the undisturbed run, after every round all of them.
Exit code 1 if a byte differs, a tile is lost, or something hangs.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.benchmarks.rounds import machine
from tests.chaos.campaign import Found, by_chance, campaign
from tests.chaos.hosts import can_make_networks
from tests.chaos.processes import TooLateError
from tests.chaos.round import Outcome
from tests.chaos.site import Site, write_site

_GIVE_UP = 5
"""Rounds that may hang before this is given up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the faults; print a line a round on stderr, and at the end all of it, or one JSON object."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        site = write_site(Path(folder) / "site")
        found = measured(site, Path(folder), options)
    told = {
        **found.as_json(),
        "hosts": _hosts(),
        "seed": options.seed,
        "machine": machine(("distributed", "zarr")),
    }
    print(json.dumps(told) if options.json else "\n".join(_lines(told)))
    is_right = not (told["mismatches"] or told["tiles_lost"] or told["rounds_stuck"])
    return 0 if is_right else 1


def measured(site: Site, folder: Path, options: argparse.Namespace) -> Found:
    """Return what came of all rounds; a cluster that hangs is followed by a new one."""
    found, random = Found(), Random(options.seed)
    deadline = time.monotonic() + 60 * options.minutes
    rounds = by_chance(random, during=options.during, between=options.between)

    def is_enough(so_far: Found) -> bool:
        return so_far.faults.total() >= options.faults or time.monotonic() > deadline

    while not is_enough(found) and len(found.stuck) < _GIVE_UP:
        place = folder / f"cluster-{len(found.stuck)}"
        place.mkdir()
        try:
            seed = random.getrandbits(32)
            campaign(site, place, rounds, seed=seed, until=is_enough, tell=_tell, found=found)
        except TooLateError as error:
            found.stuck.append(str(error))
            print(error, file=sys.stderr, flush=True)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="at least (%(default)s)")
    parser.add_argument("--minutes", type=float, default=40.0, help="at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument(
        "--during", type=int, default=10, help="faults while a step runs (%(default)s)"
    )
    parser.add_argument(
        "--between", type=int, default=3, help="faults of what it has made (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _tell(one: Outcome) -> None:
    print(
        f"{one.step}: {one.seconds:.0f} s, {', '.join(one.faults)}; {len(one.wrong)} wrong, "
        f"{one.lost} lost, {one.repeated} of {one.tiles} repeated",
        *one.wrong[:3],
        *one.given_up,
        sep="\n  ",
        file=sys.stderr,
        flush=True,
    )


def _hosts() -> str:
    return "network namespaces" if can_make_networks() else "one machine; none can be cut off"


def _lines(told: dict[str, Any]) -> list[str]:
    by_kind = [f"  {kind}: {count}" for kind, count in told["faults_by_kind"].items()]
    plain = [key for key, value in told.items() if not isinstance(value, dict | list)]
    return [f"{key}: {told[key]}" for key in plain] + ["faults by kind:", *by_kind]


if __name__ == "__main__":
    sys.exit(main())
