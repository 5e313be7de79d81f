"""One command and the faults that hit it in; whether it came to the undisturbed result out."""

import json
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.cluster import Cluster
from tests.chaos.faults import BETWEEN, DURING
from tests.chaos.processes import Process, TooLateError, start, wait_until
from tests.chaos.site import STORES, Site
from tests.chaos.stores import damage, differences, left_over, tiles_recorded

_DEADLINE = 240.0
"""Seconds a step may take to which nothing is done, on two busy cores."""

_PER_FAULT = 45.0
"""Seconds more that each fault may cost: a worker given up, a command started again."""

_STOP = 30.0
"""Seconds a command has to end after SIGINT or SIGTERM."""

_TRIES = 8
"""Times a command is started that ends by itself without having done all."""


@dataclass(kw_only=True)
class Outcome:
    """What came of one round."""

    step: str
    """The command."""
    faults: list[str] = field(default_factory=list)
    """What hit it, in order."""
    wrong: list[str] = field(default_factory=list)
    """Files that were not as they should be: of recorded tiles after each fault, of all at the end."""
    lost: int = 0
    """Tiles without a record at the end."""
    tiles: int = 0
    """Tiles there are."""
    begun: int = 0
    """Times that workers began a tile, all together."""
    recorded: int = 0
    """Times a tile was recorded as done, all together."""
    given_up: list[str] = field(default_factory=list)
    """What a command said that ended by itself, before all was done; it was started again."""
    stops: list[float] = field(default_factory=list)
    """Seconds from SIGINT or SIGTERM to the command's end."""
    left_over: int = 0
    """Files of killed writers that lie in the store at the end."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def repeated(self) -> int:
        """Tiles that were begun once more than needed."""
        return max(self.begun - self.tiles, 0)


class Round:
    """A step of the recipe being carried out on a cluster, while faults are done to both."""

    def __init__(
        self, site: Site, cluster: Cluster, outputs: Path, *, step: str, random: Random
    ) -> None:
        self.site, self.cluster, self.random, self.step = site, cluster, random, step
        self.outputs, self.store = outputs, outputs / STORES[step]
        self.expected = site.undisturbed / STORES[step]
        self.outcome = Outcome(step=step, tiles=len(tiles_recorded(self.expected)))
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._command: Process | None = None
        self._seconds: list[Process] = []
        self._is_ours = False  # whether the command's end is our doing

    def carry_out(self, faults: Sequence[str]) -> Outcome:
        """Run the step to its end while `faults` of `DURING` hit it at moments chosen by chance."""
        began = time.monotonic()
        deadline = began + _DEADLINE + _PER_FAULT * len(faults)
        begun_before = self.cluster.begun()
        moments = sorted(
            self.random.sample(range(self.outcome.tiles * 3 // 4), len(faults)), reverse=True
        )
        waiting = list(reversed(faults))
        self._start()
        try:
            while not self._has_ended():
                if time.monotonic() > deadline:
                    raise TooLateError(self._told_when_late())
                self._do_what_is_due()
                self.cluster.tend()
                if waiting and len(tiles_recorded(self.store)) >= moments[-1]:
                    moments.pop()
                    self._strike(waiting.pop())
                time.sleep(0.02)
            self._calm_down()
        finally:
            self._end()
        self._look_at_result()
        self.outcome.begun += self.cluster.begun() - begun_before
        self.outcome.recorded = sum(self.cluster.recorded(self.store).values())
        self.outcome.seconds += time.monotonic() - began
        return self.outcome

    def damage_and_repair(self, faults: Sequence[str]) -> Outcome:
        """Damage as many tiles of the finished store, and have them found and made anew."""
        began = time.monotonic()
        tiles = self.random.sample(sorted(tiles_recorded(self.store)), len(faults))
        for fault, tile in zip(faults, tiles, strict=True):
            BETWEEN[fault](self.store, tile, self.random)
        self.outcome.faults += faults
        self._call("verify", str(self.store), "--repair")
        if code := self._call(*self._words()):
            self.outcome.wrong.append(f"after the repair: exit {code}: {self._last_line()}")
        self._look_at_result()
        self.outcome.seconds += time.monotonic() - began
        return self.outcome

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after so many seconds, or when the command has ended."""
        self._due.append((time.monotonic() + seconds, action))

    def end_command(self, number: signal.Signals) -> None:
        """Send the command a signal and wait for its end; it is started again."""
        assert self._command is not None
        self._is_ours, began = True, time.monotonic()
        self._command.send(number)
        self._command.wait(_STOP)
        if number != signal.SIGKILL:
            self.outcome.stops.append(time.monotonic() - began)

    def start_second_command(self) -> None:
        """Start the same command beside the one that is at work, which does not wait for it."""
        self._seconds.append(self._started(*self._words()))

    def _strike(self, fault: str) -> None:
        time.sleep(self.random.uniform(0, 0.1))
        if self._command is None or self._command.code is not None:
            return
        if DURING[fault](self):
            self.outcome.faults.append(fault)
            self.outcome.wrong += [f"after {fault}: {one}" for one in self._damage()]

    def _damage(self) -> list[str]:
        return damage(self.expected, self.store)

    def _has_ended(self) -> bool:
        """Say whether the command has done all; start it again if it ended before."""
        assert self._command is not None
        code = self._command.code
        if code is None:
            return False
        if code == 0:
            return True
        if not self._is_ours:
            last = self.outcome.faults[-1] if self.outcome.faults else "no fault"
            self.outcome.given_up.append(f"after {last}: exit {code}: {self._last_line()}")
            if len(self.outcome.given_up) > _TRIES:
                raise TooLateError(f"the command gave up {_TRIES} times: {self.outcome.given_up}")
        self._start()
        return False

    def _do_what_is_due(self, *, all_of_it: bool = False) -> None:
        now = time.monotonic()
        due = [action for when, action in self._due if all_of_it or when <= now]
        self._due = [] if all_of_it else [one for one in self._due if one[0] > now]
        for action in due:
            action()

    def _calm_down(self) -> None:
        """Let those go on that were held up, and wait until nobody works on the store any more."""
        self._do_what_is_due(all_of_it=True)
        for second in self._seconds:
            wait_until(
                lambda second=second: self._is_over(second),
                seconds=_DEADLINE,
                what="a second command ended",
                processes=[second, *self.cluster.processes],
            )
            code = second.code
            # 0 if the other one had just ended, and this one found everything done
            if code not in (0, 2):
                self.outcome.wrong.append(f"a second command: {code}: {second.last_words(300)}")
        self.cluster.wait()
        before, since = self.cluster.told(), time.monotonic()
        while time.monotonic() - since < 1.0:
            time.sleep(0.1)
            if (now := self.cluster.told()) != before:
                before, since = now, time.monotonic()

    def _is_over(self, command: Process) -> bool:
        self.cluster.tend()  # it may have found everything free, and wait for workers
        return command.code is not None

    def _look_at_result(self) -> None:
        found = differences(self.expected, self.store)
        self.outcome.wrong += [f"at the end: {one}" for one in found]
        missing = tiles_recorded(self.expected) - tiles_recorded(self.store)
        self.outcome.lost += len(missing)
        self.outcome.left_over = len(left_over(self.store))

    def _words(self) -> list[str]:
        settings = {
            "outputs.folder": str(self.outputs),
            "cluster.kind": "scheduler",
            "cluster.address": self.cluster.address,
        }
        words = [self.step, str(self.site.recipe), "--json"]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return words

    def _start(self) -> None:
        """Start the command; one that another holds up waits."""
        self._is_ours = False
        self._command = self._started(*self._words(), "--wait")

    def _started(self, *words: str) -> Process:
        return start(
            f"command-{time.monotonic_ns()}",
            ["pipelines", *words],
            host=self.cluster.home,
            folder=self.cluster.folder,
            environment=self.site.environment,
        )

    def _call(self, *words: str) -> int:
        """Run a command to its end and return how it ended."""
        self._command = self._started(*words)
        try:
            return self._command.wait(_DEADLINE)
        finally:
            self._end()

    def _last_line(self) -> str:
        assert self._command is not None
        said = self._command.last_words(400).strip().splitlines()
        return said[-1] if said else ""

    def _end(self) -> None:
        for process in filter(None, (self._command, *self._seconds)):
            process.kill()
        self._do_what_is_due(all_of_it=True)

    def _told_when_late(self) -> str:
        assert self._command is not None
        done = len(tiles_recorded(self.store))
        parts = [self._command, *self.cluster.processes]
        said = "\n".join(f"--- {one.name} ({one.code})\n{one.last_words(1500)}" for one in parts)
        return (
            f"{self.step} hangs: {done} of {self.outcome.tiles} tiles after {self.outcome.faults}"
            f"\n{said}"
        )
