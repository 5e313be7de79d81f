"""What an import found: kept as `import.json`, told as `import.md`, and the recipe to go on with."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cube.durable import replace_text
from cube.grid import LON_LAT
from cube.tables.calendar import Calendar
from cube.tables.spill import Spill
from cube.tables.stack import StackFacts
from cube.tables.truth import TruthFacts
from pipelines.import_text import import_markdown, import_recipe

KIND, SCHEMA = "canopycube import", 1

_NEARLY_ALL = 0.99

_DROPPED = (
    "masked in every band",
    "zero in every band",
    "without data in some bands",
    "outside the calendar",
    "duplicates",
    "contradictions",
    "of pixels with several classes",
)
"""Reasons for which a row is left out, in the order in which they are asked."""


def import_report(
    tables: Sequence[Spill],
    *,
    bands: tuple[str, ...],
    calendar: Calendar,
    crs: CRS,
    stack: StackFacts | None,
    samples: TruthFacts | None,
) -> dict[str, Any]:
    """Return what was read, kept and left out, and what is odd, as plain JSON values.

    Tables without any data are told too.
    """
    counts = (stack.by_file if stack else {}) | (samples.by_file if samples else {})
    files = [_file(table, counts.get(table.name, Counter()), bands) for table in tables]
    months = [str(period) for period in calendar.periods]
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "crs": f"EPSG:{crs.epsg}" if crs.epsg else crs.to_wkt(),
        "months": {"first": months[0], "last": months[-1]},
        "bands": list(bands),
        "bands_without_data": [band for band in tables[0].columns.bands if band not in bands],
        "rows": _rows(files),
        "files": files,
        "stack": None if stack is None else _stack(stack, months),
        "samples": None if samples is None else _samples(samples, months),
        "checks": _checks(tables, files, stack, samples),
    }


def _file(spill: Spill, counts: Counter[str], bands: tuple[str, ...]) -> dict[str, Any]:
    every = spill.dropped + counts
    days = [str(np.datetime64(day, "D")) for day in sorted(spill.days)]
    months = Counter(day[:7] for day in days)
    return {
        "name": spill.name,
        "kind": "ground truth" if spill.columns.is_truth else "patch",
        "form": "raw" if spill.columns.is_raw else "cleaned",
        "rows": spill.read,
        "kept": counts["kept"],
        "dropped": {reason: every[reason] for reason in _DROPPED if every[reason]},
        "dates": days,
        "most_dates_in_a_month": max(months.values(), default=0),
        "pixels": counts["pixels"],
        "rows_without_band": {
            band: count for band in bands if (count := spill.facts[f"missing {band}"])
        },
        "values_outside_0_65535": spill.facts["outside"],
        "values_rounded": spill.facts["rounded"],
        "values_clipped": spill.facts["clipped"],
        "rows_bright_in_blue": spill.facts["bright"],
        "rows_repeating_the_row_before": counts["filled down"],
        "rows_with_coordinates_spelled_otherwise": counts["spelled otherwise"],
        "columns_not_imported": list(spill.columns.left_out),
        "has_offset": spill.has_offset,
    }


def _rows(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    for file in files:
        dropped.update(file["dropped"])
    return {
        "read": sum(file["rows"] for file in files),
        "kept": sum(file["kept"] for file in files),
        "dropped": dict(dropped),
    }


def _stack(found: StackFacts, months: list[str]) -> dict[str, Any]:
    return {
        **_grid(found.geobox),
        "dates": [str(np.datetime64(day, "D")) for day in found.days],
        "pixels": found.pixels,
        "pixels_missed_by_the_sampling": found.missed,
        "grid_share_with_data": found.pixels / (found.geobox.shape[0] * found.geobox.shape[1]),
        **_series(found, months),
    }


def _samples(found: TruthFacts, months: list[str]) -> dict[str, Any]:
    labels = Counter(found.samples["label"].values.tolist())
    groups = dict(
        zip(
            found.samples["group"].values.tolist(),
            found.samples["label"].values.tolist(),
            strict=True,
        )
    )
    return {
        "samples": int(found.samples.sizes["sample"]),
        "by_class": dict(sorted(labels.items())),
        "groups": len(groups),
        "groups_by_class": dict(sorted(Counter(groups.values()).items())),
        "groups_of_several_classes": found.mixed_groups,
        "pixels_of_several_classes": found.disputed,
        "blocks": len(set(found.samples["block"].values.tolist())),
        "bounds_lon_lat": _bounds(found),
        **_series(found, months),
    }


def _bounds(found: TruthFacts) -> list[float]:
    """Return a box in lon/lat round the samples, a pixel wider."""
    lon, lat = found.samples["lon"].values, found.samples["lat"].values
    wider = 2e-4
    box = (lon.min() - wider, lat.min() - wider, lon.max() + wider, lat.max() + wider)
    return [round(float(value), 6) for value in box]


def _series(found: StackFacts | TruthFacts, months: list[str]) -> dict[str, Any]:
    """Return how complete the series of pixels are."""
    pixels = sum(found.pixels_by_months.values())
    few = sum(count for number, count in found.pixels_by_months.items() if number < len(months))
    return {
        "months_without_data": [
            month
            for month, has_data in zip(months, found.months_with_data, strict=True)
            if not has_data
        ],
        "pixels_by_months_with_data": {
            str(number): count for number, count in sorted(found.pixels_by_months.items())
        },
        "share_of_pixels_missing_a_month": few / pixels if pixels else 0.0,
        "pixel_months_by_dates": {
            str(number): count for number, count in sorted(found.looks_by_month.items())
        },
        "values_repeated_at_the_next_date": found.repeated_next_date,
    }


def _grid(geobox: GeoBox) -> dict[str, Any]:
    box = geobox.extent.to_crs(LON_LAT).boundingbox
    return {
        "shape": {"y": geobox.shape[0], "x": geobox.shape[1]},
        "transform": list(geobox.transform)[:6],
        "bounds_lon_lat": [round(value, 6) for value in box],
    }


def _checks(
    tables: Sequence[Spill],
    files: Sequence[dict[str, Any]],
    stack: StackFacts | None,
    samples: TruthFacts | None,
) -> dict[str, Any]:
    """Return what tells the usual faults of such tables."""
    used = sum(file["kept"] for file in files)
    duplicates = sum(file["dropped"].get("duplicates", 0) for file in files)
    bright = sum(file["rows_bright_in_blue"] for file in files)
    with_data = sum(table.kept for table in tables)
    repeats = [found.repeated_next_date for found in (stack, samples) if found]
    return {
        "duplicates_share": duplicates / (used + duplicates) if used else 0.0,
        "is_one_date_a_month": _is_one_date_a_month(files, stack, samples),
        "bright_share": bright / with_data if with_data else 0.0,
        "values_repeated_at_the_next_date": sum(repeats),
        "rows_repeating_the_row_before": sum(
            file["rows_repeating_the_row_before"] for file in files
        ),
        "rows_with_coordinates_spelled_otherwise": sum(
            file["rows_with_coordinates_spelled_otherwise"] for file in files
        ),
        "indices": {
            table.name: {
                name: {
                    "rows": check.rows,
                    "impossible_values": check.impossible,
                    "mean_difference": check.mean_difference,
                    "share_right": check.near_share,
                    "share_as_on_counts": check.near_share_on_counts,
                    "is_on_counts": check.is_on_counts,
                }
                for name, check in table.indices.items()
            }
            for table in tables
        },
    }


def _is_one_date_a_month(
    files: Sequence[dict[str, Any]], stack: StackFacts | None, samples: TruthFacts | None
) -> bool:
    """Say whether months are single looks: of every patch, or of nearly all pixels.

    Where patches overlap, the few pixels of both may have two.
    """
    patches = [file for file in files if file["kind"] == "patch" and file["dates"]]
    if patches and all(file["most_dates_in_a_month"] == 1 for file in patches):
        stack = None
    for found in (stack, samples):
        if found and found.looks_by_month[1] < _NEARLY_ALL * found.looks_by_month.total():
            return False
    return True


def is_import(folder: Path) -> bool:
    """Say whether an import lies in a folder, with the recipe that came with it unchanged."""
    try:
        report = json.loads((folder / "import.json").read_text(encoding="utf-8"))
        recipe = (folder / "recipe.toml").read_bytes()
    except (OSError, ValueError):
        return False
    return (
        isinstance(report, dict)
        and report.get("kind") == KIND
        and report.get("recipe") == hashlib.sha256(recipe).hexdigest()
    )


def write_import_report(folder: Path, report: dict[str, Any], *, recipe: Path) -> None:
    """Write the recipe to go on with, and the report as JSON and Markdown."""
    replace_text(recipe, import_recipe(report))
    report["recipe"] = hashlib.sha256(recipe.read_bytes()).hexdigest()
    replace_text(folder / "import.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    replace_text(folder / "import.md", import_markdown(report))
