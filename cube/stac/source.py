"""`StacSource`: a scene list and a window in, every look of a period out."""

from dataclasses import dataclass, field
from pathlib import Path

from odc.geo.geobox import GeoBox

from cube.cloudmodels import cloud_model
from cube.cog import Fetcher, Patience
from cube.errors import InputError, sendable_errors
from cube.mask import ClearMask
from cube.periods import Period
from cube.source import Looks
from cube.stac.access import access_of_kind
from cube.stac.files import lost_scene
from cube.stac.gather import gather
from cube.stac.kept import kept_scenes
from cube.stac.overpass import overpasses
from cube.stac.pixels import READERS, PixelReader, ReaderName, Resampling
from cube.stac.scene import SCL, Scene


@dataclass(frozen=True, kw_only=True)
class StacSource:
    """Scenes of a lock file as looks on the cube's grid; a `SceneCatalogue`.

    Small to pickle: it carries the path of the lock file, which every worker reads once, and no
    secret; files are signed where they are opened.
    """

    scenes: Path
    """The lock file that `write_scenes` wrote; its scenes must be locked (`lock_scenes`)."""
    fingerprint: str | None = None
    """`SceneList.fingerprint` of the list that was planned with, so that no tile is made of another
    one that has come into its place; None takes whatever lies there."""
    mask: ClearMask = field(default_factory=ClearMask)
    """What counts as clear."""
    model: str | None = None
    """Name of a cloud model (`cube.cloudmodels`) that looks at what the mask calls clear."""
    reader: ReaderName = "direct"
    """What the pixels come through: blocks of GeoTIFFs fetched by ourselves (`direct`, which leaves
    other files to odc-stac), `odc`, or `stackstac`. All give the same looks."""
    resampling: Resampling = "bilinear"
    """For reflectance whose grid is not the cube's: between zones, 20 and 60 m bands on a 10 m
    grid. Where a cube's pixel is more than 1.5 times a file's, `bilinear` is the mean of all the
    pixels it covers. Where pixels coincide they are copied. Scene classes always take the nearest
    pixel, for the mean of two classes is a third one."""
    overviews: bool = False
    """Whether `direct` may make the pixels of a coarse UTM grid of a file's overviews: a fraction of
    the bytes, but archives make overviews of single pixels as often as of means."""
    access: str = "none"
    """How files are signed when they are opened (`cube.stac.access`)."""
    patience: Patience = field(default_factory=Patience)
    """How long a server that fails is asked again."""

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise InputError(
                f"reader {self.reader!r} is unknown; expected one of {', '.join(READERS)}"
            )
        if self.resampling not in ("nearest", "bilinear"):
            raise InputError(
                f"resampling {self.resampling!r} is unknown; expected 'nearest' or 'bilinear'"
            )

    @sendable_errors
    def looks(
        self,
        period: Period,
        window: GeoBox,
        bands: tuple[str, ...],
        *,
        without: frozenset[str] = frozenset(),
    ) -> Looks:
        """Read every look of `period` at `window`: one per overpass that saw clear ground there.

        An overpass belongs to the period in which its datatake began (UTC). Its granules are merged
        pixel by pixel: the first with data in every band and in the classification wins, scenes of
        the window's own CRS before others, newer products before older. An overpass without one
        clear pixel in the window is left out before its bands are read. Scenes whose ids are in
        `without` are not there. Raises `SceneReadError` or
        `SceneUnreachableError` with scene, asset and address for a file that cannot be read, and
        `InputError` if the lock file is another than the one of `fingerprint`.
        """
        here = [scene for scene in self.scenes_at(period, window) if scene.id not in without]
        for scene in here:
            if scene.lost:
                raise lost_scene(scene.id, scene.lost)
            missing = [name for name in (*bands, SCL) if name not in scene.assets]
            if missing or not scene.is_locked:
                why = f"has no {', '.join(missing)}" if missing else "was not checked"
                raise InputError(
                    f"scene {scene.id!r} in {str(self.scenes)!r} {why}; run "
                    "`canopycube lock RECIPE`"
                )
        epsg = window.crs.epsg if window.crs is not None else None
        found = overpasses(here, epsg=epsg)
        model = cloud_model(self.model) if self.model is not None else None
        return gather(self.pixels(), self.mask, found, window, bands, model=model)

    def count(self, period: Period, window: GeoBox) -> int:
        """Return how many looks `looks` gives at most."""
        return len({scene.overpass for scene in self.scenes_at(period, window)})

    def scenes_at(self, period: Period, window: GeoBox) -> list[Scene]:
        """Return the scenes of `period` whose footprint comes near `window` (`meets_window`)."""
        kept = kept_scenes(self.scenes, fingerprint=self.fingerprint)
        return kept.by_period(window, (period,))[period]

    def pixels(self) -> PixelReader:
        """Return what reads the pixels, in this process."""
        access = access_of_kind(self.access)
        fetcher = Fetcher(patience=self.patience, signer=access)
        return PixelReader(
            reader=self.reader,
            resampling=self.resampling,
            overviews=self.overviews,
            fetcher=fetcher,
            access=access,
        )
