"""A map store in; GeoTIFFs for other programs, a legend and a picture for people out."""

import time
from typing import Any

from cube.export import class_areas, write_map_cog, write_quality_cog
from cube.mapstore import map_classes
from cube.pictures import write_legend, write_quicklook
from pipelines.layout import Layout
from pipelines.progress import Reporter

PICTURES = ("map.tif", "map_quality.tif", "legend.png", "quicklook.png")
"""What is published, beside `map.tif.aux.xml` with the names of the classes."""


def publish_map(layout: Layout, title: str, reporter: Reporter) -> dict[str, Any]:
    """Write `map.tif`, `map_quality.tif`, `legend.png` and `quicklook.png` beside the map store."""
    started = time.perf_counter()
    classes = map_classes(layout.map)
    folder = layout.folder
    with reporter.bar("publish", 4) as advance:
        write_map_cog(layout.map, folder / "map.tif", classes)
        advance(note="map.tif")
        write_quality_cog(layout.map, folder / "map_quality.tif")
        advance(note="map_quality.tif")
        hectares = class_areas(layout.map, classes)
        write_legend(folder / "legend.png", classes, hectares)
        advance(note="legend.png")
        write_quicklook(folder / "quicklook.png", layout.map, classes, title=title)
        advance(note="quicklook.png")
    return {
        "map": str(folder / "map.tif"),
        "quality": str(folder / "map_quality.tif"),
        "legend": str(folder / "legend.png"),
        "quicklook": str(folder / "quicklook.png"),
        "hectares": {name: round(area, 2) for name, area in hectares.items()},
        "seconds": round(time.perf_counter() - started, 2),
    }
