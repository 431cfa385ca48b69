"""SEVF (Marcos et al. 2018): convolution on resized images; each output is a vector that points at its scale."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.models.blocks import KERNEL_SIZE, Algorithm, BlockNet, PooledLayer
from scalestudy.models.cnn import kernel_bank
from scalestudy.models.frame import MnistScaleNet, classifier
from scalestudy.models.pooling import Axis, block_pool, block_window, largest, pooling_windows
from scalestudy.models.strongest import (
    PatchPlan,
    PooledPlan,
    doubling,
    make_plan,
    strongest_of_doubled,
    strongest_response,
)

RESIZE_FACTORS = tuple(1.26**j for j in range(-4, 4))
"""Size factors q of the images, about three per octave (released code of SESN)."""

ANGLES = tuple(j * (2 * math.pi / 3) / 7 for j in range(-4, 4))
"""Angle in radians that stands for each factor; together they span 120 degrees."""

VECTOR_CHANNELS = (23, 45, 68)
"""Channels of the net whose maps are vectors."""

NORM_EPS = 1e-5
NORM_MOMENTUM = 0.5


def resize(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of (B, C, H, W) to (B, C, size, size), corners not aligned, no smoothing."""
    return functional.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def resizing(size: int, new_size: int, dtype: torch.dtype) -> Tensor:
    """What `resize` does along each axis, (new_size, size), float64; interpolated in the precision `dtype`."""
    identity = torch.eye(size, dtype=dtype)
    return functional.interpolate(identity[None], new_size, mode="linear", align_corners=False)[0].T.double()


def respond(x: Tensor, weight: Tensor, factor: float) -> Tensor:
    """R_q(x, w): resize x by q, convolve, resize back.  (B, I, H, H), (O, I, 7, 7) -> (B, O, H, H)."""
    size = x.shape[-1]
    resized = resize(x, round(size * factor))
    return resize(functional.conv2d(resized, weight, padding=KERNEL_SIZE // 2), size)


class ScalarFieldConv(PooledLayer):
    """SEVF convolution of a scalar field: strongest response over scales, and which scale it was.

    r_j = R_(q_j)(x, w), see `respond`;  magnitude = relu(max_j r_j);  angle = a_j of the maximum.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    algorithm, doubled
        See `PooledLayer`.

    Shape
    -----
    (B, I, H, H) -> magnitude and angle, each (B, O, H, H).

    Notes
    -----
    Where x is constant, all responses are equal but for rounding, and rounding chooses the angle (not the magnitude).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(algorithm, doubled)
        self.weight = kernel_bank(in_channels, out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return strongest([respond(x, self.weight, factor) for factor in RESIZE_FACTORS])

    def activate(self, x: Tensor, block: int) -> Tensor:
        """Max pooled magnitude, (B, I, H, H) -> (B, O, n, n)."""
        if self.algorithm == "direct":
            return block_pool(self(x)[0], block)
        return _pooled_responses(x, [self.weight] * len(RESIZE_FACTORS), block, self.doubled)[0].relu()


class VectorFieldConv(PooledLayer):
    """SEVF convolution of a vector field (u, v): kernels are turned by the angle of each scale.

    r_j = R_(q_j)(u, wu cos a_j + wv sin a_j) + R_(q_j)(v, wv cos a_j - wu sin a_j), then as `ScalarFieldConv`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    algorithm
        See `PooledLayer`.

    Shape
    -----
    (B, 2, I, H, H), u and v on axis 1 -> magnitude and angle, each (B, O, H, H).
    """

    def __init__(self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(algorithm, doubled=False)
        self.weight_u = kernel_bank(in_channels, out_channels)
        self.weight_v = kernel_bank(in_channels, out_channels)

    def turned_weights(self) -> list[Tensor]:
        """Kernels of each scale for u and then v, (O, 2 I, 7, 7): the sum of two responses is one of 2 I channels."""
        turns = [(math.cos(angle), math.sin(angle)) for angle in ANGLES]
        u, v = self.weight_u, self.weight_v
        return [torch.cat([u * cos + v * sin, v * cos - u * sin], 1) for cos, sin in turns]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        planes, weights = x.flatten(1, 2), self.turned_weights()
        return strongest([respond(planes, *pair) for pair in zip(weights, RESIZE_FACTORS, strict=True)])

    def activate(self, x: Tensor, block: int) -> Tensor:
        """Longest vector of each pooling window, (B, 2, I, H, H) -> (B, 2, O, n, n)."""
        if self.algorithm == "direct":
            return vector_pool(as_vectors(*self(x)), block)
        maximum, index = _pooled_responses(x.flatten(1, 2), self.turned_weights(), block, doubled=False)
        return as_vectors(maximum.relu(), maximum.new_tensor(ANGLES)[index.long()])


def _pooled_responses(x: Tensor, weights: list[Tensor], block: int, doubled: bool) -> tuple[Tensor, Tensor]:
    """Largest response over scales and pooling windows, and the number of its scale."""
    halved = x[:, :, ::2, ::2] if doubled else x
    responses = []
    for factor, weight in zip(RESIZE_FACTORS, weights, strict=True):
        if doubled and factor == 1:
            responses.append(strongest_of_doubled(x, weight))
        else:
            plan = _plan(x.shape[-1], block, factor, doubled, x.shape[1], x.dtype, x.device)
            responses.append(strongest_response(halved, weight, plan)[0])
    return largest(responses)


@lru_cache(maxsize=64)
def _plan(
    size: int, block: int, factor: float, doubled: bool, channels: int, dtype: torch.dtype, device: torch.device
) -> PooledPlan | PatchPlan:
    resized_size = round(size * factor)
    before, after = resizing(size, resized_size, dtype), resizing(resized_size, size, dtype)
    axis = Axis(
        pooling_windows(size, block),
        torch.eye(KERNEL_SIZE, dtype=torch.float64),
        before @ doubling(size) if doubled else before,
        after,
    )
    return make_plan(axis, channels, torch.empty(0, dtype=dtype, device=device))


def strongest(responses: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rectified maximum over scales and the angle that stands for its scale."""
    maximum, index = largest(responses)
    return maximum.relu(), maximum.new_tensor(ANGLES)[index.long()]


def as_vectors(magnitude: Tensor, angle: Tensor) -> Tensor:
    """(B, C, H, W) twice -> (B, 2, C, H, W), components u and v."""
    return torch.stack([magnitude * angle.cos(), magnitude * angle.sin()], 1)


def vector_pool(vectors: Tensor, block: int) -> Tensor:
    """Keep the longest vector of each window; windows as in `block_pool`.  (B, 2, C, H, W) -> (B, 2, C, H', W')."""
    length = _length(vectors.detach())
    width, padding = block_window(block)
    pooled, index = functional.max_pool2d(length, width, padding=padding, return_indices=True)
    index = index.flatten(2).unsqueeze(1).expand(-1, 2, -1, -1)
    return vectors.flatten(3).gather(3, index).view(*vectors.shape[:3], *pooled.shape[2:])


class VectorNorm(nn.Module):
    """Batch norm of vector fields: divides by the standard deviation of the length, moves no mean.

    Training divides by sqrt(eps + var), var the biased variance of sqrt(u^2 + v^2) over batch and pixels, with its
    gradient; evaluation takes the running variance (unbiased, momentum 0.5).

    Parameters
    ----------
    channels : int
        C.

    Attributes
    ----------
    weight : Parameter
        (1, C, 1, 1), never used, as in the released code, whose parameter counts include it.

    Shape
    -----
    (B, 2, C, H, W) -> (B, 2, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, vectors: Tensor) -> Tensor:
        var = self.running_var
        if self.training:
            length = _length(vectors)
            count = length.numel() // length.shape[1]
            var = length.var((0, 2, 3), correction=0, keepdim=True)
            with torch.no_grad():
                self.running_var.lerp_(var * (count / (count - 1)), NORM_MOMENTUM)
        return vectors / (var + NORM_EPS).sqrt().unsqueeze(1)


def _length(vectors: Tensor) -> Tensor:
    """sqrt(u^2 + v^2) of (B, 2, C, H, W), with gradient 0 where the vector is 0."""
    u, v = vectors.unbind(1)
    return (u.square() + v.square()).clamp(min=torch.finfo(vectors.dtype).tiny).sqrt()


class SEVF(MnistScaleNet):
    """Scale equivariance by vector fields, all maps but the first being vectors.

    Marcos et al., "Scale equivariance in CNNs with vector fields" (2018), as in the released code of SESN.  Blocks are
    convolution, vector pooling, `VectorNorm` (none after the third, which ends on lengths).

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Notes
    -----
    The first layer always takes the released steps: on the constant background of a digit all its scales respond
    alike but for rounding, which chooses the angles there, and later layers see them.  Another order of the same
    sums gives other logits: in float64 they are up to 10 % (evaluation) and 40 % (training) of the largest one away
    from float32.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__()
        first, second, third = VECTOR_CHANNELS
        self.conv1 = ScalarFieldConv(1, first, algorithm="direct")
        self.norm1 = VectorNorm(first)
        self.conv2 = VectorFieldConv(first, second, algorithm=algorithm)
        self.norm2 = VectorNorm(second)
        self.conv3 = VectorFieldConv(second, third, algorithm=algorithm)
        self.head = classifier(third, bias=True)

    def features(self, x: Tensor) -> Tensor:
        x = self.norm1(vector_pool(as_vectors(*self.conv1(x)), 1))
        x = self.norm2(self.conv2.activate(x, 2))
        return _length(self.conv3.activate(x, 3))


class ScalarSEVF(BlockNet):
    """SEVF without vectors: every layer keeps the magnitude only.

    Released code of SESN; batch norm after the first two blocks.  Rounding on a constant background changes no output.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(ScalarFieldConv, algorithm, bias=True)
        self.norm3 = nn.Identity()
