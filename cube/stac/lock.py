"""Scenes in, scenes checked against their files out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import rasterio
import shapely
from rasterio.warp import transform_bounds

from cube.bands import BANDS
from cube.cog import FileBrokenError, FileUnreachableError
from cube.errors import InputError, WorkFailedError
from cube.radiometry import (
    OffsetDecision,
    OffsetDeniedError,
    OffsetSetting,
    check_product,
    settle_offset,
)
from cube.stac.cost import Reading
from cube.stac.files import SceneReadError, SceneUnreachableError
from cube.stac.footprint import meets, unwrapped
from cube.stac.header import FileHeader, cogs_of, read_file_header
from cube.stac.href import without_queries
from cube.stac.neighbours import LookedAt, beside_neighbours
from cube.stac.overview import coarse_classes, look_at, telling_bands
from cube.stac.pixels import PixelReader
from cube.stac.product import LARGEST_METADATA, ProductMetadata, read_product_offset
from cube.stac.scene import SCL, Asset, DroppedScene, Scene, SceneList
from cube.stac.sensors import SENSORS

_QUANTIFICATION = 10_000
"""Counts of a reflectance of 1 that `cube.bands` takes for granted."""

FOUND_BY_LOCK = "found by the lock"
"""What is told of a scene that was lost when it was locked."""

_THREADS = 8
"""Files opened at once; each costs a few requests of some kilobytes."""


def lock_scenes(
    found: SceneList,
    *,
    bands: Sequence[str],
    offset: OffsetSetting = "check",
    reader: PixelReader | None = None,
    reading: Reading | None = None,
    reads_metadata: bool = False,
    on_scene: Callable[[int, int], None] | None = None,
) -> SceneList:
    """Check scenes against their files, so that later runs can trust what the list says.

    For `bands` and the mask, every file's header is read: its own geometry and CRS replace what the
    item declared, and local files get their stamp. A scene without one of `bands` is dropped with
    its reason. Assets that are not asked for are left out.

    The radiometric offset of Sentinel-2 is checked in up to three ways, and `Scene.offset_reason`
    tells what each said. If `reads_metadata`, the product's own metadata are fetched of scenes
    that have some; they must not contradict the item. Unless `offset` is `metadata`, dark pixels of
    a coarse overview are asked (`settle_offset`), and where they cannot tell, settled scenes of the
    same ground near in time (`beside_neighbours`).

    `reader` opens the files (by default, public ones directly). With `reading`, each scene is told
    what reading it for that cube will take (`Scene.cost`). A scene with a missing or corrupt file
    stays in the list as `Scene.lost`, so that whoever reads it counts the loss. `on_scene` is
    called with (done, total).

    Raises `InputError` for a footprint that is not where the pixels are, an offset that product,
    pixels or neighbours deny, and if no scene is left, or none without a broken file;
    `WorkFailedError` where a server does not answer. Metadata that cannot be fetched or read are
    told in the reason and stop nothing.
    """
    unknown = [band for band in bands if band not in BANDS]
    if unknown:
        raise InputError(f"bands {unknown} are not known; known are {', '.join(BANDS)}")
    scenes, dropped = _with_all(found, tuple(dict.fromkeys((*bands, SCL))))
    lock = _Lock(
        bands=tuple(bands),
        offset=offset,
        reader=reader or PixelReader(),
        reading=reading,
        reads_metadata=reads_metadata,
    )
    looked_at: list[LookedAt] = []
    denied: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = [pool.submit(lock.looked_at, scene) for scene in scenes]
        try:
            for number, job in enumerate(jobs, 1):
                try:
                    looked_at.append(job.result())
                except OffsetDeniedError as error:  # there may be more: all are told at once
                    denied.append(str(error))
                if on_scene is not None:
                    on_scene(number, len(scenes))
        finally:
            for job in jobs:
                job.cancel()
    if denied:
        more = f"\nand {len(denied) - 3} more scenes" if len(denied) > 3 else ""
        raise OffsetDeniedError("\n".join(denied[:3]) + more)
    if all(one.scene.lost for one in looked_at):
        raise InputError(
            f"every one of {len(looked_at)} scenes has a broken file: {looked_at[0].scene.lost}"
        )
    settled = beside_neighbours(looked_at, setting=offset)
    locked = [
        replace(one.scene, offset=counts, offset_reason=reason)
        for one, (counts, reason) in zip(looked_at, settled, strict=True)
    ]
    return replace(found, scenes=tuple(locked), dropped=(*found.dropped, *dropped))


def _with_all(found: SceneList, names: tuple[str, ...]) -> tuple[list[Scene], list[DroppedScene]]:
    kept, dropped = [], []
    for scene in found.scenes:
        missing = [name for name in names if name not in scene.assets]
        if missing:
            reason = f"has no asset for {', '.join(missing)}"
            dropped.append(DroppedScene(id=scene.id, reason=reason))
        else:
            kept.append(scene)
    if not kept:
        raise InputError(f"none of {len(found.scenes)} scenes has all of {', '.join(names)}")
    return kept, dropped


@dataclass(frozen=True, kw_only=True)
class _Lock:
    """How scenes are checked."""

    bands: tuple[str, ...]
    """Bands of the cube."""
    offset: OffsetSetting
    """As `lock_scenes`, like all below."""
    reader: PixelReader
    reading: Reading | None
    reads_metadata: bool

    def looked_at(self, scene: Scene) -> LookedAt:
        """Check one scene by itself; one with a broken file is kept as lost."""
        try:
            return self._looked_at(scene)
        except SceneReadError as error:
            assets = {name: scene.assets[name] for name in (*self.bands, SCL)}
            told = f"{error} ({FOUND_BY_LOCK})"
            lost = replace(scene, assets=assets, is_locked=True, lost=told)
            return LookedAt(scene=lost, reading="undecided", look=None)

    def _looked_at(self, scene: Scene) -> LookedAt:
        asks_pixels = SENSORS[scene.sensor].has_offset and self.offset != "metadata"
        telling = telling_bands(scene, self.bands) if asks_pixels else []
        wanted = (*self.bands, SCL)
        headers = {name: read_file_header(self.reader, scene, name) for name in wanted}
        headers |= self._witnesses(scene, [name for name in telling if name not in headers])
        telling = [name for name in telling if name in headers]
        codes = {header.epsg for header in headers.values()}
        if len(codes) > 1:
            raise InputError(f"scene {scene.id!r} has files of several CRS: {sorted(codes)}")
        epsg = codes.pop()
        _refuse_lying_footprint(scene, epsg, headers[SCL].asset)
        decision = self._beside_product(scene)
        classes = (
            coarse_classes(self.reader, scene, headers[SCL]) if telling or self.reading else None
        )
        reading, look = (
            look_at(self.reader, scene, telling, headers, classes)
            if telling and classes is not None
            else ("undecided", None)
        )
        if telling:
            decision = settle_offset(decision, reading, setting=self.offset, scene_id=scene.id)
        checked = replace(
            scene,
            epsg=epsg,
            assets={name: headers[name].asset for name in wanted},
            offset=decision.offset,
            offset_reason=decision.reason,
            is_locked=True,
        )
        if self.reading is not None and classes is not None:
            cost = self.reading.cost(checked, cogs_of(headers), classes)
            checked = replace(checked, cost=cost)
        return LookedAt(scene=checked, reading=reading, look=look)

    def _witnesses(self, scene: Scene, names: list[str]) -> dict[str, FileHeader]:
        """Return headers of bands that the cube does without, of those that can be read.

        They are evidence and no more: the scene does not fail with them.
        """
        found = {}
        for name in names:
            with suppress(SceneReadError, SceneUnreachableError):
                found[name] = read_file_header(self.reader, scene, name)
        return found

    def _beside_product(self, scene: Scene) -> OffsetDecision:
        """Return the item's decision with what the product's own metadata say of it."""
        decision = OffsetDecision(offset=scene.offset, reason=scene.offset_reason)
        if not self.reads_metadata or not scene.metadata_href:
            return decision
        try:
            body = self.reader.fetcher.whole(scene.metadata_href, most=LARGEST_METADATA)
            product = read_product_offset(body)
            product_offset = product.offset
        except (InputError, WorkFailedError, FileBrokenError, FileUnreachableError) as error:
            why = f"product metadata not readable: {without_queries(str(error))[:200]}"
            return replace(decision, reason=f"{decision.reason}; {why}")
        _refuse_other_product(scene, product)
        check_product(scene_id=scene.id, baseline=scene.baseline, product_offset=product_offset)
        return replace(decision, reason=f"{decision.reason}; product states {product_offset}")


def _refuse_other_product(scene: Scene, product: ProductMetadata) -> None:
    if product.baseline != scene.baseline or product.quantification != _QUANTIFICATION:
        raise InputError(
            f"scene {scene.id!r}: its product metadata are of baseline {product.baseline} with "
            f"{product.quantification} counts to 1, its item of {scene.baseline} with "
            f"{_QUANTIFICATION}; leave the scene out"
        )


def _refuse_lying_footprint(scene: Scene, epsg: int, asset: Asset) -> None:
    assert asset.transform is not None
    assert asset.shape is not None
    to_crs = rasterio.Affine(*asset.transform)
    bounds = rasterio.transform.array_bounds(*asset.shape, to_crs)
    west, south, east, north = transform_bounds(f"EPSG:{epsg}", "EPSG:4326", *bounds)
    ground = shapely.box(west, south, east + 360 if east < west else east, north)
    if not meets(unwrapped(scene.footprint), ground):
        raise InputError(
            f"scene {scene.id!r}: its footprint is not where its pixels are "
            f"({west:.2f}, {south:.2f}, {east:.2f}, {north:.2f}); leave the scene out"
        )
