"""Max pooling at the end of the blocks of Table 5's networks: plain steps, so that it can be differentiated twice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# width (and stride) and padding in pixels of the windows that end block 1, 2 and 3 (released code)
WINDOWS = {1: (2, 0), 2: (2, 0), 3: (8, 2)}


def block_pool(maps: Tensor, block: int) -> Tensor:
    """Max pooling at the end of a block, (..., H, W): 56 -> 28 -> 14 -> 2 pixels; sides of blocks 1 and 2 are even."""
    return max_pool_2x2(maps) if block < 3 else _max_pool(maps, *WINDOWS[block])


def max_pool_2x2(maps: Tensor) -> Tensor:
    """``max_pool2d(maps, 2)`` of contiguous maps (..., H, W) with even sides; faster than that on a CPU."""
    if maps.shape[-2] % 2 or maps.shape[-1] % 2:
        raise ValueError(f"maps must have an even height and width, got shape {tuple(maps.shape)}; pad or crop them")
    if maps.device.type != "cpu":
        return _max_pool(maps, 2)
    rows = larger(*maps.unflatten(-2, (-1, 2)).unbind(-2))
    return larger(*rows.unflatten(-1, (-1, 2)).unbind(-1))


def _max_pool(maps: Tensor, width: int, padding: int = 0) -> Tensor:
    pooled = functional.max_pool2d(maps.flatten(0, -4), width, padding=padding)
    return pooled.view(*maps.shape[:-2], *pooled.shape[-2:])


def larger(first: Tensor, second: Tensor) -> Tensor:
    """Elementwise maximum whose gradient goes to `first` where both are equal.

    `torch.maximum` divides the gradient of equal values, and takes several times as long to do so.
    """
    with torch.no_grad():
        second_wins = (second > first).view(torch.int8).to(first.dtype)  # int8: the CPU converts bool slowly
    return torch.lerp(first, second, second_wins)
