"""The exact fast algorithm for layers with few input channels, whose cost hardly depends on the scales.

Per pixel and scale, one input channel takes about (C + O) H / 2 + 2 C O multiplications instead of the K^2 O of a dense
kernel, with C horizontal 1-D functions and O output channels; `folded` says how, and `separable_cost` counts
exactly.  The scales only decide the number of frequencies, (H + h) / 2 for kernels of half-width h.

The backward pass is written by hand.  The gradient in weights and scales is a sum over images
frequency by frequency, from which the moment with any vertical function is read off at the end.  The derivative of a
Hermite-Gaussian in its scale is again a sum of Hermite-Gaussians (see `SeparableBasis`), so learning the scales costs
two more horizontal functions, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scalestudy.layers.basis import HermiteBasis, SeparableBasis
from scalestudy.layers.fast.folded import (
    HorizontalProducts,
    Pair,
    ScaleCorrelation,
    Workspace,
    circle,
    even_first,
    fold,
    unfold,
    vertical_spectra,
)
from scalestudy.layers.fast.maximum import ScaleMaximum, split_by_winner
from scalestudy.layers.precision import full_precision, in_full_precision

_CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 512 << 20}
"""Responses of one scale held at once: about the caches of two cores, or a small part of a GPU's memory."""


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
    with full_precision(x.device):
        constant = basis.detached()
        weight = basis.normalise(weight.to(dtype))
        return _SeparableCorrelation.apply(x.to(dtype), weight, scales, constant, project, torch.is_grad_enabled())


def separable_cost(
    basis: HermiteBasis | SeparableBasis, in_channels: int, out_channels: int, size: tuple[int, int], half_width: int
) -> int:
    """Multiplications of one scale and image, forward: two transforms, horizontal products, and the mix per frequency.

    The backward pass to the weights takes as many again; with learned scales, those of two more horizontal functions
    (basis A; two more per sub-sigma with basis B).

    Parameters
    ----------
    basis : HermiteBasis or SeparableBasis
    in_channels, out_channels : int
    size : (int, int)
        Height and width of the planes in pixels.
    half_width : int
        Half-width of the scale's kernel in pixels.
    """
    height, width = size
    num_cols = len(set(basis.cols))
    frequencies = circle(height, half_width) // 2 + 1
    transforms = frequencies * height * width * (in_channels + out_channels)
    products = frequencies * in_channels * num_cols * width**2
    return transforms + products + 4 * frequencies * in_channels * num_cols * out_channels * width


class SeparableLayer:
    """The scale convolution of one batch, chunk by chunk, on folded planes.

    Parameters
    ----------
    weight : Tensor
        (O, I, F), of the unnormalised functions (see `SeparableBasis.normalise`).
    basis : SeparableBasis
        Without gradient.
    size : (int, int)
        H and W of the planes.
    derivatives : bool
        Whether `gradients` will be asked for those in the scales.
    """

    def __init__(self, weight: Tensor, basis: SeparableBasis, size: tuple[int, int], derivatives: bool = False) -> None:
        self._weight, self._size = weight, size
        self.space = Workspace(weight.dtype, weight.device)
        self._pairs = tuple(zip(basis.rows, basis.cols, strict=True))
        periods = [circle(size[0], half_width) for half_width in basis.half_widths(size)]
        spectra_of_scales = [
            vertical_spectra(functions, basis.orders, size[0], period, weight.dtype)
            for functions, period in zip(basis.functions.unbind(1), periods, strict=True)
        ]
        self._derivatives = _derivatives(self._pairs, basis.orders, weight.device) if derivatives else None
        cols = even_first({col for _, col in self._wanted}, basis.orders)
        horizontal = HorizontalProducts.of_scales(basis.functions, basis.orders, cols, size[1], weight.dtype)
        self._correlations = [
            ScaleCorrelation(spectra, basis.orders, products, size[0], period, self.space)
            for spectra, products, period in zip(spectra_of_scales, horizontal, periods, strict=True)
        ]
        self._mixings = [correlation.mixing(weight, self._pairs) for correlation in self._correlations]
        self._mixing_grads: list[Tensor] = []

    @property
    def _wanted(self) -> tuple[Pair, ...]:
        """Pairs whose correlations with the gradient are needed; those of the basis come first."""
        return self._pairs if self._derivatives is None else self._derivatives.pairs

    def chunks(self, batch: int) -> Iterator[slice]:
        """Slices of the batch, so small that the responses of one scale fit the device's chunk."""
        weight = self._weight
        bytes_per_image = len(weight) * self._size[0] * self._size[1] * weight.element_size()
        step = max(1, _CHUNK_BYTES.get(weight.device.type, _CHUNK_BYTES["cuda"]) // bytes_per_image)
        return (slice(start, min(start + step, batch)) for start in range(0, batch, step))

    def project(self, planes: Tensor, scale: int, keep: bool = False) -> Tensor:
        """Coefficients of the horizontal products of one scale, (V, 2 I C, N), of folded planes (2, H', I N).

        Good until the next call, unless they are to be kept.
        """
        return self._correlations[scale].project(planes, self._weight.shape[1], keep)

    def respond(self, projected: Tensor, scale: int) -> Tensor:
        """Folded responses (2, H', O N) of one scale to what `project` made; good until the next call."""
        return self._correlations[scale].respond(projected, self._mixings[scale])

    def begin_gradients(self) -> None:
        """Start `accumulate` from zero."""
        self._mixing_grads = [torch.zeros_like(mixing.mT) for mixing in self._mixings]

    def accumulate(self, projected: Tensor, gradient: Tensor, scale: int) -> Tensor:
        """Add what a chunk gives to `gradients`, for what `project` made and the folded gradient in its responses.

        Returns
        -------
        Tensor
            The gradient's coefficients, for `add_adjoint`; good until the next call.
        """
        spectrum = self._correlations[scale].spectrum(gradient, len(self._weight))
        self._mixing_grads[scale].baddbmm_(projected, spectrum.mT)  # the other way round takes twice as long
        return spectrum

    def add_adjoint(self, spectrum: Tensor, scale: int, grad_planes: Tensor) -> None:
        """Add the gradient in the planes to (B, I, H, W), from what `accumulate` returned."""
        gradient = torch.empty_like(grad_planes)
        unfold(self._correlations[scale].adjoint(spectrum, self._mixings[scale]), gradient)
        grad_planes += gradient

    def gradients(self, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients in the weights (O, I, F) and, with `derivatives`, in the scales (S,), of all chunks so far."""
        moments = torch.stack(
            [
                correlation.moments(mixing_grad, len(self._weight), self._wanted)
                for correlation, mixing_grad in zip(self._correlations, self._mixing_grads, strict=True)
            ]
        )  # (S, O, I, F')
        grad_weight = moments[..., : len(self._pairs)].sum(0)
        if self._derivatives is None:
            return grad_weight, torch.zeros_like(scales)
        slopes = moments @ self._derivatives.made_of.to(moments.dtype)
        return grad_weight, (self._weight * slopes).sum((1, 2, 3)).to(scales.dtype) / scales


@dataclass(frozen=True)
class _Derivatives:
    """How the derivative of a basis in its scale is made of basis functions, d g_n / d ln s = g_(n+2) + n g_n.

    Attributes
    ----------
    pairs : tuple of (int, int)
        Those of the basis, then the others of their derivatives, with one order raised by two; F' in all.
    made_of : Tensor
        How often each of them is in the derivative of each basis function in the logarithm of the scale, (F', F).
    """

    pairs: tuple[Pair, ...]
    made_of: Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _derivatives(pairs: tuple[Pair, ...], orders: tuple[int, ...], device: torch.device) -> _Derivatives:
    parts = [{(row, col): orders[row] + orders[col], (row + 2, col): 1, (row, col + 2): 1} for row, col in pairs]
    together = (*pairs, *sorted({pair for part in parts for pair in part} - {*pairs}))
    made_of = torch.tensor([[part.get(pair, 0) for part in parts] for pair in together], dtype=torch.float64)
    return _Derivatives(together, made_of.to(device))


class _SeparableCorrelation(torch.autograd.Function):
    """y[b, o, s] = sum over i and pairs (r, c) of weight[o, i, (r, c)] * (R_r x[b, i(, s)] C_c^T)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, basis: SeparableBasis, project: bool, track: bool
    ) -> Tensor:
        size, num_scales = x.shape[-2:], basis.functions.shape[1]
        layer = SeparableLayer(weight, basis, size)
        y = x.new_empty(len(x), len(weight), *(() if project else (num_scales,)), *size)
        ctx.wins = []
        for chunk in layer.chunks(len(x)):
            planes = _folded_for_scales(x[chunk], num_scales)
            responses = (layer.respond(layer.project(folded, scale), scale) for scale, folded in enumerate(planes))
            if project:
                maximum = ScaleMaximum(next(responses).clone(), track, layer.space)
                for response in responses:
                    maximum.add(response)
                unfold(maximum.values, y[chunk])
                ctx.wins.append(maximum.wins)
            else:
                for scale, response in enumerate(responses):
                    unfold(response, y[chunk, :, scale])
        ctx.save_for_backward(x, weight, scales)
        ctx.basis = basis
        return y

    @staticmethod
    @once_differentiable
    @in_full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales = ctx.saved_tensors
        need_x, _, need_scales = ctx.needs_input_grad[:3]
        num_scales = len(scales)
        layer = SeparableLayer(weight, ctx.basis, x.shape[-2:], derivatives=need_scales)
        layer.begin_gradients()
        grad_x = torch.zeros_like(x) if need_x else None
        for number, chunk in enumerate(layer.chunks(len(x))):
            planes = _folded_for_scales(x[chunk], num_scales)
            gradients = _gradients_for_scales(grad[chunk], ctx.wins[number] if ctx.wins else None, layer.space)
            for scale, gradient in zip(reversed(range(num_scales)), gradients, strict=True):
                spectrum = layer.accumulate(layer.project(planes[scale], scale), gradient, scale)
                if need_x:
                    layer.add_adjoint(spectrum, scale, _plane(grad_x[chunk], scale))
        grad_weight, grad_scales = layer.gradients(scales)
        return grad_x, grad_weight, grad_scales if need_scales else None, None, None, None


def _plane(x: Tensor, scale: int) -> Tensor:
    """What a scale sees of (B, I, H, W) or (B, I, S, H, W)."""
    return x[:, :, scale] if x.dim() == 5 else x


def _folded_for_scales(x: Tensor, num_scales: int) -> list[Tensor]:
    """Folded planes by scale."""
    if x.dim() == 4:
        return [fold(x)] * num_scales
    return [fold(planes) for planes in x.unbind(2)]


def _gradients_for_scales(grad: Tensor, wins: list[Tensor] | None, space: Workspace) -> Iterator[Tensor]:
    """Folded gradients in the responses, last scale first, from (B, O, S, H, W), or (B, O, H, W) of a maximum."""
    if wins is None:
        for planes in reversed(grad.unbind(2)):
            yield fold(planes)
        return
    remainder = fold(grad)
    yield from split_by_winner(remainder, wins, space)
    yield remainder
