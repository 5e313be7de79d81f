"""Two cubes in, how far they agree out: band by band, period by period, label by label."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cube.compare import (
    Agreement,
    ClearAgreement,
    Overlap,
    Piece,
    Tally,
    check_complete,
    overlap,
    tally_piece,
)
from cube.errors import InputError
from cube.place import Place, RemoteFolder
from cube.store import read_spec
from pipelines import stop
from pipelines.progress import Reporter

if TYPE_CHECKING:
    from pipelines.compare_labels import Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Two cubes, what they share, and all that was counted there."""

    first: Place
    """The first cube's store."""
    second: Place
    """The second cube's store."""
    shared: Overlap
    """What both have."""
    tally: Tally
    """Exact sums by period and band."""
    labels: "Labels | None"
    """What the classifier says; None where none was given."""

    def by_place(self) -> Iterator[tuple[str, str, Agreement]]:
        """Yield (band, period, agreement), band by band."""
        for place, band in enumerate(self.shared.bands):
            for period, pairs in zip(self.shared.periods, self.tally.pairs, strict=True):
                yield band, period, Agreement.of(pairs[place])

    def by_band(self) -> dict[str, Agreement]:
        """Return the agreement of each band over all periods."""
        columns = zip(*self.tally.pairs, strict=True)
        return {
            band: Agreement.of_all(column)
            for band, column in zip(self.shared.bands, columns, strict=True)
        }

    def clear_by_period(self) -> dict[str, ClearAgreement]:
        """Return how far the cubes agree on where there is a value, by period."""
        pairs = zip(self.shared.periods, self.tally.clear, strict=True)
        return {period: ClearAgreement.of(counts) for period, counts in pairs}


def compare_cubes(
    first: Place,
    second: Place,
    reporter: Reporter,
    *,
    classifier: Path | None = None,
    min_months: int = 1,
    workers: int | None = None,
) -> Comparison:
    """Compare two cubes where they overlap, in the periods and bands that both have.

    `first` and `second` are cubes, output folders or recipes, `classifier` its folder. Read piece
    by piece in `workers` threads, each with one period of a piece of both cubes in memory, or with
    all periods of one cube while it is classified. Sums are exact, so that the result depends on
    neither. Raises `InputError` for cubes that are missing, incomplete, the same, on other grids
    or without anything in common, and for a classifier that does not fit one of them.
    """
    first, second = cube_at(first), cube_at(second)
    specs = read_spec(first), read_spec(second)
    if first.resolve() == second.resolve():
        raise InputError(f"A and B are the same cube, {str(first)!r}; give two")
    if min_months < 1:
        raise InputError(
            f"--min-months is {min_months}; a pixel without a clear period has no class"
        )
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}; expected 1 or more")
    shared = overlap(*specs)
    labelling = None
    if classifier is not None:
        # torch takes seconds to import, and most comparisons do without
        from pipelines.compare_labels import load_labelling

        labelling = load_labelling(classifier, shared, min_months=min_months)
    for path, spec, corner in zip(
        (first, second), specs, (shared.first_corner, shared.second_corner), strict=True
    ):
        rows, columns = (
            slice(begin, begin + size) for begin, size in zip(corner, shared.shape, strict=True)
        )
        check_complete(path, spec, rows=rows, columns=columns)

    def count(piece: Piece) -> _Counted:
        return (
            tally_piece(first, second, shared, piece),
            labelling.labels(first, second, piece) if labelling else None,
        )

    tally = Tally.empty(len(shared.periods), len(shared.bands))
    labels: Labels | None = None
    pieces = list(shared.pieces())
    with reporter.bar("compare", len(pieces)) as advance:
        for counted, labelled in _in_threads(count, pieces, workers or os.cpu_count() or 1):
            tally += counted
            labels = labelled if labels is None or labelled is None else labels + labelled
            advance()
    return Comparison(first=first, second=second, shared=shared, tally=tally, labels=labels)


def cube_at(given: Place) -> Place:
    """Return the cube that is meant by a store, an output folder or a recipe."""
    from pipelines.layout import Layout
    from pipelines.recipe import read_recipe

    if isinstance(given, RemoteFolder):
        inside = given / "cube.zarr"
        return inside if inside.exists() else given
    try:
        if given.is_file():
            return Layout.of(read_recipe(given).outputs).cube
        local = Layout(folder=given).cube
        return local if local.exists() else given
    except OSError:  # a name longer than the file system allows: reading the cube tells
        return given


_Counted: TypeAlias = "tuple[Tally, Labels | None]"


def _in_threads(
    count: Callable[[Piece], _Counted], pieces: list[Piece], workers: int
) -> Iterator[_Counted]:
    """Yield what `count` gives for each piece, in their order; few are begun ahead."""
    waiting: deque[Future[_Counted]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(count, piece))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
                stop.raise_if_asked()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
