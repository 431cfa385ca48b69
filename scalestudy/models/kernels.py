"""Kernels that are rescaled pictures, as bases of scale convolutions; and how pictures are rescaled.

A 7 x 7 kernel is a sum of its 49 pixels: rescale those, and a convolution with rescaled kernels is a scale convolution
with a `SampledBasis`, as SESN's is with Hermite-Gaussian functions.  All bases are (functions, scales, K, K), float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.fast.plain import kept

KERNEL_SIZE = 7  # height and width of the learned kernels of all baselines but SS-CNN, in pixels (released code)

# size factors of SiCNN's kernels and of SI-ConvNet's images (released code of SESN)
COLUMN_SCALES = (0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33)
COLUMN_KERNEL_SIZE = int(KERNEL_SIZE * max(COLUMN_SCALES))  # 23 pixels
COLUMN_SIZES = (3, 5, 5, 7, 11, 17, 23)  # what of SiCNN's enlarged kernels is not zero everywhere, in pixels

FILTER_SIZES = (7, 9, 11, 13, 15, 17)  # SS-CNN's kernel sizes in pixels: the scales of its filters
REFERENCE_SIZE = 11  # filter size in pixels at which SS-CNN's harmonics are not turned
ORDERS = (0.5, 1.0, 2.0)  # orders k of the harmonics: turns of phase while the radius runs over its range, in log
NUM_ANGLES = 9


def kernel_bank(in_channels: int, out_channels: int) -> nn.Parameter:
    """7 x 7 kernels, (O, I, 7, 7), initialised as PyTorch does: uniform within 1 / sqrt(49 I)."""
    weight = torch.empty(out_channels, in_channels, KERNEL_SIZE, KERNEL_SIZE)
    return nn.Parameter(nn.init.kaiming_uniform_(weight, a=5**0.5))


@kept
def resampling(
    new_size: int, canvas: int, align_corners: bool, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """What a bilinear resize to `new_size`, cropped or padded to `canvas`, does along each axis, (canvas, size)."""
    identity = torch.eye(size, dtype=torch.float64)[None]
    matrix = functional.interpolate(identity, new_size, mode="linear", align_corners=align_corners)[0].T
    return centred(matrix, canvas).to(device, dtype)


def resized(x: Tensor, new_size: int, canvas: int, *, align_corners: bool) -> Tensor:
    """Bilinear resize of (B, C, H, H), cropped or padded about its centre to (B, C, canvas, canvas)."""
    matrix = resampling(new_size, canvas, align_corners, x.shape[-1], x.dtype, x.device)
    return matrix @ x @ matrix.T


def centred(rows: Tensor, size: int, before: int | None = None) -> Tensor:
    """Crop or zero-pad the rows of a matrix to `size`; `before` are added at the start, by default half of them."""
    before = (size - len(rows)) // 2 if before is None else before
    return functional.pad(rows, [0, 0, before, size - len(rows) - before])


def enlarged_pixels() -> Tensor:
    """Pixels of a kernel that is resized as a picture on a canvas of 23 pixels, (49, 7, 23, 23): SiCNN.

    Below 1 bilinear with aligned corners, above by nearest neighbours (source index floor(i / factor)), as released.
    """
    size = COLUMN_KERNEL_SIZE
    canvas, matrices = centred(torch.eye(KERNEL_SIZE, dtype=torch.float64), size), []
    for factor in COLUMN_SCALES:
        new_size = math.floor(size * factor)
        if factor <= 1:
            matrices.append(resampling(new_size, size, True, size, canvas.dtype, canvas.device) @ canvas)
        else:
            source = (torch.arange(new_size, dtype=torch.float64) / factor).long()
            matrices.append(centred(canvas[source], size, -math.ceil((new_size - size) / 2)))
    return pictures(matrices)


def pictures(matrices: list[Tensor]) -> Tensor:
    """Pixel (r, c) at each scale: the outer product of columns r and c of that scale's matrix, (r c, scales, K, K)."""
    stacked = torch.stack(matrices)
    return torch.einsum("syr,sxc->rcsyx", stacked, stacked).flatten(0, 1)


def log_radial_harmonics() -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of SS-CNN's filters, (3 orders, 17, 17, 9 angles) each.

    Gaussian in the angle around phi_f and phi_f + pi, 1 / R in the radius, e^(i (kappa ln R - pi / 4)) with
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
    envelope = (-turns.amin(0).square() / (2 * (math.pi / 16) ** 2)).exp() / radius[..., None] * inside  # (17, 17, 9)
    phases = (_kappa()[:, None, None] * radius.log() - math.pi / 4)[..., None]  # (3, 17, 17, 1)
    parts = envelope * phases.cos(), envelope * phases.sin()
    return tuple(part / torch.linalg.vector_norm(part, dim=(1, 2), keepdim=True) for part in parts)


def _kappa() -> Tensor:
    return 2 * math.pi * torch.tensor(ORDERS, dtype=torch.float64) / math.log(math.sqrt(2) * (max(FILTER_SIZES) // 2))


def steered_harmonics() -> Tensor:
    """Harmonics turned and cropped for each filter size, (54, 6, 17, 17): SS-CNN; 27 for mr, then 27 for mi.

    Size K is the central K x K pixels of (mr + i mi) e^(i theta) (real + i imag), theta = -kappa ln(K / 11), of which
    the released code takes the real part.
    """
    real, imag = (part.permute(0, 3, 1, 2) for part in log_radial_harmonics())  # (3, 9, 17, 17)
    functions, largest = torch.complex(real, imag), max(FILTER_SIZES)
    scales = []
    for size in FILTER_SIZES:
        turn = torch.exp(-1j * _kappa() * math.log(size / REFERENCE_SIZE))[:, None, None, None]
        edge = (largest - size) // 2
        turned = functional.pad((turn * functions)[..., edge : largest - edge, edge : largest - edge], 4 * [edge])
        scales.append(torch.stack([turned.real, -turned.imag]).flatten(0, 2))  # mr, and i mi
    return torch.stack(scales, 1)
