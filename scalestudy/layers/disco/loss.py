"""DISCO's equivariance loss, evaluated on images, and the noise images on which its authors minimise it.

A bank holds one K x K kernel per function f and scale s.  For a pair of scales s_i < s_j with r = s_j / s_i the bank
is equivariant where shrinking after convolving equals convolving after shrinking:

    D_r(x * bank_j) = D_r(x) * bank_i,

with D_r the bicubic resize by 1 / r.  The loss is the sum over all pairs of the L2 norm (not squared) of the
difference, over all images, functions and pixels together.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

IMAGE_SIZE = 154
"""Height and width in pixels of the images on which the released bank was optimised."""


def white_noise_images(count: int, size: int = IMAGE_SIZE, seed: int = 0) -> Tensor:
    """Draw images of white noise, distributed as in the released code: N(0, 1) * 255 as a byte, divided by 255.

    The cast to a byte drops the fraction (towards zero) and wraps around modulo 256, so that grey levels are nearly
    uniform on 0 .. 1.

    Parameters
    ----------
    count : int
        Number B of images, >= 1.
    size : int
        Height and width in pixels, >= 1.
    seed : int
        Of the generator, >= 0.

    Returns
    -------
    Tensor
        float64, shape (B, 1, size, size).

    Raises
    ------
    ValueError
        On a count or size below 1.

    Examples
    --------
    >>> white_noise_images(2, size=5).shape
    torch.Size([2, 1, 5, 5])
    """
    for name, value in (("count", count), ("size", size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, size, size, generator=generator, dtype=torch.float64)
    return (noise * 255).trunc().remainder(256) / 255


def noise_moments() -> tuple[float, float]:
    """Return mean and variance of a pixel of `white_noise_images`, exactly."""
    magnitudes = torch.arange(0, 10 * 255, dtype=torch.float64)  # ten standard deviations
    below = torch.special.ndtr(torch.arange(0, 10 * 255 + 1, dtype=torch.float64) / 255)
    probability = below.diff().repeat(2)
    values = torch.cat([magnitudes, -magnitudes]).remainder(256) / 255
    mean = float((probability * values).sum())
    return mean, float((probability * values.square()).sum()) - mean**2


def scale_pairs(scales: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """Return (i, j, s_j / s_i) of all pairs of scales i < j."""
    return [(i, j, scales[j] / scales[i]) for i, j in itertools.combinations(range(len(scales)), 2)]


def shrunk_size(size: int, ratio: float) -> int:
    """Return floor(size / ratio), forgiving the rounding error of a ratio that divides the size."""
    return math.floor(size / ratio + 1e-9)


def shrink(images: Tensor, ratio: float, ratio_across: float | None = None) -> Tensor:
    """Bicubic resize by 1 / ratio (A = -0.75, no antialiasing, pixel centres not aligned at the corners).

    The pixel grid follows from the whole sizes, floor(size / ratio) out of size, so the true ratio is slightly
    larger than the nominal one.  The released bank is the optimum of this convention (to 0.06 %) and not of the other
    one, in which the nominal ratio places the pixels (2 % away).

    Parameters
    ----------
    images : Tensor
        Shape (B, C, H, W).
    ratio : float
        >= 1.
    ratio_across : float, optional
        Ratio of the horizontal axis; default: `ratio`.
    """
    height, width = images.shape[-2:]
    across = ratio if ratio_across is None else ratio_across
    size = (shrunk_size(height, ratio), shrunk_size(width, across))
    return functional.interpolate(images, size=size, mode="bicubic", align_corners=False)


def border(kernel_size: int) -> int:
    """Return the pixels cut off at each side of both results before they are compared: 8 for the released 15 x 15."""
    return kernel_size // 2 + 1


def check_bank(bank: Tensor, scales: tuple[float, ...]) -> int:
    """Return K of a bank (F, S, K, K), refusing one that does not belong to the scales."""
    if bank.ndim != 4 or bank.shape[1] != len(scales) or bank.shape[2] != bank.shape[3] or bank.shape[3] % 2 == 0:
        raise ValueError(
            f"bank must have shape (functions, {len(scales)} scales, K, K) with odd K, got {tuple(bank.shape)}; "
            f"the scales are {scales}"
        )
    return bank.shape[-1]


def equivariance_loss(bank: Tensor, scales: tuple[float, ...], images: Tensor) -> float:
    """Evaluate DISCO's loss of a bank on images.

    The convolutions wrap around at the borders; both results are cut by K // 2 + 1 pixels per side (released code;
    see the formula above).  Evaluated in float64: in float32 the norm of so many values reads 0.2 % low.

    Parameters
    ----------
    bank : Tensor
        Shape (F, S, K, K), K odd.
    scales : tuple of float
        S scales in increasing order.
    images : Tensor
        Shape (B, 1, H, W), grey levels 0 .. 1.

    Returns
    -------
    float
        The sum over pairs of scales of the norm over all images, functions and pixels.  It grows with the square root
        of their number.

    Raises
    ------
    ValueError
        If the bank does not belong to the scales or nothing of the images remains.
    """
    kernel_size = check_bank(bank, scales)
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images must have shape (B, 1, H, W), got {tuple(images.shape)}; add the missing axes")
    smallest = minimum_size(scales, kernel_size, kept=1)
    if min(images.shape[-2:]) < smallest:
        raise ValueError(
            f"images of {tuple(images.shape[-2:])} pixels leave nothing to compare for scales {scales} and kernels of "
            f"{kernel_size} pixels; they must have at least {smallest} pixels per side"
        )
    bank, cut = bank.detach().double(), border(kernel_size)
    squares = dict.fromkeys(scale_pairs(tuple(scales)), 0.0)
    for image in images.detach().double().split(1):
        large = {j: _convolve(image, bank[:, j]) for j in range(1, len(scales))}  # each (1, F, H, W)
        for i, j, ratio in squares:
            difference = shrink(large[j], ratio) - _convolve(shrink(image, ratio), bank[:, i])
            squares[i, j, ratio] += float(difference[..., cut:-cut, cut:-cut].square().sum())
    return sum(math.sqrt(square) for square in squares.values())


def minimum_size(scales: tuple[float, ...], kernel_size: int, kept: int) -> int:
    """Return the pixels per side that an image must have for `kept` pixels per side to be compared in every pair."""
    return math.ceil((2 * border(kernel_size) + kept) * max(scales) / min(scales))


def _convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve images (B, 1, H, W), which wrap around, with kernels (F, K, K) (not flipped, as torch does)."""
    half = kernels.shape[-1] // 2
    padded = functional.pad(images, (half, half, half, half), mode="circular")
    return functional.conv2d(padded, kernels[:, None])
