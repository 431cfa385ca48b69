"""What a scale convolution is exported as: a plain one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DenseConv(nn.Module):
    """One `nn.Conv2d` with given kernels (S, O, I, K, K) of S scales, and the axes of a scale convolution.

    With `lifts`, (B, C, H, W) -> (B, O, S, H, W); otherwise each scale of (B, C, S, H, W) meets its own kernels.
    """

    def __init__(
        self, kernels: Tensor, bias: Tensor | None, lifts: bool, *, stride: int, groups: int, padding: int
    ) -> None:
        super().__init__()
        self.num_scales, outs, ins, size, _ = kernels.shape
        self.lifts = lifts
        groups = groups if lifts else groups * self.num_scales
        options = {"stride": stride, "padding": padding, "groups": groups, "bias": bias is not None}
        channels = (ins * groups, outs * self.num_scales)
        self.conv = nn.Conv2d(*channels, size, **options, device=kernels.device, dtype=kernels.dtype)
        with torch.no_grad():  # channels before scales or, where each scale is a group, scales first
            self.conv.weight.copy_((kernels.transpose(0, 1) if lifts else kernels).flatten(0, 1))
            if bias is not None:
                self.conv.bias.copy_(bias.repeat_interleave(self.num_scales) if lifts else bias.repeat(self.num_scales))

    def forward(self, x: Tensor) -> Tensor:
        if self.lifts:
            return self.conv(x).unflatten(1, (-1, self.num_scales))
        return self.conv(x.transpose(1, 2).flatten(1, 2)).unflatten(1, (self.num_scales, -1)).transpose(1, 2)
