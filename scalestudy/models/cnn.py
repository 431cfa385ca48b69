"""The CNN of Table 5: the common frame without any scale."""

from __future__ import annotations

from torch import nn

from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import KERNEL_SIZE


class PlainConv(nn.Conv2d):
    """7 x 7 convolution with bias that keeps the size of the images."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2)


class CNN(BlockNet):
    """Three plain convolutions, initialised as PyTorch does (released code of SESN)."""

    convolution = PlainConv
