"""Samples in, folds out: what is trained on and what is scored, with no unit on both sides."""

from model.split.folds import (
    ALL_SPLITS,
    BY_BLOCK,
    HELD_OUT,
    NEVER_HELD_OUT,
    SPLITS,
    Folds,
    Split,
    unit_of,
    unit_word,
)
from model.split.make import make_folds, splits_of

__all__ = [
    "ALL_SPLITS", "BY_BLOCK", "HELD_OUT", "NEVER_HELD_OUT", "SPLITS", "Folds", "Split",
    "make_folds", "splits_of", "unit_of", "unit_word",
]  # fmt: skip
