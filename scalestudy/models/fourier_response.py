"""Convolution of many channels in the Fourier domain: see `strongest`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scalestudy.layers.fast.fourier import FourierPlan, PlaneTransform, chunks, phases, plane_lines
from scalestudy.models.pooling import CHUNK_BYTES, Axis, Windows, joined, spread, window_maximum


@dataclass(frozen=True)
class PooledPlan(FourierPlan):
    """What a convolution of many channels needs, whose response is pooled.

    Attributes
    ----------
    kernel : PlaneTransform
        Kernels (k, k) to spectrum.
    synthesis : PlaneTransform
        Its adjoint takes spectra to windows, place by place.
    windows : Windows
        The same for rows and columns.
    """

    windows: Windows

    def values_per_image(self, weight: Tensor) -> int:
        """Numbers that one image needs between transforms, for kernels (G O, I, k, k)."""
        pixels = self.windows.size * self.windows.count
        columns = 2 * len(self.analysis.cols)
        return columns * self.analysis.rows.shape[-1] // 2 * weight.shape[1] + (columns + pixels) * pixels * len(weight)

    def kernels(self, lines: Tensor, part: slice, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra c and d of kernels (k I G O, k) at some column frequencies, (F, I, G O) each."""
        along = self.kernel.cols[part].flatten(0, 1) @ lines.T
        along = along.view(part.stop - part.start, self.kernel.rows.shape[-1], -1)
        spectrum = torch.bmm(self.kernel.rows.flatten(0, 1).expand(len(along), -1, -1), along)
        return spectrum.view(-1, 2, weight.shape[1], weight.shape[0]).unbind(1)

    def add_kernel_gradient(self, lines: Tensor, grad_c: Tensor, grad_d: Tensor, part: slice) -> None:
        """Adjoint of `kernels`, added to `lines`."""
        first, second = (rows.T.expand(part.stop - part.start, -1, -1) for rows in self.kernel.rows.unbind(1))
        shape = (len(first), len(self.kernel.rows), -1)
        along = torch.bmm(first, grad_c.view(shape)).baddbmm_(second, grad_d.view(shape))
        lines.addmm_(along.view(2 * len(along), -1).T, self.kernel.cols[part].flatten(0, 1))


@torch.inference_mode(False)  # plans are kept, and may serve a training step later
def pooled_plan(axis: Axis, like: Tensor) -> PooledPlan:
    """Plan on the device and in the precision of `like`."""
    half, pixels = len(axis.embedding) // 2, len(axis.before)
    every, conjugates, share = phases(pixels, half)
    sides = []
    for angles, weights in ((every, share[0]), (conjugates, share[:, None])):
        inside = [part[:, half : half + pixels] for part in angles]
        forth = [part @ axis.before for part in inside]
        kernel = [part[:, : 2 * half + 1] @ axis.embedding for part in angles]
        back = [weights * part @ axis.picked.T for part in inside]
        sides.append((forth, kernel, back))
    transforms = [PlaneTransform.from_phases(*pair, like.dtype, like.device) for pair in zip(*sides, strict=True)]
    return PooledPlan(*transforms, axis.windows)


class FourierResponse(torch.autograd.Function):
    """Convolution as products of spectra, for a few column frequencies at a time, so that spectra stay in the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: PooledPlan, groups: int) -> tuple[Tensor, Tensor]:
        outs, ins = weight.shape[:2]
        kernel_lines = plane_lines(weight.transpose(0, 1))
        s, n = plan.windows.size, plan.windows.count
        parts = []
        for chunk in chunks(x, plan.values_per_image(weight), CHUNK_BYTES):
            count = len(x[chunk])
            along = plan.analysis.along_columns(plane_lines(x[chunk]))  # (V, 2 H, B I)
            response = along.new_empty(len(along), 2 * s * n, count * len(weight))
            for part in plan.blocks(count, ins, outs):
                plan.multiply(along[part], count, *plan.kernels(kernel_lines, part, weight), response[part])
            planes = plan.synthesis.from_columns(response).view(s, n, count, groups, -1, s, n)
            parts.append(window_maximum(planes.permute(3, 0, 5, 2, 4, 1, 6)))
        maximum, index = joined(parts)
        ctx.save_for_backward(x, weight, index)
        ctx.plan, ctx.groups = plan, groups
        ctx.mark_non_differentiable(index)
        return maximum, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, index = ctx.saved_tensors
        plan: PooledPlan = ctx.plan
        need_x = ctx.needs_input_grad[0]
        outs, ins = weight.shape[:2]
        kernel_lines = plane_lines(weight.transpose(0, 1))
        grad_x, grad_lines = torch.empty_like(x) if need_x else None, torch.zeros_like(kernel_lines)
        for chunk in chunks(x, plan.values_per_image(weight), CHUNK_BYTES):
            count = len(x[chunk])
            along = plan.analysis.along_columns(plane_lines(x[chunk]))
            # memory order (row place, row, batch, group, channel, column place, column), that of lines
            places = spread(grad[chunk], index[chunk], ctx.groups, plan.windows.size, (1, 5, 3, 0, 4, 2, 6))
            response = plan.synthesis.along_columns(places.flatten(5, 6).flatten(0, 4))  # (V, 2 s n, B G O)
            for part in plan.blocks(count, ins, outs):
                c, d = plan.kernels(kernel_lines, part, weight)
                grads = plan.multiply_backward(along[part], count, c, d, response[part], need_x)
                plan.add_kernel_gradient(grad_lines, *grads, part)
            if need_x:
                planes = plan.analysis.from_columns(along)  # (H B I, W)
                grad_x[chunk] = planes.view(x.shape[2], count, x.shape[1], x.shape[3]).permute(1, 2, 0, 3)
        k = weight.shape[-1]
        grad_weight = grad_lines.view(k, weight.shape[1], weight.shape[0], k).permute(2, 1, 0, 3)
        return grad_x, grad_weight, None, None
