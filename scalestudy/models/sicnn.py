"""SiCNN (Xu et al. 2014): columns of one convolution with kernels rescaled to different sizes."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from scalestudy.models.blocks import KERNEL_SIZE, Algorithm, BlockNet, PooledLayer
from scalestudy.models.cnn import kernel_bank
from scalestudy.models.pooling import Axis, pooling_windows
from scalestudy.models.strongest import (
    PatchPlan,
    PooledPlan,
    doubling,
    make_plan,
    strongest_of_doubled,
    strongest_response,
)

COLUMN_SCALES = (0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33)
"""Size factor of the kernels of each column (released code of SESN); SI-ConvNet has the same factors for images."""

COLUMN_KERNEL_SIZE = int(KERNEL_SIZE * max(COLUMN_SCALES))
"""Height and width of every column's kernel, 23 pixels."""


def rescale_kernels(weight: Tensor, factor: float) -> Tensor:
    """Kernels of one column, as the released code makes them.

    The 7 x 7 kernel is zero-padded to 23 x 23 and resized as an image to floor(23 factor): below 1 bilinear with
    aligned corners, then zero-padded back; above 1 by nearest neighbours (source index floor(i / factor)), then
    cropped.  Each slice is then rescaled to the L1 norm that it had before.

    Parameters
    ----------
    weight : Tensor
        (O, I, 7, 7).
    factor : float
        Size factor q > 0.

    Returns
    -------
    Tensor
        (O, I, 23, 23).
    """
    size = COLUMN_KERNEL_SIZE
    padded = functional.pad(weight, 4 * [(size - KERNEL_SIZE) // 2])
    if factor == 1:
        return padded
    resized_size, before, source = _placement(factor)
    if factor < 1:
        resized = functional.interpolate(padded, resized_size, mode="bilinear", align_corners=True)
    else:
        resized = padded[..., source, :][..., source]
    resized = functional.pad(resized, 2 * [before, size - resized_size - before])
    norms = [kernels.abs().sum((2, 3), keepdim=True) for kernels in (padded, resized)]
    return resized * (norms[0] / norms[1])


def _placement(factor: float) -> tuple[int, int, Tensor]:
    """Size of a resized kernel, pixels to pad before it (negative: to crop), and nearest source indices."""
    size = COLUMN_KERNEL_SIZE
    resized_size = math.floor(size * factor)
    before = (size - resized_size) // 2 if factor < 1 else -math.ceil((resized_size - size) / 2)
    return resized_size, before, (torch.arange(resized_size, dtype=torch.float64) / factor).long()


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept, and may serve a training step later
def enlarging(factor: float, dtype: torch.dtype) -> Tensor:
    """What `rescale_kernels` does along each axis but for the norm, without outer rows of zeros: (2 h + 1, 7), float64.

    Interpolated in the precision `dtype`, as the kernels would be.
    """
    size = COLUMN_KERNEL_SIZE
    padded = functional.pad(torch.eye(KERNEL_SIZE, dtype=dtype), 2 * [(size - KERNEL_SIZE) // 2])  # (7, 23)
    resized_size, before, source = _placement(factor)
    if factor < 1:
        resized = functional.interpolate(padded[None], resized_size, mode="linear", align_corners=True)[0]
    else:
        resized = padded[:, source]
    matrix = functional.pad(resized, [before, size - resized_size - before]).T.double()  # (23, 7)
    half = int((matrix.any(1).nonzero() - size // 2).abs().max())
    return matrix[size // 2 - half : size // 2 + half + 1]


class ColumnConv(PooledLayer):
    """One 7 x 7 kernel bank, no bias, used by seven columns at seven kernel sizes.

    y[b, q, o] = sum_i x[b, q, i] * kernel_q[o, i], see `rescale_kernels`; zero padding 11; column q sees column q.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O of one column, >= 1.
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.  "fourier" leaves out what is zero around small kernels, too.
    doubled : bool
        First layer: all columns see the same pixel-doubled image.

    Shape
    -----
    (B, 7 I, H, W), or (B, I, H, W) in the first layer -> (B, 7 O, H, W), column-major.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(algorithm, doubled)
        self.weight = kernel_bank(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        kernels = torch.cat([rescale_kernels(self.weight, factor) for factor in COLUMN_SCALES])  # (7 O, I, 23, 23)
        groups = 1 if self.doubled else len(COLUMN_SCALES)
        return functional.conv2d(x, kernels, padding=COLUMN_KERNEL_SIZE // 2, groups=groups)

    def pooled(self, x: Tensor, block: int) -> Tensor:
        columns = [x] * len(COLUMN_SCALES) if self.doubled else x.chunk(len(COLUMN_SCALES), 1)
        responses = []
        for factor, column in zip(COLUMN_SCALES, columns, strict=True):
            embedding = enlarging(factor, x.dtype)
            enlarged = torch.einsum("yh,xw,oihw->oiyx", *[embedding.to(self.weight)] * 2, self.weight)
            norms = [kernels.abs().sum((2, 3), keepdim=True) for kernels in (self.weight, enlarged)]
            weight = self.weight * (norms[0] / norms[1])
            if self.doubled and factor == 1:
                responses.append(strongest_of_doubled(column, weight))
                continue
            if self.doubled:
                column = column[:, :, ::2, ::2]
            plan = _plan(x.shape[-1], block, factor, self.doubled, x.shape[1], x.dtype, x.device)
            responses.append(strongest_response(column, weight, plan)[0])
        return torch.cat(responses, 1)


@lru_cache(maxsize=64)
def _plan(
    size: int, block: int, factor: float, doubled: bool, channels: int, dtype: torch.dtype, device: torch.device
) -> PooledPlan | PatchPlan:
    identity = torch.eye(size, dtype=torch.float64)
    before = identity @ doubling(size) if doubled else identity
    axis = Axis(pooling_windows(size, block), enlarging(factor, dtype), before, identity)
    return make_plan(axis, channels, torch.empty(0, dtype=dtype, device=device))


class SiCNN(BlockNet):
    """Seven columns with rescaled kernels, which only meet before the classifier, by a maximum.

    Xu et al., "Scale-invariant convolutional neural networks" (2014), as in the released code of SESN.  Three
    `ColumnConv` blocks; batch norm has its own statistics and parameters for each column; the maximum over columns.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(ColumnConv, algorithm, copies=len(COLUMN_SCALES))

    def features(self, x: Tensor) -> Tensor:
        columns = super().features(x).unflatten(1, (len(COLUMN_SCALES), -1))  # (B, 7, C, 2, 2)
        return columns.max(1).values
