"""The machine under a run: precision of products, cores, memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float64": torch.float64}
"""Type of the tensors of a run, by `RunSpec.precision`."""

_TF32_CAPABILITY = (8, 0)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Names of settings in glibc's malloc.h."""


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


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """Let cuDNN take algorithms only that give the same numbers in each run, chosen without timing them."""
    cudnn = torch.backends.cudnn
    with _setting(cudnn, "enabled", True), _setting(cudnn, "deterministic", True), _setting(cudnn, "benchmark", False):
        yield


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it needs next.

    glibc gives large blocks back to the system as soon as they are free, so that every training step pays for their
    pages anew: about a tenth of the time of a run.  Our choice, for processes that do nothing but train.

    Returns
    -------
    bool
        Whether it was done; other C libraries do not have the setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, further limited by a container's quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores  # no such limit


@contextmanager
def _setting(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
