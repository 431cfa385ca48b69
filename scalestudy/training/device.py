"""The machine under a run: precision of products, repeatable numbers, cores, memory; torch is imported when needed."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TF32_CAPABILITY = (8, 0)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # in glibc's malloc.h


def require_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device does not have, so that no record names one that was not used."""
    if precision != "tf32":
        return
    import torch

    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else ()
    if capability < _TF32_CAPABILITY:
        of = f" of {'.'.join(map(str, capability))}" if capability else ""
        raise ValueError(
            f"precision 'tf32' needs a CUDA device of compute capability 8.0 or more, got '{device}'{of}; use 'float32'"
        )


@contextmanager
def reproducible(precision: str, seed: int, device: torch.device) -> Iterator[list[torch.Generator]]:
    """Compute in a precision, on a GPU with deterministic convolutions, and seed the global generators.

    Those, which dropout draws from, are handed over: the CPU's, then the GPU's.  Everything is put back afterwards.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(float32_products(precision))
        stack.enter_context(deterministic_convolutions())
        gpus = []
        if device.type == "cuda":
            gpus = [torch.cuda.current_device() if device.index is None else device.index]
            stack.enter_context(torch.cuda.device(gpus[0]))
        stack.enter_context(torch.random.fork_rng(devices=gpus))
        generators = [torch.default_generator, *(torch.cuda.default_generators[gpu] for gpu in gpus)]
        for generator in generators:
            generator.manual_seed(seed)
        yield generators


def float32_products(precision: str) -> AbstractContextManager[None]:
    """Make the matrix products and convolutions of CUDA devices compute in a precision, whatever was set before.

    "tf32" rounds the factors of float32 products to 10 bits of mantissa and adds in float32; with the others float32 is
    full float32 (by itself cuDNN would take TF32).
    """
    import torch

    rounded, cudnn, products = precision == "tf32", torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(products, "fp32_precision"):  # since torch 2.9, where reading the older switches can raise
        name = "tf32" if rounded else "ieee"
        return _set((products, "fp32_precision", name), (cudnn.conv, "fp32_precision", name))
    return _set((products, "allow_tf32", rounded), (cudnn, "allow_tf32", rounded))


def deterministic_convolutions() -> AbstractContextManager[None]:
    """Let cuDNN take algorithms only that give the same numbers in each run, chosen without timing them."""
    from torch.backends import cudnn

    return _set((cudnn, "enabled", True), (cudnn, "deterministic", True), (cudnn, "benchmark", False))


@contextmanager
def _set(*settings: tuple[object, str, object]) -> Iterator[None]:
    """Set attributes of the process's settings, and put them back on leaving."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def machine(device: torch.device) -> dict[str, str | int]:
    """What decides how a run is rounded, as far as it can be told."""
    import torch

    return {
        "torch": torch.__version__,
        "device": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """The device as records have it: its type and, in brackets, which GPU or type of processor it is."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it needs next; False where the C library cannot.

    glibc gives large blocks back to the system as soon as they are free, so that every training step pays for their
    pages anew: about a tenth of the time of a run.  Our choice, for processes that do nothing but train.
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
