"""A recipe in, what the run will do out: grid, scenes, tiles and memory, before any pixel."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from odc.geo.geom import Geometry

from cube.composite import method_margin
from cube.finish import Finish
from cube.grid import area_from_bbox, area_from_file
from cube.ledger import fingerprint
from cube.periods import Period
from cube.source import PeriodSource
from cube.spec import CubeSpec
from cube.stac import SceneList
from pipelines.layout import Layout
from pipelines.memory import Memory
from pipelines.plan_earthengine import plan_earthengine
from pipelines.plan_stac import plan_stac
from pipelines.plan_stack import plan_stack
from pipelines.planned import PlannedSource, clear_mask, finish
from pipelines.recipe import EarthEngineSection, Recipe, StackSection
from pipelines.tile_inputs import CubeInputs

ALGORITHM = 2
"""Counted up when the same inputs give other pixels, so that older tiles are built again."""


@dataclass(frozen=True, kw_only=True)
class CubePlan:
    """Everything a cube is built from."""

    spec: CubeSpec
    """What the cube will be."""
    source: PeriodSource
    """Where its pixels come from."""
    inputs: str
    """Fingerprint of all that decides its pixels."""
    made_from: CubeInputs
    """The same, to be asked for each tile's share of it."""
    looks: dict[Period, int]
    """Most looks a pixel can have in each period that has any."""
    memory: Memory
    """What building it takes at most."""
    memory_of: Callable[[CubeSpec], Memory]
    """The same of another cube of these scenes, e.g. of smaller tiles."""
    finish: Finish = field(default_factory=Finish)
    """What is done to a tile's finished series."""
    allowed_losses: int = 0
    """How many scenes may be lost to broken files, over all tiles."""
    scenes: SceneList | None = None
    """The scenes, where they come from a catalogue."""
    reads_directly: bool = False
    """Whether what is asked of servers is counted: our own reader does, libraries do not."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What `plan` prints of the source, as plain JSON."""

    @cached_property
    def tile_inputs(self) -> dict[str, str]:
        """What each tile's record is known by, by tile id: what the cube's ledger is asked for."""
        return self.made_from.fingerprints(self.spec.regions())

    @property
    def is_finished(self) -> bool:
        """Whether anything is done to a finished series, so that its values depend on each other."""
        return self.finish != Finish()

    @property
    def peak_bytes(self) -> int:
        """Memory of one tile in one process while it is built (see `pipelines.memory`)."""
        return self.memory.total(tiles=1, processes=1)


def area_of(recipe: Recipe) -> Geometry | None:
    """Return the recipe's area, or None where a stack's own extent is taken."""
    if recipe.area is None:
        return None
    if recipe.area.file is not None:
        return area_from_file(recipe.area.file)
    assert recipe.area.bbox is not None  # one of the two, by validation
    return area_from_bbox(recipe.area.bbox, recipe.area.crs)


def plan_cube(
    recipe: Recipe, *, update_lock: bool = False, on_scene: Callable[[int, int], None] | None = None
) -> CubePlan:
    """Settle grid, periods and scenes of the recipe's cube.

    Scenes are searched once, checked against their files and written to the lock file beside the
    cube; later calls with the same question read that file, unless `update_lock`. Raises
    `InputError` for an area or months without any scene.
    """
    area, section = area_of(recipe), recipe.source
    if isinstance(section, StackSection):
        return _cube_plan(recipe, plan_stack(recipe, section, area))
    assert area is not None  # by validation
    lock = Layout.of(recipe.outputs).scenes
    if isinstance(section, EarthEngineSection):
        return _cube_plan(
            recipe, plan_earthengine(recipe, section, area, lock=lock, update=update_lock)
        )
    planned = plan_stac(recipe, section, area, lock=lock, update=update_lock, on_scene=on_scene)
    return _cube_plan(
        recipe,
        planned,
        allowed_losses=section.lost_scenes,
        reads_directly=section.reader == "direct",
    )


def _cube_plan(
    recipe: Recipe,
    planned: PlannedSource,
    *,
    allowed_losses: int = 0,
    reads_directly: bool = False,
) -> CubePlan:
    return CubePlan(
        spec=planned.spec,
        source=planned.source,
        inputs=_inputs(recipe, planned),
        made_from=_made_from(recipe, planned),
        looks=planned.looks,
        memory=planned.memory,
        memory_of=planned.memory_of,
        finish=finish(recipe),
        allowed_losses=allowed_losses,
        scenes=planned.scenes,
        reads_directly=reads_directly,
        facts=planned.facts,
    )


def _inputs(recipe: Recipe, planned: PlannedSource) -> str:
    """Return the fingerprint of all that decides the cube.

    How files are read and signed is none of it, nor how often a server is asked again.
    """
    spec = planned.spec.to_json()
    return fingerprint(
        {"algorithm": ALGORITHM, "spec": spec, **_settings(recipe), **planned.pixels}
    )


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return what of the recipe decides pixels whatever the source, as plain JSON."""
    composite = recipe.composite
    return {
        # Earth Engine's mask is part of what it is asked for
        "mask": recipe.mask.model_dump() if recipe.source.kind != "earthengine" else None,
        "method": composite.method,
        "outliers": composite.outlier_threshold if composite.outliers else None,
        "gaps": None if recipe.gaps is None else recipe.gaps.model_dump(),
    }


def _made_from(recipe: Recipe, planned: PlannedSource) -> CubeInputs:
    """Return what each tile's inputs are taken from."""
    step = abs(planned.spec.geobox.resolution.x)
    margin = method_margin(recipe.composite.method, pixel_size=(step, step))
    pixels = {key: value for key, value in planned.pixels.items() if key not in _OF_SCENES}
    return CubeInputs(
        code=ALGORITHM,
        spec=planned.spec,
        settings={**_settings(recipe), **pixels},
        scenes=() if planned.scenes is None else planned.scenes.scenes,
        files=planned.pixels.get("files"),
        margin=margin + clear_mask(recipe).margin(pixel_size=step),
    )


_OF_SCENES = ("scenes", "images", "files")
"""Keys of a source's `pixels` that name scenes, of which a tile depends on its own alone."""
