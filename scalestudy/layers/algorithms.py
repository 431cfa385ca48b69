"""The exact algorithms of a scale convolution, and which is the fastest.

All compute the same numbers, to float rounding.  "dense" builds the K x K kernel of every scale and convolves, as the
released code does: the reference.  "separable" uses that basis functions are products, "fourier" goes through spectra
of planes (see the modules of these names in `fast`); the cost of both hardly depends on the scales.  "auto" counts
multiplications: "dense" for small kernels, else "separable" where few channels come in and "fourier" where many do.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.basis import HermiteBasis, SampledBasis, SeparableBasis
from scalestudy.layers.fast.fourier import correlate_fourier, fourier_cost
from scalestudy.layers.fast.separable import correlate_separable, separable_cost
from scalestudy.layers.precision import full_precision

Algorithm = Literal["auto", "separable", "fourier", "dense"]
SEPARABLE_ORDERS = 32  # products of the norms of higher ones leave the range of float32
_FOURIER_HANDICAP = 2.1  # a multiplication of "fourier" takes so much longer than one of the matrices of "separable"
_FFT_HANDICAP = 16  # one of its Fourier transforms
_SMALL_DENSE_HANDICAP = 0.25  # and one of "dense" with kernels of at most
_SMALL_KERNEL = 13  # pixels, beyond which CPU libraries have no fast gradient in float32 kernels; measured on a CPU


def is_separable(basis: HermiteBasis | SampledBasis) -> bool:
    """Whether "separable" can compute with it."""
    return isinstance(basis, HermiteBasis) and basis.num_orders <= SEPARABLE_ORDERS


def fastest(
    basis: HermiteBasis | SampledBasis,
    in_channels: int,
    out_channels: int,
    size: tuple[int, int],
    kernel_size: int,
    weight: Tensor,
) -> Algorithm:
    """The algorithm whose multiplications should take least time, for planes (H, W) and the type of these weights.

    A GPU gets no dense Hermite kernels: their size has to be waited for.
    """
    channels, half_width = (in_channels, out_channels), kernel_size // 2
    dense = math.prod(channels) * kernel_size**2 * math.prod(size)
    small = weight.device.type == "cpu" and weight.dtype != torch.float64 and kernel_size <= _SMALL_KERNEL
    costs: dict[Algorithm, float] = {"fourier": _FOURIER_HANDICAP * fourier_cost(*channels, size, half_width)}
    if small or isinstance(basis, SampledBasis):
        costs["dense"] = dense * (_SMALL_DENSE_HANDICAP if small else 1)
    if is_separable(basis):
        products, transforms = separable_cost(basis, *channels, size, half_width)
        costs["separable"] = products + _FFT_HANDICAP * transforms
    return min(costs, key=costs.__getitem__)


def correlate(
    algorithm: Algorithm, x: Tensor, weight: Tensor, basis: SeparableBasis | SampledBasis, project: bool
) -> Tensor:
    """Scale convolution, or its maximum over scales with `project`; see `correlate_separable`."""
    if algorithm == "separable":
        return correlate_separable(x, weight, basis, project=project)
    pictures = basis.dense(max(x.shape[-2:]) - 1)  # no larger than the planes can see
    y = (correlate_dense if algorithm == "dense" else correlate_fourier)(x, weight, pictures)
    return y.max(dim=2).values if project else y


def dense_kernels(weight: Tensor, basis: Tensor) -> Tensor:
    """Kernels (S, O, I, K, K): weights (O, I, F) times the basis (F, S, K, K)."""
    with full_precision(weight.device):
        return torch.einsum("oif,fshw->soihw", weight, basis.to(weight.dtype))


def correlate_dense(x: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Scale convolution by K x K kernels, as the released code computes it; see `correlate_fourier`."""
    kernels = dense_kernels(weight, basis)
    inputs, padding = x.unbind(2) if x.dim() == 5 else [x] * len(kernels), kernels.shape[-1] // 2
    with full_precision(x.device):
        responses = [functional.conv2d(x, kernel, padding=padding) for x, kernel in zip(inputs, kernels, strict=True)]
    return torch.stack(responses, 2)
