"""The dense algorithm of the released code, K x K kernels, and what a layer is exported as."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.basis import SampledBasis, SeparableBasis
from scalestudy.layers.precision import full_precision


def dense_kernels(weight: Tensor, basis: SeparableBasis | SampledBasis) -> Tensor:
    """Kernels (S, O, I, K, K): weights (O, I, F) times the basis."""
    with full_precision(weight.device):
        return torch.einsum("oif,fshw->soihw", weight, basis.dense().to(weight.dtype))


def correlate_dense(x: Tensor, weight: Tensor, basis: SeparableBasis | SampledBasis) -> Tensor:
    """Scale convolution by K x K kernels, as the released code computes it; see `correlate_separable`."""
    kernels = dense_kernels(weight, basis)
    inputs, padding = x.unbind(2) if x.dim() == 5 else [x] * len(kernels), kernels.shape[-1] // 2
    with full_precision(x.device):
        responses = [functional.conv2d(x, kernel, padding=padding) for x, kernel in zip(inputs, kernels, strict=True)]
    return torch.stack(responses, 2)


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
