"""SEVF (Marcos et al. 2018): convolution on resized images; each output is a vector that points at its scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.models.frame import BlockNet, MnistScaleNet
from scalestudy.models.kernels import KERNEL_SIZE, kernel_bank, resized
from scalestudy.models.pooling import WINDOWS, larger

# size factors q of the images, about three per octave (released code of SESN)
RESIZE_FACTORS = tuple(1.26**j for j in range(-4, 4))
# angle in radians that stands for each factor; together they span 120 degrees
ANGLES = tuple(j * (2 * math.pi / 3) / 7 for j in range(-4, 4))

VECTOR_CHANNELS = (23, 45, 68)  # of the net whose maps are vectors
NORM_EPS = 1e-5
NORM_MOMENTUM = 0.5

Resize = Callable[[Tensor, int], Tensor]


def interpolated(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of (B, C, H, H) to (B, C, size, size), corners not aligned, with the released code's rounding."""
    return functional.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def multiplied(x: Tensor, size: int) -> Tensor:
    """`interpolated` as two matrix products, which a GPU does faster, and in the backward pass always alike."""
    return resized(x, size, size, align_corners=False)


def strongest(x: Tensor, weights: list[Tensor], resize: Resize) -> tuple[Tensor, Tensor]:
    """Rectified maximum over scales of R_q(x, w_q), and the angle of its scale, (B, O, H, H) each.

    R_q(x, w): resize x by q, convolve, resize back.
    """
    height, size = x.shape[-2:]
    if height != size:
        raise ValueError(f"layers of SEVF resize square images, got {height} x {size} pixels")
    best = angle = None
    for factor, direction, weight in zip(RESIZE_FACTORS, ANGLES, weights, strict=True):
        response = functional.conv2d(resize(x, round(size * factor)), weight, padding=KERNEL_SIZE // 2)
        response = resize(response, size)
        if best is None:
            best, angle = response, torch.full_like(response, direction)
        else:
            angle.masked_fill_(response > best, direction)
            best = larger(best, response)
    return best.relu(), angle


class ScalarFieldConv(nn.Module):
    """SEVF convolution of a scalar field, see `strongest`: (B, I, H, H) -> magnitude and angle, each (B, O, H, H).

    Where x is constant, as around a digit, all responses are equal but for rounding, which chooses the angle: hence
    resized just as in the released code.  In float64 the vector net's logits are 10 % (evaluation) to 40 % (training)
    of the largest one away from those in float32.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = kernel_bank(in_channels, out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return strongest(x, [self.weight] * len(RESIZE_FACTORS), interpolated)


class MagnitudeConv(ScalarFieldConv):
    """`ScalarFieldConv` that forgets the angle."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


class VectorFieldConv(nn.Module):
    """SEVF convolution of a vector field (u, v), whose kernels are turned by the angle a of each scale.

    r = R_q(u, wu cos a + wv sin a) + R_q(v, wv cos a - wu sin a), then as `ScalarFieldConv`, which keeps the rounding.
    (B, 2, I, H, H), u and v on axis 1 -> magnitude and angle, each (B, O, H, H).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight_u = kernel_bank(in_channels, out_channels)
        self.weight_v = kernel_bank(in_channels, out_channels)

    def turned_weights(self) -> list[Tensor]:
        """Kernels of each scale for u and then v, (O, 2 I, 7, 7): the sum of two responses is one of 2 I channels."""
        turns, u, v = [(math.cos(angle), math.sin(angle)) for angle in ANGLES], self.weight_u, self.weight_v
        return [torch.cat([u * cos + v * sin, v * cos - u * sin], 1) for cos, sin in turns]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return strongest(x.flatten(1, 2), self.turned_weights(), multiplied)


def as_vectors(magnitude: Tensor, angle: Tensor) -> Tensor:
    """(B, C, H, W) twice -> (B, 2, C, H, W), components u and v."""
    return torch.stack([magnitude * angle.cos(), magnitude * angle.sin()], 1)


def longest_vectors(magnitude: Tensor, angle: Tensor, block: int) -> Tensor:
    """The longest vector of each window of `block_pool`, (B, 2, C, H', W').

    Length is that of the components: where magnitudes are equal, their rounding chooses, as in the released code.
    """
    width, padding = WINDOWS[block]
    lengths = length(as_vectors(magnitude.detach(), angle))
    _, index = functional.max_pool2d(lengths, width, padding=padding, return_indices=True)
    return as_vectors(*(part.flatten(2).gather(2, index.flatten(2)).view_as(index) for part in (magnitude, angle)))


class VectorNorm(nn.Module):
    """Batch norm of vector fields (B, 2, C, H, W): divides by the standard deviation of the length, moves no mean.

    Training divides by sqrt(eps + var), var the biased variance of sqrt(u^2 + v^2) over batch and pixels, with its
    gradient; evaluation takes the running variance (unbiased, momentum 0.5).  `weight` is never used, as in the
    released code, whose parameter counts include it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1), requires_grad=False)
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, vectors: Tensor) -> Tensor:
        var = self.running_var
        if self.training and len(vectors):  # of no images there is no variance
            lengths = length(vectors)
            count = lengths.numel() // lengths.shape[1]
            var = lengths.var((0, 2, 3), correction=0, keepdim=True)
            with torch.no_grad():
                self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var), NORM_MOMENTUM)
        return vectors / (var + NORM_EPS).sqrt().unsqueeze(1)


def length(vectors: Tensor) -> Tensor:
    """sqrt(u^2 + v^2) of (B, 2, C, H, W), with gradient 0 where the vector is 0."""
    return vectors.square().sum(1).clamp(min=torch.finfo(vectors.dtype).tiny).sqrt()


class SEVF(MnistScaleNet):
    """Scale equivariance by vector fields, all maps but the first being vectors.

    Marcos et al., "Scale equivariance in CNNs with vector fields" (2018), as in the released code of SESN.  Blocks are
    convolution, pooling to the longest vectors, `VectorNorm` (none after the third, which ends on lengths).
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__(in_channels, num_classes, image_size)
        first, second, third = VECTOR_CHANNELS
        self.conv1, self.norm1 = ScalarFieldConv(in_channels, first), VectorNorm(first)
        self.conv2, self.norm2 = VectorFieldConv(first, second), VectorNorm(second)
        self.conv3 = VectorFieldConv(second, third)
        self.head = self.classifier(third, bias=True)

    def features(self, x: Tensor) -> Tensor:
        x = self.norm1(longest_vectors(*self.conv1(x), 1))
        x = self.norm2(longest_vectors(*self.conv2(x), 2))
        return length(longest_vectors(*self.conv3(x), 3))


class ScalarSEVF(BlockNet):
    """SEVF without vectors: every layer keeps the magnitude only; no batch norm after the third block (released)."""

    convolution = MagnitudeConv
    bias = True

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__(in_channels, num_classes, image_size)
        self.norm3 = nn.Identity()
