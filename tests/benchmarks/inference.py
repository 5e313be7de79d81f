"""Simulated pixels in, how fast each way classifies them on one core, and how exactly, out.

Run with `python -m tests.benchmarks.inference [--json] [--seconds 60] [--networks
reference1,reference2,default] [--tile 256]`. `kernel` goes from prepared values to classes, `tile`
from a chunk of int16 to class, confidence and margin. Networks are trained for a few epochs on the
simulation the pixels come from. Ways take turns and processor seconds are counted (`rounds`), so
that others who use the machine change little; PyTorch's batch is swept and its best setting is what
ratios refer to. Ceilings (products of the network's size, copies) are measured in the same rounds.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.engines import choose_engine
from model.engines.arithmetic import exact_arithmetics, fast_arithmetic, instructions
from model.engines.compiled import CompiledModel
from model.engines.oracle import true_probability
from model.engines.pixels import reflectance_of
from model.fitted import Fitted
from model.formulas import BANDS
from model.learn import train_classifier
from model.predict import predict_block
from model.samples import Samples
from tests.benchmarks.ceilings import copies, own_products, torch_products
from tests.benchmarks.rounds import machine, seconds_in_turns, show

STEPS = 12
CLASSES = 8
STAND = 10
PERIODS = tuple(f"2022-{month:02d}" for month in range(1, STEPS + 1))
BATCHES = (256, 512, 1024, 2048)
KERNEL_PIXELS = 6144
NETWORKS = {
    "reference1": ("reference", {"layers": 1, "epochs": 8}),
    "reference2": ("reference", {"epochs": 8}),
    "default": ("default", {"epochs": 4}),
}
TORCH = "torch fp32, batch "

Ways = dict[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """Something that is measured."""

    run: Callable[[], object]
    """Does it once."""
    pixels: int
    """How many pixels that are."""
    classes: Callable[[], np.ndarray] | None = None
    """Probabilities it gives for the pixels that ways are compared on, where it gives any."""


def simulated(count: int, seed: int) -> Samples:
    """Return reflectance of `BANDS` whose classes differ in level and season, with much noise."""
    generator = np.random.default_rng(seed)
    shape = np.random.default_rng(0).normal(0, 1, (3, CLASSES, len(BANDS)))
    stand = np.arange(count) // STAND
    label = generator.integers(0, CLASSES, stand[-1] + 1)[stand]
    label[:CLASSES] = np.arange(CLASSES)
    angle = 2 * np.pi * (np.arange(STEPS) / STEPS)[:, None]
    values = 0.28 + 0.03 * shape[0][label][:, None]
    values = values + 0.04 * shape[1][label][:, None] * np.cos(angle)
    values = values + 0.04 * shape[2][label][:, None] * np.sin(angle)
    values += generator.normal(0, 0.03, (stand[-1] + 1, STEPS, len(BANDS)))[stand]
    values += generator.normal(0, 0.06, values.shape)
    values[generator.random(values.shape[:2]) < 0.2] = np.nan
    values[:, 0][np.isnan(values).all(axis=(1, 2))] = 0.2
    return Samples(
        reflectance=np.clip(values, 0.001, 2).astype(np.float32),
        bands=BANDS,
        periods=PERIODS,
        label=label.astype(np.int64),
        classes=tuple(f"species {index}" for index in range(CLASSES)),
        group=stand,
        block=stand,
    )


def trained(name: str) -> SpeciesClassifier:
    """Train one of `NETWORKS` briefly."""
    preset, settings = NETWORKS[name]
    config = TrainConfig.preset(preset, **settings)
    return train_classifier(simulated(4000, 0), config, colours=["#1b9e77"] * CLASSES)


def stored(count: int) -> np.ndarray:
    """Return pixels (time, band, pixel) as a cube stores them."""
    values = simulated(count, 1).reflectance.transpose(1, 2, 0)
    counts = np.where(np.isnan(values), -32768, np.rint(values * 1e4))
    return np.ascontiguousarray(counts.astype(np.int16))


def softmaxed(network: torch.nn.Module, steps: torch.Tensor, batch: int) -> np.ndarray:
    """Return probabilities as PyTorch gives them."""
    with torch.inference_mode():
        parts = [network(part).float() for part in steps.split(batch)]
        return torch.softmax(torch.cat(parts), dim=1).numpy()


def kernel_ways(classifier: SpeciesClassifier, pixels: np.ndarray) -> tuple[dict[str, Way], list]:
    """Return what goes from prepared values to probabilities, and who is not there."""
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    chosen, wanted = places(classifier), np.arange(pixels.shape[2])
    reflectance = reflectance_of(pixels, chosen, wanted)
    prepared = fitted.preparation.apply(reflectance, classifier.required_bands)
    steps, network = torch.from_numpy(prepared), fitted.network
    half = copy.deepcopy(network).bfloat16()
    steps16 = steps.bfloat16()
    ways = {}

    def add(name: str, run: Callable[[], np.ndarray]) -> None:
        ways[name] = Way(run=run, pixels=len(wanted), classes=run)

    for batch in BATCHES:
        add(f"{TORCH}{batch}", lambda b=batch: softmaxed(network, steps, b))
    for batch in (512, 1024):
        add(f"torch bf16, batch {batch}", lambda b=batch: softmaxed(half, steps16, b))
    models = {}
    arithmetics = [("exact", one) for one in exact_arithmetics()] + [("fast", fast_arithmetic())]
    for name, arithmetic in arithmetics:
        model = CompiledModel(fitted, arithmetic, steps=STEPS)
        own = model.prepared(pixels, chosen, wanted)
        models[f"{name} ({arithmetic.words})"] = (model, own)
    for name, (model, own) in models.items():
        add(name, lambda m=model, o=own: m.prepared_probability(o))
    missing = []
    for name, make in (("ONNX Runtime", onnx_way), ("torch.compile", compiled_way),
                       ("OpenVINO", openvino_way)):  # fmt: skip
        try:
            add(name, make(classifier, prepared, reflectance))
        except Exception as error:  # noqa: BLE001  whatever keeps a peer away is told, not raised
            missing.append({"not measured": name, "because": str(error).splitlines()[0][:120]})
    return ways, missing


def onnx_way(
    classifier: SpeciesClassifier, prepared: np.ndarray, reflectance: np.ndarray
) -> Callable[[], np.ndarray]:
    """Return ONNX Runtime on one thread, on the file that the project exports."""
    import onnxruntime

    from model.onnx_export import INPUTS, write_onnx

    del prepared
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(classifier, Path(folder) / "classifier.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            (Path(folder) / "classifier.onnx").read_bytes(),
            options,
            providers=["CPUExecutionProvider"],
        )
    features = classifier.fitted.features
    values = features.compute(reflectance, classifier.required_bands)
    clear = features.is_clear(reflectance, classifier.required_bands).astype(np.float32)

    def run() -> np.ndarray:
        parts = [
            session.run(None, dict(zip(INPUTS, (values[i : i + 512], clear[i : i + 512]),
                                       strict=True)))[0]
            for i in range(0, len(values), 512)
        ]  # fmt: skip
        return np.concatenate(parts)

    run()
    return run


def compiled_way(
    classifier: SpeciesClassifier, prepared: np.ndarray, reflectance: np.ndarray
) -> Callable[[], np.ndarray]:
    """Return the network as torch.compile makes it."""
    del reflectance
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    network, steps = torch.compile(fitted.network), torch.from_numpy(prepared)
    softmaxed(network, steps, 512)  # type: ignore[arg-type]
    return lambda: softmaxed(network, steps, 512)  # type: ignore[arg-type]


def openvino_way(
    classifier: SpeciesClassifier, prepared: np.ndarray, reflectance: np.ndarray
) -> Callable[[], np.ndarray]:
    """Return OpenVINO on one thread, in float32."""
    import openvino  # type: ignore[import-not-found]

    del reflectance
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    example = torch.from_numpy(prepared[:512])
    converted = openvino.convert_model(fitted.network, example_input=example)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    made = openvino.compile_model(converted, "CPU", settings)

    def run() -> np.ndarray:
        parts = [made(prepared[i : i + 512])[0] for i in range(0, len(prepared), 512)]
        return torch.softmax(torch.from_numpy(np.concatenate(parts)), dim=1).numpy()

    run()
    return run


def places(classifier: SpeciesClassifier) -> np.ndarray:
    """Return where the classifier's bands stand."""
    return np.array([BANDS.index(band) for band in classifier.required_bands])


def tile_ways(classifier: SpeciesClassifier, tile: int, batch: int) -> dict[str, Way]:
    """Return what goes from a chunk to class, confidence and margin."""
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    block = stored(tile * tile).reshape(STEPS, len(BANDS), tile, tile)
    part = np.ascontiguousarray(block[:, :, : max(1, tile // 8)])
    model = CompiledModel(fitted, exact_arithmetics()[-1], steps=STEPS)

    def torch_prepared() -> None:
        """Let our kernels prepare and PyTorch read."""
        pixels = block.reshape(STEPS, len(BANDS), -1)
        every = np.arange(pixels.shape[2])
        for start in range(0, len(every), batch):
            own = model.prepared(pixels, places(classifier), every[start : start + batch])
            channels = own[:, : own.shape[1] - (not fitted.preparation.mask_input)]
            steps = np.zeros((channels.shape[2], STEPS, fitted.preparation.channels), np.float32)
            steps[..., : channels.shape[1]] = channels.transpose(2, 0, 1)
            if season is not None:
                steps[..., -2:] = season
            graded(softmaxed(fitted.network, torch.from_numpy(steps), batch))

    def naive() -> None:
        """Compute features by NumPy and read all pixels in one call."""
        pixels = part.reshape(STEPS, len(BANDS), -1)
        values = reflectance_of(pixels, places(classifier), np.arange(pixels.shape[2]))
        prepared = fitted.preparation.apply(values, classifier.required_bands)
        steps = torch.from_numpy(prepared)
        graded(softmaxed(fitted.network, steps, len(steps)))

    season = None
    if fitted.preparation.positions:
        example = fitted.preparation.apply(np.zeros((1, STEPS, len(BANDS)), np.float32), BANDS)
        season = example[..., -2:]
    ways = {
        "naive: NumPy features, one big call": Way(run=naive, pixels=part.shape[2] * part.shape[3]),
        f"torch fp32, our preparation, batch {batch}": Way(run=torch_prepared, pixels=tile * tile),
    }
    for engine in ("torch", "exact", "fast"):
        name = choose_engine(classifier, engine).name
        title = engine if name == engine else f"{engine} (is {name})"
        ways[f"predict_block, {title}"] = Way(
            run=lambda e=engine: predict_block(classifier, block, BANDS, engine=e),
            pixels=tile * tile,
        )
    return ways


def graded(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class, confidence and margin."""
    top = np.sort(probability, axis=1)[:, -2:]
    return (
        probability.argmax(axis=1),
        np.rint(top[:, 1] * 100),
        np.rint(100 * (top[:, 1] - top[:, 0])),
    )


def ceilings(hidden: int) -> tuple[Ways, dict[str, float]]:
    """Return what the machine can do at most, and the work of each."""
    ways: Ways = {}
    work = {}
    named = {
        "products fp32, our kernel": own_products(exact_arithmetics()[-1], hidden),
        "products of fast, our kernel": own_products(fast_arithmetic(), hidden),
        "products fp32, torch.matmul": torch_products(torch.float32, hidden),
        "products bf16, torch.matmul": torch_products(torch.bfloat16, hidden),
        "copy of memory": copies(),
    }
    for name, (run, amount) in named.items():
        ways[name], work[name] = run, amount
    return ways, work


def measured(ways: Ways, seconds: float) -> dict[str, list[float]]:
    """Measure for about so long, three rounds at least, after one to warm up."""
    began = time.perf_counter()
    for run in ways.values():
        run()
    once = time.perf_counter() - began
    rounds = max(3, min(60, int(seconds / once)))
    return seconds_in_turns(ways, rounds=rounds, clock=time.process_time)


def spread(values: list[float]) -> float:
    """Return half the distance of the quartiles, in parts of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def products_of(fitted: Fitted) -> float:
    """Return the operations in a pixel's products of states and plain inputs."""
    lstm = fitted.network.lstm
    assert isinstance(lstm, torch.nn.LSTM)
    directions, hidden = 1 + lstm.bidirectional, lstm.hidden_size
    inputs = 0 if fitted.config.input_pieces else lstm.input_size
    total = 0.0
    for layer in range(lstm.num_layers):
        below = inputs if layer == 0 else directions * hidden
        total += directions * 8.0 * hidden * (STEPS * below + (STEPS - 1) * hidden)
    return total


def measure(name: str, tile: int, seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Measure one network; return tables."""
    classifier = trained(name)
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    pixels = stored(KERNEL_PIXELS)
    kernel, missing = kernel_ways(classifier, pixels)
    ways, work = ceilings(fitted.config.hidden)
    times = measured(ways | {key: way.run for key, way in kernel.items()}, seconds)
    reflectance = reflectance_of(pixels, places(classifier), np.arange(KERNEL_PIXELS))
    true = true_probability(fitted, reflectance, classifier.required_bands)
    best = min((key for key in kernel if key.startswith(TORCH)),
               key=lambda key: statistics.median(times[key]))  # fmt: skip
    per_pixel = products_of(fitted)
    most = work["products of fast, our kernel"] / statistics.median(
        times["products of fast, our kernel"]
    )
    rows = []
    for key, way in kernel.items():
        middle = statistics.median(times[key])
        assert way.classes is not None
        found = way.classes()
        rate = way.pixels / middle
        rows.append(
            {
                "way": key,
                "pixels/s": rate,
                "spread": spread(times[key]),
                "times torch fp32": statistics.median(times[best]) / middle,
                "GFLOP/s of products": rate * per_pixel / 1e9,
                "of the ceiling": rate * per_pixel / most if key.startswith("fast") else "",
                "classes equal": float((found.argmax(axis=1) == true.argmax(axis=1)).mean()),
                "largest difference": f"{np.abs(found - true).max():.1e}",
            }
        )
    limits = [
        {
            "ceiling": key,
            "G(FLOP or byte)/s": amount / statistics.median(times[key]) / 1e9,
            "spread": spread(times[key]),
        }
        for key, amount in work.items()
    ]
    batch = int(best.removeprefix(TORCH))
    tiles = tile_ways(classifier, tile, batch)
    times = measured({key: way.run for key, way in tiles.items()}, seconds)
    rates = {key: way.pixels / statistics.median(times[key]) for key, way in tiles.items()}
    naive, plain = list(rates)[:2]
    told = [
        {
            "way": key,
            "pixels/s": rate,
            "spread": spread(times[key]),
            "times torch fp32": rate / rates[plain],
            "times naive": rate / rates[naive],
        }
        for key, rate in rates.items()
    ]
    title = f"{name}, {instructions()}, one thread, processor seconds"
    tables = {
        f"ceilings, {title}": limits,
        f"kernel, {title}, {KERNEL_PIXELS:,} pixels": rows,
        f"tile of {tile} x {tile}, {title}": told,
    }
    if missing:
        tables[f"peers that are not there, {name}"] = missing
    return tables


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.inference", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--seconds", type=float, default=40.0, help="time for each table")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="some of the default's")
    parser.add_argument("--tile", type=int, default=256, help="pixels on a side of a tile")
    options = parser.parse_args()
    names = options.networks.split(",")
    if unknown := sorted(set(names) - set(NETWORKS)):
        parser.error(f"unknown networks {', '.join(unknown)}; known are {', '.join(NETWORKS)}")
    torch.set_num_threads(1)
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        tables |= measure(name, options.tile, options.seconds)
    show(tables, where=machine(["torch", "numpy", "numba"]), as_json=options.json)


if __name__ == "__main__":
    main()
