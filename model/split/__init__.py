"""Samples in, folds out: what is trained on and what is scored, with no unit on both sides."""

from model.split.folds import ALL_SPLITS, NEVER_HELD_OUT, SPLITS, Folds, Split
from model.split.make import make_folds, splits_of

__all__ = ["ALL_SPLITS", "NEVER_HELD_OUT", "SPLITS", "Folds", "Split", "make_folds", "splits_of"]
