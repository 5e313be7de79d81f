"""Samples and decisions about their labels in, samples with mended labels out."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Shaped

from cube.decisions import ACTIONS, Decision, as_compared, named, quoted, read_decisions
from cube.errors import InputError

SETTLED = "is_settled"
"""Variable of samples that says whose label was accepted or fixed: it is doubted no more."""


def apply_decisions(samples: xr.Dataset, path: str | Path) -> xr.Dataset:
    """Return samples with labels fixed and groups or samples left out as a file decides.

    `samples` are those of `draw_samples` or an import. `attrs["canopycube"]["dropped"]` counts
    what was left out, `attrs["canopycube"]["decisions"]` samples by action, rows that were decided
    over other samples (`of_other_samples`: their groups may have other pixels now), groups and
    classes of fixed samples that joined others (`joined`), and the SHA-256 of the file. Samples
    that are accepted or fixed are `SETTLED`. Names are compared in Unicode form NFC, without spaces
    round them. A fix that the samples have already is done. Raises `InputError` for a file that
    cannot be read, a group or sample that is not there, a given class that is another by now, a
    class that no sample has, and if nothing is left.
    """
    path = Path(path)
    decisions = read_decisions(path)
    group, label = (samples[name].values.astype(str) for name in ("group", "label"))
    names = sample_names(samples) if any(one.sample for one in decisions) else group
    classes = {as_compared(name): name for name in sorted(set(label.tolist()))}
    fingerprint = samples_fingerprint(samples)
    places = _places(_plain_all(group))
    plain = _plain_all(label)
    fixed, action = label.copy(), np.full(label.size, "", dtype="U6")
    # rows of whole groups first, so that rows of samples have the last word
    for one in sorted(decisions, key=lambda one: one.sample != ""):
        if one.action == "fix" and one.label not in classes:
            raise InputError(
                f"{named(path)} gives group {quoted(one.group)} the class {quoted(one.label)}, "
                f"which no sample has; classes are {', '.join(classes.values())}"
            )
        at = _found(one, places, label=plain, names=names, fingerprint=fingerprint, path=path)
        action[at] = one.action
        fixed[at] = classes[one.label] if one.action == "fix" else label[at]
    strangers = sum(one.fingerprint not in ("", fingerprint) for one in decisions)
    return _mended(samples, fixed, action, path, strangers)


def sample_names(samples: xr.Dataset) -> Shaped[np.ndarray, " sample"]:
    """Return a name for each sample: `row/column` of the cube's grid, else `#n`, counted from 0.

    The name is unique within a group; `#n` holds only for samples of the same fingerprint.
    """
    if "row" in samples and "column" in samples:
        row, column = (samples[name].values.tolist() for name in ("row", "column"))
        return np.array([f"{y}/{x}" for y, x in zip(row, column, strict=True)], dtype=str)
    return np.array([f"#{n}" for n in range(samples.sizes["sample"])], dtype=str)


def samples_fingerprint(samples: xr.Dataset) -> str:
    """Return 16 hexadecimal digits over which samples there are, whatever their labels are."""
    digest = hashlib.sha256()
    for values in (samples["group"].values.astype(str), sample_names(samples)):
        digest.update("\x1f".join(values.tolist()).encode() + b"\x1e")
    return digest.hexdigest()[:16]


def are_decided_by(samples: xr.Dataset, path: Path | None) -> bool:
    """Say whether the decisions of a file, or of none, are those that samples were mended by."""
    made = samples.attrs.get("canopycube", {}).get("decisions", {})
    return bool(made.get("file") == (None if path is None else _file_digest(path)))


def _file_digest(path: Path) -> str:
    """Return the SHA-256 of a file of decisions; raises `InputError`."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}") from None


def joined_by_decisions(samples: xr.Dataset) -> frozenset[tuple[str, str]]:
    """Return group and class of what a fix put beside samples of that group that had the class."""
    made = samples.attrs.get("canopycube", {}).get("decisions", {})
    return frozenset((str(group), str(name)) for group, name in made.get("joined", ()))


def _plain_all(names: Shaped[np.ndarray, " sample"]) -> Shaped[np.ndarray, " sample"]:
    known, number = np.unique(names, return_inverse=True)
    return np.array([as_compared(name) for name in known.tolist()], dtype=str)[number]


def _places(group: Shaped[np.ndarray, " sample"]) -> Mapping[str, np.ndarray]:
    """Return the samples of each group."""
    order = np.argsort(group, kind="stable")
    names, start = np.unique(group[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, start[1:]), strict=True))


def _found(
    one: Decision,
    places: Mapping[str, np.ndarray],
    *,
    label: Shaped[np.ndarray, " sample"],
    names: Shaped[np.ndarray, " sample"],
    fingerprint: str,
    path: Path,
) -> np.ndarray:
    """Return the samples that a decision is about."""
    at = places.get(one.group)
    if at is None:
        raise InputError(
            f"{named(path)} decides about group {quoted(one.group)}, which the samples do not "
            "have; take that row out, or take the samples it was written for"
        )
    if one.sample:
        if one.sample.startswith("#") and one.fingerprint != fingerprint:
            raise InputError(
                f"{named(path)} decides about sample {quoted(one.sample)} of other samples "
                f"({one.fingerprint or 'no fingerprint'}, these are {fingerprint}); decide again"
            )
        at = at[names[at] == one.sample]
        if not at.size:
            raise InputError(
                f"{named(path)} decides about sample {quoted(one.sample)} of group "
                f"{quoted(one.group)}, which the samples do not have; take that row out"
            )
    is_meant = label[at] == one.given
    # a label file that was mended meanwhile needs the fix no more
    is_mended = (label[at] == one.label) & (one.action == "fix")
    if not (is_meant | is_mended).any():
        found = ", ".join(map(quoted, sorted(set(label[at].tolist()))))
        raise InputError(
            f"{named(path)} decides about group {quoted(one.group)} given as {quoted(one.given)}, "
            f"but it is {found} in the samples; look at it again or take that row out"
        )
    meant: np.ndarray = at[is_meant]
    return meant


def _mended(
    samples: xr.Dataset,
    fixed: Shaped[np.ndarray, " sample"],
    action: Shaped[np.ndarray, " sample"],
    path: Path,
    strangers: int,
) -> xr.Dataset:
    is_kept: Bool[np.ndarray, " sample"] = action != "drop"
    if fixed.size and not is_kept.any():
        raise InputError(f"{named(path)} drops all {fixed.size:,} samples; nothing is left")
    ours: dict[str, Any] = dict(samples.attrs.get("canopycube", {}))
    dropped = Counter(ours.get("dropped", {}))
    if out := int((~is_kept).sum()):
        dropped["samples that decisions drop"] += out
    counts: dict[str, Any] = {name: int((action == name).sum()) for name in ACTIONS}
    is_settled = np.isin(action, ("accept", "fix"))
    if SETTLED in samples:
        is_settled |= samples[SETTLED].values.astype(bool)
    mended = samples.assign(
        {
            "label": ("sample", fixed, samples["label"].attrs),
            SETTLED: ("sample", is_settled, {"long_name": "somebody accepted or fixed the label"}),
        }
    )
    if "share" in samples:  # a fix says what the whole sample is
        shares = samples["share"].transpose("sample", "class")
        pure = (fixed[:, None] == samples["class"].values.astype(str)).astype(shares.dtype)
        is_fixed = (action == "fix")[:, None]
        values = np.where(is_fixed, pure, shares.values)
        mended = mended.assign(share=(("sample", "class"), values, samples["share"].attrs))
    counts |= {"file": _file_digest(path), "of_other_samples": strangers}
    counts["joined"] = _joined(samples["group"].values.astype(str), fixed, action == "fix")
    ours |= {"dropped": dict(dropped), "decisions": counts}
    return mended.isel(sample=np.flatnonzero(is_kept)).assign_attrs(canopycube=ours)


def _joined(
    group: Shaped[np.ndarray, " sample"],
    label: Shaped[np.ndarray, " sample"],
    is_fixed: Bool[np.ndarray, " sample"],
) -> list[list[str]]:
    fixed, others = (
        set(zip(group[which].tolist(), label[which].tolist(), strict=True))
        for which in (is_fixed, ~is_fixed)
    )
    return [list(pair) for pair in sorted(fixed & others)]
