"""A synthetic forest in, the collections of Sentinel-2 and Cloud Score+ that Earth Engine has out.

`COPERNICUS/S2_SR_HARMONIZED`: the scenes' files with the offset of 1000 taken out where it truly is
in the pixels (whatever the item claims), cut off at 0, masked where the file has nodata.
`GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED`: `cs` is 1 less the greater of the true opacities of
cloud and of cloud shadow, smoothed (Gaussian, 20 m); `cs_cdf` is 3 cs² - 2 cs³ of it.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import rasterio
import shapely
from affine import Affine
from earthengine_grids import EngineError, Place, Projection, places_in, refuse_pyramid
from earthengine_values import Band, Collection, Element, Image, Painter, Pixels, PixelType
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter

from cube.bands import BANDS, REFLECTANCE_BANDS
from cube.forest import ForestScene, ForestSpec, scenes_of
from cube.forest.catalogue import COLLECTION
from cube.forest.scene import View, neighbour_geobox
from cube.forest.spec import NATIVE_EPSG
from cube.forest.write import OFFSET_COUNTS

SENTINEL = "COPERNICUS/S2_SR_HARMONIZED"
CLOUD_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"

QA60 = Literal["empty", "masked", "scl", "absent"]
"""`empty`: all zero, `masked`: nothing but mask, as from 2022-01-25 to 2024-02-28. `scl`: bit 10 where one of the nine pixels of
20 m has class 8 or 9, bit 11 where one has class 10. `absent`: there is no such band."""

OPAQUE, CIRRUS = 1 << 10, 1 << 11
_TRUE_COLOUR = {"TCI_R": "B04", "TCI_G": "B03", "TCI_B": "B02"}
_SPACECRAFT = {"S2A": "Sentinel-2A", "S2B": "Sentinel-2B"}
_UNIT = PixelType(precision="float", low=0, high=1)

Load = Callable[[], Pixels]


Arrays = TypeVar("Arrays", bound=tuple[np.ndarray, ...])


class Kept(Generic[Arrays]):
    """Arrays by key, the least recently used forgotten beyond some bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._found: OrderedDict[Any, Arrays] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, load: Callable[[], Arrays]) -> Arrays:
        """Return what `load` gives, or gave for the same key."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        loaded = load()
        with self._lock:
            if key not in self._found:
                self._held += _size(loaded)
            self._found[key] = loaded
            while self._held > self._most and len(self._found) > 1:
                self._held -= _size(self._found.popitem(last=False)[1])
        return loaded


def _size(arrays: tuple[np.ndarray, ...]) -> int:
    return sum(array.nbytes for array in arrays)


_KEPT: Kept[Pixels] = Kept(1 << 29)


def file_band(kind: PixelType, grid: GeoBox, key: Any, load: Load, crs: str | None = None) -> Band:
    """Return a band over an array on its own grid; `load` is called once, when it is needed.

    A pixel that is asked for is the one in which its centre lies.
    """
    projection = Projection(crs=crs or f"EPSG:{grid.crs.to_epsg()}", transform=grid.affine)
    height, width = grid.shape

    def paint(painter: Painter) -> Pixels:
        refuse_pyramid(painter.grid, projection)
        x, y = places_in(projection, painter.grid)
        columns, rows = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        if not is_inside.any():
            nothing = np.zeros(is_inside.shape, kind.dtype)
            return Pixels(nothing, is_inside)
        own = _KEPT.get(key, load)
        at = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        return Pixels(own.values[at], own.mask[at] & is_inside)

    return Band(kind=kind, projection=projection, paint=paint, shape=(height, width))


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The collections over one forest."""

    folder: Path
    """Where `write_forest` wrote it."""
    spec: ForestSpec
    """What it was made of: with it the truth is known."""
    qa60: QA60 = "empty"
    """What the band QA60 tells."""

    def collections(self) -> dict[str, Collection]:
        """Return the collections by id, in the order of the images' index."""
        scenes = sorted(scenes_of(self.spec), key=index_of)
        documents = {scene.id: self._item(scene) for scene in scenes}
        return {
            SENTINEL: Collection(
                properties={"system:id": SENTINEL},
                items=tuple(self._surface(scene, documents[scene.id]) for scene in scenes),
            ),
            CLOUD_SCORE: Collection(
                properties={"system:id": CLOUD_SCORE},
                items=tuple(self._cloud_score(scene, documents[scene.id]) for scene in scenes),
            ),
        }

    def _item(self, scene: ForestScene) -> dict[str, Any]:
        path = self.folder / COLLECTION / scene.id / f"{scene.id}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def _surface(self, scene: ForestScene, item: dict[str, Any]) -> Image:
        folder, grid = self.folder / COLLECTION / scene.id, grid_of(self.spec, scene)
        offset = OFFSET_COUNTS if scene.offset_in_pixels else 0
        bands = {}
        for name, band in BANDS.items():
            removed = offset if name in REFLECTANCE_BANDS else 0
            bands[engine_name(name)] = _counts(
                folder / f"{name}.tif", grid, band.resolution, removed
            )
        bands["SCL"] = _classes(folder / "SCL.tif", grid)
        for name, of in _TRUE_COLOUR.items():
            bands[name] = _colour(folder / f"{of}.tif", grid, offset)
        if self.qa60 != "absent":
            bands["QA60"] = _clouds(folder / "SCL.tif", grid, self.qa60)
        return Image(
            bands=bands,
            properties=_properties(scene, item, SENTINEL) | _product(scene, item),
            place=_footprint(item),
        )

    def _cloud_score(self, scene: ForestScene, item: dict[str, Any]) -> Image:
        grid, spec = grid_of(self.spec, scene), self.spec
        return Image(
            bands={
                name: file_band(
                    _UNIT,
                    grid,
                    (spec, scene.id, name),
                    lambda name=name: cloud_score(spec, scene)[name],
                )
                for name in ("cs", "cs_cdf")
            },
            properties=_properties(scene, item, CLOUD_SCORE),
            place=_footprint(item),
        )


def assets(collections: dict[str, Collection]) -> dict[str, Callable[..., Element]]:
    """Return the functions that load collections and their images."""
    images = {i.properties["system:id"]: i for c in collections.values() for i in c.items}

    def collection(name: str, _: Any = None) -> Collection:
        if name not in collections:
            raise EngineError(
                f"ImageCollection.load: ImageCollection asset '{name}' not found (does not exist "
                "or caller does not have access)."
            )
        return collections[name]

    def image(name: str, _: Any = None) -> Element:
        if name not in images:
            raise EngineError(
                f"Image.load: Image asset '{name}' not found (does not exist or caller does not "
                "have access)."
            )
        return images[name]

    return {"ImageCollection.load": collection, "Image.load": image}


def index_of(scene: ForestScene) -> str:
    """Return `system:index`: start of the datatake, generation of the product, tile."""
    return f"{scene.overpass_time:%Y%m%dT%H%M%S}_{scene.created:%Y%m%dT%H%M%S}_T{scene.tile}"


def engine_name(band: str) -> str:
    """Return what Earth Engine calls a band: `B2` for `B02`."""
    return band.replace("B0", "B")


@lru_cache(64)
def grid_of(spec: ForestSpec, scene: ForestScene) -> GeoBox:
    """Return the scene's grid at 10 m."""
    return spec.geobox if scene.epsg == NATIVE_EPSG else neighbour_geobox(spec)


@lru_cache(128)
def cloud_score(spec: ForestSpec, scene: ForestScene) -> dict[str, Pixels]:
    """Return `cs` and `cs_cdf` at 10 m, 0 (hidden) to 1 (clear)."""
    view = View(spec, scene)
    score = gaussian_filter(1 - np.maximum(view.cloud, view.shadow), sigma=2)
    score = np.clip(score, 0, 1).astype(np.float32)
    return {
        "cs": Pixels(score, view.is_seen),
        "cs_cdf": Pixels(score * score * (3 - 2 * score), view.is_seen),
    }


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def _coarser(grid: GeoBox, resolution: int) -> GeoBox:
    step = resolution // 10
    rows, columns = grid.shape
    return GeoBox((rows // step, columns // step), grid.affine @ Affine.scale(step), grid.crs)


def _counts(path: Path, grid: GeoBox, resolution: int, offset: int) -> Band:
    def load() -> Pixels:
        counts = _read(path)
        surface = np.maximum(counts.astype(np.int32) - offset, 0).astype(np.uint16)
        return Pixels(surface, counts != 0)

    return file_band(PixelType.of("uint16"), _coarser(grid, resolution), (path, offset), load)


def _colour(path: Path, grid: GeoBox, offset: int) -> Band:
    """Return a band of the true-colour picture: reflectance 0..0.3558 as 1..255."""

    def load() -> Pixels:
        counts = _read(path)
        bright = np.clip((counts.astype(np.float64) - offset) / 3558, 0, 1)
        return Pixels(np.rint(1 + 254 * bright).astype(np.uint8), counts != 0)

    return file_band(PixelType.of("uint8"), grid, (path, offset, "colour"), load)


def _classes(path: Path, grid: GeoBox) -> Band:
    def load() -> Pixels:
        classes = _read(path)
        return Pixels(classes, classes != 0)

    return file_band(PixelType.of("uint8"), _coarser(grid, 20), (path, "classes"), load)


def _clouds(path: Path, grid: GeoBox, kind: QA60) -> Band:
    def load() -> Pixels:
        classes = _read(path)
        rows, columns = classes.shape
        nine = classes.reshape(rows // 3, 3, columns // 3, 3)

        def holds(*wanted: int) -> np.ndarray:
            return np.isin(nine, wanted).any(axis=(1, 3))

        bits = OPAQUE * holds(8, 9) + CIRRUS * holds(10) if kind == "scl" else holds() * 0
        is_seen = (nine != 0).any(axis=(1, 3))
        return Pixels(bits.astype(np.uint16), is_seen & (kind != "masked"))

    return file_band(PixelType.of("uint16"), _coarser(grid, 60), (path, "clouds", kind), load)


def _footprint(item: dict[str, Any]) -> Place:
    return Place(shape=shapely.geometry.shape(item["geometry"]))


def _properties(scene: ForestScene, item: dict[str, Any], collection: str) -> dict[str, Any]:
    ring = item["geometry"]["coordinates"][0]
    return {
        "system:index": index_of(scene),
        "system:id": f"{collection}/{index_of(scene)}",
        "system:time_start": _milliseconds(scene.time),
        "system:footprint": {"type": "LinearRing", "coordinates": ring},
        "MGRS_TILE": scene.tile,
    }


def _product(scene: ForestScene, item: dict[str, Any]) -> dict[str, Any]:
    told = item["properties"]
    product = told["s2:product_uri"].removesuffix(".SAFE")
    orbit = int(told["s2:datatake_id"].split("_")[2])
    return {
        "CLOUDY_PIXEL_PERCENTAGE": told["eo:cloud_cover"],
        "NODATA_PIXEL_PERCENTAGE": told["s2:nodata_pixel_percentage"],
        "DATATAKE_IDENTIFIER": told["s2:datatake_id"],
        "DATATAKE_TYPE": "INS-NOBS",
        "DATASTRIP_ID": told["s2:datastrip_id"],
        "GRANULE_ID": f"L2A_T{scene.tile}_A{orbit:06d}_{scene.time:%Y%m%dT%H%M%S}",
        "PRODUCT_ID": product,
        "PRODUCT_URI": f"{product}.SAFE",
        "SPACECRAFT_NAME": _SPACECRAFT[scene.platform],
        "PROCESSING_BASELINE": scene.baseline,
        "GENERATION_TIME": _milliseconds(scene.created),
        "SENSING_ORBIT_NUMBER": int(product.split("_")[4].removeprefix("R")),
        "SENSING_ORBIT_DIRECTION": "DESCENDING",
        "MEAN_SOLAR_AZIMUTH_ANGLE": told["view:sun_azimuth"],
        "MEAN_SOLAR_ZENITH_ANGLE": 90 - told["view:sun_elevation"],
        "GENERAL_QUALITY": "PASSED",
        "RADIOMETRIC_QUALITY": "PASSED",
    }


def _milliseconds(time: Any) -> int:
    return round((time - type(time)(1970, 1, 1)).total_seconds() * 1000)
