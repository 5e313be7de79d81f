"""Tiles that are done, failed or done again in, how a step goes out: in words and in figures."""

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class Tally:
    """What has become of a step's tiles so far; seconds are of any clock that only goes forward."""

    title: str
    """Name of the step."""
    total: int
    """Tiles that there are."""
    already: int
    """Tiles that were done before the step began."""
    started: float
    """When it began."""
    done: int = 0
    """Tiles that were done since."""
    failed: int = 0
    """Tiles that were given up."""
    retried: int = 0
    """Times that a tile was done again."""
    workers: int = 0
    """Workers that there are now."""
    slowest: tuple[float, str] | None = None
    """Seconds of the slowest tile, and which it was."""

    def count_done(self, tile: str, seconds: float | None = None) -> None:
        """Count one tile; `seconds` are what its worker took."""
        self.done += 1
        if seconds is not None and (self.slowest is None or seconds > self.slowest[0]):
            self.slowest = (seconds, tile)

    def per_minute(self, now: float) -> float:
        """Return tiles done a minute, 0 before the first."""
        return 60 * self.done / max(now - self.started, 1e-9)

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes at this rate; None before the first tile is done."""
        if not self.done:
            return None
        left = max(self.total - self.already - self.done - self.failed, 0)
        return left * (now - self.started) / self.done

    def details(self, now: float) -> str:
        """Return rate, failures, slowest tile and workers, as far as there are any."""
        parts = [f"{self.per_minute(now):.3g}/min"] if self.done else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.retried} done again"] if self.retried else []
        if self.slowest is not None:
            parts.append(f"slowest {self.slowest[1]} {self.slowest[0]:.3g} s")
        parts += [f"{self.workers} worker{'s' * (self.workers != 1)}"] if self.workers else []
        return ", ".join(parts)

    def line(self, now: float) -> str:
        """Return all of it in one line, for a log."""
        left = self.seconds_left(now)
        ends = "" if left is None else f", {_duration(left)} left"
        details = self.details(now)
        done = f"{self.title}: {self.already + self.done} of {self.total} tiles{ends}"
        return f"{done}; {details}" if details else done

    def facts(self, now: float) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        left = self.seconds_left(now)
        return {
            "tiles": self.total,
            "done": self.already + self.done,
            "failed": self.failed,
            "retried": self.retried,
            "workers": self.workers,
            "tiles_per_minute": round(self.per_minute(now), 3),
            "seconds_left": None if left is None else round(left, 1),
            "slowest": None
            if self.slowest is None
            else {"tile": self.slowest[1], "seconds": round(self.slowest[0], 3)},
        }


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
