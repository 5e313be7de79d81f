"""A classifier and a piece of two cubes in, how often they are given the same label out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from cube.compare import Overlap, Piece
from cube.errors import InputError
from cube.place import Place
from cube.spec import CubeSpec, Region
from cube.store import read_region
from model.errors import ClassifierError
from pipelines.lazy_map import classifier_stamp, classify_block, load_once


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What one classifier says of both cubes, pixel by pixel."""

    classes: tuple[str, ...]
    """Names of the classes."""
    pairs: Int64[np.ndarray, "first second"]
    """Number of pixels by map value in the first and in the second cube; 0 is unclassified."""

    def __add__(self, other: "Labels") -> "Labels":
        return Labels(classes=self.classes, pairs=self.pairs + other.pairs)

    @property
    def both(self) -> int:
        """Pixels classified in both cubes."""
        return int(self.pairs[1:, 1:].sum())

    @property
    def equal(self) -> int:
        """Pixels of one class in both."""
        return int(self.pairs.diagonal()[1:].sum())

    @property
    def only_first(self) -> int:
        """Pixels classified in the first cube alone."""
        return int(self.pairs[1:, 0].sum())

    @property
    def only_second(self) -> int:
        """Pixels classified in the second cube alone."""
        return int(self.pairs[0, 1:].sum())

    @property
    def agreement(self) -> float | None:
        """Share of the pixels classified in both that have one class; None without any."""
        return self.equal / self.both if self.both else None

    @property
    def one_only(self) -> float:
        """Share of all pixels that are classified in one cube alone."""
        return (self.only_first + self.only_second) / int(self.pairs.sum())

    def disagreements(self) -> list[tuple[str, str, int]]:
        """Return (class in the first, class in the second, pixels), most pixels first."""
        rows, columns = np.nonzero(self.pairs[1:, 1:])
        found = [
            (self.classes[row], self.classes[column], int(self.pairs[row + 1, column + 1]))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if row != column
        ]
        return sorted(found, key=lambda one: (-one[2], one[0], one[1]))


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """A classifier that fits two cubes."""

    folder: Path
    """Folder of the classifier."""
    stamp: str
    """Hash of its files: another one is refused."""
    classes: tuple[str, ...]
    """Names of its classes."""
    shared: Overlap
    """The cubes and what they share."""
    min_months: int
    """Clear periods that a pixel needs to be classified."""

    def labels(self, first: Place, second: Place, piece: Piece) -> Labels:
        """Classify one piece of both cubes, one after the other, over all their periods."""
        values = len(self.classes) + 1
        one = self._species(first, self.shared.first, piece.first)
        two = self._species(second, self.shared.second, piece.second)
        pairs = np.bincount(
            (one.astype(np.intp) * values + two).ravel(), minlength=values**2
        ).reshape(values, values)  # (first, second)
        return Labels(classes=self.classes, pairs=pairs.astype(np.int64))

    def _species(self, path: Place, spec: CubeSpec, region: Region) -> UInt8[np.ndarray, "y x"]:
        layers = classify_block(
            read_region(path, region),
            folder=self.folder,
            stamp=self.stamp,
            bands=spec.bands,
            min_months=self.min_months,
        )
        species: np.ndarray = layers[0]
        return species


def load_labelling(classifier: Path, shared: Overlap, *, min_months: int) -> Labelling:
    """Return what labels both cubes.

    Raises `InputError` without a classifier at `classifier`, and naming the cube that it does not
    fit; `ClassifierError` if it cannot be read.
    """
    if not classifier.is_dir():
        raise InputError(f"there is no classifier at {str(classifier)!r}; give its folder")
    stamp = classifier_stamp(classifier)
    loaded = load_once(classifier, stamp)
    for name, spec in (("A", shared.first), ("B", shared.second)):
        try:
            loaded.check_cube(spec.bands, [str(period) for period in spec.periods])
        except ClassifierError as error:
            raise InputError(f"cube {name}: {error}") from error
    return Labelling(
        folder=classifier,
        stamp=stamp,
        classes=loaded.classes,
        shared=shared,
        min_months=min_months,
    )
