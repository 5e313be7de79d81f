"""Labels and the groups they come in; a class with too few groups to be scored is refused."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from cube.errors import InputError
from pipelines.recipe import TrainingSection

FEW_GROUPS = "few-groups"
"""Code of the audit's finding, which `training.audit_allow` may name."""


def groups_by_class(
    label: Shaped[np.ndarray, " sample"], group: Shaped[np.ndarray, " sample"]
) -> dict[str, int]:
    """Return how many groups each class lies in, by name."""
    return {str(name): len(np.unique(group[label == name])) for name in np.unique(label)}


def classes_of_few(groups: Mapping[str, int], folds: int) -> dict[str, int]:
    """Return the classes with fewer groups than folds, the poorest first."""
    return dict(sorted((few for few in groups.items() if few[1] < folds), key=lambda few: few[1]))


def refuse_few_groups(groups: Mapping[str, int], training: TrainingSection) -> None:
    """Raise `InputError` for a class with fewer groups than folds, unless the recipe allows it.

    Some folds then hold nothing of the class, and of one group nothing can be held out at all, so
    its score says little or is missing.
    """
    if training.audit != "stop" or FEW_GROUPS in training.audit_allow:
        return
    few = classes_of_few(groups, training.folds)
    if not few:
        return
    least = next(iter(few.values()))
    fewer = f"set training.folds = {least}, " if least >= 2 else ""
    raise InputError(
        f"classes have fewer groups than the {training.folds} folds that score them: {_some(few)}\n"
        f"label more places, merge or drop the class (reference.classes, reference.drop), {fewer}or "
        f"allow it with training.audit_allow = ['{FEW_GROUPS}']"
    )


def _some(few: Mapping[str, int]) -> str:
    named: Sequence[str] = [f"{name} {count}" for name, count in few.items()]
    more = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return ", ".join(named[:6]) + more
