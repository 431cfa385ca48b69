"""The exact fast algorithm for layers with few input channels, whose cost hardly depends on the scales.

Per pixel and scale, one input channel takes about C (b + 2 O) multiplications, with C horizontal 1-D functions, O
output channels and the b columns that a block of them depends on, 12 + 2 h for kernels of half-width h, at most all;
and 1 + O values of Fourier transforms of the length H + h.  A dense kernel takes K^2 O multiplications.  `correlation`
says how, and `separable_cost` counts.

The backward pass is written by hand.  Gradients in weights and scales are sums over images, frequency by frequency,
from which the moment with any vertical function is read off at the end.  The derivative of a Hermite-Gaussian in its
scale is again a sum of Hermite-Gaussians (see `SeparableBasis`), so learning the scales costs two more horizontal
functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from scalestudy.layers.basis import HermiteBasis, SeparableBasis
from scalestudy.layers.fast.correlation import (
    Pair,
    ScaleCorrelation,
    blocks,
    circle,
    correlate_plainly,
    turn,
    turned_back,
)
from scalestudy.layers.fast.fourier import chunks, plane_of
from scalestudy.layers.fast.plain import by_hand, graph_wanted, kept, plain_steps_wanted
from scalestudy.layers.precision import full_precision

# responses of one scale held at once: about the cache of a core, or a small part of a GPU's memory
_CHUNK_BYTES = {"cpu": 1 << 20, "cuda": 512 << 20}


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
) -> tuple[int, int]:
    """Multiplications of matrices, and of transforms (N log2 N each), for a scale and image; backward as many again.

    For planes (H, W) and kernels of this half-width, in pixels; backward, that is to the weights.  With learned scales,
    it takes those of two more horizontal functions (basis A; two more per sub-sigma with basis B).
    """
    (height, width), num_cols = size, len(set(basis.cols))
    period, (number, block, margin) = circle(height, half_width), blocks(width, half_width)
    of_one = 2 * number * block * (block + 2 * margin) + 4 * out_channels * width
    transforms = (in_channels + out_channels) * width * round(period * math.log2(period))
    return in_channels * num_cols * (period // 2 + 1) * of_one, transforms


class SeparableLayer:
    """The scale convolution of one batch on turned planes, chunk by chunk.

    Weights (O, I, F) are those of the unnormalised functions; the basis has no gradient.  With `derivatives`,
    `gradients` gives those in the scales, too.
    """

    def __init__(self, weight: Tensor, basis: SeparableBasis, size: tuple[int, int], derivatives: bool = False) -> None:
        self._weight, self._size, functions = weight, size, basis.functions
        pairs = tuple(zip(basis.rows, basis.cols, strict=True))
        # pairs whose correlations with the gradient are needed; those of the basis come first
        self._wanted, self._made_of = _derivatives(pairs, basis.orders, weight.device) if derivatives else (pairs, None)
        own = set(basis.cols)
        cols = (*sorted(own), *sorted({col for _, col in self._wanted} - own))
        self.correlations = [
            ScaleCorrelation(weight, pairs, one, cols, size, half_width)
            for one, half_width in zip(functions.unbind(1), basis.half_widths(size), strict=True)
        ]
        self.longest = max(correlation.period for correlation in self.correlations)  # circle, in rows

    def chunks(self, x: Tensor) -> Iterator[slice]:
        """Slices of the batch, so small that the responses of one scale fit the device's chunk."""
        return chunks(x, len(self._weight) * self._size[0] * self._size[1], _CHUNK_BYTES)

    def planes(self, x: Tensor) -> list[Tensor]:
        """What each scale sees, turned."""
        return [turn(x)] * len(self.correlations) if x.dim() == 4 else [turn(planes) for planes in x.unbind(2)]

    def responses(self, x: Tensor, kept: list[Tensor] | None = None) -> Iterator[Tensor]:
        """Turned responses (O, W, B, H); a list takes what they were mixed from."""
        for correlation, planes in zip(self.correlations, self.planes(x), strict=True):
            projected = correlation.project(planes)
            if kept is not None:
                kept.append(projected)
            yield correlation.respond(projected, *planes.shape[1:3])

    def gradients(
        self, x: Tensor, scales: Tensor, need_x: bool, of_chunk: Callable[[int, slice], Iterable[tuple[Tensor, Tensor]]]
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients in images, weights (O, I, F) and, with `derivatives`, scales (S,).

        `of_chunk` gives of a chunk, by number and place, what each response was mixed from and the turned gradient in
        it, last scale first.
        """
        totals = [correlation.zero_total() for correlation in self.correlations]
        grad_x = torch.zeros_like(x) if need_x else None
        for number, chunk in enumerate(self.chunks(x)):
            for scale, parts in zip(reversed(range(len(totals))), of_chunk(number, chunk), strict=True):
                spectrum = self.correlations[scale].accumulate(totals[scale], *parts)
                if need_x:
                    gradient = self.correlations[scale].adjoint(spectrum, *parts[1].shape[1:3])
                    plane_of(grad_x[chunk], scale).add_(turned_back(gradient))
        of_scales = zip(self.correlations, totals, strict=True)
        moments = torch.stack([correlation.moments(total, self._wanted) for correlation, total in of_scales])
        grad_weight = moments[..., : self._weight.shape[2]].sum(0)  # of (S, O, I, F')
        if self._made_of is None:
            return grad_x, grad_weight, None
        slopes = moments @ self._made_of.to(moments.dtype)
        return grad_x, grad_weight, (self._weight * slopes).sum((1, 2, 3)).to(scales.dtype) / scales


@kept
def _derivatives(pairs: tuple[Pair, ...], orders: tuple[int, ...], device: torch.device) -> tuple[tuple, Tensor]:
    """How d g_n / d ln s = g_(n+2) + n g_n makes the derivative of each pair of other pairs.

    Pairs: those given, then others, with one order raised by two; F' in all.  And (F', F), how often each is needed.
    """
    parts = [{(row, col): orders[row] + orders[col], (row + 2, col): 1, (row, col + 2): 1} for row, col in pairs]
    together = (*pairs, *sorted({pair for part in parts for pair in part} - {*pairs}))
    made_of = torch.tensor([[part.get(pair, 0) for part in parts] for pair in together], dtype=torch.float64)
    return together, made_of.to(device)


def take_maximum(values: Tensor, responses: Iterable[Tensor], track: bool) -> list[Tensor]:
    """Make `values` the maximum of them and the responses of all further scales; by scale, where it became larger.

    That is 1 of int8, not bool, which the CPU converts several times slower; there is nothing unless it is tracked.
    """
    wins = []
    for response in responses:
        if track:
            wins.append(torch.gt(response, values, out=torch.empty_like(values)).to(torch.int8))
        torch.maximum(values, response, out=values)
    return wins


def split_by_winner(gradient: Tensor, wins: list[Tensor]) -> Iterator[Tensor]:
    """Divide the gradient of `take_maximum` among the responses, last one first; what remains is that of the first.

    Each part is overwritten by the next one.  Zeros may follow the rows of the gradient.
    """
    part = torch.empty_like(gradient)
    for won in reversed(wins):
        part[..., : won.shape[-1]] = won
        part[..., won.shape[-1] :] = 0
        gradient -= part.mul_(gradient)
        yield part
    yield gradient


def _correlation_again(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, *_: Tensor) -> Tensor:
    return responses_plainly(x, weight, ctx.basis.resample(scales), ctx.basis, ctx.project)


class _SeparableCorrelation(torch.autograd.Function):
    """y[b, o, s] = sum over i and pairs (r, c) of weight[o, i, (r, c)] * (R_r x[b, i(, s)] C_c^T)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, basis: SeparableBasis, project: bool, track: bool
    ) -> Tensor:
        layer = SeparableLayer(weight, basis, x.shape[-2:])
        y, wins = x.new_empty(len(x), len(weight), *(() if project else (len(scales),)), *x.shape[-2:]), []
        for chunk in layer.chunks(x):
            responses = layer.responses(x[chunk])
            if project:
                maximum = next(responses).clone()
                wins += take_maximum(maximum, responses, track)
                y[chunk] = turned_back(maximum)
            else:
                for scale, response in enumerate(responses):
                    y[chunk, :, scale] = turned_back(response)
        ctx.save_for_backward(x, weight, scales, *wins)
        ctx.basis, ctx.project = basis, project
        return y

    @staticmethod
    @by_hand(_correlation_again, inputs=3)
    def backward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, scales: Tensor, *wins: Tensor
    ) -> tuple[Tensor | None, ...]:
        need_x, _, need_scales = ctx.needs_input_grad[:3]
        layer = SeparableLayer(weight, ctx.basis, x.shape[-2:], derivatives=need_scales)

        def of_chunk(number: int, chunk: slice) -> Iterator[tuple[Tensor, Tensor]]:
            others = len(scales) - 1
            own = wins[number * others :][:others] if ctx.project else None
            gradients = _gradients_for_scales(grad[chunk], own)
            backwards = zip(reversed(layer.correlations), reversed(layer.planes(x[chunk])), gradients, strict=True)
            return ((correlation.project(planes), gradient) for correlation, planes, gradient in backwards)

        return *layer.gradients(x, scales, need_x, of_chunk), None, None, None


def _gradients_for_scales(grad: Tensor, wins: list[Tensor] | None) -> Iterator[Tensor]:
    """Turned gradients in the responses, last scale first, from (B, O, S, H, W), or (B, O, H, W) of a maximum."""
    if wins is None:
        yield from map(turn, reversed(grad.unbind(2)))
    else:
        yield from split_by_winner(turn(grad), wins)
