"""A trained model and the pixels of a cube in, scores per class out, computed by a CUDA device.

Pixels travel as they are stored, two batches at a time, each by a stream of its own: one is copied
while the other is computed. A batch always has the same shape, the last one filled with pixels that
are not clear: so a pixel's result depends on no other. Encodings are not made into tables as on
processors: those of the default network are 128 of the 147 channels that it reads, 58 MB a batch
and a sixth of what the gates of its LSTM take.
"""

import copy
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from model.certainty.calibrate import FLOOR
from model.engines.device_access import (
    DeviceError,
    DeviceMemoryError,
    arithmetic_on,
    device_errors,
    finish,
    is_cuda,
    too_small,
)
from model.engines.device_inputs import DeviceInputs, physical
from model.engines.pixels import check_pixels, nodata_of
from model.fitted import Fitted
from model.networks import Network

BATCH = 8192
"""Pixels in a batch; halved for as long as the device's memory does not hold it."""

LEAST_BATCH = 256
"""Where not even that fits, the device is left to those who use its memory."""

_STREAMS = 2

_busy = threading.Lock()
"""One tile at a time: more would only share the device's memory."""

_log = logging.getLogger(__name__)


class DeviceModel:
    """Networks and their preparation in a device's memory; may be used by many threads in turn."""

    def __init__(
        self,
        fitted: Fitted,
        *,
        steps: int,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        batch: int = BATCH,
    ) -> None:
        """Place a model of sequences of `steps` steps.

        `precision` is that of products: float32 without TF32, or float16 or bfloat16, where
        PyTorch's autocast decides what is done in it. Raises `UnknownFeatureError` or
        `UnknownNetworkError` for what it cannot compute, `DeviceError` if the device fails.
        """
        self.steps = steps
        self.batch = batch
        self.device = device
        self.precision = precision
        self.classes = fitted.class_count
        try:
            with device_errors(device):
                self._inputs = DeviceInputs(fitted.preparation, steps=steps, device=device)
                self._networks = tuple(_placed(network, device) for network in fitted.networks)
                finish(device)  # streams of batches do not wait for the one that copied these
        except DeviceMemoryError as error:
            raise DeviceError(too_small("the networks", str(error))) from error
        self._rooms: dict[torch.dtype, tuple[_Room, ...]] = {}

    @property
    def words(self) -> str:
        """Say what computes, for reports, records and logs."""
        name = torch.cuda.get_device_name(self.device) if is_cuda(self.device) else "a processor"
        return f"{str(self.precision).removeprefix('torch.')} on {name}"

    def probability(
        self,
        pixels: np.ndarray,
        chosen: Int64[np.ndarray, "band"],
        wanted: Int64[np.ndarray, "n"],
        *,
        temperature: float | None = None,
    ) -> Float32[np.ndarray, "n class"]:
        """Return the probability of each class, the mean over the networks, of `wanted` pixels.

        `pixels` (time, band, pixel) are int16 in stored units or float32 in physical ones; `chosen`
        are the places of the features' `required_bands`; `temperature` is that of a `Calibration`.
        Too large a batch is halved for good, with a line in the log; arithmetic in batches of
        another size may differ in the last bits. Raises `DeviceError` if the device fails or its
        memory does not hold `LEAST_BATCH` pixels, `ClassifierError` for another number of steps or
        bands, another type, and places that there are not.
        """
        check_pixels(pixels, chosen, wanted, steps=self.steps, bands=self._inputs.bands)
        with _busy, arithmetic_on(self.device, self.precision):
            while True:
                try:
                    with device_errors(self.device):
                        return self._run(pixels, chosen, wanted, temperature)
                except DeviceMemoryError as error:
                    reason = str(error)
                finally:
                    self._forget_failed()
                # here nothing holds what was in memory when it failed
                self._halve(reason)

    def _run(
        self,
        pixels: np.ndarray,
        chosen: Int64[np.ndarray, "band"],
        wanted: Int64[np.ndarray, "n"],
        temperature: float | None,
    ) -> Float32[np.ndarray, "n class"]:
        found = np.empty((len(wanted), self.classes), np.float32)
        rooms = self._rooms_for(pixels, len(chosen))
        for number, start in enumerate(range(0, len(wanted), self.batch)):
            some = slice(start, start + self.batch)
            room = rooms[number % _STREAMS]
            room.finish()
            gather_stored(pixels, chosen, wanted[some], room.stored.numpy())
            room.begin(lambda there: self._score(there, temperature), found[some])
        for room in rooms:
            room.finish()
        return found

    def _score(self, pixels: Tensor, temperature: float | None) -> Float32[Tensor, "pixel class"]:
        """Return the probabilities of a batch (time, band, pixel) that is on the device."""
        steps = self._inputs(physical(pixels))
        scores = torch.stack([network(steps) for network in self._networks])
        mean = torch.softmax(scores.float(), dim=2).double().mean(dim=0)
        if temperature is not None:  # as `Calibration.apply`
            mean = torch.softmax(mean.float().double().clamp(min=FLOOR).log() / temperature, dim=1)
        return mean.float()

    def _rooms_for(self, pixels: np.ndarray, bands: int) -> "tuple[_Room, ...]":
        """Return the rooms for pixels of this type; they stay from tile to tile."""
        kind = torch.int16 if pixels.dtype == np.int16 else torch.float32
        if kind not in self._rooms:
            shape = (self.steps, bands, self.batch)
            self._rooms[kind] = tuple(
                _room(shape, kind, self.classes, self.device) for _ in range(_STREAMS)
            )
        return self._rooms[kind]

    def _forget_failed(self) -> None:
        """Drop rooms whose batch has not come back."""
        if any(room.into is not None for rooms in self._rooms.values() for room in rooms):
            self._rooms.clear()

    def _halve(self, reason: str) -> None:
        if self.batch // 2 < LEAST_BATCH:
            raise DeviceError(too_small(f"{self.batch:,} pixels", reason))
        self.batch //= 2
        self._rooms.clear()
        if is_cuda(self.device):
            torch.cuda.empty_cache()
        _log.warning(
            "the device is out of memory (%s); batches are of %d pixels from now on",
            reason,
            self.batch,
        )


@dataclass(kw_only=True, eq=False)
class _Room:
    """Where one batch is at a time: memory that the device copies from and to, and a stream."""

    stored: Tensor
    """Pixels (time, band, pixel) as they are stored; page-locked, so that copies need no wait."""
    found: Float32[Tensor, "pixel class"]
    """What comes back; page-locked."""
    device: torch.device
    stream: torch.cuda.Stream | None
    """Copies and work of this batch in their order; None without CUDA."""
    into: Float32[np.ndarray, "some class"] | None = field(default=None)
    """Where what comes back belongs; None while no batch is under way."""

    def begin(
        self, score: Callable[[Tensor], Tensor], into: Float32[np.ndarray, "some class"]
    ) -> None:
        """Send what `stored` holds, let `score` be computed, and do not wait for it."""
        self.into = into
        on_stream: AbstractContextManager[object] = (
            torch.cuda.stream(self.stream) if self.stream is not None else nullcontext()
        )
        with on_stream:
            there = self.stored.to(self.device, non_blocking=True)
            self.found.copy_(score(there), non_blocking=True)

    def finish(self) -> None:
        """Wait for the batch that is under way, if there is one, and put it where it belongs."""
        if self.into is None:
            return
        if self.stream is not None:
            self.stream.synchronize()
        self.into[:] = self.found[: len(self.into)].numpy()
        self.into = None


def _room(shape: tuple[int, ...], kind: torch.dtype, classes: int, device: torch.device) -> _Room:
    page_locked = is_cuda(device)
    return _Room(
        stored=torch.empty(shape, dtype=kind, pin_memory=page_locked),
        found=torch.empty((shape[-1], classes), dtype=torch.float32, pin_memory=page_locked),
        device=device,
        stream=torch.cuda.Stream(device) if page_locked else None,  # type: ignore[no-untyped-call]
    )


def _placed(network: Network, device: torch.device) -> Network:
    """Return a copy in the device's memory."""
    return copy.deepcopy(network).to(device).eval().requires_grad_(False)


def gather_stored(
    pixels: np.ndarray,
    chosen: Int64[np.ndarray, "band"],
    wanted: Int64[np.ndarray, "n"],
    into: np.ndarray,
) -> None:
    """Copy `wanted` pixels of the `chosen` bands (time, band, pixel) as they are to `into`.

    Places behind the wanted ones are filled with what means "not clear".
    """
    count = len(wanted)
    into[..., count:] = nodata_of(pixels)
    if count and (np.diff(wanted) == 1).all():  # neighbours, as in most tiles
        for place, band in enumerate(chosen):
            into[:, place, :count] = pixels[:, band, wanted[0] : wanted[0] + count]
        return
    for time in range(len(pixels)):
        for place, band in enumerate(chosen):
            into[time, place, :count] = pixels[time, band][wanted]
