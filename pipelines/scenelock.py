"""The question of a recipe in, its scenes out: from the lock file, or searched, checked and kept."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from cube.errors import InputError
from cube.ledger import fingerprint
from cube.periods import periods_between
from cube.spec import CubeSpec
from cube.stac import (
    Asset,
    Scene,
    SceneList,
    SceneQuery,
    SceneReadError,
    SearchCache,
    SearchPatience,
    find_scenes,
    lock_scenes,
    read_scenes,
    search_area,
    write_scenes,
)
from cube.stac.cost import Reading
from cube.stac.files import file_stamp
from cube.stac.header import cogs_of, read_file_header
from cube.stac.overview import coarse_classes
from cube.stac.pixels import PixelReader
from cube.stac.scene import SCL
from cube.stac.search import forget_answer
from pipelines.planned import clear_mask, month_ends
from pipelines.recipe import Recipe, StacSection

CACHE_FOLDER = "CANOPYCUBE_CACHE"
"""Environment variable: folder in which answers of searches are kept for a day."""

OnScene = Callable[[int, int], None]
"""Called with (scenes done, scenes in all)."""

_THREADS = 8
"""Scenes counted at once."""

_NOT_ASKED = {"reader", "resampling", "overviews", "access", "attempts", "timeout", "lost_scenes"}
"""Keys of the source that do not decide which scenes there are and what is kept of them."""


def cache_folder() -> Path:
    """Return where answers of searches are kept: `CANOPYCUBE_CACHE`, or the user's cache."""
    named = os.environ.get(CACHE_FOLDER, "")
    return Path(named) if named else platformdirs.user_cache_path("canopycube", appauthor=False)


def same_scenes(one: SceneList, other: SceneList) -> bool:
    """Say whether two lists answer one question to the catalogue, whatever is counted of them."""
    return one.question.partition(" ")[0] == other.question.partition(" ")[0]


def _has_same_files(kept: SceneList) -> bool:
    """Say whether the local files of a lock have the stamps that they had when it was made.

    One that cannot be read counts as the same: the build counts its scene as lost.
    """

    def is_same(asset: Asset) -> bool:
        with suppress(OSError):
            return file_stamp(asset.href) == asset.stamp
        return True

    stamped = [
        asset
        for scene in kept.scenes
        for asset in scene.assets.values()
        if asset.stamp is not None and not scene.lost
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        return all(pool.map(is_same, stamped))


@dataclass(frozen=True, kw_only=True)
class SceneLock:
    """The scenes of a recipe, and the file that keeps them."""

    recipe: Recipe
    """What is asked for."""
    section: StacSection
    """Its source."""
    spec: CubeSpec
    """Its cube."""
    bands: tuple[str, ...]
    """Bands of the cube and of the cloud model."""
    reader: PixelReader
    """What opens the files."""
    file: Path
    """Where the scenes are kept."""

    def scenes(self, *, update: bool, on_scene: OnScene | None) -> SceneList:
        """Return the scenes of the lock file, which is written anew where that must be.

        A lock for other tiles or another mask has the right scenes: only what reading them takes
        is counted anew. One of local files of which some have other pixels now is made anew.
        """
        question = f"{self._asked} {self._counted}"
        kept = read_scenes(self.file) if self.file.exists() and not update else None
        if kept is not None and not _has_same_files(kept):
            kept = None
        if kept is not None and kept.question == question:
            return kept
        if kept is not None and kept.question.partition(" ")[0] == self._asked:
            scenes = self._recounted(kept, on_scene)
        else:
            scenes = self._searched(update=update, on_scene=on_scene)
        write_scenes(self.file, scenes, question=question)
        return replace(scenes, question=question)

    @property
    def _asked(self) -> str:
        """Fingerprint of what decides the scenes."""
        # the months, not the periods: acquisitions follow from the scenes, and other periods of
        # the same months are made of the same ones
        described = self.spec.to_json()
        return fingerprint(
            {
                "source": self.section.model_dump(exclude=_NOT_ASKED),
                "months": [str(month) for month in month_ends(self.recipe)],
                "bands": self.bands,
                **{key: described[key] for key in ("crs", "transform", "shape")},
            }
        )

    @property
    def _counted(self) -> str:
        """Fingerprint of what decides how much of them is read."""
        return fingerprint(
            {
                "tile": self.spec.tile,
                **({} if self.spec.touched is None else {"touched": self.spec.touched}),
                "mask": self.recipe.mask.model_dump(),
                "resampling": [self.section.resampling, self.section.overviews],
            }
        )

    @property
    def _reading(self) -> Reading:
        mask = clear_mask(self.recipe)
        return Reading(spec=self.spec, bands=self.bands, mask=mask, reader=self.reader)

    def _searched(self, *, update: bool, on_scene: OnScene | None) -> SceneList:
        section = self.section
        query = SceneQuery(
            catalogue=section.catalogue,
            collection=section.collection,
            periods=periods_between(*month_ends(self.recipe)),
            geometry=search_area(self.spec.geobox),
            max_cloud_cover=section.max_cloud_cover,
            leave_out=section.leave_out,
            bands=self.bands,
        )
        cache = SearchCache(folder=cache_folder())
        if update:
            cache = replace(cache, longest=-1.0)  # no answer is that fresh
        patience = SearchPatience(timeout=section.timeout)
        # a page that fails ends the run, where a tile is begun again
        patience = replace(patience, tries=max(section.attempts, patience.tries))
        found = find_scenes(query, cache=cache, patience=patience)
        try:
            return lock_scenes(
                found,
                bands=self.bands,
                offset=section.offset,
                reader=self.reader,
                reading=self._reading,
                reads_metadata=section.product_metadata,
                on_scene=on_scene,
            )
        except InputError:  # the items may be what is wrong, and may be mended
            forget_answer(query, cache)
            raise

    def _recounted(self, kept: SceneList, on_scene: OnScene | None) -> SceneList:
        def counted(scene: Scene) -> Scene:
            try:
                headers = {
                    name: read_file_header(self.reader, scene, name) for name in (*self.bands, SCL)
                }
                classes = coarse_classes(self.reader, scene, headers[SCL])
            except SceneReadError:
                return scene  # broken since it was locked: it is for the build to tell, or to lose
            return replace(scene, cost=self._reading.cost(scene, cogs_of(headers), classes))

        found: list[Scene] = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for scene in pool.map(counted, kept.scenes):
                found.append(scene)
                if on_scene is not None:
                    on_scene(len(found), len(kept.scenes))
        return replace(kept, scenes=tuple(found))
