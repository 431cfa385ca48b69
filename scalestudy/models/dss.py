"""DSS (Worrall and Welling 2019): deep scale-spaces, convolution dilated with the level of a Gaussian scale space."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import KERNEL_SIZE
from scalestudy.models.pooling import larger

DILATIONS = (1, 2)  # of the kernels on the two levels of the scale space
# variance in square pixels that takes an image of sigma 0.25 to one of sigma 0.5 (released code)
BLUR_VARIANCE = 0.25**2 * (2**2 - 1)
# discrete Gaussian (Lindeberg): e^-t I_|n|(t), t the variance, n = -4 .. 4, normalised to sum 1
BLUR_HALF_WIDTH = 4
_TAPS = ive(abs(np.arange(-BLUR_HALF_WIDTH, BLUR_HALF_WIDTH + 1)), BLUR_VARIANCE)
BLUR_TAPS = tuple((_TAPS / _TAPS.sum()).tolist())


class DilatedConv(nn.Module):
    """Semigroup correlation with one scale per kernel, no bias: level l sees level l, dilated by 2^l.

    It is `GroupConv` whose basis are pixels moved apart, in as many multiplications as its kernels have pixels.
    (B, I, 2, H, W), or images (B, I, H, W), which are lifted to two levels of a Gaussian scale space: themselves, and
    themselves blurred (zero padding) -> (B, O, 2, H, W).  With `project` the layer ends on the maximum over levels.
    """

    def __init__(self, in_channels: int, out_channels: int, project: bool = False) -> None:
        super().__init__()
        self.project = project
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, KERNEL_SIZE, KERNEL_SIZE))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (KERNEL_SIZE**2 * in_channels)))

    def lift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two levels, (B, I, H, W) each."""
        planes, taps = x.flatten(0, 1).unsqueeze(1), torch.tensor(BLUR_TAPS, dtype=x.dtype, device=x.device)
        rows = functional.conv2d(planes, taps.view(1, 1, 1, -1), padding=(0, BLUR_HALF_WIDTH))
        return x, functional.conv2d(rows, taps.view(1, 1, -1, 1), padding=(BLUR_HALF_WIDTH, 0)).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.lift(x) if x.dim() == 4 else x.unbind(2)
        responses = [
            functional.conv2d(level, self.weight, padding=KERNEL_SIZE // 2 * dilation, dilation=dilation)
            for level, dilation in zip(levels, DILATIONS, strict=True)
        ]
        return larger(*responses) if self.project else torch.stack(responses, 2)


class DSS(BlockNet):
    """Deep scale-space network that carries both levels to the end, with batch norm over both together.

    Worrall and Welling, "Deep scale-spaces: equivariance over scale" (2019), as in the released code of SESN, which has
    two levels and kernels without extent in scale, so that levels meet only at the end.
    """

    convolution = DilatedConv
    norm = nn.BatchNorm3d

    def features(self, x: Tensor) -> Tensor:
        return super().features(x).max(2).values


class ScalarDSS(BlockNet):
    """DSS that lifts anew before each convolution and takes the maximum over levels after it."""

    convolution = staticmethod(partial(DilatedConv, project=True))
