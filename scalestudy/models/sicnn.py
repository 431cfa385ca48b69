"""SiCNN (Xu et al. 2014): columns of one convolution with kernels rescaled to different sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.fast.fourier import correlate_fourier
from scalestudy.layers.fast.plain import kept
from scalestudy.models.frame import BlockNet
from scalestudy.models.kernels import COLUMN_KERNEL_SIZE, COLUMN_SCALES, COLUMN_SIZES, enlarged_pixels, kernel_bank


@kept
def _functions(dtype: torch.dtype, device: torch.device) -> Tensor:
    return enlarged_pixels().to(device, dtype)


class ColumnConv(nn.Module):
    """One 7 x 7 kernel bank, no bias, used by seven columns at seven kernel sizes; column q sees column q.

    y[b, q, o] = sum_i x[b, q, i] * kernel_q[o, i], where kernel_q is the kernel enlarged by `COLUMN_SCALES` and brought
    back to its L1 norm.  (B, 7 I, H, W), or the image (B, I, H, W) for all columns -> (B, 7 O, H, W), column-major.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = kernel_bank(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        weight, lifting = self.weight.flatten(2), x.shape[1] == self.weight.shape[1]
        norm, responses = weight.abs().sum(2), []
        functions = _functions(weight.dtype, weight.device)
        columns = [x] * len(COLUMN_SCALES) if lifting else x.chunk(len(COLUMN_SCALES), 1)
        for q, (column, size) in enumerate(zip(columns, COLUMN_SIZES, strict=True)):
            edge = (COLUMN_KERNEL_SIZE - size) // 2  # of zeros
            basis = functions[:, q, edge : edge + size, edge : edge + size]
            kernels = torch.einsum("oif,fyx->oiyx", weight, basis)
            gain = norm / kernels.abs().sum((2, 3))
            if lifting:  # from few channels, kernels are quicker than spectra
                responses.append(functional.conv2d(column, kernels * gain[..., None, None], padding=size // 2))
            else:
                responses.append(correlate_fourier(column, weight * gain[..., None], basis[:, None]).squeeze(2))
        return torch.cat(responses, 1)


class SiCNN(BlockNet):
    """Seven columns with rescaled kernels, which only meet before the classifier, by a maximum.

    Xu et al., "Scale-invariant convolutional neural networks" (2014), as in the released code of SESN.  Batch norm has
    its own statistics and parameters for each column.
    """

    convolution = ColumnConv
    copies = len(COLUMN_SCALES)

    def features(self, x: Tensor) -> Tensor:
        columns = super().features(x).unflatten(1, (len(COLUMN_SCALES), -1))  # (B, 7, C, 2, 2)
        return columns.max(1).values
