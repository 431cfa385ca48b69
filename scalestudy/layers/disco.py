"""DISCO's basis and the bank of kernels that it is made from (Sosnovik et al., DISCO: accurate Discrete Scale
Convolutions, 2021).

A bank holds one K x K kernel per function f and scale s.  For a pair of scales s_i < s_j with r = s_j / s_i it is
equivariant where shrinking after convolving equals convolving after shrinking:

    D_r(x * bank_j) = D_r(x) * bank_i,

with D_r the bicubic resize by 1 / r.  DISCO's loss is the sum over all pairs of the L2 norm (not squared) of the
difference, over all images, functions and pixels together; convolutions wrap around, and K // 2 + 1 pixels are cut off
at each side of both results.

The released code minimises it on 10,000 images of white noise by Adam, in about 26 hours on a CPU.  Two facts make it a
matter of a second (our choice; same minimum, to 0.06 % of the released bank):

* Resizing and shifting are linear and act on rows and columns separately.  For independent pixels of known mean and
  variance, the expected squared norm of a pair's difference therefore has a closed form, from K x K matrices of
  products of one-dimensional, shifted resizing operators.
* The difference is linear in the bank, so the minimum of a sum of norms is a fixed point of weighted least squares
  with weights 1 / norm (Weiszfeld 1937).  All functions share one system of equations.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.basis import VaryingSigmaBasis
from scalestudy.layers.precision import one_thread

SCALES = (1.0, 1.26, 1.59, 2.0)  # the released scales, relative to the smallest: 2^(i/3), rounded

IMAGE_SIZE = 154  # height and width in pixels of the images on which the released bank was optimised

_TOLERANCE = 1e-12  # largest change of a bank, relative to its largest value
_SMOOTHING = 1e-6  # of the starting loss, added to each norm in quadrature: keeps the weights finite where a norm is 0
_MAX_ITERATIONS = 1000


def disco_basis(
    mult: float, *, sigma: float = 1.9, scales: tuple[float, ...] = SCALES, bank: Tensor | None = None
) -> Tensor:
    """DISCO's basis (F = n^2, S, K, K), float64: functions on an n x n grid, carried to every scale by a bank.

    basis_s = W bank_s, where row g of W (n^2 x n^2) holds the pixels of function g of basis B with sub-sigma ratio
    `mult`, at `sigma` pixels.  Then each function is divided, at every scale, by its own L2 norm at scale index 0
    (released code).  The ratio is 1.5 for MNIST-Scale, 1.9 with scale augmentation.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma (pixels of the small kernel) must be finite and > 0, got {sigma!r}; DISCO's is 1.9")
    with torch.device("cpu"):  # also where a network is made on another device, such as meta
        bank = disco_bank(scales) if bank is None else bank.double()
        size = math.isqrt(len(bank))
        hermite = VaryingSigmaBasis(size, mult=mult)
        pixels = hermite.sample(torch.tensor([sigma], dtype=torch.float64), size).dense().flatten(1)  # (F, n^2)
    basis = torch.einsum("fp,pskl->fskl", pixels, bank)
    return basis / torch.linalg.vector_norm(basis[:, :1], dim=(2, 3), keepdim=True)


def disco_bank(scales: tuple[float, ...] = SCALES, kernel_size: int = 15, effective_size: int = 7) -> Tensor:
    """Kernels (F = n^2, S, K, K) that do at every scale what the pixels of an n x n kernel do at scale 1; float64.

    Function f stands for the pixel (f // n, f % n).  At an integer scale d it is exact: one 1 at d times the pixel's
    distance from the centre.  At all other scales the K x K values are free and minimise the expected loss.  Solved
    once in a process; depends on no random numbers, nor on the number of threads.
    """
    if sorted(set(scales)) != list(scales) or len(scales) < 2 or not any(float(ratio).is_integer() for ratio in scales):
        raise ValueError(
            f"scales must be two or more in increasing order with an integer among them, got {scales}: only there is "
            "the kernel known; give scales relative to the smallest, such as (1.0, 1.26, 1.59, 2.0)"
        )
    reach = math.ceil(scales[-1] * (effective_size // 2))
    if reach > kernel_size // 2 or kernel_size % 2 == 0 or effective_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and >= {2 * reach + 1} pixels to hold an odd effective_size at scale "
            f"{scales[-1]:g}, got kernel_size={kernel_size} and effective_size={effective_size}"
        )
    return _solved(tuple(map(float, scales)), kernel_size, effective_size).clone()


@functools.lru_cache(maxsize=8)
def _solved(scales: tuple[float, ...], kernel_size: int, effective_size: int) -> Tensor:
    exact = exact_kernels(scales, kernel_size, effective_size)
    free = [i for i, ratio in enumerate(scales) if not ratio.is_integer()]
    with one_thread():  # with more, sums round otherwise
        return minimise(exact, scales, free) if free else exact


def exact_kernels(scales: tuple[float, ...], kernel_size: int, effective_size: int) -> Tensor:
    """The bank's exact kernels (F, S, K, K) at integer scales, and zeros at all others."""
    bank = torch.zeros(effective_size, effective_size, len(scales), kernel_size, kernel_size, dtype=torch.float64)
    place = torch.arange(effective_size)
    for i, ratio in enumerate(scales):
        if ratio.is_integer():
            target = kernel_size // 2 + int(ratio) * (place - effective_size // 2)
            bank[place[:, None], place, i, target[:, None], target] = 1
    return bank.flatten(0, 1)


def minimise(bank: Tensor, scales: tuple[float, ...], free: list[int]) -> Tensor:
    """The bank whose kernels at the free scales minimise the expected loss, the others being kept."""
    kernel_size = bank.shape[-1]
    size = max(IMAGE_SIZE, minimum_size(scales, kernel_size, kept=kernel_size))
    losses = [loss for loss in pair_losses(scales, kernel_size, size) if loss.small in free or loss.large in free]
    weights, smoothing = [1.0] * len(losses), 0.0
    for iteration in range(_MAX_ITERATIONS):
        previous, bank = bank, least_squares(bank, losses, weights, free)
        if (bank - previous).abs().max() <= _TOLERANCE * bank.abs().max():
            return bank
        norms = [math.sqrt(loss.square(bank)) for loss in losses]
        if iteration == 0:
            smoothing = _SMOOTHING * sum(norms)
        weights = [1 / math.hypot(norm, smoothing) for norm in norms]
    raise ArithmeticError(f"DISCO's bank for scales {scales} has not settled after {_MAX_ITERATIONS} iterations")


def least_squares(bank: Tensor, losses: list[PairLoss], weights: list[float], free: list[int]) -> Tensor:
    """The bank whose kernels at the free scales minimise the weighted sum of squared norms."""
    functions, num_scales, size, _ = bank.shape
    kept = [i for i in range(num_scales) if i not in free]
    matrix = bank.new_zeros(num_scales, size**2, num_scales, size**2)
    for loss, weight in zip(losses, weights, strict=True):
        loss.add_to(matrix, weight)
    system = matrix[free][:, :, free].reshape(len(free) * size**2, -1)
    known = bank[:, kept].flatten(1) @ matrix[kept][:, :, free].reshape(len(kept) * size**2, -1)  # (F, unknowns)
    solution = -torch.cholesky_solve(known.mT, torch.linalg.cholesky(system)).mT
    return bank.index_copy(1, torch.tensor(free), solution.view(functions, len(free), size, size))


@dataclass(frozen=True)
class PairLoss:
    """The expected squared norm of one pair's difference, a quadratic form in the kernels of its two scales."""

    small: int  # index of the smaller scale
    large: int
    # 1-D products (K, K) of operators by kernel position: shrinking the shifted image with itself, with shifting
    # the shrunk image, and the latter with itself
    products: tuple[Tensor, Tensor, Tensor]
    variance: float  # of a pixel: the 2-D product is variance * products x products
    constant: float  # weight of the squared sum of the difference of the kernels: (mean of a pixel * side compared)^2

    def square(self, bank: Tensor) -> float:
        """The expected squared norm per image of a bank (F, S, K, K), at least 0."""
        small, large = bank[:, self.small], bank[:, self.large]
        outer, mixed, inner = self.products
        total = (large * (outer @ large @ outer.mT)).sum() + (small * (inner @ small @ inner.mT)).sum()
        total = total - 2 * (large * (mixed @ small @ mixed.mT)).sum()
        sums = (large - small).sum((-2, -1)).square().sum()
        return max(0.0, float(self.variance * total + self.constant * sums))

    def add_to(self, matrix: Tensor, weight: float) -> None:
        """Add the weighted form to the matrix (S, K^2, S, K^2) of a sum of forms."""
        outer, mixed, inner = (self.variance * torch.kron(part, part) + self.constant for part in self.products)
        matrix[self.large, :, self.large] += weight * outer
        matrix[self.small, :, self.small] += weight * inner
        matrix[self.large, :, self.small] -= weight * mixed
        matrix[self.small, :, self.large] -= weight * mixed.mT


def pair_losses(scales: tuple[float, ...], kernel_size: int, size: int) -> list[PairLoss]:
    """The expected losses of all pairs of scales, on images of size x size pixels."""
    mean, variance = noise_moments()
    half, cut = kernel_size // 2, border(kernel_size)
    losses = []
    for i, j in itertools.combinations(range(len(scales)), 2):
        identity = torch.eye(size, dtype=torch.float64)[None, None]
        operator = shrink(identity, (shrunk_size(size, scales[j] / scales[i]), size))[0, 0]  # (small, size)
        shifts = range(-half, half + 1)
        outer = torch.stack([operator.roll(shift, 1) for shift in shifts])[:, cut:-cut].flatten(1)
        inner = torch.stack([operator.roll(-shift, 0) for shift in shifts])[:, cut:-cut].flatten(1)
        products = (outer @ outer.mT, outer @ inner.mT, inner @ inner.mT)
        losses.append(PairLoss(i, j, products, variance, (mean * (len(operator) - 2 * cut)) ** 2))
    return losses


def noise_moments() -> tuple[float, float]:
    """Mean and variance, exactly, of a pixel of DISCO's white noise: N(0, 1) * 255 as a byte, divided by 255.

    The cast to a byte drops the fraction (towards zero) and wraps around modulo 256.
    """
    magnitudes = torch.arange(0, 10 * 255, dtype=torch.float64)  # ten standard deviations
    below = torch.special.ndtr(torch.arange(0, 10 * 255 + 1, dtype=torch.float64) / 255)
    probability = below.diff().repeat(2)
    values = torch.cat([magnitudes, -magnitudes]).remainder(256) / 255
    mean = float((probability * values).sum())
    return mean, float((probability * values.square()).sum()) - mean**2


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic resize (A = -0.75, no antialiasing, pixel centres not aligned at the corners) to a size in pixels.

    The grid follows from the whole sizes: the released bank is the optimum of that, to 0.06 %, and 2 % away from the
    optimum where the nominal ratio places the pixels.
    """
    return functional.interpolate(images, size=size, mode="bicubic", align_corners=False)


def shrunk_size(size: int, ratio: float) -> int:
    """floor(size / ratio), forgiving the rounding error of a ratio that divides the size."""
    return math.floor(size / ratio + 1e-9)


def border(kernel_size: int) -> int:
    """Pixels cut off at each side of both results before they are compared: 8 for the released 15 x 15."""
    return kernel_size // 2 + 1


def minimum_size(scales: tuple[float, ...], kernel_size: int, kept: int) -> int:
    """Pixels per side that an image must have for `kept` pixels per side to be compared in every pair."""
    return math.ceil((2 * border(kernel_size) + kept) * max(scales) / min(scales))
