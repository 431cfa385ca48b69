"""What several baselines of Table 5 share: the order of a block, and layers that can be computed in two ways."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from scalestudy.models.frame import CHANNELS, MnistScaleNet, classifier
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

    Parameters
    ----------
    layer : type of PooledLayer
        Of all three convolutions.
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.
    channels : tuple of three int
        Output channels of the blocks.
    first_layer : type of PooledLayer, optional
        Of the first convolution, where it is another one.
    norm : type
        Of batch norm.
    copies : int
        Groups of so many channels that batch norm sees side by side.
    bias : bool
        Of the classifier's first linear layer.
    """

    def __init__(
        self,
        layer: type[PooledLayer],
        algorithm: Algorithm,
        channels: tuple[int, int, int] = CHANNELS,
        *,
        first_layer: type[PooledLayer] | None = None,
        norm: type[nn.Module] = nn.BatchNorm2d,
        copies: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = (first_layer or layer)(1, first, algorithm=algorithm, doubled=True)
        self.norm1 = norm(copies * first)
        self.conv2 = layer(first, second, algorithm=algorithm)
        self.norm2 = norm(copies * second)
        self.conv3 = layer(second, third, algorithm=algorithm)
        self.norm3 = norm(copies * third)
        self.head = classifier(third, bias=bias)

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
