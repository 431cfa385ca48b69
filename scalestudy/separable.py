"""The exact fast algorithm behind the scale convolutions: Toeplitz matrix products.

Each basis function is a product of two 1-D functions, so correlating a plane X with it is R X C^T with two
banded Toeplitz matrices.  All basis functions of one scale cost two batched matrix products, and a third
one mixes them with the weights.  No shape depends on the scales: the cost is the same at any internal
scale range, and learning the kernel size changes nothing.

The backward pass is written by hand.  It keeps the input only and recomputes the projections on the basis,
chunk by chunk, so memory stays near that of input and output.  Gradients in weights and scales come from
the same correlations of the output gradient with the projections, because the derivative of a
Hermite-Gaussian in its scale is again a sum of Hermite-Gaussians (see `SeparableBasis`): learning the
scales costs the projections on two more orders, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
        (B, O, S, H, W), or (B, O, H, W) with `project`.
    """
    pairs = tuple(zip(basis.rows, basis.cols, strict=True))
    functions = basis.functions.detach().to(x.dtype)
    return _SeparableCorrelation.apply(
        x, basis.normalise(weight), scales, functions, basis.orders, pairs, project
    )


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
    """Basis functions that share row functions: all products of `num_rows` rows and `num_cols` columns."""

    pairs: tuple[Pair, ...]  # column in the outer loop
    row_matrices: Tensor  # (num_rows * H, H)
    col_matrices: Tensor  # (num_cols * W, W)
    num_cols: int

    def project(self, planes: Tensor) -> Tensor:
        """Correlate planes (N, H, W) with each product; returns (N, len(pairs), H * W)."""
        along_rows = torch.bmm(self.col_matrices.expand(len(planes), -1, -1), planes.mT)  # (N, E W, H)
        along_rows = along_rows.view(-1, planes.shape[-1], planes.shape[-2]).mT  # (N E, H, W)
        both = torch.bmm(self.row_matrices.expand(len(along_rows), -1, -1), along_rows)
        return both.view(len(planes), len(self.pairs), -1)

    def unproject(self, gradient: Tensor, height: int, width: int) -> Tensor:
        """Adjoint of `project`: (N, len(pairs), H W) -> (N, H, W)."""
        planes = len(gradient)
        both = gradient.reshape(planes * self.num_cols, -1, width)  # (N E, R H, W)
        along_rows = torch.bmm(self.row_matrices.mT.expand(len(both), -1, -1), both)  # (N E, H, W)
        along_rows = along_rows.view(planes, self.num_cols, height, width).transpose(1, 2).flatten(2)
        return torch.matmul(along_rows, self.col_matrices)  # (N, H, E W) (E W, W)


def _groups(functions: Tensor, pairs: tuple[Pair, ...], height: int, width: int) -> list[_Group]:
    """Arrange pairs of the 1-D functions (M, K) of one scale into groups."""
    rows_of: dict[int, list[int]] = {}
    for row, col in pairs:
        rows_of.setdefault(col, []).append(row)
    cols_of: dict[tuple[int, ...], list[int]] = {}
    for col, rows in rows_of.items():
        cols_of.setdefault(tuple(rows), []).append(col)
    return [
        _Group(
            pairs=tuple((row, col) for col in cols for row in rows),
            row_matrices=toeplitz(functions[list(rows)], height).flatten(0, 1),
            col_matrices=toeplitz(functions[cols], width).flatten(0, 1),
            num_cols=len(cols),
        )
        for rows, cols in cols_of.items()
    ]


def _with_derivatives(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """The pairs and those that appear in their derivatives: one of both orders raised by two."""
    raised = [pair for row, col in pairs for pair in ((row + 2, col), (row, col + 2))]
    return tuple(sorted({*pairs, *raised}, key=lambda pair: (pair[1], pair[0])))


def _chunks(x: Tensor, num_pairs: int) -> Iterator[slice]:
    """Slices of the batch whose projections fit the chunk size of the device."""
    bytes_per_image = num_pairs * x.shape[1] * x.shape[-1] * x.shape[-2] * x.element_size()
    step = max(1, _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES["cuda"]) // bytes_per_image)
    return (slice(start, start + step) for start in range(0, len(x), step))


def _plane(x: Tensor, scale: int) -> Tensor:
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
        orders: tuple[int, ...],
        pairs: tuple[Pair, ...],
        project: bool,
    ) -> Tensor:
        height, width = x.shape[-2:]
        num_scales, out_channels = functions.shape[1], len(weight)
        shape = (len(x), out_channels, height * width)
        y = x.new_empty(shape) if project else x.new_empty(len(x), num_scales, *shape[1:])
        wins = x.new_empty(num_scales - 1 if project else 0, *shape, dtype=torch.bool)
        for scale in range(num_scales):
            groups = _groups(functions[:, scale], pairs, height, width)
            weights = [_mixing_matrix(weight, pairs, group.pairs) for group in groups]
            for chunk in _chunks(x, len(pairs)):
                planes = _plane(x[chunk], scale)
                count = len(planes)
                response = None
                for group, matrix in zip(groups, weights, strict=True):
                    part = group.project(planes.reshape(-1, height, width)).view(count, -1, height * width)
                    matrix = matrix.expand(count, -1, -1)
                    response = torch.bmm(matrix, part) if response is None else response.baddbmm_(matrix, part)
                if not project:
                    y[chunk, scale] = response
                elif scale == 0:
                    y[chunk] = response
                else:
                    torch.gt(response, y[chunk], out=wins[scale - 1, chunk])
                    torch.maximum(response, y[chunk], out=y[chunk])
        ctx.save_for_backward(x, weight, scales, functions, wins)
        ctx.orders, ctx.pairs, ctx.project = orders, pairs, project
        if project:
            return y.unflatten(-1, (height, width))
        return y.unflatten(-1, (height, width)).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales, functions, wins = ctx.saved_tensors
        need_x, need_weight, need_scales = ctx.needs_input_grad[:3]
        height, width = x.shape[-2:]
        pairs = _with_derivatives(ctx.pairs) if need_scales else ctx.pairs
        grad_x = torch.zeros_like(x) if need_x else None
        grad_weight = torch.zeros_like(weight)
        grad_scales = torch.zeros_like(scales)
        for scale in range(functions.shape[1]):
            groups = _groups(functions[:, scale], pairs, height, width)
            inner = _groups(functions[:, scale], ctx.pairs, height, width) if need_x else []
            moments = [weight.new_zeros(len(weight), x.shape[1] * len(group.pairs)) for group in groups]
            for chunk in _chunks(x, len(pairs)):
                response_grad = _response_grad(grad[chunk], wins[:, chunk], scale, ctx.project)
                planes = _plane(x[chunk], scale)
                if need_weight or need_scales:
                    for group, moment in zip(groups, moments, strict=True):
                        part = group.project(planes.reshape(-1, height, width))
                        moment.addbmm_(response_grad, part.view(len(planes), -1, height * width).mT)
                for group in inner:
                    matrix = _mixing_matrix(weight, ctx.pairs, group.pairs).T
                    part = torch.bmm(matrix.expand(len(planes), -1, -1), response_grad)
                    part = part.view(len(planes) * x.shape[1], len(group.pairs), -1)
                    _plane(grad_x[chunk], scale).add_(group.unproject(part, height, width).view_as(planes))
            moment_of = {
                pair: moment.view(len(weight), x.shape[1], -1)[..., i]
                for group, moment in zip(groups, moments, strict=True)
                for i, pair in enumerate(group.pairs)
            }
            grad_weight += torch.stack([moment_of[pair] for pair in ctx.pairs], -1)
            if need_scales:
                log_grad = _log_scale_moments(moment_of, ctx.pairs, ctx.orders)
                grad_scales[scale] = (weight * log_grad).sum().to(scales.dtype) / scales[scale]
        return grad_x, grad_weight, grad_scales if need_scales else None, None, None, None, None


def _mixing_matrix(weight: Tensor, pairs: tuple[Pair, ...], order: tuple[Pair, ...]) -> Tensor:
    """Weights (O, I, F) of `pairs` as a matrix (O, I * F) in another order of the pairs."""
    if order != pairs:
        position = {pair: i for i, pair in enumerate(pairs)}
        weight = weight[..., [position[pair] for pair in order]]
    return weight.flatten(1)


def _response_grad(grad: Tensor, wins: Tensor, scale: int, project: bool) -> Tensor:
    """Gradient in the response of one scale, (B, O, H W): of the maximum, only where that scale won."""
    if not project:
        return grad[:, :, scale].flatten(2)
    grad = grad.flatten(2)
    if scale > 0:
        grad = grad * wins[scale - 1]
    for later in wins[scale:]:
        grad = grad * ~later
    return grad


def _log_scale_moments(
    moment_of: dict[Pair, Tensor], pairs: tuple[Pair, ...], orders: tuple[int, ...]
) -> Tensor:
    """Moments (O, I, F) of the derivative of each basis function in the logarithm of its scale."""
    return torch.stack(
        [
            moment_of[row + 2, col]
            + moment_of[row, col + 2]
            + (orders[row] + orders[col]) * moment_of[row, col]
            for row, col in pairs
        ],
        -1,
    )
