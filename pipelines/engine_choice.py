"""A classifier, a wish and the workers in, the engine that a map is made with out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from distributed import Client

from cube.errors import InputError
from model.classifier import SpeciesClassifier
from model.engines import choose_engine
from model.engines.arithmetic import fast_arithmetic
from model.engines.device_access import DeviceError, find_device
from model.fitted import Fitted
from pipelines.cluster import asked_of
from pipelines.map_tile import HOW_NOT_TO_MIX

_OF_DEVICES = ("cuda", "cuda-fast")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine can compute a map with."""

    has_device: bool
    """Whether it has a CUDA device."""
    fast: str
    """What engine `fast` computes with there, in words."""


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """What a map is made with."""

    name: str
    """One of `model.engines.ENGINES`; `auto` where each worker takes the best it has."""
    reason: str
    """Why, for reports."""
    arithmetic: str
    """Of `fast` what it computes with; empty of others."""


def this_machine() -> Machine:
    """Return what this machine can compute a map with; takes seconds where PyTorch is not there yet."""
    try:
        find_device()
        has_device = True
    except DeviceError:
        has_device = False
    return Machine(has_device=has_device, fast=fast_arithmetic().words)


def machines_elsewhere(client: Client) -> tuple[Machine, ...]:
    """Return what the workers can compute with; none where they are on this machine, or yet to come."""
    if not asked_of(client).is_elsewhere:
        return ()
    answers = client.run(this_machine, on_error="return").values()
    return tuple(answer for answer in answers if isinstance(answer, Machine))


def settled_engine(
    classifier: SpeciesClassifier, asked: str, machines: Sequence[Machine] = ()
) -> EngineChoice:
    """Settle what a map is made with by this machine, or by other `machines`.

    Workers that are elsewhere are what counts: `auto` is `cuda` where all of them have a device,
    and where some have, each takes the best it has. Raises `InputError` if they would compute
    `fast` in different ways, for then a class may depend on who made the tile.
    """
    with_device = sum(machine.has_device for machine in machines)
    if with_device and isinstance(classifier.fitted, Fitted) and asked in ("auto", *_OF_DEVICES):
        name = "cuda" if asked == "auto" and with_device == len(machines) else asked
        have = f"{with_device} of {len(machines)} workers have a CUDA device"
        return EngineChoice(name=name, reason=f"asked for {asked}; {have}", arithmetic="")
    chosen = choose_engine(classifier, asked)
    is_fast = chosen.name == "fast"
    found = Counter(machine.fast for machine in machines) or Counter([chosen.arithmetic])
    if is_fast and len(found) > 1:
        listed = ", ".join(f"{count} with {words}" for words, count in found.most_common())
        raise InputError(
            f"workers would compute fast in different ways: {listed}. {HOW_NOT_TO_MIX}"
        )
    return EngineChoice(
        name=chosen.name, reason=chosen.reason, arithmetic=next(iter(found)) if is_fast else ""
    )
