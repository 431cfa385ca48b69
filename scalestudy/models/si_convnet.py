"""SI-ConvNet (Kanazawa et al. 2014): one convolution on rescaled images, maximum over the scales."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from scalestudy.models.blocks import KERNEL_SIZE, Algorithm, BlockNet, PooledLayer
from scalestudy.models.cnn import bias_vector, kernel_bank
from scalestudy.models.pooling import Axis, largest, pooling_windows
from scalestudy.models.sicnn import COLUMN_SCALES
from scalestudy.models.strongest import (
    PatchPlan,
    PooledPlan,
    doubling,
    make_plan,
    strongest_of_doubled,
    strongest_response,
)


def resize_about_centre(x: Tensor, factor: float) -> Tensor:
    """Rescale images on their canvas: bilinear resize with aligned corners, then crop or zero-pad about the centre.

    Parameters
    ----------
    x : Tensor
        (B, C, H, H).
    factor : float
        Size factor > 0; the resized image has floor(H factor) pixels, the result H.
    """
    if factor == 1:
        return x
    size = x.shape[-1]
    resized_size = math.floor(size * factor)
    resized = functional.interpolate(x, resized_size, mode="bilinear", align_corners=True)
    before = (size - resized_size) // 2
    return functional.pad(resized, 2 * [before, size - resized_size - before])


def resizing(size: int, factor: float, dtype: torch.dtype) -> Tensor:
    """What `resize_about_centre` does along each axis, (H, H), float64; interpolated in the precision `dtype`."""
    if factor == 1:
        return torch.eye(size, dtype=torch.float64)
    resized_size = math.floor(size * factor)
    resized = functional.interpolate(
        torch.eye(size, dtype=dtype)[None], resized_size, mode="linear", align_corners=True
    )
    before = (size - resized_size) // 2
    return functional.pad(resized[0], [before, size - resized_size - before]).T.double()


class ScaleInvariantConv(PooledLayer):
    """7 x 7 convolution with bias on seven rescaled images, rescaled back, maximum over the scales.

    y = max over q of T_(1/q)(T_q(x) * kernel + bias), T: `resize_about_centre`, q: `COLUMN_SCALES`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    algorithm, doubled
        See `PooledLayer`.  "fourier" computes only what is left after cropping.

    Shape
    -----
    (B, I, H, H) -> (B, O, H, H).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(algorithm, doubled)
        self.weight = kernel_bank(in_channels, out_channels)
        self.bias = bias_vector(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        responses = []
        for factor in COLUMN_SCALES:
            resized = resize_about_centre(x, factor)
            response = functional.conv2d(resized, self.weight, self.bias, padding=KERNEL_SIZE // 2)
            responses.append(resize_about_centre(response, 1 / factor))
        return torch.stack(responses).max(0).values

    def pooled(self, x: Tensor, block: int) -> Tensor:
        """As in `PooledLayer`: zeros that padding after the way back puts around a response change no positive maximum.

        Resizing keeps a constant as it is, so that the bias comes last.
        """
        halved = x[:, :, ::2, ::2] if self.doubled else x
        responses = []
        for factor in COLUMN_SCALES:
            if self.doubled and factor == 1:
                responses.append(strongest_of_doubled(x, self.weight))
                continue
            plan = _plan(x.shape[-1], block, factor, self.doubled, x.shape[1], x.dtype, x.device)
            maximum, _ = strongest_response(halved, self.weight, plan)
            before, after = plan.windows.first, plan.windows.total - plan.windows.first - plan.windows.count
            responses.append(functional.pad(maximum, 2 * [before, after], value=-math.inf))
        return largest(responses)[0] + self.bias[:, None, None]


@lru_cache(maxsize=64)
def _plan(
    size: int, block: int, factor: float, doubled: bool, channels: int, dtype: torch.dtype, device: torch.device
) -> PooledPlan | PatchPlan:
    before, after = resizing(size, factor, dtype), resizing(size, 1 / factor, dtype)
    known, needed = ((low.item(), high.item() + 1) for low, high in (_ends(after.any(1)), _ends(after.any(0))))
    margin = KERNEL_SIZE // 2
    part = slice(max(0, needed[0] - margin), min(size, needed[1] + margin))
    before = before[part] @ doubling(size) if doubled else before[part]
    embedding = torch.eye(KERNEL_SIZE, dtype=torch.float64)
    axis = Axis(pooling_windows(size, block, known), embedding, before, after[:, part])
    return make_plan(axis, channels, torch.empty(0, dtype=dtype, device=device))


def _ends(mask: Tensor) -> Tensor:
    """First and last place where a mask is set."""
    return mask.nonzero().flatten()[[0, -1]]


class SIConvNet(BlockNet):
    """CNN whose convolutions take the best response over seven scales of their input.

    Kanazawa et al., "Locally scale-invariant convolutional neural networks" (2014), as in the released code of SESN.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(ScaleInvariantConv, algorithm)
