"""Convolution of one channel as a sum of fixed linear maps of the image: see `strongest`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scalestudy.layers.fast.fourier import chunks
from scalestudy.models.pooling import CHUNK_BYTES, Axis, Windows, joined, spread, window_maximum


@dataclass(frozen=True)
class PatchPlan:
    """Linear maps of one channel: (k, s n, H), the response along an axis to a kernel with a single 1."""

    maps: Tensor
    windows: Windows


@torch.inference_mode(False)  # plans are kept, and may serve a training step later
def patch_plan(axis: Axis, like: Tensor) -> PatchPlan:
    """Plan on the device and in the precision of `like`."""
    half, pixels = len(axis.embedding) // 2, len(axis.before)
    ones = torch.ones(pixels, pixels, dtype=torch.float64)
    shifts = torch.stack([ones.triu(offset).tril(offset) for offset in range(-half, half + 1)])
    maps = axis.picked @ torch.einsum("dk,dyx->kyx", axis.embedding, shifts) @ axis.before
    return PatchPlan(maps.to(like), axis.windows)


class PatchResponse(torch.autograd.Function):
    """Convolution of one channel: weights times the k^2 linear maps of the image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: PatchPlan, groups: int) -> tuple[Tensor, Tensor]:
        s, n = plan.windows.size, plan.windows.count
        matrix = weight[:, 0].transpose(1, 2).flatten(1)  # (G O, k k), column place first
        parts = []
        for chunk in chunks(x, sum(matrix.shape) * (s * n) ** 2, CHUNK_BYTES):
            planes = (matrix @ _patches(x[chunk], plan.maps)).view(groups, -1, len(x[chunk]), s, n, s, n)
            parts.append(window_maximum(planes.permute(0, 3, 5, 2, 1, 4, 6)))
        maximum, index = joined(parts)
        ctx.save_for_backward(x, weight, index)
        ctx.plan, ctx.groups = plan, groups
        ctx.mark_non_differentiable(index)
        return maximum, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, index = ctx.saved_tensors
        plan: PatchPlan = ctx.plan
        size = plan.windows.size
        matrix = weight[:, 0].transpose(1, 2).flatten(1)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_matrix = torch.zeros_like(matrix)
        for chunk in chunks(x, sum(matrix.shape) * (size * plan.windows.count) ** 2, CHUNK_BYTES):
            places = spread(grad[chunk], index[chunk], ctx.groups, size, (0, 4, 3, 1, 5, 2, 6))
            flat = places.view(len(matrix), -1)  # (G O, B s n s n)
            grad_matrix.addmm_(flat, _patches(x[chunk], plan.maps).T)
            if grad_x is not None:
                grad_x[chunk] = _from_patches(matrix.T @ flat, plan.maps)
        k = len(plan.maps)
        return grad_x, grad_matrix.view(-1, 1, k, k).transpose(2, 3), None, None


def _patches(x: Tensor, maps: Tensor) -> Tensor:
    """All maps of images (B, 1, H, H): (k k, B L L), L = s n; column place first, then row place."""
    k, length, size = maps.shape
    lines = (maps.flatten(0, 1) @ x[:, 0]).view(-1, k, length, size).transpose(0, 1).reshape(-1, size)  # (k B L, H)
    patches = x.new_empty(k, len(lines), length)
    for place in range(k):
        torch.mm(lines, maps[place].T, out=patches[place])
    return patches.view(k * k, -1)


def _from_patches(patches: Tensor, maps: Tensor) -> Tensor:
    """Adjoint of `_patches`."""
    k, length, size = maps.shape
    patches = patches.view(k, -1, length)
    lines = torch.zeros(patches.shape[1], size, dtype=maps.dtype, device=maps.device)
    for place in range(k):
        lines.addmm_(patches[place], maps[place])
    return (maps.flatten(0, 1).T @ lines.view(k, -1, length, size).transpose(0, 1).flatten(1, 2)).unsqueeze(1)
