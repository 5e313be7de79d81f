"""A folder and a network in, ways to map a cube of a simulated forest's tile out: ours, and others'."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import dask.array as da
import numpy as np

from cube.ledger import Ledger
from cube.mapstore import create_map
from cube.store import decode, open_stored_cube, read_region
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.fitted import Fitted
from model.networks import class_probability
from model.predict import predict_block
from pipelines.cluster import connect
from pipelines.cores import kept_to, tiles_ahead
from pipelines.map_species import map_species, plan_map
from pipelines.map_tile import MapJob, map_tile
from pipelines.progress import Reporter
from pipelines.recipe import ClusterSection
from tests.benchmarks.layout import forest_year
from tests.simulated.repeated_cube import tile_samples, write_classifier, write_cube

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
TILE, WORKERS = 512, 2

_INDICES = ("NDVI", "NDWI", "EVI", "NDMI", "CIre")
_LOGS = ("log:B04", "log:B08", "log:B8A", "log:B11", "log:B12")
_TWENTY = [*BANDS, *_INDICES, *_LOGS]

NETWORKS: dict[str, Callable[[], TrainConfig]] = {
    "reference1": lambda: TrainConfig.preset("reference", layers=1, epochs=4, features=_TWENTY),
    "reference2": lambda: TrainConfig.preset("reference", epochs=4, features=_TWENTY),
    "default": lambda: TrainConfig.preset("default", epochs=3),
    "tiny": lambda: TrainConfig.preset(
        "default",
        features=["B04", "B08"],
        hidden=4,
        epochs=1,
        bidirectional=False,
        pooling="last",
        input_pieces=0,
    ),
}
"""What is mapped with: the reference workflow's network with one layer and two, on ten bands and
ten features of them, ours, and one that costs next to nothing."""


@dataclass(kw_only=True)
class Bench:
    """Cubes of one network, from one tile to all."""

    folder: Path
    """Where they are made."""
    network: str
    """Key of `NETWORKS`."""
    year: np.ndarray = field(default_factory=lambda: forest_year(TILE, seed=1))
    """The tile, (time, band, y, x) in stored units."""

    def cube(self, tiles: int, *, links: bool = False) -> Path:
        """Return the folder of a run whose cube has so many tiles a side; made once."""
        folder = self.folder / f"{tiles} tiles"
        if not folder.exists():
            folder.mkdir()
            write_cube(folder, self.year, BANDS, tiles=tiles, links=links)
            if not (self.folder / "classifier").exists():
                samples = tile_samples(self.year, BANDS, count=3000)
                write_classifier(folder, samples, NETWORKS[self.network]())
                shutil.copytree(folder / "out" / "classifier", self.folder / "classifier")
            else:
                shutil.copytree(self.folder / "classifier", folder / "out" / "classifier")
        return folder

    def classifier(self) -> SpeciesClassifier:
        """Return the classifier, once a cube is made."""
        return SpeciesClassifier.load(self.folder / "classifier")


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What one run of the command took."""

    pixels: int
    """Pixels of the cube."""
    seconds: float
    """Of the map step."""
    wall: float
    """Of the whole command."""
    first_tile: float
    """From the start of the command to the record of the first tile."""
    processor: float
    """Processor seconds of the whole command."""
    peak: float
    """Largest resident memory, in MB."""

    @property
    def rate(self) -> float:
        """Pixels per second of the map step."""
        return self.pixels / self.seconds


def command(folder: Path, engine: str, *, is_again: bool = False) -> Mapped:
    """Map the cube of a run with `canopycube map`, or let it find that nothing is left to do."""
    if not is_again:
        shutil.rmtree(folder / "out" / "map.zarr", ignore_errors=True)
    ledger = folder / "out" / "map.zarr" / "ledger"
    words = ["map", str(folder / "recipe.toml"), "--json", "--engine", engine]
    words += ["--set", f"cluster.workers={WORKERS}"]
    started, first_tile = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([sys.executable, "-m", "pipelines", *words], stdout=printed)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not first_tile and any(ledger.glob("r*.json")):
                first_tile = time.perf_counter() - started
            if ended:
                break
            time.sleep(0.02)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        found = json.loads(printed.read())
    if process.returncode:
        raise RuntimeError(f"canopycube map: {found['error']}")
    if found["engine"]["tiles"].keys() != {engine}:
        raise RuntimeError(f"asked for {engine}, tiles are by {found['engine']['tiles']}")
    edge = read_edge(folder)
    return Mapped(
        pixels=edge * edge,
        seconds=found["seconds"],
        wall=wall,
        first_tile=first_tile,
        processor=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / 1024,
    )


def read_edge(folder: Path) -> int:
    """Return the edge of a run's cube in pixels."""
    return int(folder.name.split()[0]) * TILE


def job_of(folder: Path, engine: str) -> MapJob:
    """Return the job that `canopycube map` would carry out."""
    out = folder / "out"
    shutil.rmtree(out / "map.zarr", ignore_errors=True)
    return plan_map(
        out / "cube.zarr",
        out / "classifier",
        out / "map.zarr",
        title="benchmark",
        engine=engine,
    )


def with_dask(folder: Path, engine: str) -> float:
    """Return the pixels per second of the map step in this process, with Dask's threads."""
    job = job_of(folder, engine)
    with connect(ClusterSection(workers=WORKERS)) as client:
        began = time.perf_counter()
        map_species(job, client, Reporter(is_quiet=True))
        return read_edge(folder) ** 2 / (time.perf_counter() - began)


def with_a_pool(folder: Path, engine: str) -> float:
    """Return the same with as many threads of Python's own, and nothing of Dask."""
    job = job_of(folder, engine)
    began = time.perf_counter()
    create_map(
        job.path,
        geobox=job.spec.geobox,
        classes=job.classes,
        tile=job.spec.tile,
        chunk=job.spec.chunk,
    )
    Ledger(store=job.path, inputs=job.inputs).prepare()
    with kept_to(WORKERS), ThreadPoolExecutor(WORKERS + tiles_ahead(WORKERS)) as pool:
        places = [(region.row, region.column) for region in job.spec.regions()]
        list(pool.map(lambda place: map_tile(job=job, block_id=place), places))
    return read_edge(folder) ** 2 / (time.perf_counter() - began)


def naive(folder: Path) -> float:
    """Return the pixels per second of what a user would write with Dask and PyTorch."""
    classifier = SpeciesClassifier.load(folder / "out" / "classifier")
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)  # all networks here are

    def classify(block: np.ndarray) -> np.ndarray:
        times, bands, height, width = block.shape
        values = decode(block).reshape(times, bands, -1).transpose(2, 0, 1)
        prepared = fitted.preparation.apply(np.ascontiguousarray(values), BANDS)
        probability = class_probability(fitted.networks, prepared, batch=len(prepared))
        first, second = np.sort(probability, axis=1)[:, :-3:-1].T
        layers = probability.argmax(axis=1) + 1, first * 100, (first - second) * 100
        return np.stack(layers).astype(np.uint8).reshape(3, height, width)

    pixels = open_stored_cube(folder / "out" / "cube.zarr")["reflectance"].data
    pixels = pixels.rechunk({2: TILE // 2, 3: TILE // 2})
    layers = da.map_blocks(
        classify, pixels, drop_axis=(0, 1), new_axis=0, chunks=((3,), *pixels.chunks[2:]),
        dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8),
    )  # fmt: skip
    target = folder / "out" / "naive.zarr"
    shutil.rmtree(target, ignore_errors=True)
    began = time.perf_counter()
    layers.to_zarr(str(target), compute=False).compute(scheduler="threads", num_workers=WORKERS)
    return read_edge(folder) ** 2 / (time.perf_counter() - began)


def one_core(bench: Bench, classifier: SpeciesClassifier, engine: str, edge: int) -> float:
    """Return the pixels per second of `predict_block` on one core, from memory to memory."""
    block = np.ascontiguousarray(bench.year[:, :, :edge, :edge])
    began = time.perf_counter()
    predict_block(classifier, block, BANDS, engine=engine)
    return edge * edge / (time.perf_counter() - began)


def reading(folder: Path) -> float:
    """Return the pixels per second that one thread reads and decodes."""
    job = job_of(folder, "torch")
    regions = job.spec.regions()
    began = time.perf_counter()
    for region in regions:
        read_region(job.cube, region)
    return len(regions) * TILE * TILE / (time.perf_counter() - began)
