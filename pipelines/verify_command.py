"""The words of `verify` in, certificates out; what is damaged is forgotten and made anew, if wished."""

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cube.errors import InputError, WorkFailedError
from cube.place import Place, as_place, folder_names
from cube.spec import Region
from pipelines.progress import Reporter
from pipelines.verify_store import (
    Certificate,
    IsStale,
    checked_store,
    sibling_cube,
    stale_against_cube,
    verify_store,
)
from pipelines.verify_text import certificate_lines, faults_text, tiles_text

_STORES = ("cube.zarr", "map.zarr")
"""What an output folder may hold that can be verified."""


class NotWholeError(WorkFailedError):
    """Stores that are not whole; `found` is what was found of each."""

    def __init__(self, text: str, found: dict[str, Any]) -> None:
        super().__init__(text)
        self.found = found


def verify_command(options: argparse.Namespace) -> dict[str, Any]:
    """Verify what the command line names; raises `NotWholeError` unless all of it is whole."""
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers {options.workers}; expected 1 or more")
    reporter = Reporter(is_quiet=options.json)
    given = as_place(options.store)
    if isinstance(given, Path) and given.is_file():
        made = _verify_recipe(given, options, reporter)
    else:
        made = _verify_places(_places(given), options, reporter)
    found = {"stores": [one.to_json() for one in made]}
    if not options.json:
        for one in made:
            print("\n".join(certificate_lines(one, remedy=_remedy(given, options))))
    if bad := [one for one in made if not one.is_whole]:
        first = bad[0]
        raise NotWholeError(
            f"{str(first.store.place)!r} is not whole: {tiles_text(first)}, "
            f"{faults_text(len(first.faults))}. {_remedy(given, options)}",
            found,
        )
    return found


def _remedy(given: Place, options: argparse.Namespace) -> str:
    is_recipe = str(given).endswith(".toml")
    if is_recipe:
        return (
            "Run `canopycube run` again for what is still missing"
            if options.repair
            else f"`canopycube verify {given} --repair` makes damaged tiles anew"
        )
    if options.repair:
        return "What was damaged is forgotten: run the recipe again, which makes it anew"
    return "--repair forgets what is damaged; with the recipe in place of the store it is made anew"


def _places(given: Place) -> list[Place]:
    """Return the stores that are meant: the one given, or those of an output folder."""
    try:
        zones = [given / name for name in folder_names(given, "zone-*")]
        inside = [folder / name for folder in (given, *zones) for name in _STORES]
        there = [place for place in inside if place.exists()]
    except OSError:  # a name longer than the file system allows: opening the store tells
        there = []
    return there or [given]


def _verify_places(
    places: list[Place], options: argparse.Namespace, reporter: Reporter
) -> list[Certificate]:
    stores = [checked_store(place) for place in places]
    if not options.repair:
        return [_verified(store.place, reporter, options) for store in stores]
    from pipelines.sole_user import sole_user

    folder = stores[0].place.parent
    if not isinstance(folder, Path):
        raise InputError(
            f"{str(folder)!r} is on an object store: give the recipe to `verify --repair`, so that no "
            "other run is at work there"
        )
    with contextlib.ExitStack() as stack:
        for one in _homes(folder):
            stack.enter_context(sole_user(one))
        return [_repaired(store.place, reporter, options) for store in stores]


def _homes(folder: Path) -> list[Path]:
    """Return the folders whose runs may write stores in one: a zone is written by the run above it."""
    is_zone = folder.resolve().name.startswith("zone-")
    return [folder.resolve().parent, folder] if is_zone else [folder]


def _verified(
    place: Place, reporter: Reporter, options: argparse.Namespace, is_stale: IsStale | None = None
) -> Certificate:
    store = checked_store(place)
    if store.kind == "map" and is_stale is None:
        is_stale = stale_against_cube(sibling_cube(place))
    return verify_store(store, reporter, is_stale=is_stale, workers=options.workers)


def _repaired(
    place: Place, reporter: Reporter, options: argparse.Namespace, is_stale: IsStale | None = None
) -> Certificate:
    """Verify a store and forget what is damaged; return what is found of it after that."""
    from pipelines.verify_repair import repair_store

    made = _verified(place, reporter, options, is_stale)
    if made.is_whole and not made.leftovers:
        return made
    if any(fault.kind == "layout" for fault in made.faults):
        repair_store(made)  # its tiles can be read now
        made = _verified(place, reporter, options, is_stale)
    for tile in repair_store(made):
        reporter.say(f"{made.store.kind} tile {tile} is forgotten")
    found = _verified(place, reporter, options, is_stale)
    found.is_mended = True
    return found


def _verify_recipe(
    path: Path, options: argparse.Namespace, reporter: Reporter
) -> list[Certificate]:
    """Verify the stores of a recipe, also whether they are what it would make now."""
    from pipelines.recipe import SeriesRecipe, read_any_recipe
    from pipelines.run import Run, open_run

    recipe = read_any_recipe(path, tuple(options.overrides))
    if isinstance(recipe, SeriesRecipe):
        raise InputError("verify needs a cube or a map, and the recipe has no [source]")

    def verified(run: Run) -> list[Certificate]:
        one = _repaired if options.repair else _verified
        made = [
            one(part.layout.cube, reporter, options, stale_against_plan(part)) for part in run.parts
        ]
        maps = dict.fromkeys([*(part.layout.map for part in run.parts), run.layout.map])
        return made + [one(place, reporter, options) for place in maps if place.exists()]

    with open_run(recipe, reporter) as run:
        for part in run.parts:
            if not part.layout.cube.exists():
                raise InputError(
                    f"there is no cube at {str(part.layout.cube)!r}; run `canopycube build` first"
                )
        made = verified(run)
        # a note that was removed leaves a whole store, and is written again by the next run
        if not options.repair or all(one.is_whole and not one.is_mended for one in made):
            return made
        run.build()
        if run.layout.map.exists():
            run.map()
        return verified(run)


def stale_against_plan(run: Any) -> IsStale:
    """Return what says whether a cube's tile is what a recipe's run would make now."""
    from pipelines.tile_inputs import changed_parts

    wanted: Mapping[str, str] = run.plan.tile_inputs

    def is_stale(region: Region, record: Mapping[str, Any]) -> str:
        if record.get("inputs") == wanted.get(region.id):
            return ""
        parts = record.get("made_from")
        before = parts if isinstance(parts, dict) else {}
        changes = changed_parts(before, run.plan.made_from.of(region))
        return "; ".join(changes) or "its record is of other inputs than it says"

    return is_stale
