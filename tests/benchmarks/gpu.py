"""Simulated pixels in, how fast a CUDA device classifies them and how near its limits, out.

Run with `python -m tests.benchmarks.gpu [--json] [--seconds 20] [--networks
reference1,reference2,default] [--batches 8192,32768] [--pixels 1048576]`. `network` is cuDNN's
nn.LSTM on prepared values that are in the device's memory already; `block` goes from int16 in this
machine's memory to probabilities there, `tile` to class, confidence and margin. Ways take turns
(`rounds`); what the device can do at most, copies and products, is measured in the same rounds.
Where there is no device it says so and that is all; `--device cpu` tries the benchmark itself out.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model.classifier import SpeciesClassifier
from model.engines.device import DeviceModel
from model.engines.device_access import DeviceError, arithmetic_on, find_device
from model.engines.oracle import true_probability
from model.engines.pixels import reflectance_of
from model.fitted import Fitted
from model.formulas import BANDS
from model.predict import predict_block
from tests.benchmarks.inference import (
    NETWORKS,
    STEPS,
    places,
    softmaxed,
    spread,
    stored,
    trained,
)
from tests.benchmarks.rounds import machine, seconds_in_turns, show

COMPARED = 6144
"""Pixels on which probabilities are compared with double precision."""

SIDE = 4096
"""Rows and columns of the products that are a ceiling."""

BYTES = 256 * 2**20
"""Of a copy that is a ceiling."""

Ways = dict[str, Callable[[], object]]


def precisions(device: torch.device) -> dict[str, torch.dtype]:
    """Return what products are computed in; a processor's LSTM has no float16."""
    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return {name: kind for name, kind in known.items() if device.type == "cuda" or name != "fp16"}


def finished(device: torch.device, run: Callable[[], object]) -> Callable[[], object]:
    """Let `run` also wait until the device is done."""

    def wait() -> object:
        found = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return found

    return wait


def ceilings(device: torch.device) -> tuple[Ways, dict[str, float]]:
    """Return what the device can do at most, and the bytes or operations of each."""
    ways: Ways = {}
    work = {}
    locked = torch.zeros(BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.zeros(BYTES, dtype=torch.uint8, device=device)
    ways["copy in, page-locked"] = lambda: there.copy_(locked, non_blocking=True)
    ways["copy out, page-locked"] = lambda: locked.copy_(there, non_blocking=True)
    work |= dict.fromkeys(ways, float(BYTES))
    for name, kind in precisions(device).items():
        side = SIDE if device.type == "cuda" else 512
        left = torch.randn(side, side, device=device).to(kind)

        def multiply(left: torch.Tensor = left) -> torch.Tensor:
            with arithmetic_on(device, torch.float32):
                return left @ left

        ways[f"products {name}"] = multiply
        work[f"products {name}"] = 2.0 * side**3
    return {name: finished(device, run) for name, run in ways.items()}, work


def network_ways(
    fitted: Fitted, prepared: np.ndarray, batches: list[int], device: torch.device
) -> tuple[Ways, dict[str, int]]:
    """Return cuDNN alone, by precision and batch, on values that are there; and its pixels."""
    ways: Ways = {}
    pixels = {}
    network = DeviceModel(fitted, steps=STEPS, device=device)._networks[0]
    for batch in batches:
        rows = np.resize(prepared, (batch, *prepared.shape[1:]))
        steps = torch.from_numpy(rows).to(device)
        for name, kind in precisions(device).items():

            def read(steps: torch.Tensor = steps, kind: torch.dtype = kind) -> torch.Tensor:
                with arithmetic_on(device, kind):
                    return torch.softmax(network(steps).float(), dim=1)

            key = f"nn.LSTM {name}, batch {batch}"
            ways[key], pixels[key] = finished(device, read), batch
    return ways, pixels


def block_ways(
    classifier: SpeciesClassifier, block: np.ndarray, batches: list[int], device: torch.device
) -> tuple[Ways, dict[str, int]]:
    """Return what goes from int16 to probabilities, and how many pixels."""
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    flat = block.reshape(STEPS, len(BANDS), -1)
    every = np.arange(flat.shape[2])
    ways: Ways = {}
    for batch in batches:
        for name, kind in precisions(device).items():
            model = DeviceModel(fitted, steps=STEPS, device=device, precision=kind, batch=batch)
            ways[f"ours {name}, batch {batch}"] = lambda m=model: m.probability(
                flat, places(classifier), every
            )
    network = DeviceModel(fitted, steps=STEPS, device=device)._networks[0]
    few = every[: max(1, len(every) // 32)]

    def naive() -> np.ndarray:
        """Compute features by NumPy and let the device read large batches."""
        values = reflectance_of(flat, places(classifier), few)
        prepared = fitted.preparation.apply(values, classifier.required_bands)
        with torch.inference_mode():
            return softmaxed(lambda part: network(part.to(device)).cpu(),  # type: ignore[arg-type]
                             torch.from_numpy(prepared), max(batches))  # fmt: skip

    ways["naive: NumPy features, nn.LSTM fp32 as PyTorch sets it"] = naive
    pixels = dict.fromkeys(ways, len(every)) | {list(ways)[-1]: len(few)}
    if device.type == "cuda":
        for engine in ("cuda", "cuda-fast"):
            key = f"tile: predict_block, {engine}"
            ways[key] = lambda e=engine: predict_block(classifier, block, BANDS, engine=e)
            pixels[key] = len(every)
    return ways, pixels


def operations_of(fitted: Fitted) -> float:
    """Return the operations in a pixel's products, those with the pieces of an encoding too."""
    lstm = fitted.network.lstm
    assert isinstance(lstm, torch.nn.LSTM)
    directions, hidden = 1 + lstm.bidirectional, lstm.hidden_size
    below = [lstm.input_size, *[directions * hidden] * (lstm.num_layers - 1)]
    return sum(directions * 8.0 * hidden * STEPS * (inputs + hidden) for inputs in below)


def exactness(fitted: Fitted, device: torch.device) -> list[dict[str, Any]]:
    """Return how far each precision is from double precision."""
    pixels = stored(COMPARED)
    chosen = np.array([BANDS.index(band) for band in fitted.features.required_bands])
    every = np.arange(COMPARED)
    reflectance = reflectance_of(pixels, chosen, every)
    true = true_probability(fitted, reflectance, fitted.features.required_bands)
    rows = []
    for name, kind in precisions(device).items():
        model = DeviceModel(fitted, steps=STEPS, device=device, precision=kind)
        found = model.probability(pixels, chosen, every)
        rows.append(
            {
                "precision": name,
                "classes equal": float((found.argmax(axis=1) == true.argmax(axis=1)).mean()),
                "largest difference": f"{np.abs(found - true).max():.1e}",
            }
        )
    return rows


def measure(
    name: str, device: torch.device, options: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Measure one network; return tables."""
    classifier = trained(name)
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)
    batches = [int(batch) for batch in options.batches.split(",")]
    rows = max(1, options.pixels // 1024)
    block = np.resize(stored(8192), (STEPS, len(BANDS), rows, 1024))  # (time, band, y, x)
    some = reflectance_of(block.reshape(STEPS, len(BANDS), -1), places(classifier),
                          np.arange(min(1024, rows * 1024)))  # fmt: skip
    prepared = fitted.preparation.apply(some, classifier.required_bands)

    limits, work = ceilings(device)
    alone, alone_pixels = network_ways(fitted, prepared, batches, device)
    whole, whole_pixels = block_ways(classifier, block, batches, device)
    times = measured_by_clock(limits | alone | whole, options.seconds)
    most = {key: work[key] / statistics.median(times[key]) for key in work}
    operations = operations_of(fitted)
    bytes_in = STEPS * len(classifier.required_bands) * 2
    told = []
    for key, pixels in (alone_pixels | whole_pixels).items():
        rate = pixels / statistics.median(times[key])
        kind = next((one for one in precisions(device) if one in key), None)
        told.append(
            {
                "way": key,
                "pixels/s": rate,
                "spread": spread(times[key]),
                "of products": rate * operations / most[f"products {kind}"] if kind else "",
                "of copies in": rate * bytes_in / most["copy in, page-locked"]
                if key in whole_pixels
                else "",
            }
        )
    of_limits = [
        {"ceiling": key, "G(FLOP or byte)/s": most[key] / 1e9, "spread": spread(times[key])}
        for key in work
    ]
    title = f"{name}, {device_name(device)}"
    return {
        f"ceilings, {title}": of_limits,
        f"{title}, {bytes_in} bytes and {operations / 1e6:.2f} MFLOP of products a pixel": told,
        f"against double precision, {title}, {COMPARED:,} pixels": exactness(fitted, device),
    }


def measured_by_clock(ways: Ways, seconds: float) -> dict[str, list[float]]:
    """Measure for about so long, three rounds at least, after two to warm up."""
    once = sum(statistics.median(found) for found in seconds_in_turns(ways, rounds=2).values())
    return seconds_in_turns(ways, rounds=max(3, min(100, int(seconds / once))))


def device_name(device: torch.device) -> str:
    """Return the card's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each network")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="some of the default's")
    parser.add_argument("--batches", default="8192,32768", help="pixels in a batch")
    parser.add_argument("--pixels", type=int, default=2**20, help="pixels of the block")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    names = options.networks.split(",")
    if unknown := sorted(set(names) - set(NETWORKS)):
        parser.error(f"unknown networks {', '.join(unknown)}; known are {', '.join(NETWORKS)}")
    try:
        device = find_device() if options.device == "cuda" else torch.device("cpu")
    except DeviceError as error:
        print(json.dumps({"skipped": str(error)}) if options.json else f"skipped: {error}")
        return
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        tables |= measure(name, device, options)
    where = machine(["torch", "numpy", "numba"]) | {"device": device_name(device)}
    show(tables, where=where, as_json=options.json)


if __name__ == "__main__":
    main()
