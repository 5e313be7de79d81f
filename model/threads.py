"""A number in, that many torch threads for a while: nothing else changes the setting."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run the body with `count` torch threads in this thread, then put the old number back.

    OpenMP keeps the number per calling thread, so parallel tiles do not disturb each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
