"""Labels as a table writes them in, findings about how they are written out."""

from collections import defaultdict

import numpy as np
from jaxtyping import Int64, Shaped

from model.audit import Finding
from model.audit.finding import rows_of, some


def labels_spelt(
    written: Shaped[np.ndarray, " row"], sequence: Int64[np.ndarray, " row"]
) -> list[Finding]:
    """Return what is wrong with how classes are written: one in several ways, numbers and words.

    One class are `Oak`, `oak ` and `OAK`, and `1`, `01` and `1.0`. `sequence` is the sequence of
    each row, which findings name.
    """
    names, which = np.unique(written, return_inverse=True)
    return _alike(names, which, sequence) + _mixed(names, which, sequence)


def _alike(names: np.ndarray, which: np.ndarray, sequence: np.ndarray) -> list[Finding]:
    ways: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(names.tolist()):
        key = " ".join(name.split()).casefold()
        ways[str(float(key)) if _is_number(key) else key].append(at)
    several = [found for found in ways.values() if len(found) > 1]
    if not several:
        return []
    count = np.bincount(which, minlength=len(names))
    # the most frequent way is the class, the others are what to mend
    odd = [at for found in several for at in found if at != max(found, key=lambda n: int(count[n]))]
    told = [" and ".join(repr(str(names[at])[:40]) for at in found) for found in several]
    rows = int(count[odd].sum())
    return [
        Finding(
            code="labels-spelt",
            severity="severe",
            what=f"{len(several):,} classes are written in several ways, in {rows:,} rows otherwise "
            f"than mostly: {some(told, 3)}; read as they are they become several classes",
            count=rows,
            rows=rows_of(np.unique(sequence[np.isin(which, odd)])),
            advice="Write them alike, without blanks before or behind",
        )
    ]


def _mixed(names: np.ndarray, which: np.ndarray, sequence: np.ndarray) -> list[Finding]:
    is_number = np.array([_is_number(name) for name in names.tolist()], dtype=bool)
    if is_number.all() or not is_number.any():
        return []
    count = np.bincount(which, minlength=len(names))
    is_rarer = is_number if count[is_number].sum() <= count[~is_number].sum() else ~is_number
    rows = int(count[is_rarer].sum())
    number, word = names[is_number][0], names[~is_number][0]
    return [
        Finding(
            code="labels-mixed",
            severity="severe",
            what=f"classes are numbers such as {str(number)[:40]!r} and words such as "
            f"{str(word)[:40]!r}, the rarer kind in {rows:,} rows",
            count=rows,
            rows=rows_of(np.unique(sequence[is_rarer[which]])),
            advice="One of them is no class, or two legends were joined; use one legend",
        )
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
