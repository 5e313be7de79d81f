"""The labels of a table's rows in, one class a series out, or what is wrong with them."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64, Shaped

from cube.errors import InputError

MOST_CLASSES = 254
"""Classes a map can hold."""

BLANK = ("", "nan", "NaN", "NA", "N/A", "<NA>", "null", "NULL", "None")
"""Texts that programs write where there is no label."""


def refuse_blank(
    label: Shaped[np.ndarray, " row"], column: str, where: Callable[[int], str]
) -> None:
    """Raise `InputError` for rows without a class; `label` has the blanks that the table has."""
    is_blank = np.isin(np.char.strip(label.astype(str)), BLANK)
    if is_blank.any():
        row = int(np.flatnonzero(is_blank)[0])
        raise InputError(
            f"{where(row)}: {column!r} holds {label[row]!r}, no class, as do {int(is_blank.sum()):,}"
            " rows; give each series a label, or take those without out"
        )


def refuse_unlike(raw: Sequence[str], column: str, *, file: str) -> None:
    """Raise `InputError` for names that mean one class, or mix numbers in.

    One class are `Oak`, `oak ` and `OAK`, and `1`, `01` and `1.0`.

    `raw` are the different texts of the column, with the blanks they have.
    """
    by_name: dict[str, str] = {}
    for text in sorted(raw):
        key = " ".join(text.split()).casefold()
        is_number = _is_number(text)
        other = by_name.setdefault(str(float(text)) if is_number else key, text)
        if other != text:
            how = "are the same number" if is_number else "differ in blanks or case only"
            raise InputError(
                f"{file!r}: {column!r} has the classes {other!r} and {text!r}, which {how}; write "
                "them alike"
            )
    names = [text.strip() for text in raw if text.strip()]
    numbers = [name for name in names if _is_number(name)]
    if numbers and len(numbers) < len(names):
        word = next(name for name in names if not _is_number(name))
        raise InputError(
            f"{file!r}: {column!r} mixes numbers such as {min(numbers)!r} with words such as "
            f"{word!r}; one of them is no class, or two legends were joined"
        )


def refuse_few_or_many(label: Shaped[np.ndarray, " series"], *, file: str) -> None:
    """Raise `InputError` unless there are two classes or more, and no more than a map holds."""
    classes = sorted(set(label.tolist()))
    if len(classes) < 2:
        raise InputError(
            f"{file!r} has one class only, {classes[0]!r}; nothing can be told apart. Expected two "
            "or more (is --label right?)"
        )
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"{file!r} has {len(classes):,} classes, more than {MOST_CLASSES}, e.g. {classes[0]!r}; "
            "is --label right?"
        )


def one_each(
    value: Shaped[np.ndarray, " row"],
    series: Int64[np.ndarray, " row"],
    first: Int64[np.ndarray, " series"],
    what: str,
    tell: Callable[[int, int], str],
) -> Shaped[np.ndarray, " series"]:
    """Return the one value of each series; `first` is the row where each begins.

    Raises `InputError` if a series has two: `tell` names the series and the two rows.
    """
    differs = value != value[first][series]
    if differs.any():
        row = int(np.flatnonzero(differs)[0])
        begin = int(first[series[row]])
        raise InputError(
            f"{tell(begin, row)} has two {what}, {str(value[begin])[:40]!r} and "
            f"{str(value[row])[:40]!r}; mend it, or if ids begin again every year or file name the "
            "column of the year (--year)"
        )
    return np.asarray(value[first])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
