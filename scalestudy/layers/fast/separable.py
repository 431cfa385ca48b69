"""The exact fast algorithm for layers with few input channels, whose cost hardly depends on the scales.

Per pixel and scale, one input channel takes about (C + O) H / 2 + 2 C O multiplications instead of the K^2 O of a dense
kernel, with C horizontal 1-D functions and O output channels; `folded` says how, and `separable_cost` counts exactly.
The scales only decide the number of frequencies, (H + h) / 2 for kernels of half-width h.

The backward pass is written by hand.  Gradients in weights and scales are sums over images, frequency by frequency,
from which the moment with any vertical function is read off at the end.  The derivative of a Hermite-Gaussian in its
scale is again a sum of Hermite-Gaussians (see `SeparableBasis`), so learning the scales costs two more horizontal
functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from scalestudy.layers.basis import HermiteBasis, SeparableBasis
from scalestudy.layers.fast.folded import (
    HorizontalProducts,
    Pair,
    ScaleCorrelation,
    Workspace,
    circle,
    correlate_plainly,
    even_first,
    fold,
    unfold,
    vertical_spectra,
)
from scalestudy.layers.fast.fourier import chunks, plane_of
from scalestudy.layers.fast.plain import by_hand, graph_wanted, plain_steps_wanted
from scalestudy.layers.precision import full_precision

# responses of one scale held at once: about the caches of two cores, or a small part of a GPU's memory
_CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 512 << 20}


def correlate_separable(x: Tensor, weight: Tensor, basis: SeparableBasis, *, project: bool = False) -> Tensor:
    """Scale convolution with a separable basis (Eq. 3 and 4), or its maximum over scales.

    x is (B, I, H, W), seen by every scale, or (B, I, S, H, W), one plane per scale; weights are (O, I, F).  Gradients
    flow through the norms of the basis and its scales.  Returns (B, O, S, H, W), or (B, O, H, W) with `project`, of the
    wider type of x and weight, also under autocast.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with full_precision(x.device):
        x, weight = x.to(dtype), basis.normalise(weight.to(dtype))
        if plain_steps_wanted():
            return responses_plainly(x, weight, basis.functions, basis, project)
        with torch.set_grad_enabled(graph_wanted()):
            track = torch.is_grad_enabled()
            return _SeparableCorrelation.apply(x, weight, basis.scales, basis.detached(), project, track)


def responses_plainly(x: Tensor, weight: Tensor, functions: Tensor, basis: SeparableBasis, project: bool) -> Tensor:
    """`correlate_separable` by weights (O, I, F) of products of these functions (M, S, K)."""
    pairs, of_scales = tuple(zip(basis.rows, basis.cols, strict=True)), functions.to(x.dtype).unbind(1)
    responses = [correlate_plainly(plane_of(x, scale), weight, part, pairs) for scale, part in enumerate(of_scales)]
    y = torch.stack(responses, 2)
    return y.max(dim=2).values if project else y


def separable_cost(
    basis: HermiteBasis | SeparableBasis, in_channels: int, out_channels: int, size: tuple[int, int], half_width: int
) -> int:
    """Multiplications of one scale and image, forward; the backward pass to the weights takes as many again.

    For planes (H, W) and kernels of this half-width, in pixels.  With learned scales, the backward pass takes those of
    two more horizontal functions (basis A; two more per sub-sigma with basis B).
    """
    height, width = size
    num_cols = len(set(basis.cols))
    frequencies = circle(height, half_width) // 2 + 1
    transforms = frequencies * height * width * (in_channels + out_channels)
    products = frequencies * in_channels * num_cols * width**2
    return transforms + products + 4 * frequencies * in_channels * num_cols * out_channels * width


class SeparableLayer:
    """The scale convolution of one batch on folded planes, chunk by chunk.

    Weights (O, I, F) are those of the unnormalised functions; the basis has no gradient.  With `derivatives`,
    `gradients` gives those in the scales, too.
    """

    def __init__(self, weight: Tensor, basis: SeparableBasis, size: tuple[int, int], derivatives: bool = False) -> None:
        self._weight, self._size, orders = weight, size, basis.orders
        self.out_channels = len(weight)
        self.space = Workspace(weight.dtype, weight.device)
        self._pairs = tuple(zip(basis.rows, basis.cols, strict=True))
        self._derivatives = _derivatives(self._pairs, orders, weight.device) if derivatives else None
        # pairs whose correlations with the gradient are needed; those of the basis come first
        self._wanted = self._derivatives.pairs if derivatives else self._pairs
        cols = even_first({col for _, col in self._wanted}, orders)
        horizontal = HorizontalProducts.of_scales(basis.functions, orders, cols, size[1], weight.dtype)
        self._correlations = []
        scales = zip(basis.functions.unbind(1), basis.half_widths(size), horizontal, strict=True)
        for functions, half_width, products in scales:
            period = circle(size[0], half_width)
            spectra = vertical_spectra(functions, orders, size[0], period, weight.dtype)
            self._correlations.append(ScaleCorrelation(spectra, orders, products, size[0], period, self.space))
        self._mixings = [correlation.mixing(weight, self._pairs) for correlation in self._correlations]
        self._mixing_grads: list[Tensor] = []

    def chunks(self, x: Tensor) -> Iterator[slice]:
        """Slices of the batch, so small that the responses of one scale fit the device's chunk."""
        return chunks(x, len(self._weight) * self._size[0] * self._size[1], _CHUNK_BYTES)

    def project(self, planes: Tensor, scale: int, keep: bool = False) -> Tensor:
        """See `ScaleCorrelation.project`; good until the next call, unless it is to be kept."""
        return self._correlations[scale].project(planes, self._weight.shape[1], keep)

    def respond(self, projected: Tensor, scale: int) -> Tensor:
        """Folded responses (2, H', O N) of one scale to what `project` made; good until the next call."""
        return self._correlations[scale].respond(projected, self._mixings[scale])

    def begin_gradients(self) -> None:
        """Start `accumulate` from zero."""
        # contiguous, or the product would be made matrix by matrix
        self._mixing_grads = [mixing.new_zeros(mixing.mT.shape) for mixing in self._mixings]

    def accumulate(self, projected: Tensor, gradient: Tensor, scale: int) -> Tensor:
        """Add what a chunk gives to `gradients`, for what `project` made and the folded gradient in its responses.

        Returns the gradient's coefficients, for `add_adjoint`; good until the next call.
        """
        spectrum = self._correlations[scale].spectrum(gradient, len(self._weight))
        self._mixing_grads[scale].baddbmm_(projected, spectrum.mT)  # the other way round takes twice as long
        return spectrum

    def add_adjoint(self, spectrum: Tensor, scale: int, grad_planes: Tensor) -> None:
        """Add to the gradient in the planes (B, I, H, W), from what `accumulate` returned."""
        gradient = torch.empty_like(grad_planes)
        unfold(self._correlations[scale].adjoint(spectrum, self._mixings[scale]), gradient)
        grad_planes += gradient

    def gradients(self, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients in the weights (O, I, F) and, with `derivatives`, in the scales (S,), of all chunks so far."""
        of_scales = zip(self._correlations, self._mixing_grads, strict=True)
        parts = [correlation.moments(grad, len(self._weight), self._wanted) for correlation, grad in of_scales]
        moments = torch.stack(parts)  # (S, O, I, F')
        grad_weight = moments[..., : len(self._pairs)].sum(0)
        if self._derivatives is None:
            return grad_weight, torch.zeros_like(scales)
        slopes = moments @ self._derivatives.made_of.to(moments.dtype)
        return grad_weight, (self._weight * slopes).sum((1, 2, 3)).to(scales.dtype) / scales


@dataclass(frozen=True)
class _Derivatives:
    """How the derivative of a basis in its scale is made of basis functions, d g_n / d ln s = g_(n+2) + n g_n."""

    pairs: tuple[Pair, ...]  # those of the basis, then the others, with one order raised by two; F' in all
    made_of: Tensor  # (F', F): how often each is in the derivative of each basis function in ln s


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _derivatives(pairs: tuple[Pair, ...], orders: tuple[int, ...], device: torch.device) -> _Derivatives:
    parts = [{(row, col): orders[row] + orders[col], (row + 2, col): 1, (row, col + 2): 1} for row, col in pairs]
    together = (*pairs, *sorted({pair for part in parts for pair in part} - {*pairs}))
    made_of = torch.tensor([[part.get(pair, 0) for part in parts] for pair in together], dtype=torch.float64)
    return _Derivatives(together, made_of.to(device))


class ScaleMaximum:
    """Running maximum over scales, in place of the first response (or a floor); `wins` says which attained it."""

    def __init__(self, start: Tensor, track: bool, space: Workspace) -> None:
        self.values = start
        self.wins: list[Tensor] = []
        self._track, self._space = track, space

    def add(self, response: Tensor) -> None:
        """Take in the response of the next scale; where it is equal, the earlier one keeps the maximum."""
        if self._track:
            won = torch.gt(response, self.values, out=self._space.take("won", *response.shape))
            self.wins.append(won.to(torch.int8))  # not bool: the CPU converts that several times slower
        torch.maximum(self.values, response, out=self.values)


def split_by_winner(gradient: Tensor, wins: list[Tensor], space: Workspace) -> Iterator[Tensor]:
    """Divide the gradient of a `ScaleMaximum` among the responses that were added, last one first.

    Each part lies in the workspace, where the next one overwrites it; what remains of the gradient is the first's.
    """
    part = space.take("won", *gradient.shape)
    for won in reversed(wins):
        part.copy_(won)
        gradient -= part.mul_(gradient)
        yield part


def _correlation_again(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, *_: Tensor) -> Tensor:
    return responses_plainly(x, weight, ctx.basis.resample(scales), ctx.basis, ctx.project)


class _SeparableCorrelation(torch.autograd.Function):
    """y[b, o, s] = sum over i and pairs (r, c) of weight[o, i, (r, c)] * (R_r x[b, i(, s)] C_c^T)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, basis: SeparableBasis, project: bool, track: bool
    ) -> Tensor:
        size, num_scales = x.shape[-2:], basis.functions.shape[1]
        layer = SeparableLayer(weight, basis, size)
        y, wins = x.new_empty(len(x), len(weight), *(() if project else (num_scales,)), *size), []
        for chunk in layer.chunks(x):
            planes = _folded_for_scales(x[chunk], num_scales)
            responses = (layer.respond(layer.project(folded, scale), scale) for scale, folded in enumerate(planes))
            if project:
                maximum = ScaleMaximum(next(responses).clone(), track, layer.space)
                for response in responses:
                    maximum.add(response)
                unfold(maximum.values, y[chunk])
                wins += maximum.wins
            else:
                for scale, response in enumerate(responses):
                    unfold(response, y[chunk, :, scale])
        ctx.save_for_backward(x, weight, scales, *wins)
        ctx.basis, ctx.project = basis, project
        return y

    @staticmethod
    @by_hand(_correlation_again, inputs=3)
    def backward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, scales: Tensor, *wins: Tensor
    ) -> tuple[Tensor | None, ...]:
        need_x, _, need_scales = ctx.needs_input_grad[:3]
        num_scales = len(scales)
        layer = SeparableLayer(weight, ctx.basis, x.shape[-2:], derivatives=need_scales)
        layer.begin_gradients()
        grad_x = torch.zeros_like(x) if need_x else None
        for number, chunk in enumerate(layer.chunks(x)):
            planes = _folded_for_scales(x[chunk], num_scales)
            of_chunk = wins[number * (num_scales - 1) :][: num_scales - 1] if ctx.project else None
            gradients = _gradients_for_scales(grad[chunk], of_chunk, layer.space)
            for scale, gradient in zip(reversed(range(num_scales)), gradients, strict=True):
                spectrum = layer.accumulate(layer.project(planes[scale], scale), gradient, scale)
                if need_x:
                    layer.add_adjoint(spectrum, scale, plane_of(grad_x[chunk], scale))
        grad_weight, grad_scales = layer.gradients(scales)
        return grad_x, grad_weight, grad_scales if need_scales else None, None, None, None


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
