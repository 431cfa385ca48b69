"""Scale convolution in the Fourier domain, as matrix products.

A correlation with kernels of half-width h becomes a product of spectra once the planes are padded to H + h samples.
For many channels that saves almost everything: per pair of channels, one complex product per frequency stands for
K^2 products per pixel.  Transforms of such small planes are best written as products with cosine and sine matrices:
they run at the speed of matrix products, any length will do, and whatever is done to a plane before or after the
convolution along its axes only multiplies those matrices (see `scalestudy.models.strongest`).

The spectrum of a kernel is its weights times the spectrum of its basis, so no K x K kernel is ever built.  The backward
pass is written by hand: it keeps the input only, and recomputes its spectrum chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}
"""Spectra held at once: about the cache that cores share, or a small part of a GPU's memory."""


@dataclass(frozen=True)
class PlaneTransform:
    """Separable transform of real planes (H, W) to half a spectrum (V, U); the number a - i b is stored as (a, b).

    Attributes
    ----------
    cols : Tensor
        (2 V, W): cosine and sine of each frequency along the columns, 0 .. N/2; the others are their conjugates.
    rows : Tensor
        (2 U, 2 H): makes (a, b) of each frequency along the rows from what `cols` made, cosine part before sine part.
    """

    cols: Tensor
    rows: Tensor

    @classmethod
    def from_phases(
        cls, row_phases: Sequence[Tensor], col_phases: Sequence[Tensor], dtype: torch.dtype, device: torch.device
    ) -> PlaneTransform:
        """Transform by cosines and sines (U, H) along the rows and (V, W) along the columns."""
        cos, sin = row_phases
        rows = torch.stack([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)], 1).flatten(0, 1)
        cols = torch.stack(list(col_phases), 1).flatten(0, 1)
        return cls(cols.to(device, dtype), rows.to(device, dtype))

    def apply(self, planes: Tensor) -> Tensor:
        """(B, C, H, W) -> (V U, 2, B, C); quickest where the memory order is H, B, C, W."""
        count, channels, height, width = planes.shape
        lines = planes.permute(2, 0, 1, 3).reshape(-1, width)  # (H B C, W)
        along = (self.cols @ lines.T).view(-1, 2 * height, count * channels)  # (V, 2 H, B C)
        return torch.bmm(self.rows.expand(len(along), -1, -1), along).view(-1, 2, count, channels)

    def transpose(self, spectrum: Tensor) -> Tensor:
        """Adjoint of `apply`: (V U, 2, B, C) -> (B, C, H, W), memory order H, B, C, W."""
        count, channels = spectrum.shape[2:]
        spectrum = spectrum.reshape(len(self.cols) // 2, len(self.rows), count * channels)
        along = torch.bmm(self.rows.T.expand(len(spectrum), -1, -1), spectrum)  # (V, 2 H, B C)
        planes = along.view(len(self.cols), -1).T @ self.cols  # (H B C, W)
        return planes.view(-1, count, channels, planes.shape[-1]).permute(1, 2, 0, 3)


def phases(count: int, half_width: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Angles of the discrete Fourier transform of a signal that is convolved with a kernel.

    Parameters
    ----------
    count : int
        Samples n of the signal.
    half_width : int
        h of the kernel; n + h samples are the least that keeps the far border from wrapping round.

    Returns
    -------
    every, half : (Tensor, Tensor)
        Cosine and sine (frequencies, h + n) at offsets -h .. n - 1, float64: of all frequencies, and of one of each
        conjugate pair.
    share : Tensor
        Weight of each of the latter in the inverse transform, before the division by n + h.
    """
    period = count + half_width
    positions = torch.arange(-half_width, count, dtype=torch.float64)
    frequencies = torch.arange(period, dtype=torch.float64)
    angles = (2 * math.pi / period) * ((frequencies[:, None] * positions) % period)  # exact turns: angles stay small
    every = (angles.cos(), angles.sin())
    kept = period // 2 + 1
    share = torch.ones(kept, dtype=torch.float64)
    share[1 : (period + 1) // 2] = 2
    return every, (every[0][:kept], every[1][:kept]), share


@dataclass(frozen=True)
class Plan:
    """What convolving planes with kernels of one half-width needs.

    Attributes
    ----------
    analysis : PlaneTransform
        Planes to spectrum.
    synthesis : PlaneTransform
        Its adjoint takes a spectrum to planes.
    kernel : PlaneTransform
        Of kernels (2h + 1, 2h + 1), float64.
    """

    analysis: PlaneTransform
    synthesis: PlaneTransform
    kernel: PlaneTransform


def make_plan(size: tuple[int, int], half_width: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """Plan for planes (H, W) and kernels of half-width h, all in pixels."""
    (height, width), h = size, half_width
    rows, _, _ = phases(height, h)
    _, cols, share = phases(width, h)
    area = (height + h) * (width + h)
    weighted = [part[:, h:] * (share / area)[:, None] for part in cols]
    return Plan(
        PlaneTransform.from_phases([part[:, h:] for part in rows], [part[:, h:] for part in cols], dtype, device),
        PlaneTransform.from_phases([part[:, h:] for part in rows], weighted, dtype, device),
        PlaneTransform.from_phases(
            [part[:, : 2 * h + 1] for part in rows], [part[:, : 2 * h + 1] for part in cols], torch.float64, device
        ),
    )


_cached_plan = lru_cache(maxsize=64)(make_plan)


def correlate_fourier(x: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Scale convolution with kernels that are weights times a basis (Eq. 3 and 4).

    Parameters
    ----------
    x : Tensor
        (B, I, H, W), seen by every scale, or (B, I, S, H, W), one plane per scale.
    weight : Tensor
        (O, I, F), shared by the scales.
    basis : Tensor
        (F, S, K, K), K odd; zero padded to one size for all scales.  Gradients flow through it.  What lies beyond the
        reach of any pixel is cut off.

    Returns
    -------
    Tensor
        (B, O, S, H, W), of the wider type of x and weight, also under autocast.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        half_width = basis.shape[-1] // 2
        excess = max(0, half_width - max(x.shape[-2:]) + 1)
        basis = functional.pad(basis, (-excess,) * 4)
        plan = _cached_plan(tuple(x.shape[-2:]), half_width - excess, dtype, x.device)
        spectrum = plan.kernel.apply(basis.double().transpose(0, 1))  # (V U, 2, S, F)
        spectrum = spectrum.permute(2, 0, 1, 3).flatten(1, 2).to(dtype)  # (S, 2 V U, F)
        return _FourierCorrelation.apply(x.to(dtype), weight.to(dtype), spectrum, plan)


def spectrum_pairs(spectrum: Tensor) -> Tensor:
    """(a, b), shape (N, 2, B, I) -> [[a, b], [b, -a]], shape (N, 2 B, 2 I).

    With a - i b for an input and c - i d for a kernel, a correlation is (a c + b d) - i (b c - a d), that is
    [[a, b], [b, -a]] @ [[c], [d]]: one real product per frequency.
    """
    a, b = spectrum.unbind(1)
    return torch.stack([torch.stack([a, b], 2), torch.stack([b, -a], 2)], 1).flatten(3, 4).flatten(1, 2)


def from_spectrum_pairs(pairs: Tensor) -> Tensor:
    """Adjoint of `spectrum_pairs`."""
    upper, lower = pairs.unflatten(1, (2, -1)).unflatten(3, (2, -1)).unbind(1)  # (N, B, 2, I) each
    return torch.stack([upper[:, :, 0] - lower[:, :, 1], upper[:, :, 1] + lower[:, :, 0]], 1)


class _FourierCorrelation(torch.autograd.Function):
    """Y(frequency)[b, o, s] = sum over i of X(frequency)[b, i(, s)] conj(sum over f of weight[o, i, f] basis_f)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, spectrum: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, weight, spectrum)
        ctx.plan = plan
        y = x.new_empty(len(x), len(spectrum), len(weight), *x.shape[-2:])
        for scale in range(len(spectrum)):
            kernels = _kernels(weight, spectrum[scale])
            for chunk in chunks(x, _values_per_image(kernels)):
                pairs = spectrum_pairs(plan.analysis.apply(_planes(x[chunk], scale)))
                response = torch.bmm(pairs, kernels).unflatten(1, (2, -1))  # (V U, 2, B, O)
                y[chunk, scale] = plan.synthesis.transpose(response)
        return y.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, spectrum = ctx.saved_tensors
        plan: Plan = ctx.plan
        need_x, need_weight, need_spectrum = ctx.needs_input_grad[:3]
        grad_x = torch.zeros_like(x) if need_x else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_spectrum = torch.empty_like(spectrum) if need_spectrum else None
        columns = weight.permute(2, 1, 0).reshape(weight.shape[-1], -1)  # (F, I O)
        for scale in range(len(spectrum)):
            kernels = _kernels(weight, spectrum[scale])
            grad_kernels = torch.zeros_like(kernels)
            for chunk in chunks(x, _values_per_image(kernels)):
                pairs = spectrum_pairs(plan.analysis.apply(_planes(x[chunk], scale)))
                response = plan.synthesis.apply(grad[chunk, :, scale]).flatten(1, 2)  # (V U, 2 B, O)
                grad_kernels.baddbmm_(pairs.mT, response)
                if need_x:
                    grad_pairs = from_spectrum_pairs(torch.bmm(response, kernels.mT))
                    _planes(grad_x[chunk], scale).add_(plan.analysis.transpose(grad_pairs))
            flat = grad_kernels.view(len(spectrum[scale]), -1)  # (2 V U, I O)
            if need_weight:
                moments = spectrum[scale].T @ flat  # (F, I O)
                grad_weight += moments.unflatten(-1, (weight.shape[1], -1)).permute(2, 1, 0)
            if need_spectrum:
                torch.mm(flat, columns.T, out=grad_spectrum[scale])
        return grad_x, grad_weight, grad_spectrum, None


def fourier_cost(in_channels: int, out_channels: int, size: tuple[int, int], half_width: int) -> int:
    """Multiplications of one scale and image, forward: transforms of all planes, and the product of spectra."""
    height, width = size
    rows = height + min(half_width, max(size) - 1)
    cols = (width + min(half_width, max(size) - 1)) // 2 + 1
    transform = 2 * cols * height * width + 4 * cols * rows * height
    return (in_channels + out_channels) * transform + 4 * rows * cols * in_channels * out_channels


def chunks(x: Tensor, values_per_image: int) -> Iterator[slice]:
    """Slices of the batch, so small that intermediate values fit the device's chunk."""
    step = max(1, _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES["cuda"]) // (values_per_image * x.element_size()))
    return (slice(start, start + step) for start in range(0, len(x), step))


def _values_per_image(kernels: Tensor) -> int:
    """Spectra of the input, in pairs, and of the output."""
    return 2 * len(kernels) * sum(kernels.shape[1:])


def _kernels(weight: Tensor, spectrum: Tensor) -> Tensor:
    """Spectra (2 V U, F) of a basis to those of kernels, (V U, 2 I, O)."""
    columns = weight.permute(2, 1, 0).reshape(weight.shape[-1], -1)  # (F, I O)
    return (spectrum @ columns).view(-1, 2 * weight.shape[1], weight.shape[0])


def _planes(x: Tensor, scale: int) -> Tensor:
    return x[:, :, scale] if x.dim() == 5 else x
