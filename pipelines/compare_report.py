"""A comparison in; a table for spreadsheets, plain JSON values for machines out."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube.compare import Agreement, ClearAgreement
from cube.durable import replace_text
from cube.errors import InputError
from pipelines.compare_cubes import Comparison
from pipelines.compare_verdict import ALL_PERIODS, Excess, not_judged
from pipelines.thresholds import Thresholds

if TYPE_CHECKING:
    from pipelines.compare_labels import Labels


def compared(made: Comparison, limits: Thresholds, above: list[Excess]) -> dict[str, Any]:
    """Return everything that was found, as plain JSON values; `a` is the first cube."""
    shared = made.shared
    return {
        "a": str(made.first),
        "b": str(made.second),
        "shared": {
            "periods": list(shared.periods),
            "bands": list(shared.bands),
            "pixels": shared.pixels,
            "shape": {"y": shared.shape[0], "x": shared.shape[1]},
        },
        "not_shared": shared.not_shared(),
        "by_band": {band: _named(found) for band, found in made.by_band().items()},
        "by_band_and_period": [
            {"band": band, "period": period, **_named(found)}
            for band, period, found in made.by_place()
        ],
        "clear": _named(ClearAgreement.of_all(made.tally.clear)),
        "clear_by_period": {
            period: _named(found) for period, found in made.clear_by_period().items()
        },
        "labels": None if made.labels is None else _labels(made.labels),
        "thresholds": asdict(limits),
        "not_judged": not_judged(made),
        "exceeded": [asdict(one) for one in above],
    }


def _named(found: Agreement | ClearAgreement) -> dict[str, Any]:
    """Return figures under the names that the command line gives the cubes."""
    renamed = {"only_first": "only_a", "only_second": "only_b"}
    return {renamed.get(name, name): value for name, value in asdict(found).items()}


def _labels(labels: "Labels") -> dict[str, Any]:
    return {
        "both": labels.both,
        "equal": labels.equal,
        "agreement": labels.agreement,
        "only_a": labels.only_first,
        "only_b": labels.only_second,
        "neither": int(labels.pairs[0, 0]),
        "disagreements": [
            {"a": one, "b": two, "pixels": pixels} for one, two, pixels in labels.disagreements()
        ],
    }


COLUMNS = (
    *("band", "period", "pixels", "only_a", "only_b", "bias", "rmse", "largest", "within_one"),
    *("correlation", "clear_differs", "clear_only_a", "clear_only_b", "clear_counts_differ"),
)
"""Columns of the table. A row is a band in a period or in all of them, or, with the band `all`, what
is counted of a period whatever the band."""


def check_table(path: Path) -> None:
    """Refuse a place where no table can be written, before the cubes are read.

    Raises `InputError` for a folder that does not exist, and for a file that is no table of a
    comparison: it is not overwritten.
    """
    try:
        if not path.absolute().parent.is_dir():
            raise InputError(f"--csv {str(path)!r} lies in a folder that does not exist; make it")
        if path.exists() and not _is_table(path):
            raise InputError(
                f"--csv {str(path)!r} exists and is no table of a comparison; it is not overwritten"
            )
    except OSError as error:
        raise InputError(f"--csv {str(path)!r} cannot be used: {error.strerror}") from error


def _is_table(path: Path) -> bool:
    header = ",".join(COLUMNS).encode()
    with path.open("rb") as file:
        return file.read(len(header)) == header


def write_table(path: Path, made: Comparison) -> None:
    """Write every figure as CSV, whole or not at all; shares 0..1, empty where there is none.

    Raises `InputError` if `path` cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for band, period, found in made.by_place():
        writer.writerow({"band": band, "period": period, **_named(found)})
    for band, found in made.by_band().items():
        writer.writerow({"band": band, "period": ALL_PERIODS, **_named(found)})
    for period, clear in made.clear_by_period().items():
        counts = {f"clear_{name}": value for name, value in _named(clear).items()}
        writer.writerow({"band": "all", "period": period, **counts})
    try:
        replace_text(path, text.getvalue())
    except OSError as error:
        raise InputError(f"--csv {str(path)!r} cannot be written: {error.strerror}") from error
