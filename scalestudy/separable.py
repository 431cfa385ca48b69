"""The exact fast algorithms behind the scale convolutions: Toeplitz matrix products, and small kernels.

Each basis function is a product of two 1-D functions, so correlating a plane X with it is R X C^T with two
banded Toeplitz matrices.  All basis functions of one scale cost two batched matrix products, and a third
one mixes them with the weights.  No shape depends on the scales: the cost is the same at any internal
scale range, and learning the kernel size changes nothing.

A scale whose kernel is small (see `_convolution` for the rule) is convolved directly instead.  Both ways compute
the same sums in another order.

The backward pass is written by hand.  It keeps the input only and recomputes the projections on the basis,
chunk by chunk, so memory stays near that of input and output.  Gradients in weights and scales come from
the same correlations of the output gradient with the projections, because the derivative of a
Hermite-Gaussian in its scale is again a sum of Hermite-Gaussians (see `SeparableBasis`): learning the
scales costs the projections on two more orders, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from scalestudy.basis import SeparableBasis

Pair = tuple[int, int]

_CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}
"""Projections held at once: about the second-level caches of two cores, or a small part of a GPU's memory."""


def correlate_separable(
    x: Tensor, weight: Tensor, basis: SeparableBasis, scales: Tensor, *, project: bool = False
) -> Tensor:
    """Scale convolution with a separable basis (Eq. 3 and 4).

    Parameters
    ----------
    x : Tensor
        (B, I, H, W), seen by every scale, or (B, I, S, H, W), one plane per scale.
    weight : Tensor
        (O, I, F).
    basis : SeparableBasis
        Sampled at `scales`; gradients flow through its norms and through `scales`.
    scales : Tensor
        Internal scales in pixels, (S,).
    project : bool
        Return the maximum over scales instead of every scale's response.

    Returns
    -------
    Tensor
        (B, O, S, H, W), or (B, O, H, W) with `project`; of the wider type of x and weight, also under autocast.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with torch.autocast(x.device.type, enabled=False):  # which would round filters and sums behind our back
        functions = basis.functions.detach().to(dtype)
        constant = replace(basis, functions=functions, norms=basis.norms.detach())
        weight = basis.normalise(weight.to(dtype))
        return _SeparableCorrelation.apply(x.to(dtype), weight, scales, functions, constant, project)


def separable_cost(basis: SeparableBasis, in_channels: int, out_channels: int, size: tuple[int, int]) -> int:
    """Multiplications of one scale and image, forward: two 1-D products per function, and the mix with the weights."""
    height, width = size
    num_cols, num_pairs = len(set(basis.cols)), len(basis.cols)
    return in_channels * height * width * (num_cols * width + num_pairs * (height + out_channels))


def toeplitz(functions: Tensor, length: int) -> Tensor:
    """Matrices that correlate a signal of `length` samples with 1-D functions, zero padded.

    Parameters
    ----------
    functions : Tensor
        Samples at offsets -h .. h, shape (..., 2h + 1).
    length : int
        Number of samples L of the signal.

    Returns
    -------
    Tensor
        T[..., i, j] = function at offset j - i, shape (..., L, L).

    Examples
    --------
    >>> toeplitz(torch.tensor([1.0, 2.0, 3.0]), 3).tolist()
    [[2.0, 3.0, 0.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0]]
    """
    margin = length - 1 - functions.shape[-1] // 2
    offsets = functional.pad(functions, (margin, margin))  # (..., 2L - 1); a negative margin crops
    return offsets.unfold(-1, length, 1).flip(-2)


@dataclass(frozen=True)
class _Group:
    """Basis functions that share row functions: all products of some rows and some columns."""

    pairs: tuple[Pair, ...]  # column in the outer loop
    row_matrices: Tensor  # (R H, H)
    col_matrices: Tensor  # (E W, W)

    def project(self, planes: Tensor) -> Tensor:
        """Correlate planes (N, H, W) with each product; returns (N, pairs, H W)."""
        along_rows = torch.bmm(self.col_matrices.expand(len(planes), -1, -1), planes.mT)  # (N, E W, H)
        along_rows = along_rows.view(-1, planes.shape[-1], planes.shape[-2]).mT  # (N E, H, W)
        both = torch.bmm(self.row_matrices.expand(len(along_rows), -1, -1), along_rows)
        return both.view(len(planes), len(self.pairs), -1)

    def unproject(self, gradient: Tensor) -> Tensor:
        """Adjoint of `project`: (N, pairs, H W) -> (N, H, W)."""
        width, height = self.col_matrices.shape[-1], self.row_matrices.shape[-1]
        both = gradient.reshape(-1, len(self.row_matrices), width)  # (N E, R H, W)
        along_rows = torch.bmm(self.row_matrices.mT.expand(len(both), -1, -1), both)  # (N E, H, W)
        along_rows = along_rows.view(len(gradient), -1, height, width).transpose(1, 2).flatten(2)
        return torch.matmul(along_rows, self.col_matrices)  # (N, H, E W) (E W, W)


class _MatrixProducts:
    """One scale's convolution by Toeplitz matrices: project on the basis, then mix with the weights."""

    def __init__(self, functions: Tensor, pairs: tuple[Pair, ...], height: int, width: int) -> None:
        rows_of: dict[int, list[int]] = {}
        for row, col in pairs:
            rows_of.setdefault(col, []).append(row)
        cols_of: dict[tuple[int, ...], list[int]] = {}
        for col, rows in rows_of.items():
            cols_of.setdefault(tuple(rows), []).append(col)
        self.pairs = pairs
        self.groups = [
            _Group(
                pairs=tuple((row, col) for col in cols for row in rows),
                row_matrices=toeplitz(functions[list(rows)], height).flatten(0, 1),
                col_matrices=toeplitz(functions[cols], width).flatten(0, 1),
            )
            for rows, cols in cols_of.items()
        ]

    def respond(self, planes: Tensor, weight: Tensor) -> Tensor:
        """Responses (B, O, H W) to planes (B, I, H, W)."""
        response = None
        for group in self.groups:
            matrix = self._mixing(weight, group).expand(len(planes), -1, -1)
            part = group.project(planes.flatten(0, 1)).view(len(planes), matrix.shape[-1], -1)
            response = torch.bmm(matrix, part) if response is None else response.baddbmm_(matrix, part)
        return response

    def moments(self, planes: Tensor, gradient: Tensor) -> dict[Pair, Tensor]:
        """Correlation (O, I) of the response gradient (B, O, H W) with the projection on each pair."""
        found = {}
        for group in self.groups:
            part = group.project(planes.flatten(0, 1)).view(len(planes), -1, gradient.shape[-1])
            moment = torch.bmm(gradient, part.mT).sum(0).view(gradient.shape[1], planes.shape[1], -1)
            found.update(zip(group.pairs, moment.unbind(-1), strict=True))
        return found

    def adjoint(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Gradient in the planes, (B, I, H, W)."""
        total = 0
        for group in self.groups:
            matrix = self._mixing(weight, group).T.expand(len(gradient), -1, -1)
            part = torch.bmm(matrix, gradient).view(-1, len(group.pairs), gradient.shape[-1])
            total = total + group.unproject(part)
        return total.unflatten(0, (len(gradient), -1))

    def _mixing(self, weight: Tensor, group: _Group) -> Tensor:
        """Weights (O, I, F) as a matrix (O, I F') in the group's order."""
        if group.pairs != self.pairs:
            position = {pair: i for i, pair in enumerate(self.pairs)}
            weight = weight[..., [position[pair] for pair in group.pairs]]
        return weight.flatten(1)


class _SmallKernel:
    """One scale's convolution by a small K x K kernel, cut to the true support of the scale."""

    def __init__(self, functions: Tensor, pairs: tuple[Pair, ...], support: int, height: int, width: int) -> None:
        centre = functions.shape[-1] // 2
        self.functions = functions[:, centre - support : centre + support + 1]  # (M, K)
        self.pairs, self.padding = pairs, support
        self.rows, self.cols = ([pair[axis] for pair in pairs] for axis in (0, 1))
        self.size = (height, width)

    def respond(self, planes: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(planes, self._kernel(weight), padding=self.padding).flatten(2)

    def moments(self, planes: Tensor, gradient: Tensor) -> dict[Pair, Tensor]:
        size = (gradient.shape[1], planes.shape[1], self.functions.shape[-1], self.functions.shape[-1])
        kernel_grad = torch.nn.grad.conv2d_weight(planes, size, gradient.unflatten(-1, self.size), padding=self.padding)
        moments = self.functions @ kernel_grad @ self.functions.T  # (O, I, M, M)
        return {(row, col): moments[..., row, col] for row, col in self.pairs}

    def adjoint(self, gradient: Tensor, weight: Tensor) -> Tensor:
        gradient = gradient.unflatten(-1, self.size)
        return functional.conv_transpose2d(gradient, self._kernel(weight), padding=self.padding)

    def _kernel(self, weight: Tensor) -> Tensor:
        return torch.einsum("oif,fh,fw->oihw", weight, self.functions[self.rows], self.functions[self.cols])


def _convolution(
    functions: Tensor, pairs: tuple[Pair, ...], support: int, out_channels: int, height: int, width: int
) -> _MatrixProducts | _SmallKernel:
    """Choose the cheaper way to convolve one scale.

    Multiplications per pixel and input channel: K^2 O for a kernel; H and W per 1-D product and F O to mix
    for matrices.  Beyond 13 x 13 the CPU library leaves its fast path for weight gradients (measured: 12 times
    slower at 17 than at 13); on a GPU matrix products are always the better use of the hardware.
    """
    size = 2 * support + 1
    num_cols = len({col for _, col in pairs})
    matrices = len(pairs) * (height + out_channels) + num_cols * width
    if functions.device.type == "cpu" and size <= 13 and size**2 * out_channels <= matrices:
        return _SmallKernel(functions, pairs, support, height, width)
    return _MatrixProducts(functions, pairs, height, width)


def _with_derivatives(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """The pairs and those that appear in their derivatives: one of both orders raised by two."""
    raised = [pair for row, col in pairs for pair in ((row + 2, col), (row, col + 2))]
    return tuple(sorted({*pairs, *raised}, key=lambda pair: (pair[1], pair[0])))


def _chunks(x: Tensor, num_pairs: int) -> Iterator[slice]:
    """Slices of the batch, so small that the projections on `num_pairs` functions fit the device's chunk."""
    bytes_per_image = num_pairs * x.shape[1] * x.shape[-1] * x.shape[-2] * x.element_size()
    step = max(1, _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES["cuda"]) // bytes_per_image)
    return (slice(start, start + step) for start in range(0, len(x), step))


def _planes(x: Tensor, scale: int) -> Tensor:
    return x[:, :, scale] if x.dim() == 5 else x


class _SeparableCorrelation(torch.autograd.Function):
    """y[b, o, s] = sum over i and pairs (r, c) of weight[o, i, (r, c)] * (R_r x[b, i(, s)] C_c^T)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scales: Tensor,
        functions: Tensor,
        basis: SeparableBasis,
        project: bool,
    ) -> Tensor:
        height, width = x.shape[-2:]
        num_scales, shape = functions.shape[1], (len(weight), height * width)
        pairs = _pairs(basis)
        y = x.new_empty(len(x), *(() if project else (num_scales,)), len(weight), height, width)
        flat = y.flatten(-2)
        wins = x.new_empty(num_scales - 1 if project else 0, len(x), *shape, dtype=torch.int8)
        for scale, support in enumerate(basis.supports):
            convolution = _convolution(functions[:, scale], pairs, support, len(weight), height, width)
            for chunk in _chunks(x, len(pairs)):
                response = convolution.respond(_planes(x[chunk], scale), weight)
                if not project:
                    flat[chunk, scale] = response
                elif scale == 0:
                    flat[chunk] = response
                else:
                    torch.gt(response, flat[chunk], out=wins[scale - 1, chunk])
                    torch.maximum(response, flat[chunk], out=flat[chunk])
        ctx.save_for_backward(x, weight, scales, functions, wins)
        ctx.basis, ctx.project = basis, project
        return y if project else y.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales, functions, wins = ctx.saved_tensors
        need_x, _, need_scales = ctx.needs_input_grad[:3]
        height, width = x.shape[-2:]
        pairs = _pairs(ctx.basis)
        wanted = _with_derivatives(pairs) if need_scales else pairs
        grad_x = torch.zeros_like(x) if need_x else None
        grad_weight, grad_scales = torch.zeros_like(weight), torch.zeros_like(scales)
        for scale, support in enumerate(ctx.basis.supports):
            size = (support, len(weight), height, width)
            inwards = _convolution(functions[:, scale], wanted, *size)
            outwards = _convolution(functions[:, scale], pairs, *size) if need_x else None
            moments: dict[Pair, Tensor] = {}
            for chunk in _chunks(x, len(wanted)):
                gradient = _response_grad(grad[chunk], wins[:, chunk], scale, ctx.project)
                planes = _planes(x[chunk], scale)
                for pair, moment in inwards.moments(planes, gradient).items():
                    moments[pair] = moments[pair] + moment if pair in moments else moment
                if outwards is not None:
                    _planes(grad_x[chunk], scale).add_(outwards.adjoint(gradient, weight))
            grad_weight += torch.stack([moments[pair] for pair in pairs], -1)
            if need_scales:
                log_grad = (weight * _log_scale_moments(moments, pairs, ctx.basis.orders)).sum()
                grad_scales[scale] = log_grad.to(scales.dtype) / scales[scale]
        return grad_x, grad_weight, grad_scales if need_scales else None, None, None, None


def _pairs(basis: SeparableBasis) -> tuple[Pair, ...]:
    return tuple(zip(basis.rows, basis.cols, strict=True))


def _response_grad(grad: Tensor, wins: Tensor, scale: int, project: bool) -> Tensor:
    """Gradient in the response of one scale, (B, O, H W): of the maximum, only where that scale won."""
    if not project:
        return grad[:, :, scale].flatten(2)
    if not len(wins):
        return grad.flatten(2)
    won = wins[scale - 1] if scale > 0 else torch.ones_like(wins[0])
    for later in wins[scale:]:
        won = won & (later ^ 1)
    # 0 or 1 in int8, not bool: the CPU converts those to numbers several times faster
    return won.to(grad.dtype).mul_(grad.flatten(2))


def _log_scale_moments(moment_of: dict[Pair, Tensor], pairs: tuple[Pair, ...], orders: tuple[int, ...]) -> Tensor:
    """Moments (O, I, F) of the derivative of each basis function in the logarithm of its scale."""
    return torch.stack(
        [
            moment_of[row + 2, col] + moment_of[row, col + 2] + (orders[row] + orders[col]) * moment_of[row, col]
            for row, col in pairs
        ],
        -1,
    )
