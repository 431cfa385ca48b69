"""The layers of Table 5's systems in the steps of their authors' code: dense kernels, images resized one by one.

Slower than ours, and the measure of them: `training_cost.py` times them beside ours, `tests` hold ours equal to them.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.conv import GroupConv, LiftingConv
from scalestudy.models.kernels import COLUMN_KERNEL_SIZE, COLUMN_SCALES, FILTER_SIZES, KERNEL_SIZE
from scalestudy.models.sevf import (
    ANGLES,
    RESIZE_FACTORS,
    MagnitudeConv,
    ScalarFieldConv,
    VectorFieldConv,
    interpolated,
)
from scalestudy.models.si_convnet import ScaleInvariantConv
from scalestudy.models.sicnn import ColumnConv
from scalestudy.models.ss_cnn import SteerableConv


def resized_kernels(weight: Tensor, factor: float) -> Tensor:
    """SiCNN: (O, I, 7, 7) zero-padded to 23 x 23 and resized as a picture; each slice keeps its L1 norm."""
    size = COLUMN_KERNEL_SIZE
    padded = functional.pad(weight, 4 * [(size - KERNEL_SIZE) // 2])
    new_size = math.floor(size * factor)
    if factor == 1:
        return padded
    if factor < 1:
        resized, before = functional.interpolate(padded, new_size, mode="bilinear", align_corners=True), None
    else:
        source = (torch.arange(new_size, dtype=torch.float64) / factor).long()
        resized, before = padded[..., source, :][..., source], -math.ceil((new_size - size) / 2)
    resized = _centred(resized, size, before)
    return resized * (padded.abs().sum((2, 3), keepdim=True) / resized.abs().sum((2, 3), keepdim=True))


def rescaled_images(x: Tensor, factor: float) -> Tensor:
    """SI-ConvNet: bilinear resize with aligned corners, then crop or zero-pad about the centre."""
    if factor == 1:
        return x
    resized = functional.interpolate(x, math.floor(x.shape[-1] * factor), mode="bilinear", align_corners=True)
    return _centred(resized, x.shape[-1])


def _centred(x: Tensor, size: int, before: int | None = None) -> Tensor:
    before = (size - x.shape[-1]) // 2 if before is None else before
    return functional.pad(x, 2 * [before, size - x.shape[-1] - before])


def _columns(conv: ColumnConv, x: Tensor) -> Tensor:
    kernels = torch.cat([resized_kernels(conv.weight, factor) for factor in COLUMN_SCALES])  # (7 O, I, 23, 23)
    return functional.conv2d(x, kernels, padding=COLUMN_KERNEL_SIZE // 2, groups=x.shape[1] // kernels.shape[1])


def _steered(conv: SteerableConv, x: Tensor) -> Tensor:
    kernels, edges = conv.kernels(), [(max(FILTER_SIZES) - size) // 2 for size in FILTER_SIZES]
    cropped = [kernels[:, :, i, edge : 17 - edge, edge : 17 - edge] for i, edge in enumerate(edges)]
    responses = [functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2) for kernel in cropped]
    return torch.stack(responses).max(0).values


def _rescaled(conv: ScaleInvariantConv, x: Tensor) -> Tensor:
    respond = partial(functional.conv2d, weight=conv.weight, bias=conv.bias, padding=KERNEL_SIZE // 2)
    responses = [rescaled_images(respond(rescaled_images(x, q)), 1 / q) for q in COLUMN_SCALES]
    return torch.stack(responses).max(0).values


def responses_to_resized(x: Tensor, weights: list[Tensor]) -> Tensor:
    """SEVF: images resized, convolved and resized back, (8, B, O, H, H)."""
    size, found = x.shape[-1], []
    for factor, weight in zip(RESIZE_FACTORS, weights, strict=True):
        response = functional.conv2d(interpolated(x, round(size * factor)), weight, padding=KERNEL_SIZE // 2)
        found.append(interpolated(response, size))
    return torch.stack(found)


def _field(x: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    maximum, index = responses_to_resized(x, weights).max(0)
    return maximum.relu(), maximum.new_tensor(ANGLES)[index]


STEPS = {
    ColumnConv: _columns,
    SteerableConv: _steered,
    ScaleInvariantConv: _rescaled,
    ScalarFieldConv: lambda conv, x: _field(x, [conv.weight] * len(ANGLES)),
    MagnitudeConv: lambda conv, x: _field(x, [conv.weight] * len(ANGLES))[0],
    VectorFieldConv: lambda conv, x: _field(x.flatten(1, 2), conv.turned_weights()),
}
"""Forward pass of each layer for which ours takes other steps; dense kernels for the others."""


def as_released(net: nn.Module) -> nn.Module:
    """Switch every layer to the algorithm of the released code."""
    for module in net.modules():
        if type(module) in STEPS:
            module.forward = partial(STEPS[type(module)], module)
        elif isinstance(module, (LiftingConv, GroupConv)):
            module.algorithm = "dense"
    return net
