"""A synthetic forest: a seed in, a static STAC catalogue of simulated Sentinel-2 scenes out.

Spectra come from PROSPECT-D and 4SAIL, the ground from smooth noise and power diagrams, the year's
troubles (cloud, shadow, snow, gaps, offsets, duplicates, a second zone) from a schedule. The truth
is known: `true_scene` and `true_surface` simulate again what any scene hides. It is a stage for
tests, benchmarks and the demo; no score reached on it says anything about a real forest.
"""

from cube.forest.labels import ForestPoints, forest_points
from cube.forest.scene import TrueScene, true_scene
from cube.forest.schedule import ForestScene, scene_of, scenes_of
from cube.forest.spec import FOREST_CLASSES, ForestClass, ForestSpec
from cube.forest.surface import true_surface
from cube.forest.write import Forest, forest_in, write_forest

__all__ = [
    "FOREST_CLASSES",
    "Forest",
    "ForestClass",
    "ForestPoints",
    "ForestScene",
    "ForestSpec",
    "TrueScene",
    "forest_in",
    "forest_points",
    "scene_of",
    "scenes_of",
    "true_scene",
    "true_surface",
    "write_forest",
]
