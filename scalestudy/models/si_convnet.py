"""SI-ConvNet (Kanazawa et al. 2014): one convolution on rescaled images, maximum over the scales."""

from __future__ import annotations

import math
from functools import reduce

from torch import Tensor

from scalestudy.models.cnn import PlainConv
from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import COLUMN_SCALES, resized
from scalestudy.models.pooling import larger


def rescale(x: Tensor, factor: float) -> Tensor:
    """Rescale (B, C, H, H) on its canvas: bilinear with aligned corners to floor(H factor), then crop or zero-pad."""
    size = x.shape[-1]
    return x if factor == 1 else resized(x, math.floor(size * factor), size, align_corners=True)


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
