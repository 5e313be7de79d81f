"""Groups of each class in; classes of too few groups to be scored are told or refused."""

from collections.abc import Mapping, Sequence

from cube.errors import InputError
from model.classunits import classes_of_few
from pipelines.recipe import TrainingSection

FEW_GROUPS = "few-groups"
"""Code of the audit's finding, which `training.audit_allow` may name."""


def few_groups_notes(
    groups: Mapping[str, int], folds: int, *, is_allowed: bool = False
) -> list[str]:
    """Return what is to be told of classes with fewer groups than folds; empty if there are none.

    `is_allowed` says that the recipe trains in spite of it.
    """
    few = classes_of_few(groups, folds)
    if not few:
        return []
    todo = _what_to_do(few)
    if is_allowed:
        todo = (
            f"that is of grouping by distance, so the recipe allows it (audit_allow = "
            f"['{FEW_GROUPS}']); their scores say little"
        )
    return [
        f"classes have fewer groups than the {folds} folds that score them: {_some(few)}; {todo}"
    ]


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
    raise InputError(
        f"classes have fewer groups than the {training.folds} folds that score them: {_some(few)}\n"
        f"{_what_to_do(few)}"
    )


def _what_to_do(few: Mapping[str, int]) -> str:
    least = next(iter(few.values()))
    fewer = f"set training.folds = {least}, " if least >= 2 else ""
    return (
        f"label more places, merge or drop the class (reference.classes, reference.drop), {fewer}or "
        f"allow it with training.audit_allow = ['{FEW_GROUPS}']"
    )


def _some(few: Mapping[str, int]) -> str:
    named: Sequence[str] = [f"{name} {count}" for name, count in few.items()]
    more = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return ", ".join(named[:6]) + more
