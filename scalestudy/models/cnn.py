"""The CNN of Table 5: the common frame without any scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.models.blocks import KERNEL_SIZE, Algorithm, BlockNet, PooledLayer, plain_plan
from scalestudy.models.strongest import strongest_of_doubled, strongest_response


def kernel_bank(in_channels: int, out_channels: int) -> nn.Parameter:
    """7 x 7 kernels, (O, I, 7, 7), initialised as PyTorch does: uniform within 1 / sqrt(49 I)."""
    weight = torch.empty(out_channels, in_channels, KERNEL_SIZE, KERNEL_SIZE)
    return nn.Parameter(nn.init.kaiming_uniform_(weight, a=5**0.5))


def bias_vector(in_channels: int, out_channels: int) -> nn.Parameter:
    """One bias per output channel, initialised as PyTorch does: uniform within 1 / sqrt(49 I)."""
    bound = (KERNEL_SIZE**2 * in_channels) ** -0.5
    return nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))


class SpatialConv(PooledLayer):
    """7 x 7 convolution, stride 1, padding 3, with bias.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    algorithm, doubled
        See `PooledLayer`.

    Shape
    -----
    (B, I, H, W) -> (B, O, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(algorithm, doubled)
        self.weight = kernel_bank(in_channels, out_channels)
        self.bias = bias_vector(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, padding=KERNEL_SIZE // 2)

    def pooled(self, x: Tensor, block: int) -> Tensor:
        if self.doubled:
            maximum = strongest_of_doubled(x, self.weight)
        else:
            plan = plain_plan(x.shape[-1], block, KERNEL_SIZE, x.shape[1], x.dtype, x.device)
            maximum, _ = strongest_response(x, self.weight, plan)
        return maximum + self.bias[:, None, None]


class CNN(BlockNet):
    """Plain convolutional network: three 7 x 7 convolutions with bias.

    Released code of SESN (Sosnovik et al. 2020); the paper prints no details.  1 -> 32 -> 63 -> 95 channels,
    each block convolution (padding 3), ReLU, max pooling, batch norm; PyTorch's default initialisation.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(SpatialConv, algorithm)
