"""What several baselines of Table 5 share: the order of a block, and layers that can be computed in two ways."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from scalestudy.models.frame import MnistScaleNet
from scalestudy.models.pooling import Axis, block_pool, pooling_windows
from scalestudy.models.strongest import PatchPlan, PooledPlan, make_plan

Algorithm = Literal["fourier", "direct"]
ALGORITHMS = ("fourier", "direct")
"""Two ways to the same numbers: "direct" takes the steps of the released code, "fourier" is fast."""

KERNEL_SIZE = 7
"""Height and width of the learned kernels of all baselines but SS-CNN, in pixels (released code)."""


class PooledLayer(nn.Module):
    """A layer of convolutions that can also deliver its rectified and max pooled response, faster than by itself.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        How `activate` computes; never changes its result beyond rounding.  "direct" pools the forward pass, which takes
        the steps of the released code.
    doubled : bool
        Whether the input is a pixel-doubled image, as in the first block; "fourier" then looks at every second pixel.
    """

    def __init__(self, algorithm: Algorithm, doubled: bool) -> None:
        super().__init__()
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {ALGORITHMS}, got {algorithm!r}")
        self.algorithm, self.doubled = algorithm, doubled

    def activate(self, x: Tensor, block: int) -> Tensor:
        """``block_pool(self(x).relu(), block)``: maxima commute with ReLU and with adding a bias."""
        pooled = block_pool(self(x), block) if self.algorithm == "direct" else self.pooled(x, block)
        return pooled.relu()

    def pooled(self, x: Tensor, block: int) -> Tensor:
        """Max pooled response, fast; exact where it is positive."""
        raise TypeError(f"{type(self).__name__} does not say how it is computed fast")


class BlockNet(MnistScaleNet):
    """A system whose three blocks are convolution, ReLU, max pooling, batch norm.

    Subclasses set ``conv1, norm1, conv2, norm2, conv3, norm3``.
    """

    conv1: PooledLayer
    norm1: nn.Module
    conv2: PooledLayer
    norm2: nn.Module
    conv3: PooledLayer
    norm3: nn.Module

    def features(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1.activate(x, 1))
        x = self.norm2(self.conv2.activate(x, 2))
        return self.norm3(self.conv3.activate(x, 3))


@lru_cache(maxsize=32)
def plain_plan(
    size: int, block: int, kernel_size: int, channels: int, dtype: torch.dtype, device: torch.device
) -> PooledPlan | PatchPlan:
    """Plan of a convolution without any resampling."""
    identity = torch.eye(size, dtype=torch.float64)
    axis = Axis(pooling_windows(size, block), torch.eye(kernel_size, dtype=torch.float64), identity, identity)
    return make_plan(axis, channels, torch.empty(0, dtype=dtype, device=device))
