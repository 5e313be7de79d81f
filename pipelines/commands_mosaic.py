"""The words of `mosaic`: maps of several zones become one map on a common grid."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from pipelines.command_parts import add_command, add_watching_options, print_lines, reporter_for


def add_mosaic_command(commands: Any) -> None:
    """Add `mosaic`."""
    command = add_command(
        commands, "mosaic", "lay maps of several zones together on one grid, and publish", _mosaic
    )
    command.add_argument("maps", nargs="+", metavar="MAP", help="map.zarr, or a folder with one")
    command.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="for map.zarr, map.tif …"
    )
    command.add_argument(
        "--crs",
        default="equal-area",
        help="equal-area (default: about the maps' centre), utm, or any CRS in metres",
    )
    command.add_argument(
        "--resolution", type=float, metavar="METRES", help="edge of a pixel (default: the finest)"
    )
    command.add_argument("--title", default="canopycube mosaic", help="title of the pictures")
    command.add_argument("--workers", type=int, help="threads (default: one a core)")
    add_watching_options(command)


def _mosaic(options: argparse.Namespace) -> dict[str, Any]:
    # these take seconds to import
    from cube.errors import InputError
    from cube.mosaic import plan_mosaic
    from cube.place import as_place
    from pipelines.cluster import connect, reported
    from pipelines.layout import Layout
    from pipelines.mosaic_maps import mosaic_maps
    from pipelines.publish_map import publish_map
    from pipelines.recipe_cluster import ClusterSection
    from pipelines.sole_user import sole_user

    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers {options.workers}; expected 1 or more")
    given = [as_place(text) for text in options.maps]
    maps = [one if one.name.endswith(".zarr") else one / "map.zarr" for one in given]
    mosaic = plan_mosaic(maps, crs=options.crs, resolution=options.resolution)
    layout, reporter = Layout(folder=options.to), reporter_for(options)
    section = ClusterSection(kind="threads", workers=options.workers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sole_user(layout.folder))
        client = stack.enter_context(connect(section))
        if options.performance_report is not None:
            stack.enter_context(reported(options.performance_report))
        made = mosaic_maps(mosaic, layout.map, client, reporter, title=options.title)
        published = publish_map(layout, options.title, reporter)
    areas = ", ".join(f"{name} {area:,.1f}" for name, area in published["hectares"].items())
    print_lines(
        options,
        [
            f"mosaic    {made['tiles']}; {made['classified_share']:.1%} of it classified",
            f"          {published['map']}",
            f"          hectares mapped (pixel counts, no estimate): {areas}",
        ],
    )
    return made | {"published": published}
