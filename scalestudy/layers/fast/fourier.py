"""Scale convolution in the Fourier domain, as matrix products.

A correlation with kernels of half-width h becomes a product of spectra once the planes are padded to H + h samples: per
pair of channels, one complex product per frequency stands for K^2 products per pixel.  Transforms of such small planes
are products with cosine and sine matrices: as fast as matrix products, and any length will do.

The spectrum of a kernel is its weights times the spectrum of its basis, so no K x K kernel is ever built.  The backward
pass is written by hand: it keeps the input only, and recomputes its spectrum chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.fast.plain import by_hand, graph_wanted, plain_steps_wanted
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
        """Transform by `phases` (U, 2, H) along the rows and (V, 2, W) along the columns."""
        cos, sin = rows.unbind(1)
        rows = torch.stack([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)], 1)
        return cls(cols.to(device, dtype).contiguous(), rows.to(device, dtype))

    def along_columns(self, lines: Tensor) -> Tensor:
        """First step: (H C, W) -> (V, 2 H, C)."""
        return (self.cols.flatten(0, 1) @ lines.T).view(len(self.cols), self.rows.shape[-1], -1)

    def from_columns(self, along: Tensor) -> Tensor:
        """Adjoint of `along_columns`."""
        return along.view(2 * len(self.cols), -1).T @ self.cols.flatten(0, 1)

    def apply(self, planes: Tensor) -> Tensor:
        """Both steps: (B, C, H, W) -> (V U, 2, B, C)."""
        along = self.along_columns(plane_lines(planes))
        return torch.bmm(self.rows.flatten(0, 1).expand(len(along), -1, -1), along).view(-1, 2, *planes.shape[:2])

    def adjoint(self, spectrum: Tensor) -> Tensor:
        """Adjoint of `apply`: (V U, 2, B, C) -> (B, C, H, W)."""
        (batch, channels), count = spectrum.shape[2:], len(self.cols)
        along = self.rows.flatten(0, 1).T @ spectrum.reshape(count, 2 * len(self.rows), -1)  # (V, 2 H, B C)
        return self.from_columns(along).reshape(-1, batch, channels, self.cols.shape[-1]).permute(1, 2, 0, 3)


def plane_lines(planes: Tensor) -> Tensor:
    """(B, C, H, W) -> (H B C, W), as the transforms take them."""
    return planes.permute(2, 0, 1, 3).reshape(-1, planes.shape[-1])


def phases(count: int, half_width: int) -> Tensor:
    """Cosine and sine (N, 2, offsets) of each frequency, for n = `count` samples and kernels of half-width h; float64.

    The period N = n + h is the least that keeps the far border from wrapping round.  Offsets are -h .. n - 1 (or h, if
    that is more).
    """
    period = count + half_width
    offsets = torch.arange(-half_width, max(count, half_width + 1), dtype=torch.float64)
    frequencies = torch.arange(period, dtype=torch.float64)
    angles = (2 * math.pi / period) * ((frequencies[:, None] * offsets) % period)  # exact turns: angles stay small
    return torch.stack([angles.cos(), angles.sin()], 1)


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

    def blocks(self, count: int, ins: int, outs: int) -> Iterator[tuple[slice, slice]]:
        """Column frequencies, so few at a time that spectra of so many images and of the kernels fit the cache.

        Their places among all V, and those of their frequencies among all V U.
        """
        rows = len(self.analysis.rows)
        values = rows * (3 * count * ins + 2 * count * outs + 2 * ins * outs)
        for part in chunks(self.analysis.cols, values, _BLOCK_BYTES):
            yield part, slice(part.start * rows, part.stop * rows)

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


def make_plan(size: tuple[int, int], half_width: int, dtype: torch.dtype, device: torch.device) -> FourierPlan:
    """Plan for planes (H, W) and kernels of half-width h, all in pixels; the transform of kernels is in float64."""
    (height, width), h = size, half_width
    period = width + h
    rows, cols = phases(height, h), phases(width, h)[: period // 2 + 1]  # one of each conjugate pair
    share = torch.ones(len(cols), 1, 1, dtype=torch.float64)
    share[1 : (period + 1) // 2] = 2
    inside_rows, inside_cols = rows[..., h : h + height], cols[..., h : h + width]
    weighted = inside_cols * (share / period * (1 / (height + h)))
    return FourierPlan(
        analysis=PlaneTransform.of(inside_rows, inside_cols, dtype, device),
        kernel=PlaneTransform.of(rows[..., : 2 * h + 1], cols[..., : 2 * h + 1], torch.float64, device),
        synthesis=PlaneTransform.of(inside_rows, weighted, dtype, device),
    )


# plans are kept, and may serve a training step later
plan_for = lru_cache(maxsize=64)(torch.inference_mode(False)(make_plan))


def correlate_fourier(x: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Scale convolution with kernels that are weights (O, I, F) times a basis (F, S, K, K), K odd (Eq. 3 and 4).

    x is (B, I, H, W), seen by every scale, or (B, I, S, H, W), one plane per scale.  Returns (B, O, S, H, W), of the
    wider type of x and weight, also under autocast.  Gradients flow through the basis, too; what of it lies beyond the
    reach of any pixel is cut off.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with full_precision(x.device):
        half_width = basis.shape[-1] // 2
        excess = max(0, half_width - max(x.shape[-2:]) + 1)
        basis = functional.pad(basis, (-excess,) * 4)
        plain = plain_steps_wanted()
        make = make_plan if plain else plan_for  # what is traced is not to be kept
        plan = make(tuple(x.shape[-2:]), half_width - excess, dtype, x.device)
        spectrum = plan.kernel.apply(basis.double().transpose(0, 1))  # (V U, 2, S, F)
        x, weight, spectrum = x.to(dtype), weight.to(dtype), spectrum.permute(2, 1, 0, 3).to(dtype)
        if plain:
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
        height, width = x.shape[-2:]
        columns = _columns(weight)
        y = x.new_empty(len(x), len(spectrum), outs, height, width)
        for scale in range(len(spectrum)):
            for chunk in chunks(x, 4 * len(plan.analysis.cols) * height * (ins + outs), _CHUNK_BYTES):
                count = len(x[chunk])
                along = plan.analysis.along_columns(plane_lines(plane_of(x[chunk], scale)))
                response = along.new_empty(*along.shape[:2], count * outs)
                for part, place in plan.blocks(count, ins, outs):
                    c, d = _kernels(spectrum[scale], place, columns, ins)
                    plan.multiply(along[part], count, c, d, response[part])
                planes = plan.synthesis.from_columns(response)  # (H B O, W)
                y[chunk, scale] = planes.view(height, count, outs, width).permute(1, 2, 0, 3)
        return y

    @staticmethod
    @by_hand(lambda ctx, *saved: _correlate_plainly(*saved, ctx.plan), inputs=3)
    def backward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, spectrum: Tensor) -> tuple[Tensor | None, ...]:
        plan: FourierPlan = ctx.plan
        need_x, _, need_spectrum = ctx.needs_input_grad[:3]
        outs, ins = weight.shape[:2]
        height, width = x.shape[-2:]
        columns = _columns(weight)
        grad_x = torch.zeros_like(x) if need_x else None
        grad_columns = torch.zeros_like(columns)
        grad_spectrum = torch.zeros_like(spectrum) if need_spectrum else None
        for scale in range(len(spectrum)):
            for chunk in chunks(x, 4 * len(plan.analysis.cols) * height * (ins + outs), _CHUNK_BYTES):
                count = len(x[chunk])
                along = plan.analysis.along_columns(plane_lines(plane_of(x[chunk], scale)))
                response = plan.synthesis.along_columns(plane_lines(grad[chunk, scale]))
                for part, place in plan.blocks(count, ins, outs):
                    c, d = _kernels(spectrum[scale], place, columns, ins)
                    grads = plan.multiply_backward(along[part], count, c, d, response[part], need_x)
                    for index, moments in enumerate(grads):
                        moments = moments.flatten(1)  # (F', I O)
                        grad_columns.addmm_(spectrum[scale, index, place].T, moments)
                        if need_spectrum:
                            grad_spectrum[scale, index, place].addmm_(moments, columns.T)
                if need_x:
                    planes = plan.analysis.from_columns(along).view(height, count, ins, width)
                    plane_of(grad_x[chunk], scale).add_(planes.permute(1, 2, 0, 3))
        grad_weight = grad_columns.view(-1, ins, outs).permute(2, 1, 0)
        return grad_x, grad_weight, grad_spectrum, None


def fourier_cost(in_channels: int, out_channels: int, size: tuple[int, int], half_width: int) -> int:
    """Multiplications of one scale and image, forward: transforms of all planes, and the product of spectra."""
    height, width = size
    rows = height + min(half_width, max(size) - 1)
    cols = (width + min(half_width, max(size) - 1)) // 2 + 1
    transform = 2 * cols * height * width + 4 * cols * rows * height
    return (in_channels + out_channels) * transform + 4 * rows * cols * in_channels * out_channels


def chunks(x: Tensor, values_of_each: int, limits: Mapping[str, int]) -> Iterator[slice]:
    """Slices of the first axis, so small that intermediate values fit the limit in bytes of the device."""
    step = max(1, limits.get(x.device.type, limits["cuda"]) // (values_of_each * x.element_size()))
    return (slice(start, min(start + step, len(x))) for start in range(0, len(x), step))


def _columns(weight: Tensor) -> Tensor:
    """(O, I, F) -> (F, I O)."""
    return weight.permute(2, 1, 0).reshape(weight.shape[-1], -1)


def _kernels(spectrum: Tensor, place: slice, columns: Tensor, ins: int) -> tuple[Tensor, Tensor]:
    """Spectra c and d of kernels (F', I, O) at some frequencies, from that of the basis (2, V U, F)."""
    return tuple((part[place] @ columns).unflatten(1, (ins, -1)) for part in spectrum)


def plane_of(x: Tensor, scale: int) -> Tensor:
    """What a scale sees of (B, I, H, W) or (B, I, S, H, W)."""
    return x[:, :, scale] if x.dim() == 5 else x
