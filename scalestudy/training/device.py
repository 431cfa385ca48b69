"""The machine under a run: precision of products, repeatable numbers, cores, memory; torch is imported when needed."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # in glibc's malloc.h


def require_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device does not have, so that no record names one that was not used."""
    from torch import cuda

    capability = cuda.get_device_capability(device) if device.type == "cuda" else ()
    if precision == "tf32" and capability < (8, 0):
        got = f"'{device}' of {'.'.join(map(str, capability))}" if capability else f"'{device}'"
        needed = "a CUDA device of compute capability 8.0 or more"
        raise ValueError(f"precision 'tf32' needs {needed}, got {got}; use 'float32'")


@contextmanager
def reproducible(precision: str, seed: int, device: torch.device) -> Iterator[list[torch.Generator]]:
    """`repeatable_products`, and the global generators that dropout draws from, the CPU's and the GPU's, seeded.

    Everything is put back afterwards.
    """
    import torch

    gpus = []
    if device.type == "cuda":
        gpus = [torch.cuda.current_device() if device.index is None else device.index]
    there = torch.cuda.device(*gpus or [-1])  # -1: none
    with repeatable_products(precision), there, torch.random.fork_rng(devices=gpus):
        generators = [torch.default_generator, *(torch.cuda.default_generators[gpu] for gpu in gpus)]
        for generator in generators:
            generator.manual_seed(seed)
        yield generators


@contextmanager
def repeatable_products(precision: str) -> Iterator[None]:
    """Make the products and convolutions of CUDA devices compute in a precision and alike in each run.

    "tf32" rounds the factors of float32 products to 10 bits of mantissa and adds in float32; with the others float32 is
    full float32 (by itself cuDNN would take TF32).  cuDNN takes deterministic algorithms, chosen without timing them.
    """
    from torch import backends

    cudnn, products, rounded = backends.cudnn, backends.cuda.matmul, precision == "tf32"
    settings = [(cudnn, "enabled", True), (cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    if hasattr(products, "fp32_precision"):  # since torch 2.9, where reading the older switches can raise
        settings += [(owner, "fp32_precision", "tf32" if rounded else "ieee") for owner in (products, cudnn.conv)]
    else:
        settings += [(owner, "allow_tf32", rounded) for owner in (products, cudnn)]
    with ExitStack() as stack:
        for owner, name, value in settings:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


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
    from torch import cuda

    name = cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees; False where the C library cannot.

    glibc gives large blocks back at once, so every training step would pay for their pages anew: a tenth of its time.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    return False


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, further limited by the quotas of its cgroups; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        group = Path("/proc/self/cgroup").read_text().partition("0::/")[2].strip()
    except OSError:
        group = ""  # another system
    folder = Path("/sys/fs/cgroup") / group
    for quotas in (folder, *folder.parents):
        with suppress(OSError, ValueError):  # no such limit
            quota, period = (quotas / "cpu.max").read_text().split()
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)
