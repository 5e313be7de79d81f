"""Labels and the groups they come in; how many groups each class lies in, and where they are few, out."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped


def groups_by_class(
    label: Shaped[np.ndarray, " sample"], group: Shaped[np.ndarray, " sample"]
) -> dict[str, int]:
    """Return how many groups each class lies in, by name."""
    return {str(name): len(np.unique(group[label == name])) for name in np.unique(label)}


def classes_of_few(groups: Mapping[str, int], folds: int) -> dict[str, int]:
    """Return the classes with fewer groups than folds, the poorest first."""
    return dict(sorted((few for few in groups.items() if few[1] < folds), key=lambda few: few[1]))
