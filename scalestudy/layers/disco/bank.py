"""DISCO's bank of optimised kernels, and the basis made from it."""

from __future__ import annotations

import functools
import itertools
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from scalestudy.layers.basis import VaryingSigmaBasis
from scalestudy.layers.disco.cache import bank_folder, bank_key, load_bank, store_bank
from scalestudy.layers.disco.optimum import minimise
from scalestudy.layers.precision import one_thread

SCALES = (1.0, 1.26, 1.59, 2.0)
"""The released scales, relative to the smallest: 2^(i/3), rounded."""


def disco_bank(
    scales: tuple[float, ...] = SCALES,
    kernel_size: int = 15,
    effective_size: int = 7,
    *,
    folder: str | os.PathLike | None = None,
) -> Tensor:
    """Kernels that do at every scale what the pixels of a small kernel do at scale 1, as closely as pixels allow.

    Function f stands for the pixel (f // n, f % n) of an n x n kernel.  At an integer scale d it is exact: one 1 at d
    times the pixel's distance from the centre.  At all other scales the K x K values are free and minimise
    `equivariance_loss` (DISCO, Sosnovik et al. 2021; loss, sizes and scales follow the released code).  The released
    bank, the result of 40 epochs of Adam, is reproduced to 0.06 % at each scale; the optimisation itself is ours, see
    `scalestudy.layers.disco.optimum`.  It depends on no random numbers, nor on the number of threads.

    Parameters
    ----------
    scales : tuple of float
        At least two scales in increasing order, one of them an integer; no unit: relative to the n x n kernel.
    kernel_size : int
        K in pixels, odd, at least 2 ceil(s_max (n - 1) / 2) + 1.
    effective_size : int
        n, odd and >= 3.
    folder : path-like, optional
        Folder of solved banks, see `cache.bank_folder`.  A bank is solved once and then read from
        there; one that is damaged is solved again.

    Returns
    -------
    Tensor
        float64, shape (F = n^2, S, K, K), the caller's own.

    Raises
    ------
    ValueError
        If the scales are no increasing sequence with an integer, a size is out of range, or the basis does not fit its
        kernel.

    Examples
    --------
    >>> bank = disco_bank(scales=(1.0, 2.0), kernel_size=5, effective_size=3)
    >>> bank[0].argmax(-1).amax(-1).tolist()
    [1, 0]
    """
    scales = _checked(scales, kernel_size, effective_size)
    return _solved(scales, kernel_size, effective_size, bank_folder(folder)).clone()


def disco_basis(
    mult: float,
    *,
    sigma: float = 1.9,
    max_order: int = 4,
    scales: tuple[float, ...] = SCALES,
    kernel_size: int = 15,
    effective_size: int = 7,
    bank: Tensor | None = None,
) -> Tensor:
    """DISCO's basis: Hermite-Gaussian functions on the n x n grid, carried to every scale by the bank.

    basis_s = W bank_s, where row g of W (n^2 x n^2) holds the pixels of function g of basis B at `sigma`.  Then each
    function is divided, at every scale, by its own L2 norm at scale index 0 (released code).

    Parameters
    ----------
    mult : float
        Ratio of adjacent sub-sigmas of basis B, > 1; 1.5 for MNIST-Scale, 1.9 with scale augmentation.
    sigma : float
        Sigma of basis B in pixels of the n x n grid, > 0.
    max_order : int
        Largest total order of basis B, >= 0.
    scales, kernel_size, effective_size
        See `disco_bank`.
    bank : Tensor, optional
        Shape (F, S, K, K), used in place of `disco_bank`.

    Returns
    -------
    Tensor
        float64, shape (F = n^2, S, K, K).

    Raises
    ------
    ValueError
        On the arguments that `disco_bank` or `VaryingSigmaBasis` refuse, a sigma that is not positive, or a bank of
        another shape.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma (pixels of the small kernel) must be finite and > 0, got {sigma!r}")
    hermite = VaryingSigmaBasis(effective_size, max_order, mult)
    scales = _checked(scales, kernel_size, effective_size)
    if bank is None:
        bank = disco_bank(scales, kernel_size, effective_size)
    shape = (effective_size**2, len(scales), kernel_size, kernel_size)
    if bank.shape != shape:
        raise ValueError(
            f"bank must have shape {shape} (functions, scales, K, K), got {tuple(bank.shape)}; "
            "give the scales and sizes that it was made for"
        )
    pixels = hermite.sample(torch.tensor([sigma], dtype=torch.float64), effective_size).dense().flatten(1)  # (F, n^2)
    basis = torch.einsum("fp,pskl->fskl", pixels, bank.double())
    return basis / torch.linalg.vector_norm(basis[:, :1], dim=(2, 3), keepdim=True)


def exact_kernels(scales: tuple[float, ...], kernel_size: int, effective_size: int) -> Tensor:
    """Return the bank's exact kernels (F, S, K, K) at integer scales, and zeros at all others; float64."""
    bank = torch.zeros(effective_size, effective_size, len(scales), kernel_size, kernel_size, dtype=torch.float64)
    place = torch.arange(effective_size)
    for i, ratio in enumerate(scales):
        if ratio.is_integer():
            target = kernel_size // 2 + int(ratio) * (place - effective_size // 2)
            bank[place[:, None], place, i, target[:, None], target] = 1
    return bank.flatten(0, 1)


@functools.lru_cache(maxsize=8)
def _solved(scales: tuple[float, ...], kernel_size: int, effective_size: int, folder: Path) -> Tensor:
    exact = exact_kernels(scales, kernel_size, effective_size)
    free = [i for i, ratio in enumerate(scales) if not ratio.is_integer()]
    if not free:
        return exact
    key = bank_key(scales, kernel_size, effective_size)
    bank = load_bank(folder, key)
    if bank is None:
        with one_thread():
            bank = minimise(exact, scales, free)
        store_bank(folder, key, bank)
    return bank


def _checked(scales: tuple[float, ...], kernel_size: int, effective_size: int) -> tuple[float, ...]:
    """Return the scales as floats, or refuse what cannot be solved."""
    scales = tuple(float(ratio) for ratio in scales)
    rising = all(small < large for small, large in itertools.pairwise(scales))
    if len(scales) < 2 or not rising or scales[0] <= 0 or not math.isfinite(scales[-1]):
        raise ValueError(f"scales must be two or more positive finite numbers in increasing order, got {scales}")
    if not any(ratio.is_integer() for ratio in scales):
        raise ValueError(
            f"scales must include an integer, got {scales}: only there is the kernel known, and without it the "
            "optimum is zero everywhere; give scales relative to the smallest, such as (1.0, 1.26, 1.59, 2.0)"
        )
    for name, size in (("kernel_size", kernel_size), ("effective_size", effective_size)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 3 or size % 2 == 0:
            raise ValueError(f"{name} must be an odd integer >= 3 pixels, got {size!r}")
    half = kernel_size // 2
    reach = math.ceil(scales[-1] * (effective_size // 2))
    if reach > half:
        fitting = 2 * math.floor(half / scales[-1]) + 1
        smaller = f", or effective_size <= {fitting}" if fitting >= 3 else ""
        raise ValueError(
            f"a basis that does not fit its kernel: effective_size={effective_size} at scale {scales[-1]:g} reaches "
            f"{reach} pixels from the centre, kernel_size={kernel_size} only {half}; "
            f"use kernel_size >= {2 * reach + 1}{smaller}, or scales <= {half / (effective_size // 2):g}"
        )
    return scales
