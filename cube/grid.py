"""An area and a resolution in, the cube's grid (`GeoBox`) out."""

import json
import math
from pathlib import Path

import pyogrio
import shapely
import shapely.geometry
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj.exceptions import CRSError

from cube.errors import InputError

LON_LAT = CRS("EPSG:4326")


def area_from_bbox(bbox: tuple[float, float, float, float], crs: str = "EPSG:4326") -> Geometry:
    """Return the area of (left, bottom, right, top) in `crs` units.

    Raises `InputError` if the box is empty, turned round, or outside the globe.
    """
    left, bottom, right, top = bbox
    reference = parse_crs(crs)
    if not all(map(math.isfinite, bbox)) or left >= right or bottom >= top:
        raise InputError(f"bbox {list(bbox)} is empty; expected [left, bottom, right, top]")
    if reference.geographic and not (-180 <= left <= right <= 180 and -90 <= bottom <= top <= 90):
        raise InputError(f"bbox {list(bbox)} lies outside lon -180..180, lat -90..90")
    return Geometry(shapely.box(left, bottom, right, top), reference)


def area_from_file(path: Path) -> Geometry:
    """Return the union of all polygons in a vector file (GeoJSON, GeoPackage, Shapefile, …).

    Raises `InputError` if the file is missing, unreadable, without polygons or without a CRS.
    """
    if not path.exists():
        raise InputError(f"area file {str(path)!r} does not exist")
    try:
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise InputError(
            f"area file {str(path)!r} cannot be read as a vector file: {error}"
        ) from error
    shapes = [shape for shape in shapely.from_wkb(wkb) if shape is not None and not shape.is_empty]
    polygons = [shape for shape in shapes if shape.geom_type in ("Polygon", "MultiPolygon")]
    if not polygons:
        found = sorted({shape.geom_type for shape in shapes}) or "nothing"
        raise InputError(f"area file {str(path)!r} has no polygon (found {found})")
    if not meta["crs"]:
        raise InputError(f"area file {str(path)!r} has no CRS; save it with one")
    return Geometry(shapely.union_all(polygons), parse_crs(meta["crs"]))


def parse_crs(text: str) -> CRS:
    """Return the CRS named by an EPSG code, WKT or PROJ text; `InputError` if there is none."""
    try:
        crs = CRS(text)
        epsg = crs.proj.to_epsg(min_confidence=70)  # WKT of the same zone in its short name
        return CRS(f"EPSG:{epsg}") if epsg else crs
    except (CRSError, ValueError) as error:
        raise InputError(f"crs {text[:80]!r} is not known; expected e.g. 'EPSG:32633'") from error


def utm_crs(area: Geometry) -> CRS:
    """Return the UTM zone (WGS 84) in which the centre of `area` lies.

    Svalbard's and Norway's widened zones follow the grid definition; poles are refused.
    """
    longitude, latitude = area.to_crs(LON_LAT).centroid.coords[0]
    if not -80 <= latitude <= 84:
        raise InputError(f"the area's centre is at latitude {latitude:.2f}, where UTM is undefined")
    zone = min(int((longitude + 180) // 6) + 1, 60)
    if 56 <= latitude < 64 and 3 <= longitude < 12:
        zone = 32
    elif latitude >= 72 and 0 <= longitude < 42:
        zone = {0: 31, 1: 33, 2: 35, 3: 37}[int((longitude + 3) // 12)]
    return CRS(f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}")


def grid_of_area(area: Geometry, *, crs: str = "utm", resolution: float = 10) -> GeoBox:
    """Return the smallest grid over `area` whose edges are multiples of `resolution`.

    Multiples of the pixel size are how Sentinel-2 tiles are laid, so native pixels are kept as
    they are. `crs` is "utm" for the zone of the area's centre, or any projected CRS.

    Raises `InputError` if the CRS is not in metres or the resolution is not positive.
    """
    reference = utm_crs(area) if crs == "utm" else parse_crs(crs)
    if not reference.projected or reference.units[0] not in ("metre", "meter", "m"):
        raise InputError(f"grid crs {crs!r} is not in metres; use 'utm' or a projected CRS")
    if not (math.isfinite(resolution) and resolution > 0):
        raise InputError(f"grid resolution {resolution!r} is not a positive number of metres")
    box = area.to_crs(reference, resolution="auto").boundingbox
    left, top = math.floor(box.left / resolution), math.ceil(box.top / resolution)
    right, bottom = math.ceil(box.right / resolution), math.floor(box.bottom / resolution)
    transform = Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution)
    return GeoBox((top - bottom, right - left), transform, reference)


def geojson_of_area(area: Geometry) -> str:
    """Return `area` as GeoJSON text in lon/lat."""
    return json.dumps(shapely.geometry.mapping(area.to_crs(LON_LAT).geom))
