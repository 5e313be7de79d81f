"""Numbers in, words that people read out: bytes, seconds, and the first of many names."""

from collections.abc import Sequence


def bytes_text(count: float) -> str:
    """Return a number of bytes with the unit that fits, e.g. `3.2 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def duration_text(seconds: float) -> str:
    """Return seconds as hours, minutes or seconds, whichever are two or more."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def some_of(words: Sequence[str], most: int = 12) -> str:
    """Return the first words, and how many there are beside them."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
