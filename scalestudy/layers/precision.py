"""Full precision inside layers, whatever the caller's autocasting or threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch a caller's autocasting off, which would round filters and sums behind our back."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # a device without autocasting, meta for example


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside: sums in another order round differently, so more threads give other results."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
