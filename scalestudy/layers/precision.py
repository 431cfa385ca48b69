"""In which precision numbers are multiplied: what that of a run means, and how to keep out of autocasting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float64": torch.float64}
"""Type of the tensors of a run, by `RunSpec.precision`."""

_TF32_CAPABILITY = (8, 0)


def require_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device does not have, so that no record names one that was not used.

    Raises
    ------
    ValueError
        For "tf32" on anything but a CUDA device that multiplies in TF32 (compute capability 8.0 or more).
    """
    if precision != "tf32":
        return
    if device.type != "cuda":
        raise ValueError(f"precision 'tf32' needs a CUDA device, got {str(device)!r}; use 'float32'")
    capability = torch.cuda.get_device_capability(device)
    if capability < _TF32_CAPABILITY:
        raise ValueError(
            f"precision 'tf32' needs a CUDA device of compute capability 8.0 or more, got {str(device)!r} of "
            f"{'.'.join(map(str, capability))}; use 'float32'"
        )


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Make the matrix products and convolutions of CUDA devices compute in a precision, whatever was set before.

    "tf32" rounds the factors of float32 products to 10 bits of mantissa and adds in float32; with the others float32 is
    full float32 (by itself cuDNN would take TF32).  The settings are the process's; they are put back on leaving.

    Parameters
    ----------
    precision : {"float32", "tf32", "float64"}
    """
    rounded = precision == "tf32"
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    with ExitStack() as stack:
        if hasattr(products, "fp32_precision"):  # since torch 2.9, where reading the older switches can raise
            for part in (products, cudnn.conv):
                stack.enter_context(_setting(part, "fp32_precision", "tf32" if rounded else "ieee"))
        else:
            for part in (products, cudnn):
                stack.enter_context(_setting(part, "allow_tf32", rounded))
        yield


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch a caller's autocasting off, which would round filters and sums behind our back.

    Parameters
    ----------
    device : torch.device
        Of the tensors; one that has no autocasting (meta, for example) will do, too.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def in_full_precision(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward pass ``backward(ctx, grad)``, which may run inside a caller's autocasting."""

    @wraps(backward)
    def guarded(ctx: Any, grad: Tensor) -> Any:
        with full_precision(grad.device):
            return backward(ctx, grad)

    return guarded


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """Let cuDNN take algorithms only that give the same numbers in each run, chosen without timing them."""
    cudnn = torch.backends.cudnn
    with _setting(cudnn, "enabled", True), _setting(cudnn, "deterministic", True), _setting(cudnn, "benchmark", False):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside: sums in another order round differently, so more threads give other results."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _setting(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
