"""What the benchmarks share: the machine's measured rates, and the time of one training step."""

from __future__ import annotations

import platform
import time

import torch
from torch import nn
from torch.nn import functional


def machine_rates() -> dict[str, float]:
    """What the threads in use can do: products of 1024 x 1024 matrices and copies of 64 MiB, best of ten."""
    matrix = torch.randn(1024, 1024)
    block = torch.randn(16 << 20)
    target = torch.empty_like(block)
    products, copies = [], []
    for _ in range(10):
        began = time.perf_counter()
        matrix @ matrix
        products.append(time.perf_counter() - began)
        began = time.perf_counter()
        target.copy_(block)
        copies.append(time.perf_counter() - began)
    return {"gigaflops": 2 * 1024**3 / min(products) / 1e9, "copied_gigabytes_per_second": 2**26 / min(copies) / 1e9}


def software_and_processor() -> dict[str, str | int]:
    """Version of torch, kind of processor, threads in use: what times depend on, and nothing that names a machine."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def step_seconds(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Wall-clock time of one training step: forward pass, cross-entropy, backward pass."""
    net.zero_grad(set_to_none=True)
    began = time.perf_counter()
    functional.cross_entropy(net(images), labels).backward()
    return time.perf_counter() - began


@torch.no_grad()
def evaluation_seconds(net: nn.Module, images: torch.Tensor) -> float:
    """Wall-clock time of one forward pass in evaluation mode; the network is left in training mode."""
    net.eval()
    began = time.perf_counter()
    net(images)
    seconds = time.perf_counter() - began
    net.train()
    return seconds
