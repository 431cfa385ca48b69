"""Scale convolution in the Fourier domain, as matrix products.

A correlation with kernels of half-width h becomes a product of spectra once the planes are padded to H + h samples.
For many channels that saves almost everything: per pair of channels, one complex product per frequency stands for
K^2 products per pixel.  Transforms of such small planes are best written as products with cosine and sine matrices:
they run at the speed of matrix products, any length will do, and resampling a plane before or after the convolution
(as SEVF and SI-ConvNet do) only multiplies those matrices.

The spectrum of a kernel is its weights times the spectrum of its basis, so no K x K kernel is ever built.  The backward
pass is written by hand: it keeps the input only, and recomputes its spectrum chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Spectra held at once: about the cache that a core can use, or a small part of a GPU's memory."""

Spectrum = tuple[Tensor, Tensor]
"""(a, b) stands for a - i b."""


@dataclass(frozen=True)
class Transform:
    """Separable transform of real planes (H, W) to half a spectrum (V, U), by matrices e^(-i angle) = cos - i sin.

    Attributes
    ----------
    row_cos, row_sin : Tensor
        (U, H): all frequencies along the rows.
    col_cos, col_sin : Tensor
        (V, W): frequencies 0 .. N/2 along the columns; the others are conjugates.
    """

    row_cos: Tensor
    row_sin: Tensor
    col_cos: Tensor
    col_sin: Tensor

    @property
    def num_frequencies(self) -> int:
        """V U."""
        return len(self.col_cos) * len(self.row_cos)

    def apply(self, planes: Tensor) -> Spectrum:
        """(B, C, H, W) -> two tensors (V U, B, C)."""
        count, channels, height, width = planes.shape
        along = torch.cat([self.col_cos, self.col_sin]) @ planes.reshape(-1, width).T  # (2 V, B C H)
        even, odd = along.view(2, -1, count * channels, height).transpose(-1, -2)  # (V, H, B C) each
        cos, sin = (rows.expand(len(even), -1, -1) for rows in (self.row_cos, self.row_sin))
        real = torch.bmm(cos, even).baddbmm_(sin, odd, alpha=-1)
        imag = torch.bmm(sin, even).baddbmm_(cos, odd)
        return real.view(-1, count, channels), imag.view(-1, count, channels)

    def transpose(self, real: Tensor, imag: Tensor) -> Tensor:
        """Adjoint of `apply`: two tensors (V U, B, C) -> (B, C, H, W)."""
        count, channels = real.shape[1:]
        (num_cols, width), (num_rows, height) = self.col_cos.shape, self.row_cos.shape
        real, imag = (part.view(num_cols, num_rows, count * channels) for part in (real, imag))
        cos, sin = (rows.T.expand(num_cols, -1, -1) for rows in (self.row_cos, self.row_sin))
        along = real.new_empty(2, num_cols, height, count * channels)
        torch.bmm(cos, real, out=along[0]).baddbmm_(sin, imag)
        torch.bmm(cos, imag, out=along[1]).baddbmm_(sin, real, alpha=-1)
        cols = torch.cat([self.col_cos, self.col_sin])
        planes = along.view(2 * num_cols, -1).T @ cols  # (H B C, W)
        return planes.view(height, count, channels, width).permute(1, 2, 0, 3)


@dataclass(frozen=True)
class Plan:
    """What a convolution of planes with kernels of one half-width needs.

    Attributes
    ----------
    analysis, synthesis : Transform
        Planes to spectrum; and (its adjoint) spectrum to planes, with the weights of the inverse transform.
    row_phases, col_phases : (Tensor, Tensor)
        Cosine and sine at offsets -h .. h, (U, 2h + 1) and (V, 2h + 1), float64: the transform of a kernel.
    """

    analysis: Transform
    synthesis: Transform
    row_phases: Spectrum
    col_phases: Spectrum

    def spectrum(self, basis: Tensor) -> Tensor:
        """Spectra of kernels (F, S, 2h + 1, 2h + 1) -> (S, 2, V U, F), float64: a and b of a - i b."""
        basis = basis.double()
        (row_cos, row_sin), (col_cos, col_sin) = self.row_phases, self.col_phases
        even, odd = (torch.einsum("fshw,vw->svhf", basis, cols) for cols in (col_cos, col_sin))
        real = torch.einsum("uh,svhf->svuf", row_cos, even) - torch.einsum("uh,svhf->svuf", row_sin, odd)
        imag = torch.einsum("uh,svhf->svuf", row_sin, even) + torch.einsum("uh,svhf->svuf", row_cos, odd)
        return torch.stack([real, imag], 1).flatten(2, 3)


def make_plan(
    size: tuple[int, int],
    half_width: int,
    dtype: torch.dtype,
    device: torch.device,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> Plan:
    """Plan for planes (H, W) and kernels of half-width h pixels.

    Parameters
    ----------
    size : (int, int)
        H and W in pixels.
    half_width : int
        h >= 0.
    dtype, device
        Of the planes.
    before, after : Tensor, optional
        Linear resampling of both axes of square planes, before the convolution (n, H) and after it (H', n).
    """
    height, width = size if before is None else (len(before), len(before))
    sides = []
    for length, rows in ((height, True), (width, False)):
        period = length + half_width
        frequencies = torch.arange(period if rows else period // 2 + 1, dtype=torch.float64)
        positions = torch.arange(-half_width, length, dtype=torch.float64)
        turns = (frequencies[:, None] * positions) % period  # exact, so that angles stay small
        angles = (2 * math.pi / period) * turns
        share = torch.full_like(frequencies, 1.0 / period)
        if not rows:
            share[1 : (period + 1) // 2] *= 2  # stand for their conjugates, too
        cos, sin = angles.cos(), angles.sin()
        kernel = tuple(part[:, : 2 * half_width + 1] for part in (cos, sin))
        cos, sin = cos[:, half_width:], sin[:, half_width:]
        forth = [part if before is None else part @ before.double().cpu() for part in (cos, sin)]
        back = [share[:, None] * (part if after is None else part @ after.double().cpu().T) for part in (cos, sin)]
        sides.append((forth, back, kernel))
    (row_forth, row_back, row_kernel), (col_forth, col_back, col_kernel) = sides
    to = {"dtype": dtype, "device": device}
    return Plan(
        Transform(*(part.to(**to) for part in (*row_forth, *col_forth))),
        Transform(*(part.to(**to) for part in (*row_back, *col_back))),
        tuple(part.to(device) for part in row_kernel),
        tuple(part.to(device) for part in col_kernel),
    )


_cached_plan = lru_cache(maxsize=64)(make_plan)


def correlate_fourier(x: Tensor, weight: Tensor, basis: Tensor, plan: Plan | None = None) -> Tensor:
    """Scale convolution with kernels that are weights times a basis (Eq. 3 and 4).

    Parameters
    ----------
    x : Tensor
        (B, I, H, W), seen by every scale, or (B, I, S, H, W), one plane per scale.
    weight : Tensor
        (O, I, F), shared by the scales, or (S, O, I, F).
    basis : Tensor
        (F, S, K, K), K odd; zero padded to one size for all scales.  Gradients flow through it.  What lies beyond the
        reach of any pixel is cut off.
    plan : Plan, optional
        A plan with resampling; default: without.

    Returns
    -------
    Tensor
        (B, O, S, H', W'), of the wider type of x and weight, also under autocast.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        if plan is None:
            half_width = basis.shape[-1] // 2
            excess = max(0, half_width - max(x.shape[-2:]) + 1)
            basis = functional.pad(basis, (-excess,) * 4)
            plan = _cached_plan(tuple(x.shape[-2:]), half_width - excess, dtype, x.device)
        spectrum = plan.spectrum(basis).to(dtype)
        return _FourierCorrelation.apply(x.to(dtype), weight.to(dtype), spectrum, plan)


class _FourierCorrelation(torch.autograd.Function):
    """Y(frequency)[b, o, s] = sum over i of X(frequency)[b, i(, s)] conj(sum over f of weight[o, i, f] basis_f)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, spectrum: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, weight, spectrum)
        ctx.plan = plan
        y = None
        for scale in range(len(spectrum)):
            cos, sin = _kernels(weight, spectrum, scale)
            for chunk in _chunks(x, cos):
                a, b = plan.analysis.apply(_planes(x[chunk], scale))
                real = torch.bmm(a, cos).baddbmm_(b, sin)
                imag = torch.bmm(b, cos).baddbmm_(a, sin, alpha=-1)
                part = plan.synthesis.transpose(real, imag)
                if y is None:
                    y = x.new_empty(len(x), len(spectrum), *part.shape[1:])
                y[chunk, scale] = part
        return y.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, spectrum = ctx.saved_tensors
        plan: Plan = ctx.plan
        need_x, need_weight, need_spectrum = ctx.needs_input_grad[:3]
        grad_x = torch.zeros_like(x) if need_x else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_spectrum = torch.zeros_like(spectrum) if need_spectrum else None
        for scale in range(len(spectrum)):
            cos, sin = _kernels(weight, spectrum, scale)
            grads = torch.zeros(2, *cos.shape, dtype=cos.dtype, device=cos.device)
            for chunk in _chunks(x, cos):
                a, b = plan.analysis.apply(_planes(x[chunk], scale))
                real, imag = plan.synthesis.apply(grad[chunk, :, scale])
                grads[0].baddbmm_(a.mT, real).baddbmm_(b.mT, imag)
                grads[1].baddbmm_(b.mT, real).baddbmm_(a.mT, imag, alpha=-1)
                if need_x:
                    grad_a = torch.bmm(real, cos.mT).baddbmm_(imag, sin.mT, alpha=-1)
                    grad_b = torch.bmm(real, sin.mT).baddbmm_(imag, cos.mT)
                    _planes(grad_x[chunk], scale).add_(plan.analysis.transpose(grad_a, grad_b))
            flat = grads.view(-1, grads.shape[-2] * grads.shape[-1])  # (2 V U, I O)
            kernel_weight = _scale_weight(weight, scale)
            if need_weight:
                moments = (spectrum[scale].flatten(0, 1).T @ flat).unflatten(-1, grads.shape[-2:])  # (F, I, O)
                _scale_weight(grad_weight, scale).add_(moments.permute(2, 1, 0))
            if need_spectrum:
                rows = kernel_weight.permute(1, 0, 2).reshape(flat.shape[-1], -1)  # (I O, F)
                grad_spectrum[scale] = (flat @ rows).view_as(spectrum[scale])
        return grad_x, grad_weight, grad_spectrum, None


def fourier_cost(in_channels: int, out_channels: int, size: tuple[int, int], half_width: int) -> int:
    """Multiplications of one scale and image, forward: transforms of all planes, and the product of spectra."""
    height, width = size
    rows = height + min(half_width, max(size) - 1)
    cols = (width + min(half_width, max(size) - 1)) // 2 + 1
    transform = 2 * cols * height * width + 4 * cols * rows * height
    return (in_channels + out_channels) * transform + 4 * rows * cols * in_channels * out_channels


def _kernels(weight: Tensor, spectrum: Tensor, scale: int) -> Tensor:
    """Spectra of one scale's kernels, (2, V U, I, O)."""
    weight = _scale_weight(weight, scale)
    columns = weight.permute(2, 1, 0).reshape(weight.shape[-1], -1)  # (F, I O)
    flat = spectrum[scale].flatten(0, 1) @ columns
    return flat.view(2, -1, weight.shape[1], weight.shape[0])


def _scale_weight(weight: Tensor, scale: int) -> Tensor:
    return weight[scale] if weight.dim() == 4 else weight


def _chunks(x: Tensor, kernels: Tensor) -> Iterator[slice]:
    """Slices of the batch, so small that the spectra of input and output fit the device's chunk."""
    bytes_per_image = 2 * kernels.shape[0] * sum(kernels.shape[1:]) * x.element_size()
    step = max(1, _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES["cuda"]) // bytes_per_image)
    return (slice(start, start + step) for start in range(0, len(x), step))


def _planes(x: Tensor, scale: int) -> Tensor:
    return x[:, :, scale] if x.dim() == 5 else x
