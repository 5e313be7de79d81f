"""A self-organising map and labels in, a verdict on every label out.

As in Santos et al. 2021 (see `som`), but a label is never its own witness, nor its group's.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from model.doctor.som import SelfOrganisingMap, SomConfig

Verdict = Literal["clean", "analyse", "remove"]
VERDICTS: tuple[Verdict, ...] = ("clean", "analyse", "remove")
"""Neuron and neighbourhood confirm the label; they do not say; they say another class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SomVerdicts:
    """What the map says of the labels, sample by sample and group by group.

    A row without a single value is judged by nothing: its probabilities are NaN and its verdict is
    `analyse`.
    """

    neuron: Int64[np.ndarray, "sample"]
    """Neuron of each sample; -1 for one without a value."""
    share: Float64[np.ndarray, "neuron class"]
    """Share of each class among the groups of a neuron; rows of NaN where there is none."""
    conditional: Float64[np.ndarray, "sample"]
    """Share of the sample's label among the other groups of its neuron; NaN without another."""
    posterior: Float64[np.ndarray, "sample class"]
    """Probability of each class: other groups of the neuron, over a prior of its neighbours."""
    verdict: Int64[np.ndarray, "sample"]
    """Index into `VERDICTS`."""
    group: Int64[np.ndarray, "unit"]
    """Groups, rising; a group of two labels is there once for each."""
    group_label: Int64[np.ndarray, "unit"]
    """Label of each."""
    group_conditional: Float64[np.ndarray, "unit"]
    """Mean over its samples."""
    group_posterior: Float64[np.ndarray, "unit class"]
    """Mean over its samples."""
    group_verdict: Int64[np.ndarray, "unit"]
    """Index into `VERDICTS`, from the means."""
    group_neuron: Int64[np.ndarray, "unit"]
    """The neuron with the most of its samples, the first of several; -1 if none has a value."""


def judge_labels(
    som: SelfOrganisingMap,
    series: Float32[np.ndarray, "sample ..."],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
    *,
    class_count: int,
    config: SomConfig | None = None,
) -> SomVerdicts:
    """Ask the other groups of a sample's neuron, and its neighbours, for the sample's class.

    A group with n samples in a neuron is root(n) witnesses there: more than one, but not n, for
    its samples were labelled together. The posterior is Dirichlet: witnesses of the neuron, over a
    prior of `prior_weight` witnesses spread like those of the eight neurons around it, over one
    spread evenly. Clean is a label that is `sure` among the witnesses and a posteriori; to be
    removed one where another class is `sure` a posteriori; anything between is to be analysed.
    Raises `SampleError` for series of another length than the map's.
    """
    config = config or SomConfig()
    is_known = np.isfinite(series.reshape(len(series), -1)).any(axis=1)
    neuron = np.where(is_known, som.place(series), -1)
    others, around, share = _witnesses(neuron, label, group, som.edge, class_count)
    prior = around + 1e-6  # evenly spread where nobody is around
    prior /= prior.sum(axis=1, keepdims=True)
    asked = others.sum(axis=1)
    posterior = others + config.prior_weight * prior
    posterior /= (asked + config.prior_weight)[:, None]  # (sample, class)
    posterior[~is_known] = np.nan
    conditional = np.full(len(series), np.nan)
    np.divide(others[np.arange(len(label)), label], asked, out=conditional, where=asked > 1e-9)
    return _told(neuron, share, conditional, posterior, label, group, config.sure)


def _witnesses(
    neuron: Int64[np.ndarray, "sample"],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
    edge: int,
    class_count: int,
) -> tuple[
    Float64[np.ndarray, "sample class"],
    Float64[np.ndarray, "sample class"],
    Float64[np.ndarray, "neuron class"],
]:
    """Return each sample's witnesses in its neuron and around it, and the shares of all neurons."""
    unit = np.unique(np.stack([group, label], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    is_known = neuron >= 0
    neurons = edge * edge
    key = unit * neurons + neuron
    present, inverse, count = np.unique(key[is_known], return_inverse=True, return_counts=True)
    root = np.sqrt(count)
    first = np.flatnonzero(is_known)[np.unique(inverse, return_index=True)[1]]
    table = np.zeros((neurons, class_count))
    np.add.at(table, (neuron[first], label[first]), root)
    total = table.sum(axis=1, keepdims=True)
    share = np.full(table.shape, np.nan)
    np.divide(table, total, out=share, where=total > 0)

    others, around = np.zeros((2, len(label), class_count))
    at = np.flatnonzero(is_known)
    row, column = np.divmod(neuron[at], edge)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            is_inside = (
                (row + down >= 0) & (row + down < edge)
                & (column + right >= 0) & (column + right < edge)
            )  # fmt: skip
            here = at[is_inside]
            there = neuron[here] + down * edge + right
            seen = table[there]
            # what the sample's own group says there is no second opinion
            wanted = unit[here] * neurons + there
            place = np.minimum(np.searchsorted(present, wanted), len(present) - 1)
            own = np.where(present[place] == wanted, root[place], 0.0)
            seen[np.arange(len(here)), label[here]] -= own
            (around if down or right else others)[here] += np.maximum(seen, 0.0)
    return others, around, share


def _told(
    neuron: Int64[np.ndarray, "sample"],
    share: Float64[np.ndarray, "neuron class"],
    conditional: Float64[np.ndarray, "sample"],
    posterior: Float64[np.ndarray, "sample class"],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
    sure: float,
) -> SomVerdicts:
    """Give the verdicts of samples and, from means over their samples, of groups."""
    pairs, unit = np.unique(np.stack([group, label], axis=1), axis=0, return_inverse=True)
    unit = unit.reshape(-1)
    count = len(pairs)
    group_conditional = _mean_by(unit, conditional[:, None], count)[:, 0]
    group_posterior = _mean_by(unit, posterior, count)
    return SomVerdicts(
        neuron=neuron,
        share=share,
        conditional=conditional,
        posterior=posterior,
        verdict=_verdicts(conditional, posterior, label, sure),
        group=pairs[:, 0],
        group_label=pairs[:, 1],
        group_conditional=group_conditional,
        group_posterior=group_posterior,
        group_verdict=_verdicts(group_conditional, group_posterior, pairs[:, 1], sure),
        group_neuron=_most_frequent(unit, neuron, count),
    )


def _verdicts(
    conditional: Float64[np.ndarray, "row"],
    posterior: Float64[np.ndarray, "row class"],
    label: Int64[np.ndarray, "row"],
    sure: float,
) -> Int64[np.ndarray, "row"]:
    row = np.arange(len(label))
    own = posterior[row, label]
    rest = posterior.copy()
    rest[row, label] = -1.0
    with np.errstate(invalid="ignore"):
        is_other = rest.max(axis=1, initial=-1.0) >= sure
        is_clean = (conditional >= sure) & (own >= sure)
    return np.where(is_other, 2, np.where(is_clean, 0, 1)).astype(np.int64)


def _mean_by(
    unit: Int64[np.ndarray, "sample"], values: Float64[np.ndarray, "sample column"], count: int
) -> Float64[np.ndarray, "unit column"]:
    """Average the rows of each unit that have a value; NaN where none has."""
    is_known = np.isfinite(values).all(axis=1)
    total = np.zeros((count, values.shape[1]))
    np.add.at(total, unit[is_known], values[is_known])
    number = np.bincount(unit[is_known], minlength=count)[:, None]
    mean = np.full(total.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean


def _most_frequent(
    unit: Int64[np.ndarray, "sample"], neuron: Int64[np.ndarray, "sample"], count: int
) -> Int64[np.ndarray, "unit"]:
    found = np.full(count, -1, np.int64)
    is_known = neuron >= 0
    pairs, number = np.unique(
        np.stack([unit[is_known], neuron[is_known]], axis=1), axis=0, return_counts=True
    )
    order = np.lexsort((pairs[:, 1], -number, pairs[:, 0]))
    units, first = np.unique(pairs[order, 0], return_index=True)
    found[units] = pairs[order[first], 1]
    return found
