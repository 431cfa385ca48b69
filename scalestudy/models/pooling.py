"""Max pooling as part of the layer before it: which pixels a window holds, their maximum, and its adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

NUM_BLOCKS = 3

CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
"""Intermediate values held at once, so that memory does not grow with the batch."""


def block_pool(maps: Tensor, block: int) -> Tensor:
    """Max pooling at the end of block 1, 2 or 3: 56 -> 28 -> 14 -> 2 pixels (released code).

    Parameters
    ----------
    maps : Tensor
        (B, C, H, W).
    block : int
        Blocks 1 and 2 pool 2 x 2; block 3 pools 8 x 8 after padding by 2 pixels of minus infinity.
    """
    width, padding = block_window(block)
    return functional.max_pool2d(maps, width, padding=padding)


def block_window(block: int) -> tuple[int, int]:
    """Width (and stride) and padding of the windows of `block_pool`, in pixels."""
    if block not in range(1, NUM_BLOCKS + 1):
        raise ValueError(f"block must be 1, 2 or 3, got {block!r}")
    return (8, 2) if block == NUM_BLOCKS else (2, 0)


@dataclass(frozen=True)
class Windows:
    """Windows of `block_pool` along one axis, as rows of the response.

    Attributes
    ----------
    rows : Tensor
        (s, n): the rows that each of n windows holds, by their place in the window.  A row that a window lacks
        (padding, or unknown) is replaced by the nearest that it has, which changes no maximum.
    first : int
        Windows before the first one given here, which hold no known row.
    total : int
        Windows along the whole axis.
    """

    rows: Tensor
    first: int
    total: int

    @property
    def size(self) -> int:
        """Places in a window, s."""
        return self.rows.shape[0]

    @property
    def count(self) -> int:
        """Windows that hold known rows, n."""
        return self.rows.shape[1]


@dataclass(frozen=True)
class Axis:
    """What happens along each axis of square planes; matrices in float64 on the CPU.

    Attributes
    ----------
    windows : Windows
        Pooling of the response, after `after`.
    embedding : Tensor
        (2 h + 1, k): the kernel that convolves is embedding @ kernel @ embedding^T.
    before : Tensor
        (m, H): resampling before the convolution.
    after : Tensor
        (H', m): resampling after it.
    """

    windows: Windows
    embedding: Tensor
    before: Tensor
    after: Tensor

    @property
    def picked(self) -> Tensor:
        """(s n, m): `after`, then the rows of the windows, place by place."""
        return self.after[self.windows.rows.flatten()]


def pooling_windows(size: int, block: int, known: tuple[int, int] | None = None) -> Windows:
    """Windows of one axis.

    Parameters
    ----------
    size : int
        Length of the axis in pixels.
    block : int
        1, 2 or 3, see `block_pool`.
    known : (int, int), optional
        First and last but one row where the response is known; default: all.
    """
    width, padding = block_window(block)
    low, high = (0, size) if known is None else known
    total = (size + 2 * padding) // width
    first, last = (low + padding) // width, min((high - 1 + padding) // width, total - 1)
    starts = torch.arange(first, last + 1) * width - padding
    return Windows((torch.arange(width)[:, None] + starts).clamp(low, high - 1), first, total)


def window_maximum(places: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum over groups and over places of windows.

    Parameters
    ----------
    places : Tensor
        (G, s, s, B, O, n, n): groups, row and column place, batch, channels, rows and columns of windows.

    Returns
    -------
    maximum, index : Tensor
        (B, O, n, n): the maximum and where it is, counting through the first three axes.
    """
    if places.shape[1] > 2:
        maximum, index = places.flatten(0, 2).max(0)
        return maximum.contiguous(), index.contiguous()
    return _running_maximum([slab for group in places.unbind(0) for row in group.unbind(0) for slab in row.unbind(0)])


def _running_maximum(candidates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maximum of several tensors and which of them has it first; several times faster than `torch.max` on a CPU."""
    maximum, index = candidates[0], torch.zeros_like(candidates[0], dtype=torch.uint8)
    for number, candidate in enumerate(candidates[1:], start=1):
        index = torch.where(candidate > maximum, number, index)
        maximum = torch.maximum(maximum, candidate)
    return maximum.contiguous(), index.contiguous()


def largest(candidates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maximum of tensors of one shape, and the number of the first that has it; its gradient goes to that one only."""
    return _Largest.apply(*candidates)


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *candidates: Tensor) -> tuple[Tensor, Tensor]:
        maximum, index = _running_maximum(candidates)
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        return maximum, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        return tuple(grad * (index == k) if needed else None for k, needed in enumerate(ctx.needs_input_grad))


def spread(grad: Tensor, index: Tensor, groups: int, size: int, order: tuple[int, ...]) -> Tensor:
    """Adjoint of `window_maximum`: zero but at the maxima.

    Parameters
    ----------
    grad, index : Tensor
        (B, O, n, n): of the maximum; and where it is.
    groups, size : int
        G and s.
    order : tuple of int
        Memory order of the result: its axes are those of `places` in this order.

    Returns
    -------
    Tensor
        Contiguous; seven axes, permuted by `order`.
    """
    shape = (groups, size, size, *grad.shape)
    if size > 2:
        places = grad.new_zeros(groups * size * size, *grad.shape)
        return places.scatter_(0, index.unsqueeze(0), grad.unsqueeze(0)).view(shape).permute(order).contiguous()
    result = grad.new_empty([shape[axis] for axis in order])
    places = result.permute(sorted(range(len(order)), key=order.__getitem__))
    slabs = (slab for group in places.unbind(0) for row in group.unbind(0) for slab in row.unbind(0))
    for number, slab in enumerate(slabs):
        torch.mul(grad, index == number, out=slab)
    return result


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Maxima and indices of all slices."""
    return parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts, strict=True))
