"""What the tests of Earth Engine's server ask with: the real client, a small forest, its grid."""

import ee
import rasterio
from earthengine_catalogue import SENTINEL, index_of
from google.auth.credentials import AnonymousCredentials

from cube.forest import ForestSpec, scenes_of

SPEC = ForestSpec(seed=3, scale=0.25)
GEOBOX = SPEC.geobox
LEFT, TOP = GEOBOX.affine.c, GEOBOX.affine.f
SCENES = {index_of(scene): scene for scene in scenes_of(SPEC)}
OVERPASS = [scene for scene in SCENES.values() if scene.day == 103]
NATIVE, NEIGHBOUR = sorted(OVERPASS, key=lambda scene: scene.epsg)


def open_client(server):
    """Let the client speak to a server, and never ask twice."""
    ee.Initialize(credentials=AnonymousCredentials(), url=server.url, project="test-project")
    ee.data.setMaxRetries(0)


def grid(width=120, height=120, *, column=0, row=0, size=10):
    """A grid of the forest's zone, so many of its pixels from its upper left corner."""
    return {
        "crsCode": "EPSG:32648",
        "dimensions": {"width": width, "height": height},
        "affineTransform": {
            "scaleX": size,
            "shearX": 0,
            "translateX": LEFT + column * size,
            "shearY": 0,
            "scaleY": -size,
            "translateY": TOP - row * size,
        },
    }


def pixels(image, where=None, **options):
    """Bands of an image on a grid, the whole forest's if none is given: a structured array."""
    asked = {"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": where or grid()}
    return ee.data.computePixels(asked | options)


def one(image, where=None):
    """The only band of an image."""
    found = pixels(image, where)
    (name,) = found.dtype.names
    return found[name]


def scene_image(scene):
    """What Earth Engine has of a scene."""
    return ee.Image(f"{SENTINEL}/{index_of(scene)}")


def stored(forest, scene, name):
    """Counts and transform of a scene's file."""
    with rasterio.open(forest.folder / "sentinel-2-l2a" / scene.id / f"{name}.tif") as file:
        return file.read(1), file.transform
