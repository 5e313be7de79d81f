"""Making a monthly cube over HTTP: ours beside odc-stac and stackstac with a Dask median.

`python -m tests.benchmarks.ingest FOLDER` simulates a forest in FOLDER once, serves it on loopback
from a process of its own, and lets every way make the same cube in turns, each in a fresh process.
Seconds are of the work without imports, requests and bytes are counted by the server, memory is the
peak of the whole process. `--growth` measures our peak with 10 to 200 scenes and 1 to 100 tiles.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cube.forest import ForestSpec, write_forest
from cube.stac import read_scenes
from tests.benchmarks.ingest.catalogues import EDGE, boxes, catalogues, plain_catalogue
from tests.benchmarks.ingest.contender import WAYS
from tests.benchmarks.rounds import machine, show

sys.path.insert(0, str(Path(__file__).parents[2] / "servers"))
from rangeserver import range_process

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
YEAR = 2022
SECONDS = 3600.0


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the forest lies, or is to be written")
    parser.add_argument("--scale", type=float, default=2.0, help="1 is 480 pixels of 10 m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--growth", action="store_true", help="our peak memory as the work grows")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    spec = ForestSpec(scale=given.scale, year=YEAR)
    if not given.folder.exists():
        write_forest(given.folder, spec)
    with range_process(given.folder, seconds=SECONDS) as url, tempfile.TemporaryDirectory() as work:
        if given.growth:
            tables = _growth(given.folder, url, spec, Path(work))
        else:
            tables = _comparison(given, url, spec, Path(work))
    where = machine(["odc-stac", "stackstac", "dask", "xarray", "rasterio", "zarr"])
    show(tables, where=where, as_json=given.json)


def _comparison(
    given: argparse.Namespace, url: str, spec: ForestSpec, work: Path
) -> dict[str, list[Mapping[str, Any]]]:
    job = _job(given.folder, url, spec, work)
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in given.ways}
    for number in range(given.rounds):
        start = number % len(given.ways)
        for way in (*given.ways[start:], *given.ways[:start]):
            figures[way].append(_run(way, job, url, work))
            print(f"round {number + 1}: {way} {figures[way][-1]}", file=sys.stderr)
    middle = {
        way: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for way, found in figures.items()
    }
    base = middle.get("ours", next(iter(middle.values())))
    rows = [
        {
            "way": way,
            "seconds": f"{one['seconds']:.1f}",
            "times ours": f"{one['seconds'] / base['seconds']:.1f}",
            "requests": f"{one['requests']:.0f}",
            "megabytes": f"{one['bytes'] / 1e6:.1f}",
            "peak MB": f"{one['peak'] / 1e6:.0f}",
            "times our peak": f"{one['peak'] / base['peak']:.1f}",
        }
        for way, one in middle.items()
    ]
    title = f"monthly cube of {spec.edge} x {spec.edge} pixels, {len(BANDS)} bands, {job['scenes']} scenes"
    first = int(min(job["offset_of_day"])[5:7]) - 1  # the other ways begin with the first scene
    return {title: rows, "equal output": _agreement(given.ways, work, first)}


def _job(folder: Path, url: str, spec: ForestSpec, work: Path) -> dict[str, Any]:
    """Lock the scenes once; what every way needs is written to a file."""
    box = spec.geobox.boundingbox
    inner = [box.left + 2, box.bottom + 2, box.right - 2, box.top - 2]
    area = f'bbox = {inner}\ncrs = "{spec.geobox.crs}"'
    catalogue = str(plain_catalogue(folder, url, work))
    recipe = _recipe(work, catalogue=catalogue, area=area, tile=512)
    _lock(recipe)
    scenes = read_scenes(work / "run" / "scenes.parquet").scenes
    grid = spec.geobox
    return {
        "recipe": str(recipe),
        "bands": BANDS,
        "crs": str(grid.crs),
        "transform": list(grid.transform)[:6],
        "shape": list(grid.shape),
        "offset_of_day": {str(scene.overpass_start.date()): scene.offset for scene in scenes},
        "items": [_item(scene) for scene in scenes],
        "scenes": len(scenes),
    }


def _item(scene: Any) -> dict[str, Any]:
    """Return a scene as the STAC item that both libraries understand, geometry corrected."""
    assets = {
        name: {
            "href": asset.href,
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "proj:transform": list(asset.transform),
            "proj:shape": list(asset.shape),
            "raster:bands": [{"nodata": 0, "data_type": "uint8" if name == "SCL" else "uint16"}],
        }
        for name, asset in scene.assets.items()
    }
    shape = scene.footprint
    points = np.array(shape["coordinates"][0])
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": scene.id,
        "geometry": shape,
        "bbox": [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()],
        "properties": {
            "datetime": scene.time.isoformat().replace("+00:00", "Z"),
            "proj:epsg": scene.epsg,
        },
        "links": [],
        "assets": assets,
    }


def _recipe(work: Path, *, catalogue: str, area: str, tile: int, name: str = "run") -> Path:
    path = work / f"{name}.toml"
    path.write_text(
        f'''name = "benchmark"
bands = {list(BANDS)}
[area]
{area}
[months]
first = "{YEAR}-01"
last = "{YEAR}-12"
[source]
kind = "stac"
catalogue = "{catalogue}"
max_cloud_cover = 100
offset = "verify"
[composite]
tile = {tile}
chunk = {min(tile, 256)}
[outputs]
folder = "{name}"
[cluster]
kind = "threads"
workers = 2
''',
        encoding="utf-8",
    )
    return path


def _run(way: str, job: Mapping[str, Any], url: str, work: Path) -> dict[str, float]:
    """Run one way in a fresh process; what it takes, with the server's own count."""
    out = work / f"{way}.zarr"
    shutil.rmtree(out, ignore_errors=True)
    path = work / f"{way}.json"
    path.write_text(json.dumps({**job, "out": str(out)}), encoding="utf-8")
    before = _served(url)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.ingest.contender", way, str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    after = _served(url)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {
        **figures,
        "requests": after["requests"] - before["requests"],
        "bytes": after["sent"] - before["sent"],
    }


def _lock(recipe: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "lock", str(recipe)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _served(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/-/requests", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _agreement(ways: Sequence[str], work: Path, first: int) -> list[Mapping[str, Any]]:
    """Compare every cube with ours, pixel by pixel."""
    if "ours" not in ways:
        return []
    mine = xr.open_zarr(work / "ours.zarr", mask_and_scale=False)["reflectance"].values
    rows = []
    for way in ways:
        if way == "ours":
            continue
        found = xr.open_zarr(work / f"{way}.zarr", mask_and_scale=False, consolidated=False)
        other = np.full_like(mine, -32768)
        values = found["reflectance"].values
        other[first : first + len(values)] = values
        is_seen = (mine != -32768) & (other != -32768)
        apart = np.abs(mine.astype(int) - other)[is_seen]
        rows.append(
            {
                "way": way,
                "equal": f"{(mine == other).mean():.4%}",
                "within 1 where both saw": f"{(apart <= 1).mean():.4%}",
                "seen by one only": f"{((mine == -32768) != (other == -32768)).mean():.4%}",
            }
        )
    return rows


def _growth(
    folder: Path, url: str, spec: ForestSpec, work: Path
) -> dict[str, list[Mapping[str, Any]]]:
    by_scenes = []
    for count, catalogue in catalogues(folder, url, work):
        recipe = _recipe(
            work,
            catalogue=str(catalogue),
            area=f"file = {json.dumps(str(folder / 'area.geojson'))}",
            tile=512,
            name=f"scenes{count}-run",
        )
        by_scenes.append({"scenes": count, "peak MB": _peak(recipe, url, work)})
    by_tiles = []
    for count, box in boxes(spec):
        recipe = _recipe(
            work,
            catalogue=f"{url}/catalog.json",
            area=f'bbox = {list(box)}\ncrs = "{spec.geobox.crs}"',
            tile=EDGE,
            name=f"tiles{count}",
        )
        by_tiles.append({"tiles": count, "peak MB": _peak(recipe, url, work)})
    return {"our peak by scenes": by_scenes, "our peak by tiles": by_tiles}


def _peak(recipe: Path, url: str, work: Path) -> str:
    _lock(recipe)
    return f"{_run('ours', {'recipe': str(recipe)}, url, work)['peak'] / 1e6:.0f}"


if __name__ == "__main__":
    main(sys.argv[1:])
