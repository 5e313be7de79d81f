"""A recipe in, what the run will do out: grid, scenes, tiles and memory, before any pixel."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from cube.composite import SceneComposites
from cube.errors import InputError
from cube.grid import LON_LAT, area_from_bbox, area_from_file, grid_of_area
from cube.ledger import fingerprint
from cube.mask import ClearMask
from cube.months import Month, month_range
from cube.source import MonthSource
from cube.spec import CubeSpec
from cube.stac import (
    SceneList,
    SceneQuery,
    StacSource,
    find_scenes,
    lock_scenes,
    read_scenes,
    search_area,
    write_scenes,
)
from cube.stack import StackSource, file_stamp
from pipelines.recipe import Recipe, StackSection, StacSection

ALGORITHM = 1
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
        """The scene lock file."""
        return self.folder / "scenes.json"

    @property
    def samples(self) -> Path:
        """The labelled sequences."""
        return self.folder / "samples.zarr"

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
    source: MonthSource
    """Where its months come from."""
    inputs: str
    """Fingerprint of all that decides its pixels."""
    looks: dict[Month, int]
    """Most looks a pixel can have in each month that has any."""
    scenes: SceneList | None = None
    """The scenes, where they come from a catalogue."""

    @property
    def peak_bytes(self) -> int:
        """Memory a tile needs while it is built (see `memory_of`)."""
        return memory_of(self.spec, max(self.looks.values()))


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
    """Settle grid, months and scenes of the recipe's cube.

    Scenes are searched once, checked against their files and written to the lock file beside the
    cube; later calls with the same question read that file, unless `update_lock`. Raises
    `InputError` for an area or months without any scene.
    """
    mask = ClearMask(classes=recipe.mask.classes, buffer=recipe.mask.buffer)
    area = area_of(recipe)
    if isinstance(recipe.source, StackSection):
        return _plan_stack(recipe, recipe.source, mask, area)
    assert area is not None  # by validation
    spec = _spec(recipe, area)
    layout = Layout(folder=recipe.outputs.folder)
    scenes = _locked_scenes(recipe.source, spec, layout, update=update_lock, on_scene=on_scene)
    source = StacSource(
        scenes=layout.scenes,
        fingerprint=scenes.fingerprint,
        mask=mask,
        reader=recipe.source.reader,
        resampling=recipe.source.resampling,
    )
    pixels = {
        "scenes": [scene.identity for scene in scenes.scenes],
        "reader": [recipe.source.reader, recipe.source.resampling],
    }
    overpasses = {(scene.month, scene.overpass) for scene in scenes.scenes}
    return CubePlan(
        spec=spec,
        source=SceneComposites(catalogue=source),
        inputs=_inputs(recipe, spec, pixels),
        looks=dict(sorted(Counter(month for month, _ in overpasses).items())),
        scenes=scenes,
    )


def _locked_scenes(
    section: StacSection,
    spec: CubeSpec,
    layout: Layout,
    *,
    update: bool,
    on_scene: Callable[[int, int], None] | None,
) -> SceneList:
    """Return the scenes of the lock file, made anew if it answers another question."""
    question = fingerprint(
        {
            "source": section.model_dump(exclude={"reader", "resampling"}),
            "spec": spec.to_json(),
        }
    )
    if layout.scenes.exists() and not update:
        locked = read_scenes(layout.scenes)
        if locked.question == question:
            return locked
    query = SceneQuery(
        catalogue=section.catalogue,
        collection=section.collection,
        months=spec.months,
        geometry=search_area(spec.geobox),
        max_cloud_cover=section.max_cloud_cover,
    )
    found = find_scenes(query)
    locked = lock_scenes(found, bands=spec.bands, offset=section.offset, on_scene=on_scene)
    write_scenes(layout.scenes, locked, question=question)
    return locked


def _inputs(recipe: Recipe, spec: CubeSpec, pixels: dict[str, Any]) -> str:
    """Return the fingerprint of all that decides the cube: `pixels` says which scenes, how read."""
    return fingerprint(
        {
            "algorithm": ALGORITHM,
            "spec": spec.to_json(),
            "mask": recipe.mask.model_dump(),
            "method": recipe.composite.method,
            **pixels,
        }
    )


def memory_of(spec: CubeSpec, looks: int) -> int:
    """Return the peak bytes one tile needs while it is built from at most `looks` looks a month.

    The whole series of the tile as int16, twice (composite and its compressed copy); the looks of
    the fullest month as stored units, twice (as read and as stacked); and one band of all these
    looks on its way from counts, as four arrays of 8 bytes.
    """
    times, bands, height, width = spec.shape
    pixels = min(spec.tile, height) * min(spec.tile, width)
    series = 2 * pixels * times * (bands + 1)
    read = 2 * pixels * looks * bands
    one_band = 4 * 8 * pixels * looks
    return 2 * series + 2 * read + one_band


def describe(plan: CubePlan, workers: int) -> dict[str, Any]:
    """Return what `plan` prints, as plain JSON values."""
    spec = plan.spec
    times, bands, height, width = spec.shape
    found = {
        "crs": f"EPSG:{spec.crs.epsg}" if spec.crs.epsg else str(spec.crs)[:60],
        "resolution": abs(spec.geobox.resolution.x),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "months": f"{spec.months[0]} … {spec.months[-1]}",
        "bands": list(spec.bands),
        "tiles": len(spec.regions()),
        "cube_bytes_uncompressed": 2 * height * width * times * (bands + 1),
        "peak_bytes_per_worker": plan.peak_bytes,
        "peak_bytes": plan.peak_bytes * workers,
        "looks_by_month": {str(month): plan.looks.get(month, 0) for month in spec.months},
        "months_without_scenes": [str(month) for month in spec.months if month not in plan.looks],
    }
    if plan.scenes is not None:
        found |= {
            "scenes": len(plan.scenes.scenes),
            "scenes_dropped": {item.id: item.reason for item in plan.scenes.dropped},
            "offsets": dict(Counter(scene.offset_reason for scene in plan.scenes.scenes)),
        }
    return found


def _plan_stack(
    recipe: Recipe, section: StackSection, mask: ClearMask, area: Geometry | None
) -> CubePlan:
    source = StackSource(
        files=section.files,
        bands=dict(section.bands),
        mask=section.mask,
        clear=mask,
        time=section.time,
        y=section.y,
        x=section.x,
        crs=section.crs,
        scale=section.scale,
        offset=section.offset,
        nodata=section.nodata,
        resampling=section.resampling,
    )
    native = source.native_geobox(recipe.bands)
    if area is None:
        spec = _spec(recipe, native.extent, geobox=native)
    else:
        spec = _spec(recipe, area)
        if not spec.geobox.extent.intersects(native.extent.to_crs(spec.crs)):
            raise InputError(
                f"the area {_box(spec.geobox.extent)} lies outside every scene "
                f"{_box(native.extent)} (lon/lat)"
            )
    looks = source.dates_by_month(recipe.bands)
    if not set(looks) & set(spec.months):
        raise InputError(
            f"no scene lies in {spec.months[0]} … {spec.months[-1]}; the files have "
            f"{min(looks)} … {max(looks)}"
        )
    stamps = [[Path(file).name, *file_stamp(file)] for file in section.files]
    pixels = {"source": section.model_dump(exclude={"files"}), "files": stamps}
    return CubePlan(
        spec=spec,
        source=SceneComposites(catalogue=source),
        inputs=_inputs(recipe, spec, pixels),
        looks={month: count for month, count in looks.items() if month in spec.months},
    )


def _spec(recipe: Recipe, area: Geometry, *, geobox: Any = None) -> CubeSpec:
    grid = recipe.grid
    return CubeSpec(
        geobox=geobox
        or grid_of_area(area, crs=grid.crs, resolution=grid.resolution, anchor=grid.anchor),
        months=month_range(recipe.months.first, recipe.months.last),
        bands=recipe.bands,
        tile=recipe.composite.tile,
        chunk=recipe.composite.chunk,
        sharded=recipe.composite.sharded,
        zarr_format=recipe.composite.zarr_format,
    )


def _box(extent: Geometry) -> str:
    box = extent.to_crs(LON_LAT).boundingbox
    return "[" + ", ".join(f"{value:.4f}" for value in box) + "]"
