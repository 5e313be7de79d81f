"""One way of making a monthly cube in a process of its own: job file in, seconds and memory out.

The ways besides ours follow the documentation of odc-stac ("load", with `groupby="solar_day"`, a
mask from the scene classification, and a median per month) and of stackstac (`stack`, mask,
`resample(time="MS").median`), with Dask's threaded scheduler on two cores.
"""

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLEAR = (4, 5, 6, 7)
CHUNK = 512
"""Edge of a Dask chunk and of our tiles: what both libraries' examples lie around, and the
block of the files."""


def ours(job: dict[str, Any]) -> Callable[[], object]:
    """The project's own build from a lock file that is there."""
    from pipelines.build_cube import build_cube
    from pipelines.cluster import connect
    from pipelines.plan import plan_cube
    from pipelines.progress import Reporter
    from pipelines.recipe import read_recipe

    recipe = read_recipe(Path(job["recipe"]))

    def work() -> None:
        plan = plan_cube(recipe)
        with connect(recipe.cluster) as client:
            build_cube(plan, Path(job["out"]), client, Reporter(is_quiet=True), title="benchmark")

    return work


def odc(job: dict[str, Any]) -> Callable[[], object]:
    """odc-stac and a Dask median."""
    import dask
    import odc.stac
    import pystac

    items = [pystac.Item.from_dict(item) for item in job["items"]]

    def work() -> None:
        odc.stac.configure_rio(cloud_defaults=True)
        loaded = odc.stac.load(
            items,
            bands=[*job["bands"], "SCL"],
            geobox=_geobox(job),
            chunks={"x": CHUNK, "y": CHUNK},
            groupby="solar_day",
            preserve_original_order=True,
            resampling={"SCL": "nearest", "*": "bilinear"},
        )
        bands = loaded[job["bands"]].to_array("band")  # (band, time, y, x)
        _store(bands, loaded["SCL"], job, dask)

    return work


def stackstac(job: dict[str, Any]) -> Callable[[], object]:
    """stackstac and a Dask median."""
    import dask
    import stackstac as library
    from rasterio.enums import Resampling

    geobox = _geobox(job)
    box = geobox.boundingbox
    options: dict[str, Any] = {
        "epsg": geobox.crs.epsg,
        "resolution": abs(geobox.resolution.x),
        "bounds": (box.left, box.bottom, box.right, box.top),
        "snap_bounds": False,
        "chunksize": CHUNK,
        "dtype": np.dtype("uint16"),
        "fill_value": np.uint16(0),
        "rescale": False,
        "xy_coords": "center",
        "errors_as_nodata": (),
    }

    def work() -> None:
        bands = library.stack(
            job["items"], assets=job["bands"], resampling=Resampling.bilinear, **options
        )
        classes = library.stack(
            job["items"], assets=["SCL"], resampling=Resampling.nearest, **options
        )
        plain = bands.drop_vars([name for name in bands.coords if name not in bands.dims])
        # granules of one day are one look, as odc-stac's solar_day and our overpasses are
        days = plain.time.dt.floor("D").rename("day")
        merged = plain.groupby(days).map(library.mosaic, dim="time", nodata=0).rename(day="time")
        scl = classes.isel(band=0, drop=True)
        scl = scl.drop_vars([name for name in scl.coords if name not in scl.dims])
        scl = scl.groupby(days).map(library.mosaic, dim="time", nodata=0).rename(day="time")
        _store(merged.transpose("band", "time", "y", "x"), scl, job, dask)

    return work


def _store(bands: Any, classes: Any, job: dict[str, Any], dask: Any) -> None:
    """Mask, take the offset off, reduce by month, and write a Zarr store."""
    offsets = {np.datetime64(day): value for day, value in job["offset_of_day"].items()}
    days = bands.time.values.astype("M8[D]")
    offset = bands.time.copy(data=np.array([offsets[day] for day in days], np.float32))
    clear = classes.isin(CLEAR) & (bands > 0).all("band")
    values = (bands.astype("float32") + offset).where(clear)
    cube = values.resample(time="MS").median("time")
    cube = cube.transpose("time", "band", "y", "x").chunk({"time": 1, "band": -1})
    stored = cube.round().fillna(-32768).astype("int16").drop_attrs().to_dataset(name="reflectance")
    stored = stored.drop_vars([name for name in stored.coords if name not in stored.dims])
    stored = stored.chunk({"time": 1, "band": -1, "y": CHUNK, "x": CHUNK})
    with dask.config.set(scheduler="threads", num_workers=2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored.to_zarr(job["out"], mode="w", zarr_format=3, consolidated=False)


def _geobox(job: dict[str, Any]) -> Any:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    return GeoBox(tuple(job["shape"]), Affine(*job["transform"]), job["crs"])


WAYS: dict[str, Callable[[dict[str, Any]], Callable[[], object]]] = {
    "ours": ours,
    "odc-stac": odc,
    "stackstac": stackstac,
}


def main(way: str, path: str) -> None:
    """Run one way and print its figures as JSON."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    work = WAYS[way](job)  # imports libraries
    began, busy = time.perf_counter(), time.process_time()
    work()
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "processor": processor, "peak": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
