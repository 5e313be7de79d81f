"""The words of `why` in, the lineage of a pixel out, and why it would be made again."""

import argparse
from pathlib import Path
from typing import Any

from cube.errors import InputError
from cube.place import Place, as_place
from pipelines.progress import Reporter
from pipelines.why_pixel import explain
from pipelines.why_text import lineage_lines


def why_command(options: argparse.Namespace) -> dict[str, Any]:
    """Explain the pixel that the command line names."""
    first, second, is_lon_lat = _place_of(options)
    given = as_place(options.store)
    is_recipe = isinstance(given, Path) and given.is_file()
    recipe = Path(options.store) if is_recipe else options.recipe
    if is_recipe:
        from pipelines.layout import Layout
        from pipelines.recipe import Recipe, read_any_recipe

        read = read_any_recipe(recipe, tuple(options.overrides))
        if not isinstance(read, Recipe):
            raise InputError("why needs a cube or a map, and the recipe has no [source]")
        layout = Layout.of(read.outputs)
        given = layout.map if layout.map.exists() else layout.cube
    found = explain(_store_of(given), first, second, is_lon_lat=is_lon_lat)
    if recipe is not None and "cube" in found:
        found["cube"]["made_again_because"] = _changes(recipe, options, found["cube"])
    if not options.json:
        print("\n".join(lineage_lines(found)))
    return found


def _place_of(options: argparse.Namespace) -> tuple[float, float, bool]:
    geographic, planar = (options.lon, options.lat), (options.x, options.y)
    given = [None not in pair for pair in (geographic, planar)]
    halves = [pair.count(None) == 1 for pair in (geographic, planar)]
    if sum(given) != 1 or any(halves):
        raise InputError("a place is --lon and --lat, or --x and --y in the store's CRS")
    pair = geographic if given[0] else planar
    return float(pair[0]), float(pair[1]), given[0]


def _store_of(given: Place) -> Place:
    """Return the map of an output folder, or its cube; else what was given."""
    for name in ("map.zarr", "cube.zarr"):
        try:
            if (given / name).exists():
                return given / name
        except OSError:  # a name longer than the file system allows: opening the store tells
            return given
    return given


def _changes(recipe: Path, options: argparse.Namespace, made: dict[str, Any]) -> list[str]:
    """Return why a recipe would make the cube's tile again; nothing if it would not."""
    from pipelines.recipe import Recipe, read_any_recipe
    from pipelines.run import open_run
    from pipelines.tile_changes import tile_reasons

    read = read_any_recipe(recipe, tuple(options.overrides))
    if not isinstance(read, Recipe):
        raise InputError("the recipe has no [source], so it makes no cube")
    with open_run(read, Reporter(is_quiet=options.json)) as run:
        if str(run.layout.cube) != made["store"] and run.layout.cube.exists():
            here = [Path(str(place)).resolve() for place in (run.layout.cube, made["store"])]
            if here[0] != here[1]:
                raise InputError(
                    f"the recipe's cube is {str(run.layout.cube)!r}, not {made['store']!r}"
                )
        return tile_reasons(run.plan, run.layout.cube, made["tile"])
