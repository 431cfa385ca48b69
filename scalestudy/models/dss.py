"""DSS (Worrall and Welling 2019): deep scale-spaces, convolution dilated with the level of a Gaussian scale space."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from scipy.special import ive
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.models.blocks import KERNEL_SIZE, Algorithm, BlockNet, PooledLayer
from scalestudy.models.pooling import Axis, block_pool, pooling_windows
from scalestudy.models.strongest import (
    PatchPlan,
    PooledPlan,
    doubling,
    make_plan,
    strongest_of_doubled,
    strongest_response,
)

NUM_LEVELS = 2
BASE = 2
BLUR_VARIANCE = 0.25**2 * (BASE**2 - 1)
"""Variance in square pixels that takes an image of sigma 0.25 to one of sigma 0.5 (released code)."""

BLUR_HALF_WIDTH = 4
"""The blur reaches this many pixels to each side."""


def blur_taps() -> Tensor:
    """Discrete Gaussian (Lindeberg) of variance `BLUR_VARIANCE`: e^-t I_|n|(t), n = -4 .. 4, normalised to sum 1; (9,).

    Float64.
    """
    orders = torch.arange(-BLUR_HALF_WIDTH, BLUR_HALF_WIDTH + 1, dtype=torch.float64).abs()
    taps = torch.from_numpy(ive(orders.numpy(), BLUR_VARIANCE))
    return taps / taps.sum()


class ScaleSpaceLift(nn.Module):
    """Two levels of a Gaussian scale space: the image, and the image blurred (zero padding).

    Shape
    -----
    (B, C, H, W) -> (B, C, 2, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taps", blur_taps().to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        planes = x.flatten(0, 1).unsqueeze(1)
        rows = functional.conv2d(planes, self.taps.view(1, 1, 1, -1), padding=(0, BLUR_HALF_WIDTH))
        blurred = functional.conv2d(rows, self.taps.view(1, 1, -1, 1), padding=(BLUR_HALF_WIDTH, 0))
        return torch.stack([x, blurred.view_as(x)], 2)


class DilatedConv(PooledLayer):
    """Semigroup correlation with one scale per kernel: level l sees level l, dilated by 2^l; no bias.

    y[b, o, l] = sum_i x[b, i, l] * (weight[o, i] dilated by 2^l), zero padding.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    algorithm, doubled
        See `PooledLayer`.

    Shape
    -----
    (B, I, 2, H, W) -> (B, O, 2, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(algorithm, doubled)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, KERNEL_SIZE, KERNEL_SIZE))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (KERNEL_SIZE**2 * in_channels)))

    def forward(self, x: Tensor) -> Tensor:
        responses = []
        for level, plane in enumerate(x.unbind(2)):
            dilation = BASE**level
            padding = KERNEL_SIZE // 2 * dilation
            responses.append(functional.conv2d(plane, self.weight, padding=padding, dilation=dilation))
        return torch.stack(responses, 2)

    def activate(self, x: Tensor, block: int) -> Tensor:
        """Rectified, each level max pooled: (B, O, 2, n, n)."""
        if self.algorithm == "direct":
            return torch.stack([block_pool(level, block) for level in self(x).unbind(2)], 2).relu()
        return torch.stack(self._pooled_levels(list(x.unbind(2)), block), 2).relu()

    def _pooled_levels(self, planes: list[Tensor], block: int, blur: bool = False) -> list[Tensor]:
        """Max pooled response of each level to its planes (B, I, H, H); with `blur`, level 1 is still to be blurred."""
        responses = []
        for level, x in enumerate(planes):
            if self.doubled and level == 0:
                responses.append(strongest_of_doubled(x, self.weight))
                continue
            plan = _plan(x.shape[-1], block, level, blur and level > 0, self.doubled, x.shape[1], x.dtype, x.device)
            responses.append(strongest_response(x[:, :, ::2, ::2] if self.doubled else x, self.weight, plan)[0])
        return responses


class LiftedConv(DilatedConv):
    """`ScaleSpaceLift`, then `DilatedConv`.

    Shape
    -----
    (B, I, H, W) -> (B, O, 2, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(in_channels, out_channels, algorithm=algorithm, doubled=doubled)
        self.lift = ScaleSpaceLift()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.lift(x))

    def activate(self, x: Tensor, block: int) -> Tensor:
        if self.algorithm == "direct":
            return super().activate(x, block)
        return torch.stack(self._pooled_levels([x] * NUM_LEVELS, block, blur=True), 2).relu()


class ProjectedConv(LiftedConv):
    """`LiftedConv`, whose activation is the maximum over levels.

    Shape
    -----
    (B, I, H, W) -> (B, O, 2, H, W); activation (B, O, n, n).
    """

    def activate(self, x: Tensor, block: int) -> Tensor:
        return super().activate(x, block).max(2).values


@lru_cache(maxsize=64)
def _plan(
    size: int,
    block: int,
    level: int,
    blur: bool,
    doubled: bool,
    channels: int,
    dtype: torch.dtype,
    device: torch.device,
) -> PooledPlan | PatchPlan:
    dilation = BASE**level
    embedding = torch.zeros((KERNEL_SIZE - 1) * dilation + 1, KERNEL_SIZE, dtype=torch.float64)
    embedding[::dilation] = torch.eye(KERNEL_SIZE, dtype=torch.float64)
    before = identity = torch.eye(size, dtype=torch.float64)
    if blur:
        padded = functional.pad(identity, 2 * [BLUR_HALF_WIDTH])
        before = padded.unfold(1, 2 * BLUR_HALF_WIDTH + 1, 1) @ blur_taps()
    if doubled:
        before = before @ doubling(size)
    axis = Axis(pooling_windows(size, block), embedding, before, identity)
    return make_plan(axis, channels, torch.empty(0, dtype=dtype, device=device))


class DSS(BlockNet):
    """Deep scale-space network that carries both levels to the end.

    Worrall and Welling, "Deep scale-spaces: equivariance over scale" (2019), as in the released code of SESN: lift,
    three `DilatedConv` blocks with batch norm over both levels together, maximum over levels.  That code has two levels
    and kernels without extent in scale, so that levels meet only at the end.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(DilatedConv, algorithm, first_layer=LiftedConv, norm=nn.BatchNorm3d)

    def features(self, x: Tensor) -> Tensor:
        return super().features(x).max(2).values


class ScalarDSS(BlockNet):
    """DSS that lifts anew before each convolution and takes the maximum over levels after it.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(ProjectedConv, algorithm)
