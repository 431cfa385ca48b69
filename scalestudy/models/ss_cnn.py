"""SS-CNN (Ghosh and Gupta 2019): scale-steerable filters, log-radial harmonics."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scalestudy.layers.basis import SampledBasis
from scalestudy.layers.conv import LiftingConv
from scalestudy.layers.scales import FixedScales
from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import FILTER_SIZES, NUM_ANGLES, ORDERS, steered_harmonics


class SteerableConv(LiftingConv):
    """Convolution with one steerable filter at six sizes (see `kernels.steered_harmonics`); maximum over the sizes.

    The weights (O, I, 54) are the released mr and mi, 3 orders by 9 angles each.  `const_real` is never used, as in the
    released code, whose parameter counts include it.  (B, I, H, W) -> (B, O, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        with torch.device("cpu"):  # the basis has values where a network is made on meta, too
            basis = SampledBasis(steered_harmonics())
        with torch.random.fork_rng(devices=[]):  # weights that are replaced below use up no random numbers
            sizes = FixedScales.from_values(FILTER_SIZES)
            super().__init__(in_channels, out_channels, sizes, basis=basis, kernel_size=max(FILTER_SIZES))
        bound = math.sqrt(2 / (NUM_ANGLES * in_channels * out_channels))
        released = torch.empty(2, len(ORDERS), out_channels, in_channels, NUM_ANGLES).uniform_(-bound, bound)
        self.weight = nn.Parameter(released.permute(2, 3, 0, 1, 4).flatten(2))
        unused = torch.empty(out_channels, in_channels).uniform_(-1e-5, 1e-5)
        self.const_real = nn.Parameter(unused, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._projected(x)


class SSCNN(BlockNet):
    """Network of scale-steerable filters.

    Ghosh and Gupta, "Scale steerable filters for locally scale-invariant convolutional neural networks" (2019), as in
    the released code of SESN.  `unused_norm` is never used, as there, where parameter counts include it.
    """

    convolution = SteerableConv
    channels = (30, 60, 90)
    bias = True

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__(in_channels, num_classes, image_size)
        self.unused_norm = nn.BatchNorm2d(self.channels[-1]).requires_grad_(False)
