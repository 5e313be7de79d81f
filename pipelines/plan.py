"""A recipe in, what the run will do out: grid, scenes, tiles and memory, before any pixel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from cube.earthengine.exported import ExportedSource
from cube.earthengine.source import EarthEngineSource
from cube.finish import Finish
from cube.grid import area_from_bbox, area_from_file
from cube.ledger import fingerprint
from cube.periods import Period
from cube.source import PeriodSource
from cube.spec import CubeSpec
from cube.stac import SceneList
from pipelines.cores import tiles_ahead
from pipelines.memory import Memory, NetworkSizes, map_memory, pixel_bytes
from pipelines.plan_earthengine import asking_cost, plan_earthengine
from pipelines.plan_stac import plan_stac, reading_cost
from pipelines.plan_stack import plan_stack
from pipelines.planned import PlannedSource, finish
from pipelines.recipe import EarthEngineSection, Recipe, StackSection

ALGORITHM = 2
"""Counted up when the same inputs give other pixels, so that older tiles are built again."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a run keeps its results."""

    folder: Path
    """The recipe's output folder."""

    @property
    def cube(self) -> Path:
        """The data cube."""
        return self.folder / "cube.zarr"

    @property
    def scenes(self) -> Path:
        """The scene lock file, stac-geoparquet."""
        return self.folder / "scenes.parquet"

    @property
    def exports(self) -> Path:
        """What Earth Engine was asked to export, as JSON."""
        return self.folder / "exports.json"

    @property
    def samples(self) -> Path:
        """The labelled sequences."""
        return self.folder / "samples.zarr"

    @property
    def training(self) -> Path:
        """What a training that was stopped goes on from; gone when the classifier is there."""
        return self.folder / "training"

    @property
    def classifier(self) -> Path:
        """The trained classifier."""
        return self.folder / "classifier"

    @property
    def map(self) -> Path:
        """The map as Zarr."""
        return self.folder / "map.zarr"

    @property
    def report(self) -> Path:
        """What was found, as JSON."""
        return self.folder / "report.json"


@dataclass(frozen=True, kw_only=True)
class CubePlan:
    """Everything a cube is built from."""

    spec: CubeSpec
    """What the cube will be."""
    source: PeriodSource
    """Where its pixels come from."""
    inputs: str
    """Fingerprint of all that decides its pixels."""
    looks: dict[Period, int]
    """Most looks a pixel can have in each period that has any."""
    memory: Memory
    """What building it takes at most."""
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
    lock = Layout(folder=recipe.outputs.folder).scenes
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
        looks=planned.looks,
        memory=planned.memory,
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
    composite = recipe.composite
    return fingerprint(
        {
            "algorithm": ALGORITHM,
            "spec": planned.spec.to_json(),
            # Earth Engine's mask is part of what it is asked for
            "mask": recipe.mask.model_dump() if recipe.source.kind != "earthengine" else None,
            "method": composite.method,
            "outliers": composite.outlier_threshold if composite.outliers else None,
            "gaps": None if recipe.gaps is None else recipe.gaps.model_dump(),
            **planned.pixels,
        }
    )


def describe(plan: CubePlan, *, workers: int, processes: int = 1) -> dict[str, Any]:
    """Return what `plan` prints, as plain JSON values.

    `workers` tiles are built at once, in so many `processes`.
    """
    spec = plan.spec
    times, bands, height, width = spec.shape
    return {
        "crs": f"EPSG:{spec.crs.epsg}" if spec.crs.epsg else str(spec.crs)[:60],
        "resolution": abs(spec.geobox.resolution.x),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "periods": f"{spec.periods[0]} … {spec.periods[-1]}",
        "bands": list(spec.bands),
        "tiles": len(spec.regions()),
        "cube_bytes_uncompressed": height * width * times * pixel_bytes(bands),
        "peak_bytes_per_worker": plan.peak_bytes,
        "peak_bytes": plan.memory.total(tiles=workers, processes=processes),
        "looks_by_period": {str(period): plan.looks.get(period, 0) for period in spec.periods},
        "periods_without_scenes": [
            str(period) for period in spec.periods if period not in plan.looks
        ],
        **plan.facts,
        **_cost(plan, workers, processes),
    }


def describe_map(
    spec: CubeSpec,
    *,
    workers: int | None,
    processes: int,
    network: NetworkSizes,
    engine: str = "exact",
    layers: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what `plan` prints of the map: the memory of `workers` that compute in `processes`.

    Without a number of `workers`, as of a scheduler that is not asked, it is that of a worker
    process with one thread: `map_tiles_at_once` is None then, `map_peak_bytes` per such a worker.
    """
    computing = 1 if workers is None else workers // processes
    at_once = (computing + tiles_ahead(computing)) * processes
    memory = map_memory(spec, computing=computing, network=network, engine=engine, layers=layers)
    return {
        "map_tiles_at_once": None if workers is None else at_once,
        "map_peak_bytes": memory.total(tiles=at_once, processes=processes),
    }


def _cost(plan: CubePlan, workers: int, processes: int) -> dict[str, Any]:
    """Return what a build asks of servers; None where nobody knows beforehand."""
    if plan.scenes is None:
        return {}
    if isinstance(plan.source, EarthEngineSource | ExportedSource):
        return asking_cost(
            plan.source,
            plan.spec,
            workers=workers,
            processes=processes,
            seconds_per_request=plan.facts.get("seconds_per_request"),
        )
    cost = None
    if plan.reads_directly:
        cost = reading_cost(plan.scenes, plan.spec, workers=workers, processes=processes)
    return {
        "requests": None if cost is None else cost.requests,
        "requests_for_headers": None if cost is None else cost.headers,
        "bytes_to_read": None if cost is None else cost.received,
    }
