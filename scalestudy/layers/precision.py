"""Full precision inside layers, whatever the caller's autocasting or threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch a caller's autocasting off, which would round filters and sums behind our back."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # a device without autocasting, meta for example


def in_full_precision(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward pass ``backward(ctx, grad)``, which may run inside a caller's autocasting."""

    @wraps(backward)
    def guarded(ctx: Any, grad: Tensor) -> Any:
        with full_precision(grad.device):
            return backward(ctx, grad)

    return guarded


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside: sums in another order round differently, so more threads give other results."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
