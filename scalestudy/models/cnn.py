"""The CNN of Table 5: the common frame without any scale."""

from __future__ import annotations

from torch import nn

from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import KERNEL_SIZE


class CNN(BlockNet):
    """Three plain 7 x 7 convolutions with bias, initialised as PyTorch does (released code of SESN)."""

    def convolution(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
