"""SS-CNN (Ghosh and Gupta 2019): scale-steerable filters, log-radial harmonics."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.models.blocks import Algorithm, BlockNet, PooledLayer, plain_plan
from scalestudy.models.strongest import strongest_of_doubled, strongest_response

STEERABLE_CHANNELS = (30, 60, 90)
FILTER_SIZES = (7, 9, 11, 13, 15, 17)
"""Kernel sizes in pixels: the scales of the filters."""

REFERENCE_SIZE = 11
"""Filter size in pixels at which the harmonics are not turned."""

ORDERS = (0.5, 1.0, 2.0)
"""Orders k of the harmonics: turns of phase while the radius runs over its range, in log."""

NUM_ANGLES = 9
ANGULAR_SIGMA = math.pi / 16
PHASE = -math.pi / 4


def log_radial_harmonics() -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of the filters, (3 orders, 17, 17, 9 angles) each, float64.

    Gaussian in the angle around phi_f and phi_f + pi, 1 / R in the radius, e^(i (kappa ln R + phase)) with
    kappa = 2 pi k / ln(R_max); cut off at R = 8 pixels; each divided by its L2 norm.  R_max is that of the corner, not
    of the disc, and the centre counts as R = 1 (released code).
    """
    half = max(FILTER_SIZES) // 2
    offsets = torch.arange(-half, half + 1, dtype=torch.float64)
    rows, cols = torch.meshgrid(offsets, offsets, indexing="ij")
    radius = torch.hypot(rows, cols)
    inside = (radius <= half)[..., None]
    radius[half, half] = 1
    angle = torch.atan2(cols, -rows)[..., None]
    centres = torch.linspace(0, math.pi, NUM_ANGLES, dtype=torch.float64)
    turns = torch.stack([(angle - centres + turn).abs() for turn in (0, 2 * math.pi, -math.pi, math.pi)])
    envelope = (-turns.amin(0).square() / (2 * ANGULAR_SIGMA**2)).exp() / radius[..., None] * inside  # (17, 17, 9)
    kappa = 2 * math.pi * torch.tensor(ORDERS, dtype=torch.float64) / radius.max().log()
    phases = (kappa[:, None, None] * radius.log() + PHASE)[..., None]  # (3, 17, 17, 1)
    parts = envelope * phases.cos(), envelope * phases.sin()
    return tuple(part / torch.linalg.vector_norm(part, dim=(1, 2), keepdim=True) for part in parts)


class SteerableConv(PooledLayer):
    """Convolution with one steerable filter at six sizes; maximum over the sizes.

    Size K: with theta_k = -kappa_k ln(K / 11), the filter is the central K x K pixels of
    sum over k, f of (mr cos theta_k - mi sin theta_k) real_kf - (mr sin theta_k + mi cos theta_k) imag_kf.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    algorithm, doubled
        See `PooledLayer`.

    Attributes
    ----------
    mult_real, mult_imag : Parameter
        mr and mi, (3, O, I, 9).
    const_real : Parameter
        (O, I), never used, as in the released code, whose parameter counts include it.
    filter_real, filter_imag : Tensor
        `log_radial_harmonics`, which the released code counts as frozen parameters.

    Shape
    -----
    (B, I, H, W) -> (B, O, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, algorithm: Algorithm = "fourier", doubled: bool = False
    ) -> None:
        super().__init__(algorithm, doubled)
        shape = (len(ORDERS), out_channels, in_channels, NUM_ANGLES)
        bound = math.sqrt(2 / (NUM_ANGLES * in_channels * out_channels))
        self.mult_real = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.mult_imag = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.const_real = nn.Parameter(torch.empty(out_channels, in_channels).uniform_(-1e-5, 1e-5))
        for name, part in zip(("filter_real", "filter_imag"), log_radial_harmonics(), strict=True):
            self.register_buffer(name, part.to(torch.get_default_dtype()), persistent=False)

    def kernels(self, size: int) -> Tensor:
        """Filters of one size K, (O, I, K, K)."""
        turn = self._turns(size).view(-1, 1, 1, 1)
        real = self.mult_real * turn.cos() - self.mult_imag * turn.sin()
        imag = self.mult_real * turn.sin() + self.mult_imag * turn.cos()
        edge = (max(FILTER_SIZES) - size) // 2
        kernels = torch.einsum("koif,khwf->oihw", real, self.filter_real)
        kernels = kernels - torch.einsum("koif,khwf->oihw", imag, self.filter_imag)
        return kernels[..., edge : edge + size, edge : edge + size]

    def _turns(self, size: int) -> Tensor:
        outermost = math.log(math.hypot(max(FILTER_SIZES) // 2, max(FILTER_SIZES) // 2))
        log_scale = math.log(size / REFERENCE_SIZE)
        return self.mult_real.new_tensor([-2 * math.pi * order / outermost * log_scale for order in ORDERS])

    def forward(self, x: Tensor) -> Tensor:
        responses = [functional.conv2d(x, self.kernels(size), padding=size // 2) for size in FILTER_SIZES]
        return torch.stack(responses).max(0).values

    def pooled(self, x: Tensor, block: int) -> Tensor:
        largest = max(FILTER_SIZES)
        kernels = torch.cat([functional.pad(self.kernels(size), 4 * [(largest - size) // 2]) for size in FILTER_SIZES])
        if self.doubled:
            return strongest_of_doubled(x, kernels, len(FILTER_SIZES))
        plan = plain_plan(x.shape[-1], block, largest, x.shape[1], x.dtype, x.device)
        return strongest_response(x, kernels, plan, len(FILTER_SIZES))[0]


class SSCNN(BlockNet):
    """Network of scale-steerable filters.

    Ghosh and Gupta, "Scale steerable filters for locally scale-invariant convolutional neural networks" (2019), as in
    the released code of SESN.

    Parameters
    ----------
    algorithm : {"fourier", "direct"}
        See `PooledLayer`.

    Attributes
    ----------
    unused_norm : BatchNorm2d
        Never used, as in the released code, whose parameter counts include it.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    def __init__(self, *, algorithm: Algorithm = "fourier") -> None:
        super().__init__(SteerableConv, algorithm, STEERABLE_CHANNELS, bias=True)
        self.unused_norm = nn.BatchNorm2d(STEERABLE_CHANNELS[-1])
