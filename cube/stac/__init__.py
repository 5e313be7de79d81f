"""Scenes of a STAC catalogue: search, check, write down once; then read looks without it.

The order of use: `find_scenes` asks the catalogue, `lock_scenes` checks what it says against the
files, `write_scenes` keeps the result, and `StacSource` reads pixels through it, as often and on as
many machines as need be. This package is the only one that knows STAC clients and loaders.
"""

from cube.stac.access import Access, access_for, access_of_kind
from cube.stac.cache import SearchCache
from cube.stac.catalogueio import SearchPatience
from cube.stac.difference import SceneDifference, difference
from cube.stac.files import SceneDeniedError, SceneReadError, SceneUnreachableError
from cube.stac.footprint import search_area
from cube.stac.item import scene_from_item
from cube.stac.lock import lock_scenes
from cube.stac.lockfile import read_scenes, write_scenes
from cube.stac.providers import PROVIDERS, Provider, catalogue_address, provider_of
from cube.stac.scene import Asset, DroppedScene, Scene, SceneList
from cube.stac.search import SceneQuery, find_scenes
from cube.stac.source import StacSource

__all__ = [
    "PROVIDERS",
    "Access",
    "Asset",
    "DroppedScene",
    "Provider",
    "Scene",
    "SceneDeniedError",
    "SceneDifference",
    "SceneList",
    "SceneQuery",
    "SceneReadError",
    "SceneUnreachableError",
    "SearchCache",
    "SearchPatience",
    "StacSource",
    "access_for",
    "access_of_kind",
    "catalogue_address",
    "difference",
    "find_scenes",
    "lock_scenes",
    "provider_of",
    "read_scenes",
    "scene_from_item",
    "search_area",
    "write_scenes",
]
