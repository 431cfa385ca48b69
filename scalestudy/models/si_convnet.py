"""SI-ConvNet (Kanazawa et al. 2014): one convolution on rescaled images, maximum over the scales."""

from __future__ import annotations

import math
from functools import lru_cache, reduce

import torch
from torch import Tensor

from scalestudy.models.cnn import PlainConv
from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import COLUMN_SCALES, centred, resampling
from scalestudy.models.pooling import larger


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept, and may serve a training step later
def zoom(size: int, factor: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What `rescale` does along each axis, (H, H)."""
    resized = resampling(size, math.floor(size * factor), align_corners=True)
    return centred(resized, size).to(device, dtype)


def rescale(x: Tensor, factor: float) -> Tensor:
    """Rescale (B, C, H, H) on its canvas: bilinear with aligned corners to floor(H factor), then crop or zero-pad."""
    if factor == 1:
        return x
    matrix = zoom(x.shape[-1], factor, x.dtype, x.device)
    return matrix @ x @ matrix.T


class ScaleInvariantConv(PlainConv):
    """7 x 7 convolution with bias on seven rescaled images, rescaled back, maximum over the scales.

    y = max over q of T_(1/q)(T_q(x) * kernel + bias), T: `rescale`, q: `COLUMN_SCALES`.  (B, I, H, H) -> (B, O, H, H).
    """

    def forward(self, x: Tensor) -> Tensor:
        respond = super().forward
        return reduce(larger, [rescale(respond(rescale(x, factor)), 1 / factor) for factor in COLUMN_SCALES])


class SIConvNet(BlockNet):
    """CNN whose convolutions take the best response over seven scales of their input.

    Kanazawa et al., "Locally scale-invariant convolutional neural networks" (2014), as in the released code of SESN.
    """

    convolution = ScaleInvariantConv
