"""Samples in, simple classifiers out: what the network has to beat on the same folds.

Each is fitted by scikit-learn on one row of columns per sample (the features of all periods side by
side) and then kept as plain arrays that this package predicts from: nothing has to be unpickled.
"""

from model.baselines.fitted import FittedBaseline
from model.baselines.fitting import BASELINES, fit_baseline, majority_probability

__all__ = ["BASELINES", "FittedBaseline", "fit_baseline", "majority_probability"]
