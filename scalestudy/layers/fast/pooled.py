"""Convolution, maximum over scales, ReLU, batch norm and max pooling of the Table 1 network in one differentiable step.

Batch norm is an affine map per channel, so pooling its output is pooling its input and mapping the few pooled values.
Left to do over all pixels are the convolution, a maximum over scales and zero, two moments and the maximum over
windows; in the backward pass, one affine map of the rectified maximum, divided among the scales: chunk by chunk on
turned planes (see `correlation`), so that all stays in the caches.  The results are those of the modules one by one,
to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

from scalestudy.layers.basis import SeparableBasis
from scalestudy.layers.fast.correlation import turn, turned_back
from scalestudy.layers.fast.plain import by_hand, graph_wanted, kept
from scalestudy.layers.fast.separable import SeparableLayer, responses_plainly, split_by_winner, take_maximum
from scalestudy.layers.precision import full_precision


def are_plain(layers: Sequence[nn.Module], kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether calls of the layers run the forward passes of these very classes and nothing else, such as hooks."""

    def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
        hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
        return type(layer) is kind and "forward" not in vars(layer) and not any(hooks)

    return len(layers) == len(kinds) and all(map(is_plain, layers, kinds)) and not _has_any_global_hook()


def can_pool(x: Tensor, weight: Tensor, layers: Sequence[nn.Module]) -> bool:
    """Whether `project_relu_norm_pool` does all that these layers [relu, norm, pool] do to responses to x.

    Windows must tile the images, and torch has its own way with fewer than two values per channel.
    """
    if not are_plain(layers, (nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d)):
        return False
    _, norm, pool = layers
    window = pool.kernel_size
    return (
        x[:, 0].numel() > 1
        and norm.num_features == len(weight)
        and weight.dtype in (torch.float32, torch.float64)
        and norm.track_running_stats
        and all(part is not None for part in (norm.weight, norm.bias, norm.running_mean, norm.momentum))
        and isinstance(window, int)
        and (pool.stride, pool.padding, pool.dilation) == (window, 0, 1)
        and not pool.return_indices
        and (x.shape[-2] % window, x.shape[-1] % window) == (0, 0)
    )


def project_relu_norm_pool(
    x: Tensor, weight: Tensor, basis: SeparableBasis, norm: nn.BatchNorm2d, window: int
) -> Tensor:
    """``max_pool2d(norm(relu(correlate_separable(x, weight, basis, project=True))), window)``, (B, O, H', W').

    Updates the running statistics as `norm` itself would; `can_pool` must hold.
    """
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with full_precision(x.device):
        weight = basis.normalise(weight.to(dtype))
        with torch.set_grad_enabled(graph_wanted()):
            inputs = (x.to(dtype), weight, basis.scales, norm.weight, norm.bias)
            return _ProjectPool.apply(*inputs, basis.detached(), norm, window, torch.is_grad_enabled())


def _statistics(norm: nn.BatchNorm2d, sums: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and population variance per channel, and what they do to the running statistics.

    Subtracting the squared mean costs a relative error of about 1e-7 (mean / standard deviation)^2, and rectified maps
    have ratios of the order of 1.
    """
    dtype = norm.weight.dtype
    mean = sums / count
    var = (squares / count - mean.square()).clamp(min=0).to(dtype)
    mean = mean.to(dtype)
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (count / (count - 1)), norm.momentum)
    return mean, var


def _window_maxima(maps: Tensor, window: int, track: bool) -> tuple[Tensor, Tensor | None]:
    """Maximum of each window of turned maps (O, W, B, H), (O, cols, B, rows), and where one of it is."""
    windows = maps.unflatten(3, (-1, window)).unflatten(1, (-1, window))  # (O, cols, w, B, rows, w)
    over_columns = windows.amax(2)
    if not track:
        return over_columns.amax(-1), None
    row = over_columns.argmax(-1)
    line = windows.gather(-1, row[:, :, None, ..., None].expand(*windows.shape[:-1], 1))
    col = line.squeeze(-1).argmax(2)
    return over_columns.amax(-1), _first_places(tuple(windows.shape), maps.device) + col * windows.stride(2) + row


@kept
def _first_places(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Place of the first pixel of each window, of windows as above, in the flattened maps."""
    return torch.arange(math.prod(shape), device=device).view(shape)[:, :, 0, ..., 0].contiguous()


def _pooled_again(ctx: Any, *saved: Tensor) -> Tensor:
    x, weight, scales, gain, bias, mean, inverse, *_ = saved
    maps = responses_plainly(x, weight, ctx.basis.resample(scales), ctx.basis, project=True).relu()
    if ctx.training:
        var, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
        inverse = (var + ctx.eps).rsqrt()
    normed = (maps - _per_channel(mean)) * _per_channel(inverse)
    return functional.max_pool2d(normed * _per_channel(gain) + _per_channel(bias), ctx.window)


class _ProjectPool(torch.autograd.Function):
    """Max pooling of (m - mean) * inverse * gain + bias, m the maximum over all scales and 0."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, gain: Tensor, bias: Tensor, *others: Any
    ) -> Tensor:
        basis, norm, window, track = others
        (batch, _, height, width), channels = x.shape, len(weight)
        layer = SeparableLayer(weight, basis, (height, width), derivatives=track and ctx.needs_input_grad[2])
        # where the affine map turns the order round, the maximum comes from the minimum
        sign = torch.where(gain < 0, -1.0, 1.0).to(x.dtype)
        sums, squares = x.new_zeros(2, channels, dtype=torch.float64)
        pooled = x.new_empty(batch, channels, height // window, width // window)
        saved: list[Tensor] = []  # of each chunk
        for chunk in layer.chunks(x):
            projected: list[Tensor] = []
            responses = layer.responses(x[chunk], projected if track else None)
            maps = next(responses).relu()
            wins = take_maximum(maps, responses, track)
            if norm.training:
                lines = maps.view(channels, -1, height)
                sums += lines.sum(2).double().sum(1)
                squares += torch.linalg.vector_norm(lines, dim=2).double().square().sum(1)
            signed = maps * _per_map(sign)
            maxima, places = _window_maxima(signed, window, track)
            pooled[chunk] = turned_back(maxima)
            if track:
                saved += [maps, places, *wins, *projected]
        if norm.training:
            mean, var = _statistics(norm, sums, squares, batch * height * width)
        else:
            mean, var = norm.running_mean.clone(), norm.running_var
        inverse = (var + norm.eps).rsqrt()
        normed = (pooled * _per_channel(sign) - _per_channel(mean)) * _per_channel(inverse)
        ctx.save_for_backward(x, weight, scales, gain, bias, mean, inverse, normed, *saved)
        ctx.layer, ctx.basis, ctx.window, ctx.training, ctx.eps = layer, basis, window, norm.training, norm.eps
        return normed * _per_channel(gain) + _per_channel(bias)

    @staticmethod
    @by_hand(_pooled_again, inputs=5)
    def backward(ctx: Any, grad: Tensor, *saved: Tensor) -> tuple[Tensor | None, ...]:
        x, _, scales, gain, _, mean, inverse, normed, *of_chunks = saved
        grad_bias, grad_gain = grad.sum((0, 2, 3)), (grad * normed).sum((0, 2, 3))
        slope = level = torch.zeros_like(mean)
        if ctx.training:
            count = len(x) * x.shape[2] * x.shape[3]
            slope = -gain * inverse.square() * grad_gain / count
            level = -gain * inverse * grad_bias / count - slope * mean
        grad = grad * _per_channel(gain * inverse)
        layer, count = ctx.layer, 2 * len(scales) + 1

        def of_chunk(number: int, chunk: slice) -> Iterator[tuple[Tensor, Tensor]]:
            """From gradients in window maxima and ``slope * map + level`` in all pixels."""
            maps, places, *others = of_chunks[number * count :][:count]
            wins, projected = others[: len(scales) - 1], others[len(scales) - 1 :]
            gradient = torch.addcmul(_per_map(level), maps, _per_map(slope))
            gradient.view(-1).index_add_(0, places.flatten(), turn(grad[chunk]).flatten())
            padded, height = maps.new_empty(*maps.shape[:-1], layer.longest), maps.shape[-1]
            torch.mul(gradient, torch.gt(maps, 0, out=torch.empty_like(maps)), out=padded[..., :height])
            padded[..., height:] = 0  # here, or each transform copies it to do so
            return zip(reversed(projected), split_by_winner(padded, wins), strict=True)

        grads = layer.gradients(x, scales, ctx.needs_input_grad[0], of_chunk)
        return *grads, grad_gain, grad_bias, None, None, None, None


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _per_map(values: Tensor) -> Tensor:
    return values[:, None, None, None]
