"""Scenes in, STAC documents out: catalogue, collection and items in the manner of Earth Search v1.

Plain dictionaries of STAC 1.0.0 with the properties that Earth Search writes; only those whose
value the forest knows.
"""

import datetime
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.bands import BANDS, REFLECTANCE_BANDS, Band
from cube.forest.schedule import OFFSET_BASELINE, ForestScene
from cube.forest.sensor import CENTRE_AND_WIDTH
from cube.forest.sun import sun_position

COLLECTION = "sentinel-2-l2a"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_PLATFORM = {"S2A": "sentinel-2a", "S2B": "sentinel-2b"}
_LICENSE = "CC-BY-4.0"


def catalogue_document() -> dict[str, Any]:
    """Return `catalog.json`."""
    return {
        "type": "Catalog",
        "id": "synthetic-forest",
        "stac_version": "1.0.0",
        "description": "A simulated year of Sentinel-2 over a forest that does not exist",
        "links": [
            _link("root", "./catalog.json"),
            _link("self", "./catalog.json"),
            _link("child", f"./{COLLECTION}/collection.json"),
        ],
    }


def collection_document(
    scenes: tuple[ForestScene, ...], bbox: tuple[float, float, float, float]
) -> dict[str, Any]:
    """Return `collection.json`; `bbox` is (west, south, east, north) of all scenes in degrees."""
    times = sorted(scene.time for scene in scenes)
    return {
        "type": "Collection",
        "id": COLLECTION,
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "title": "Sentinel-2 Level 2A (synthetic)",
        "description": "Simulated from PROSAIL; no satellite ever saw it",
        "license": _LICENSE,
        "extent": {
            "spatial": {"bbox": [list(bbox)]},
            "temporal": {"interval": [[_utc(times[0]), _utc(times[-1])]]},
        },
        "links": [
            _link("root", "../catalog.json"),
            _link("parent", "../catalog.json"),
            *(_link("item", f"./{scene.id}/{scene.id}.json") for scene in scenes),
        ],
    }


def item_document(
    scene: ForestScene,
    *,
    geobox: GeoBox,
    footprint: shapely.Geometry,
    share_of_scl: dict[int, float],
) -> dict[str, Any]:
    """Return the item of one scene.

    `geobox` is its grid at 10 m, `footprint` (in the grid's CRS) holds its data, `share_of_scl`
    is the percentage of each SCL class among all pixels.
    """
    outline = in_degrees(footprint, scene.epsg)
    zenith, azimuth = sun_position(scene.time)
    start, made = f"{scene.overpass_time:%Y%m%dT%H%M%S}", f"{scene.created:%Y%m%dT%H%M%S}"
    short = scene.baseline.replace(".", "")
    orbit = 61 if scene.has_swath_edge else 18
    seen = 100 - share_of_scl.get(0, 0.0)

    def percent(*classes: int) -> float:
        held = sum(share_of_scl.get(c, 0.0) for c in classes)
        return round(100 * held / seen, 6) if seen else 0.0

    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/view/v1.0.0/schema.json",
        ],
        "id": scene.id,
        "collection": COLLECTION,
        "geometry": shapely.geometry.mapping(outline),
        "bbox": [round(value, 7) for value in outline.bounds],
        "properties": {
            "datetime": _utc(scene.time),
            "created": _utc(scene.created),
            "updated": _utc(scene.created),
            "platform": _PLATFORM[scene.platform],
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": percent(8, 9, 10),
            "proj:epsg": scene.epsg,
            "mgrs:utm_zone": int(scene.tile[:2]),
            "mgrs:latitude_band": scene.tile[2],
            "mgrs:grid_square": scene.tile[3:],
            "grid:code": f"MGRS-{scene.tile}",
            "view:sun_azimuth": round(azimuth, 6),
            "view:sun_elevation": round(90 - zenith, 6),
            "s2:nodata_pixel_percentage": round(share_of_scl.get(0, 0.0), 6),
            "s2:dark_features_percentage": percent(2),
            "s2:cloud_shadow_percentage": percent(3),
            "s2:vegetation_percentage": percent(4),
            "s2:not_vegetated_percentage": percent(5),
            "s2:water_percentage": percent(6),
            "s2:unclassified_percentage": percent(7),
            "s2:medium_proba_clouds_percentage": percent(8),
            "s2:high_proba_clouds_percentage": percent(9),
            "s2:thin_cirrus_percentage": percent(10),
            "s2:snow_ice_percentage": percent(11),
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": scene.baseline,
            "s2:product_uri": (
                f"{scene.platform}_MSIL2A_{start}_N{short}_R{orbit:03d}_T{scene.tile}_{made}.SAFE"
            ),
            "s2:generation_time": _utc(scene.created),
            "s2:datatake_id": f"G{scene.platform}_{start}_{_orbit_number(scene)}_N{scene.baseline}",
            "s2:datastrip_id": (
                f"{scene.platform}_OPER_MSI_L2A_DS_2BPS_{made}_S{scene.time:%Y%m%dT%H%M%S}"
                f"_N{scene.baseline}"
            ),
            "s2:sequence": str(scene.sequence),
            "earthsearch:boa_offset_applied": scene.boa_offset_applied,
        },
        "links": [
            _link("root", "../../catalog.json"),
            _link("collection", "../collection.json"),
            _link("parent", "../collection.json"),
        ],
        "assets": _assets(scene, geobox),
    }


def in_degrees(outline: shapely.Geometry, epsg: int) -> shapely.Polygon:
    """Return a polygon of a UTM zone in degrees (EPSG:4326), rounded to 1e-7 (1 cm)."""
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    longitude, latitude = to_degrees.transform(*shapely.get_coordinates(outline).T)
    corners = np.round(np.column_stack([longitude, latitude]), 7)
    return shapely.geometry.polygon.orient(shapely.Polygon(corners))


def _assets(scene: ForestScene, geobox: GeoBox) -> dict[str, Any]:
    assets = {}
    for name, band in sorted(BANDS.items(), key=lambda pair: pair[1].earth_search):
        is_reflectance = name in REFLECTANCE_BANDS
        scale, offset = 1e-4, 0.0
        if not is_reflectance:
            scale = 1e-3
        elif scene.baseline >= OFFSET_BASELINE:
            offset = -0.1  # Earth Search says so whether or not the pixels still have it
        asset: dict[str, Any] = {
            "href": f"./{name}.tif",
            "type": _COG,
            "title": f"{name} - {band.resolution}m",
            "roles": ["data", "reflectance"] if is_reflectance else ["data"],
            "gsd": band.resolution,
            **_grid(geobox, band.resolution),
            "raster:bands": [
                {
                    "nodata": 0,
                    "data_type": "uint16",
                    "bits_per_sample": 15,
                    "spatial_resolution": band.resolution,
                    "scale": scale,
                    "offset": offset,
                }
            ],
        }
        if is_reflectance:
            asset["eo:bands"] = [_eo_band(scene, name, band)]
        assets[band.earth_search] = asset
    assets["scl"] = {
        "href": "./SCL.tif",
        "type": _COG,
        "title": "Scene classification map (SCL)",
        "roles": ["data", "reflectance"],
        "gsd": 20,
        **_grid(geobox, 20),
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}],
    }
    return assets


def _eo_band(scene: ForestScene, name: str, band: Band) -> dict[str, Any]:
    centre, width = CENTRE_AND_WIDTH[scene.platform][name]
    return {
        "name": band.earth_search,
        "description": f"{band.earth_search} ({name})",
        "center_wavelength": round(centre / 1000, 4),
        "full_width_half_max": round(width / 1000, 4),
    }


def _grid(geobox: GeoBox, resolution: int) -> dict[str, Any]:
    step = resolution // 10
    rows, columns = geobox.shape
    left, top = geobox.affine.c, geobox.affine.f
    return {
        "proj:shape": [rows // step, columns // step],
        "proj:transform": [resolution, 0, round(left), 0, -resolution, round(top)],
    }


def _orbit_number(scene: ForestScene) -> str:
    # An absolute orbit that counts on: 14.3 a day, from a number like those of 2022.
    return f"{int(34000 + scene.day * 14.3):06d}"


def _link(relation: str, href: str) -> dict[str, str]:
    kind = "application/geo+json" if relation == "item" else "application/json"
    return {"rel": relation, "href": href, "type": kind}


def _utc(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.000000Z"
