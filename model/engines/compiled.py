"""A trained model and the pixels of a cube in, scores per class out, computed by our own kernels.

Blocks of pixels go from stored counts to scores while they are in a processor's cache; nothing is
kept of the steps between. A pixel's scores depend on nothing but its own values.
"""

import threading
from dataclasses import fields, is_dataclass

import numpy as np
from jaxtyping import Float32, Int64

from model.engines.arithmetic import Arithmetic
from model.engines.bfloat import input_products
from model.engines.layer import run_layer
from model.engines.packed import PackedNetwork, UnknownNetworkError, pack_network
from model.engines.pixels import check_pixels, nodata_of, scale_of
from model.engines.preparing import gather, locate, prepare
from model.engines.program import feature_program
from model.engines.reading import ATTENTION, ATTENTION_MAX, attend, normalise, pool, score
from model.engines.room import BLOCK, Room, whole
from model.engines.tile_layer import run_tile_layer, split_inputs
from model.errors import ClassifierError
from model.fitted import Fitted
from model.networks.kernel import ROWS


class CompiledModel:
    """Networks and their preparation as kernels read them; may be used by many threads at once."""

    def __init__(self, fitted: Fitted, arithmetic: Arithmetic, *, steps: int) -> None:
        """Pack a model of sequences of `steps` steps.

        Raises `UnknownNetworkError` or `UnknownFeatureError` for what kernels cannot compute.
        """
        self.arithmetic = arithmetic
        self.steps = steps
        self.classes = fitted.class_count
        self.program = feature_program(fitted.features)
        self.networks = tuple(
            pack_network(network, fitted.preparation, arithmetic, steps=steps)
            for network in fitted.networks
        )
        if len({network.shape for network in self.networks}) > 1:
            raise UnknownNetworkError("networks of several shapes")
        preparation = fitted.preparation
        self._mean, self._deviation = preparation.mean, preparation.deviation
        self._limit = np.float32(np.inf if preparation.limit is None else preparation.limit)
        self.has_mask = preparation.mask_input
        products = input_products(arithmetic, is_scaled=preparation.limit is not None)
        self.taken = np.array([of_input for of_input, _ in products])
        self._local = threading.local()

    def probability(
        self, pixels: np.ndarray, chosen: Int64[np.ndarray, "band"], wanted: Int64[np.ndarray, "n"]
    ) -> Float32[np.ndarray, "n class"]:
        """Return the probability of each class, the mean over the networks, of `wanted` pixels.

        `pixels` (time, band, pixel) are int16 in stored units or float32 in physical ones; `chosen`
        are the places of the features' `required_bands`. Raises `ClassifierError` for another
        number of steps or bands, another type, and places that there are not.
        """
        self._check(pixels, chosen, wanted)
        scores = np.empty((len(self.networks), len(wanted), self.classes), np.float32)
        for start in range(0, len(wanted), BLOCK):
            some = slice(start, min(start + BLOCK, len(wanted)))
            self._prepare(pixels, chosen, wanted[some])
            self._score(scores[:, some])
        return _mean_probability(scores)

    def prepared(
        self, pixels: np.ndarray, chosen: Int64[np.ndarray, "band"], wanted: Int64[np.ndarray, "n"]
    ) -> Float32[np.ndarray, "time channel n"]:
        """Return what the networks read of `wanted` pixels: features, then 1 where clear.

        Raises as `probability`.
        """
        self._check(pixels, chosen, wanted)
        found = np.empty((self.steps, len(self.program.outputs) + 1, len(wanted)), np.float32)
        for start in range(0, len(wanted), BLOCK):
            some = slice(start, min(start + BLOCK, len(wanted)))
            inputs = self._prepare(pixels, chosen, wanted[some])
            found[:, :, some] = inputs[:, :, : some.stop - start]
        return found

    def prepared_probability(
        self, prepared: Float32[np.ndarray, "time channel n"]
    ) -> Float32[np.ndarray, "n class"]:
        """Return the same as `probability` from what `prepared` returns.

        Raises `ClassifierError` for another number of steps or channels.
        """
        expected = self.steps, len(self.program.outputs) + 1
        if prepared.shape[:2] != expected:
            raise ClassifierError(
                f"the networks read {expected[0]} steps of {expected[1]} channels; what is prepared "
                f"has shape {prepared.shape}"
            )
        count = prepared.shape[2]
        scores = np.empty((len(self.networks), count, self.classes), np.float32)
        inputs = self._room().inputs
        for start in range(0, count, BLOCK):
            some = slice(start, min(start + BLOCK, count))
            inputs[:, :, : some.stop - start] = prepared[:, :, some]
            self._score(scores[:, some])
        return _mean_probability(scores)

    def bytes(self) -> tuple[int, int]:
        """Return the memory of the weights, and of each thread that computes."""
        return _size(self.networks), _size(Room.of(self))

    def _check(
        self, pixels: np.ndarray, chosen: Int64[np.ndarray, "band"], wanted: Int64[np.ndarray, "n"]
    ) -> None:
        check_pixels(pixels, chosen, wanted, steps=self.steps, bands=len(self.program.bands))

    def _prepare(
        self, pixels: np.ndarray, chosen: Int64[np.ndarray, "band"], wanted: Int64[np.ndarray, "n"]
    ) -> Float32[np.ndarray, "time channel pixel"]:
        """Fill this thread's inputs with one block."""
        room, program = self._room(), self.program
        gather(pixels, chosen, wanted, nodata_of(pixels), scale_of(pixels), room.values)
        prepare(
            room.values, program.codes, program.operands, program.limits, program.single,
            program.outputs, self._mean, self._deviation, self._limit, room.registers, room.inputs,
        )  # fmt: skip
        return room.inputs

    def _score(self, scores: Float32[np.ndarray, "network count class"]) -> None:
        """Run all networks over this thread's inputs."""
        room = self._room()
        for network, of_network in zip(self.networks, scores, strict=True):
            self._read(network, room, of_network)

    def _read(
        self,
        network: PackedNetwork,
        room: Room,
        scores: Float32[np.ndarray, "count class"],
    ) -> None:
        """Run one network over the block's inputs."""
        count = len(scores)
        rows = whole(count, self.arithmetic.rows)
        if network.points is not None:
            points, strip = network.points, 4 * network.layers[0][0].table.shape[2]
            locate(
                room.inputs, points.values, points.counts, points.firsts, points.inverse,
                strip, self.arithmetic.paired_tables, *room.located,
            )  # fmt: skip
            located, feeding = room.located, self._nothing(room)
        else:
            located, feeding = room.nowhere, self._feeding(room)
        below = room.no_states
        for number, layer in enumerate(network.layers):
            states = room.states[number % 2]
            is_last = number == len(network.layers) - 1
            for direction, packed in enumerate(layer):
                run = run_tile_layer if self.arithmetic.tiles else run_layer
                run(
                    self.arithmetic, rows, direction == 1,
                    packed.start, packed.table, *located, *feeding, below, packed.weights,
                    room.cell, states, direction * network.width,
                    room.plain if is_last else room.no_plain, *room.tiles,
                )  # fmt: skip
            below, located, feeding = states, room.nowhere, self._nothing(room)
        read = room.plain if len(room.plain) else states[1:-1]
        if network.pooling in (ATTENTION, ATTENTION_MAX):
            attend(self.arithmetic, read, network.attention, rows, room.shares)
        pool(read, network.pooling, rows, room.shares, room.vectors)
        if network.norm is not None:
            least = np.float32(network.norm_least)
            normalise(room.vectors, network.is_unit, network.norm, least, count)
        score(room.vectors, network.head, network.head_bias, whole(count, ROWS), room.panel, room.scores)  # fmt: skip
        scores[:] = room.scores[:count]

    def _feeding(self, room: Room) -> tuple[object, ...]:
        """Return the block's inputs as the layer's kernel takes them."""
        channels = room.inputs.shape[1] - (not self.has_mask)
        if not self.arithmetic.tiles:
            return room.inputs, channels
        split_inputs(room.inputs, channels, self.taken, room.turned)
        return (room.turned,)

    def _nothing(self, room: Room) -> tuple[object, ...]:
        """Return no inputs, as the layer's kernel takes them."""
        return (room.turned[..., :0],) if self.arithmetic.tiles else (room.inputs, 0)

    def _room(self) -> Room:
        """Return this thread's memory: pages that are new to the process cost more than they do."""
        room: Room | None = getattr(self._local, "room", None)
        if room is None:
            room = self._local.room = Room.of(self)
        return room


def _mean_probability(
    scores: Float32[np.ndarray, "network n class"],
) -> Float32[np.ndarray, "n class"]:
    """Turn scores, in place, into probabilities, and average those of several networks."""
    with np.errstate(invalid="ignore"):  # what is no number is found by whoever asked
        scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=2, keepdims=True)
    mean: np.ndarray = scores[0] if len(scores) == 1 else scores.mean(axis=0)
    return mean


def _size(held: object) -> int:
    """Return the bytes of the arrays in tuples and dataclasses."""
    if isinstance(held, np.ndarray):
        return held.nbytes
    if isinstance(held, tuple):
        return sum(_size(one) for one in held)
    if is_dataclass(held):
        return sum(_size(getattr(held, one.name)) for one in fields(held))
    return 0
