"""A recipe in, what the run will do out: grid, scenes, tiles and memory, before any pixel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from cube.composite import SceneComposites
from cube.errors import InputError
from cube.grid import LON_LAT, area_from_bbox, area_from_file, geojson_of_area, grid_of_area
from cube.ledger import fingerprint
from cube.mask import ClearMask
from cube.months import month_range
from cube.source import MonthSource
from cube.spec import CubeSpec
from cube.stac import (
    Scene,
    SceneList,
    SceneQuery,
    StacSource,
    find_scenes,
    lock_scenes,
    read_scenes,
    write_scenes,
)
from cube.stack import StackSource, file_stamp
from pipelines.recipe import Recipe, StackSection, StacSection

LOOKS_A_MONTH = 15
"""Overpasses assumed in the fullest month: two satellites every 5 days, and overlapping orbits."""


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
    scenes: SceneList | None
    """The scenes, where they come from a catalogue."""


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

    Scenes are searched once and written to the lock file beside the cube; later calls with the
    same question read the file. Raises `InputError` for an area outside every scene.
    """
    stack = recipe.source if isinstance(recipe.source, StackSection) else None
    mask = ClearMask(classes=recipe.mask.classes, buffer=recipe.mask.buffer)
    area = area_of(recipe)
    if stack is not None:
        return _plan_stack(recipe, stack, mask, area)
    assert isinstance(recipe.source, StacSection)
    assert area is not None  # by validation
    spec = _spec(recipe, area)
    layout = Layout(folder=recipe.outputs.folder)
    question = {"source": recipe.source.model_dump(), "area": geojson_of_area(area)} | {
        "months": [str(month) for month in spec.months],
        "bands": list(spec.bands),
    }
    scenes = None if update_lock else _locked(layout, fingerprint(question))
    if scenes is None:
        box = spec.geobox.extent.to_crs(LON_LAT).boundingbox
        query = SceneQuery(
            catalogue=recipe.source.catalogue,
            collection=recipe.source.collection,
            months=spec.months,
            bbox=(box.left, box.bottom, box.right, box.top),
            max_cloud_cover=recipe.source.max_cloud_cover,
        )
        found = find_scenes(query)
        scenes = lock_scenes(
            found, bands=spec.bands, offset=recipe.source.offset, on_scene=on_scene
        )
        layout.folder.mkdir(parents=True, exist_ok=True)
        write_scenes(layout.scenes, scenes)
        _question_file(layout).write_text(fingerprint(question), encoding="utf-8")
    source = StacSource(
        scenes=layout.scenes,
        mask=mask,
        reader=recipe.source.reader,
        resampling=recipe.source.resampling,
    )
    inputs = fingerprint(
        {
            "spec": spec.to_json(),
            "scenes": [_identity(scene) for scene in scenes.scenes],
            "mask": recipe.mask.model_dump(),
            "method": recipe.composite.method,
            "reader": [recipe.source.reader, recipe.source.resampling],
        }
    )
    return CubePlan(
        spec=spec, source=SceneComposites(catalogue=source), inputs=inputs, scenes=scenes
    )


def memory_of(spec: CubeSpec) -> int:
    """Return the peak bytes one tile needs while it is built.

    The whole series of the tile as int16, twice (composite and its compressed copy); the looks of
    the fullest month as stored units, twice (as read and as stacked); and one band of all these
    looks on its way from counts, as four arrays of 8 bytes.
    """
    times, bands, height, width = spec.shape
    pixels = min(spec.tile, height) * min(spec.tile, width)
    series = 2 * pixels * times * (bands + 1)
    looks = 2 * pixels * LOOKS_A_MONTH * bands
    one_band = 4 * 8 * pixels * LOOKS_A_MONTH
    return 2 * series + 2 * looks + one_band


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
        "peak_bytes_per_worker": memory_of(spec),
        "peak_bytes": memory_of(spec) * workers,
    }
    if plan.scenes is not None:
        looks = {str(month): 0 for month in spec.months}
        for scene in plan.scenes.scenes:
            looks[str(scene.month)] = looks.get(str(scene.month), 0) + 1
        found |= {
            "scenes": len(plan.scenes.scenes),
            "scenes_dropped": {item.id: item.reason for item in plan.scenes.dropped},
            "scenes_by_month": looks,
            "months_without_scenes": [month for month, count in looks.items() if not count],
        }
    return found


def _identity(scene: Scene) -> list[Any]:
    """Return what makes a scene's pixels what they are: not where the files lie, which may move."""
    return [scene.id, scene.collection, *scene.version, scene.baseline, scene.offset, scene.epsg]


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
    if not set(source.months(recipe.bands)) & set(spec.months):
        known = source.months(recipe.bands)
        raise InputError(
            f"no scene lies in {spec.months[0]} … {spec.months[-1]}; the files have "
            f"{known[0]} … {known[-1]}"
        )
    stamps = [[file, *file_stamp(file)] for file in section.files]
    inputs = fingerprint(
        {
            "spec": spec.to_json(),
            "source": section.model_dump(),
            "files": stamps,
            "mask": recipe.mask.model_dump(),
            "method": recipe.composite.method,
        }
    )
    return CubePlan(spec=spec, source=SceneComposites(catalogue=source), inputs=inputs, scenes=None)


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


def _question_file(layout: Layout) -> Path:
    return layout.scenes.with_suffix(".question")


def _locked(layout: Layout, question: str) -> SceneList | None:
    """Return the locked scenes if they answer the same question."""
    if not layout.scenes.exists() or not _question_file(layout).exists():
        return None
    if _question_file(layout).read_text(encoding="utf-8") != question:
        return None
    return read_scenes(layout.scenes)


def _box(extent: Geometry) -> str:
    box = extent.to_crs(LON_LAT).boundingbox
    return "[" + ", ".join(f"{value:.4f}" for value in box) + "]"
