"""Scale convolution in the Fourier domain, as matrix products.

A correlation with kernels of half-width h becomes a product of spectra once the planes are padded to H + h samples: per
pair of channels, one complex product per frequency stands for K^2 products per pixel.  Transforms of such small planes
are products with cosine and sine matrices: as fast as matrix products, and any length will do.

The spectrum of a kernel is its weights times the spectrum of its basis, so no K x K kernel is ever built.  The backward
pass is written by hand: it keeps the input only, and recomputes its spectrum chunk by chunk.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scalestudy.layers.fast.correlation import shares
from scalestudy.layers.fast.plain import by_hand, graph_wanted, kept, plain_steps_wanted
from scalestudy.layers.precision import full_precision

# half-way transforms of images held at once: many images, because the spectra of kernels are made for each chunk
_CHUNK_BYTES = {"cpu": 128 << 20, "cuda": 4 << 30}
# spectra held at once: about the cache of a core, or a small part of a GPU's memory
_BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 1 << 30}


@dataclass(frozen=True)
class PlaneTransform:
    """Separable transform of real planes (H, W) to half a spectrum (V, U) of numbers a - i b."""

    cols: Tensor  # (V, 2, W): cosine and sine of each frequency 0 .. N/2; the others are their conjugates
    rows: Tensor  # (U, 2, 2 H): makes a and b of what `cols` made, cosine part before sine part

    @classmethod
    def of(cls, rows: Tensor, cols: Tensor, dtype: torch.dtype, device: torch.device) -> PlaneTransform:
        """Transform by `_phases` (U, 2, H) along the rows and (V, 2, W) along the columns."""
        cos, sin = rows.unbind(1)
        rows = torch.stack([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)], 1)
        return cls(cols.to(device, dtype).contiguous(), rows.to(device, dtype))

    def along_columns(self, planes: Tensor) -> Tensor:
        """First step: (B, C, H, W) -> (V, 2 H, B C)."""
        lines = planes.permute(2, 0, 1, 3).reshape(-1, planes.shape[-1])  # (H B C, W)
        return (self.cols.flatten(0, 1) @ lines.T).view(len(self.cols), self.rows.shape[-1], -1)

    def from_columns(self, along: Tensor, batch: int) -> Tensor:
        """Adjoint of `along_columns`."""
        lines = along.view(2 * len(self.cols), -1).T @ self.cols.flatten(0, 1)
        return lines.reshape(self.rows.shape[-1] // 2, batch, -1, self.cols.shape[-1]).permute(1, 2, 0, 3)

    def apply(self, planes: Tensor) -> Tensor:
        """Both steps: (B, C, H, W) -> (V U, 2, B, C)."""
        along = self.along_columns(planes)
        return torch.bmm(self.rows.flatten(0, 1).expand(len(along), -1, -1), along).view(-1, 2, *planes.shape[:2])

    def adjoint(self, spectrum: Tensor) -> Tensor:
        """Adjoint of `apply`: (V U, 2, B, C) -> (B, C, H, W)."""
        count, batch = len(self.cols), spectrum.shape[2]
        along = self.rows.flatten(0, 1).T @ spectrum.reshape(count, 2 * len(self.rows), -1)  # (V, 2 H, B C)
        return self.from_columns(along, batch)


@dataclass(frozen=True)
class FourierPlan:
    """What convolving planes with kernels needs.

    The spectrum a - i b of an input and c - i d of a kernel make the response (a c + b d) - i (b c - a d), that is
    [a, b] c + [b, -a] d: the spectrum of the input is made as [a, b, -a], of which both are parts.
    """

    analysis: PlaneTransform  # of planes
    kernel: PlaneTransform  # of kernels
    synthesis: PlaneTransform  # its adjoint takes a spectrum to planes

    @cached_property
    def _rows(self) -> Tensor:
        """(3 U, 2 H): makes a, b and -a of each frequency."""
        rows = self.analysis.rows
        return torch.cat([rows, -rows[:, :1]], 1).flatten(0, 1)

    @cached_property
    def _adjoint_rows(self) -> tuple[Tensor, Tensor]:
        """(2 H, 2 U) each: adjoints of making [a, b] and of making [b, -a]."""
        a, b = self.analysis.rows.unbind(1)
        return torch.stack([a, b], 1).flatten(0, 1).T, torch.stack([b, -a], 1).flatten(0, 1).T

    def chunks(self, x: Tensor, weight: Tensor, num_scales: int) -> Iterator[tuple[int, slice]]:
        """Each scale with each chunk of images, so small that half-way transforms of planes in and out fit."""
        values = 4 * len(self.analysis.cols) * x.shape[-2] * sum(weight.shape[:2])
        return itertools.product(range(num_scales), chunks(x, values, _CHUNK_BYTES))

    def blocks(
        self, count: int, spectrum: Tensor, columns: Tensor, ins: int
    ) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Column frequencies, so few at a time that spectra of so many images and of the kernels fit the cache.

        Their places among all V, those of their frequencies among all V U, and there the spectra c and d of kernels
        (F', I, O), from that of the basis (2, V U, F).
        """
        rows, outs = len(self.analysis.rows), columns.shape[1] // ins
        values = rows * (3 * count * ins + 2 * count * outs + 2 * ins * outs)
        for part in chunks(self.analysis.cols, values, _BLOCK_BYTES):
            place = slice(part.start * rows, part.stop * rows)
            yield part, place, *((half[place] @ columns).unflatten(1, (ins, -1)) for half in spectrum)

    def spectrum(self, along: Tensor, count: int) -> Tensor:
        """Spectrum [a, b, -a] of planes after the step along columns, (v, 2 H, B I) -> (F, 3 B, I)."""
        spectrum = torch.bmm(self._rows.expand(len(along), -1, -1), along)
        return spectrum.view(len(along) * len(self.analysis.rows), 3 * count, -1)

    def multiply(self, along: Tensor, count: int, c: Tensor, d: Tensor, out: Tensor) -> None:
        """Input after the step along columns times kernels (F, I, O), to the response before that step backwards."""
        spectrum = self.spectrum(along, count)
        product = torch.bmm(spectrum[:, : 2 * count], c).baddbmm_(spectrum[:, count:], d)  # (F, 2 B, O)
        rows = self.synthesis.rows.flatten(0, 1).T.expand(len(along), -1, -1)
        torch.bmm(rows, product.view(len(along), -1, out.shape[-1]), out=out)

    def multiply_backward(
        self, along: Tensor, count: int, c: Tensor, d: Tensor, grad: Tensor, need_input: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients in c and d; that in the input is put in the place of `along`."""
        spectrum = self.spectrum(along, count)
        rows = self.synthesis.rows.flatten(0, 1).expand(len(along), -1, -1)
        product = torch.bmm(rows, grad).view(len(c), 2 * count, -1)  # (F, 2 B, O)
        halves = (spectrum[:, : 2 * count], spectrum[:, count:])
        grad_c, grad_d = (torch.bmm(half.mT, product) for half in halves)
        if need_input:
            forth, turned = (rows.expand(len(along), -1, -1) for rows in self._adjoint_rows)
            shape = (len(along), forth.shape[-1], -1)
            torch.bmm(forth, torch.bmm(product, c.mT).view(shape), out=along)
            along.baddbmm_(turned, torch.bmm(product, d.mT).view(shape))
        return grad_c, grad_d


def _phases(period: int, positions: Tensor) -> Tensor:
    """Cosine and sine (N, 2, positions) of each frequency on a circle of N samples, in double precision."""
    frequencies = torch.arange(period, dtype=torch.float64)
    angles = (2 * math.pi / period) * ((frequencies[:, None] * positions) % period)  # exact turns: angles stay small
    return torch.stack([angles.cos(), angles.sin()], 1)


@kept
def plan_for(size: tuple[int, int], half_width: int, dtype: torch.dtype, device: torch.device) -> FourierPlan:
    """Plan for planes (H, W) and kernels of half-width h, all in pixels; the transform of kernels is in float64.

    The periods H + h and W + h are the least that keep the far border from wrapping round.
    """
    (height, width), h = size, half_width
    share = shares(width + h, torch.float64, torch.device("cpu"))[:, None, None]
    rows, cols = (_phases(n + h, torch.arange(-h, max(n, h + 1), dtype=torch.float64)) for n in size)
    cols = cols[: len(share)]  # one of each conjugate pair
    inside_rows, inside_cols = rows[..., h : h + height], cols[..., h : h + width]
    weighted = inside_cols * (share * (1 / (height + h)))
    return FourierPlan(
        analysis=PlaneTransform.of(inside_rows, inside_cols, dtype, device),
        kernel=PlaneTransform.of(rows[..., : 2 * h + 1], cols[..., : 2 * h + 1], torch.float64, device),
        synthesis=PlaneTransform.of(inside_rows, weighted, dtype, device),
    )


def correlate_fourier(x: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Scale convolution with kernels that are weights (O, I, F) times a basis (F, S, K, K), K odd (Eq. 3 and 4).

    x is (B, I, H, W), seen by every scale, or (B, I, S, H, W), one plane per scale.  Returns (B, O, S, H, W), of the
    wider type of x and weight, also under autocast.  Gradients flow through the basis, too.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with full_precision(x.device):
        plan = plan_for(tuple(x.shape[-2:]), basis.shape[-1] // 2, dtype, x.device)
        spectrum = plan.kernel.apply(basis.double().transpose(0, 1))  # (V U, 2, S, F)
        x, weight, spectrum = x.to(dtype), weight.to(dtype), spectrum.permute(2, 1, 0, 3).to(dtype)
        if plain_steps_wanted():
            return _correlate_plainly(x, weight, spectrum, plan).transpose(1, 2)
        with torch.set_grad_enabled(graph_wanted()):
            return _FourierCorrelation.apply(x, weight, spectrum, plan).transpose(1, 2)


def _correlate_plainly(x: Tensor, weight: Tensor, spectrum: Tensor, plan: FourierPlan) -> Tensor:
    """What `_FourierCorrelation` computes."""
    responses = []
    for scale, functions in enumerate(spectrum):  # (2, V U, F)
        c, d = torch.einsum("kqf,oif->kqio", functions, weight)
        a, b = plan.analysis.apply(plane_of(x, scale)).unbind(1)  # (V U, B, I)
        responses.append(plan.synthesis.adjoint(torch.stack([a @ c + b @ d, b @ c - a @ d], 1)))
    return torch.stack(responses, 1)


class _FourierCorrelation(torch.autograd.Function):
    """Y(frequency)[b, o, s] = sum over i of X(frequency)[b, i(, s)] conj(sum over f of weight[o, i, f] basis_f).

    `spectrum` is that of the basis, (S, 2, V U, F); the response is (B, S, O, H, W).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, spectrum: Tensor, plan: FourierPlan) -> Tensor:
        ctx.save_for_backward(x, weight, spectrum)
        ctx.plan = plan
        outs, ins = weight.shape[:2]
        columns = _columns(weight)
        y = x.new_empty(len(x), len(spectrum), outs, *x.shape[-2:])
        for scale, chunk in plan.chunks(x, weight, len(spectrum)):
            count = len(x[chunk])
            along = plan.analysis.along_columns(plane_of(x[chunk], scale))
            response = along.new_empty(*along.shape[:2], count * outs)
            for part, _, c, d in plan.blocks(count, spectrum[scale], columns, ins):
                plan.multiply(along[part], count, c, d, response[part])
            y[chunk, scale] = plan.synthesis.from_columns(response, count)
        return y

    @staticmethod
    @by_hand(lambda ctx, *saved: _correlate_plainly(*saved, ctx.plan), inputs=3)
    def backward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, spectrum: Tensor) -> tuple[Tensor | None, ...]:
        plan: FourierPlan = ctx.plan
        need_x, _, need_spectrum = ctx.needs_input_grad[:3]
        outs, ins = weight.shape[:2]
        columns = _columns(weight)
        grad_x = torch.zeros_like(x) if need_x else None
        grad_columns = torch.zeros_like(columns)
        grad_spectrum = torch.zeros_like(spectrum) if need_spectrum else None
        for scale, chunk in plan.chunks(x, weight, len(spectrum)):
            count = len(x[chunk])
            along = plan.analysis.along_columns(plane_of(x[chunk], scale))
            response = plan.synthesis.along_columns(grad[chunk, scale])
            for part, place, c, d in plan.blocks(count, spectrum[scale], columns, ins):
                grads = plan.multiply_backward(along[part], count, c, d, response[part], need_x)
                for index, moments in enumerate(grads):
                    moments = moments.flatten(1)  # (F', I O)
                    grad_columns.addmm_(spectrum[scale, index, place].T, moments)
                    if need_spectrum:
                        grad_spectrum[scale, index, place].addmm_(moments, columns.T)
            if need_x:
                plane_of(grad_x[chunk], scale).add_(plan.analysis.from_columns(along, count))
        grad_weight = grad_columns.view(-1, ins, outs).permute(2, 1, 0)
        return grad_x, grad_weight, grad_spectrum, None


def fourier_cost(in_channels: int, out_channels: int, size: tuple[int, int], half_width: int) -> int:
    """Multiplications of one scale and image, forward: transforms of all planes, and the product of spectra."""
    (height, width), seen = size, min(half_width, max(size) - 1)
    rows, cols = height + seen, (width + seen) // 2 + 1
    transform = 2 * cols * height * width + 4 * cols * rows * height
    return (in_channels + out_channels) * transform + 4 * rows * cols * in_channels * out_channels


def chunks(x: Tensor, values_of_each: int, limits: Mapping[str, int]) -> Iterator[slice]:
    """Slices of the first axis, so small that intermediate values fit the limit in bytes of the device."""
    step = max(1, limits.get(x.device.type, limits["cuda"]) // (values_of_each * x.element_size()))
    return (slice(start, min(start + step, len(x))) for start in range(0, len(x), step))


def _columns(weight: Tensor) -> Tensor:
    """(O, I, F) -> (F, I O)."""
    return weight.permute(2, 1, 0).reshape(weight.shape[-1], -1)


def plane_of(x: Tensor, scale: int) -> Tensor:
    """What a scale sees of (B, I, H, W) or (B, I, S, H, W)."""
    return x[:, :, scale] if x.dim() == 5 else x
