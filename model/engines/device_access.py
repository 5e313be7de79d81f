"""A wish for a CUDA device in; the device, or in words why there is none, and its settings, out."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_given_up: list[str] = []
"""Why the device is not used any more in this process; empty while it is."""


class DeviceError(Exception):
    """A device is not there, is lost or is too small; whoever asked computes without it."""


def find_device() -> torch.device:
    """Return the CUDA device to compute on: the first that `CUDA_VISIBLE_DEVICES` shows.

    Raises `DeviceError` where there is none, or where `give_up` was called.
    """
    if _given_up:
        raise DeviceError(_given_up[0])
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(
            f"no CUDA device: PyTorch {torch.__version__} is built without CUDA; install a build "
            "with it, or ask for engine exact or fast"
        )
    raise DeviceError(
        "no CUDA device: PyTorch finds none; see that nvidia-smi lists one and that "
        "CUDA_VISIBLE_DEVICES does not hide it, or ask for engine exact or fast"
    )


def give_up(reason: str) -> bool:
    """Let `find_device` find none for as long as this process lives; tell whether it is the first time."""
    _given_up.append(reason)
    return len(_given_up) == 1


def too_small(what: str, reason: str) -> str:
    """Say that `what` does not fit, and what to do."""
    return (
        f"the device's memory does not hold {what} ({reason}); end other processes that nvidia-smi "
        "lists, or ask for engine exact or fast"
    )


class DeviceMemoryError(Exception):
    """The device's memory, or what can be page-locked for it, is used up."""


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Raise what PyTorch says about a device as errors of ours, and let others pass.

    `DeviceMemoryError` where memory is used up, else `DeviceError`.
    """
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0][:200]
        if isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in _NO_MEMORY):
            raise DeviceMemoryError(first) from error
        if not any(word in str(error) for word in _OF_DEVICE):
            raise
        raise DeviceError(
            f"device {device} failed ({first}); see what nvidia-smi says of it and start again, or "
            "ask for engine exact or fast"
        ) from error


_NO_MEMORY = ("out of memory", "ALLOC_FAILED")
_OF_DEVICE = ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "HIP", "NVIDIA")
"""What texts of errors contain; only since PyTorch 2.8 have those of devices a class."""


@contextmanager
def arithmetic_on(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Compute without gradients and TF32, and products in `precision`, while the body runs."""
    is_half = precision != torch.float32
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        # what was cast on one stream must not be read on another, so that nothing is kept
        cast = torch.autocast(
            device.type,
            dtype=precision if is_half else torch.bfloat16,
            enabled=is_half,
            cache_enabled=False,
        )
        stack.enter_context(cast)
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        stack.enter_context(_matmul_without_tf32())
        yield


@contextmanager
def _matmul_without_tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def is_cuda(device: torch.device) -> bool:
    """Tell a CUDA device from the processor, on which tests run the same code."""
    return device.type == "cuda"


def finish(device: torch.device) -> None:
    """Wait until everything that the device was given is done."""
    if is_cuda(device):
        torch.cuda.synchronize(device)
