"""Certificates in, the lines that people read out."""

from pipelines.amounts import bytes_text, some_of
from pipelines.printable import printable
from pipelines.verify_store import Certificate, Fault

_MOST_LINES = 20
"""Faults that are told one by one; of more the number."""


def certificate_lines(made: Certificate, *, remedy: str) -> list[str]:
    """Return what `verify` prints of one store; `remedy` is what makes damaged tiles anew."""
    store, spec = made.store, made.store.spec
    times, bands, height, width = spec.shape
    size = f"{height} x {width} pixels of {abs(spec.geobox.resolution.x):g} m"
    span = f"{times} periods {spec.periods[0]} … {spec.periods[-1]}, {bands} bands, "
    lines = [
        f"{store.kind} {store.place}: {_verdict(made)}",
        f"  {_counts(made)}; {made.objects} objects, "
        f"{bytes_text(made.bytes)}, {bytes_text(made.read)} of pixels checked",
        f"  {span if store.kind == 'cube' else ''}{size}, "
        f"{f'EPSG:{spec.crs.epsg}' if spec.crs.epsg else str(spec.crs)[:60]}",
        *(_made_lines(made)),
        *([] if made.digest is None else [f"  digest {made.digest}"]),
    ]
    lines += [f"  {_told(fault)}" for fault in made.faults[:_MOST_LINES]]
    if len(made.faults) > _MOST_LINES:
        lines.append(f"  … and {len(made.faults) - _MOST_LINES} more; --json names all")
    if made.leftovers:
        lines.append(f"  left over, read by nobody: {some_of(made.leftovers, 3)}")
    if not made.is_whole:
        lines.append(f"  {remedy}")
    return [printable(line) for line in lines]


def tiles_text(made: Certificate) -> str:
    """Return how many of a store's tiles are whole."""
    return "no tile was looked at" if made.unread else f"{made.whole} of {made.tiles} tiles"


def faults_text(count: int) -> str:
    """Return a number of faults in words."""
    return "1 fault" if count == 1 else f"{count} faults"


def _verdict(made: Certificate) -> str:
    """Return whether a store is whole; where its tiles are and it is not, what the first fault is."""
    if made.is_whole:
        return "whole"
    if made.whole < made.tiles or not made.faults:
        return "NOT WHOLE"
    first, others = made.faults[0], len(made.faults) - 1
    more = f", and {faults_text(others)} more" if others else ""
    return f"NOT WHOLE, for {_told(first)}{more}"


def _counts(made: Certificate) -> str:
    if not made.unread:
        return f"{made.whole} of {made.tiles} tiles, {made.tiles - made.whole} failed"
    return (
        f"{made.tiles} tiles not looked at: the metadata must be mended first; "
        f"{made.states['unread']} of them with a sound record"
    )


def _made_lines(made: Certificate) -> list[str]:
    if made.made is None:
        return []
    first, last = made.made
    versions = ", ".join(f"canopycube {name}" for name in sorted(made.made_by))
    when = first if first == last else f"{first} … {last}"
    origin = f" from {len(made.scenes)} scenes" if made.store.kind == "cube" else ""
    if made.classifiers:
        origin = f" by classifier {some_of(sorted(one[:16] for one in made.classifiers), 3)}"
    lost = f"; {len(made.lost)} scenes were lost: {some_of(sorted(made.lost), 3)}"
    return [f"  made {when} by {versions}{origin}{lost if made.lost else ''}"]


def _told(fault: Fault) -> str:
    return f"{fault.place}: {fault.what}"
