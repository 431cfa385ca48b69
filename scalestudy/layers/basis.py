"""Hermite-Gaussian filter bases: every function is a product of two 1-D functions of one sigma each.

    g_n(x; s) = exp(-x^2 / 2 s^2) He_n(x / s) / s,        x = -h .. h on the pixel grid,

with the probabilists' Hermite polynomials He_n.  A 2-D basis function is g_row(row) g_col(column); the fast algorithms
never need it as a K x K picture.  Formulas, truncation and normalisation follow the released code of the paper, whose
Section 3 describes them only in words; everything is differentiable in the scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.scales import is_finite, require_integer


def hermite_gaussians(sigmas: Tensor, num_orders: int, half_width: int) -> Tensor:
    """1-D functions of orders 0 .. num_orders - 1 at sigmas (...), (num_orders, ..., 2 half_width + 1), all in pixels.

    >>> hermite_gaussians(torch.tensor([1.0], dtype=torch.float64), 2, 1)[:, 0].round(decimals=4).tolist()
    [[0.6065, 1.0, 0.6065], [-0.6065, 0.0, 0.6065]]
    """
    x = torch.arange(-half_width, half_width + 1, dtype=sigmas.dtype, device=sigmas.device)
    t = x / sigmas[..., None]
    gaussian = torch.exp(-0.5 * t.square()) / sigmas[..., None]
    polynomials = [torch.ones_like(t), t]
    for n in range(1, num_orders - 1):
        polynomials.append(t * polynomials[n] - n * polynomials[n - 1])
    return torch.stack([gaussian * polynomial for polynomial in polynomials[:num_orders]])


def require_odd(name: str, value: object) -> None:
    """Refuse what is no kernel size."""
    if not isinstance(value, Integral) or value < 3 or value % 2 == 0:
        raise ValueError(f"{name} must be an odd integer >= 3 pixels, got {value!r}")


def dynamic_size(scales: Sequence[float], extent: float = 4.0) -> int:
    """Dynamic kernel size (Eq. 6): l = 2 ceil(k s_max) + 1 pixels, at least 3, for scales in pixels and k = extent.

    The brackets of Eq. 6 are lost in print; the released code rounds up, and has k = 4.  So the last bit decides: a
    largest scale of 6 has kernels of 49 pixels, the next number above it 51.  Parameterisations that start at the same
    scales may differ by two pixels, and so may a network and its ``.double()``.  NaN scales give 3, so that a diverged
    network still runs and shows its NaN.
    """
    if any(math.isnan(scale) for scale in scales):
        return 3
    return max(3, 2 * math.ceil(extent * max(scales)) + 1)


def dynamic_size_on_device(scales: Tensor, extent: float = 4.0) -> Tensor:
    """`dynamic_size` of scales (S,) without waiting for the device: () in double precision; NaN for NaN scales."""
    return (2 * torch.ceil(extent * scales.detach().max().double()) + 1).clamp(min=3)


def supports(scales: Tensor, size: int | Tensor) -> Tensor:
    """Half-width in pixels of each scale's functions inside a kernel of `size` pixels, (S,), float64.

    A kernel of scale s_i is cut to m_i = 2 floor(trunc(size s_i / s_max) / 2) + 1 pixels (released code).  The ratio is
    taken in the scales' own precision and multiplied in double, as there: at the edge of a pixel this decides.
    """
    scales = scales.detach()
    return torch.floor(torch.trunc((scales / scales.max()).double() * size) / 2)


def reaching(functions: Tensor, reach: int) -> Tensor:
    """Functions (..., K), padded or cropped to so many pixels from the middle, on the last axis."""
    margin = reach - functions.shape[-1] // 2
    return functional.pad(functions, (margin, margin))  # a negative margin crops


@dataclass(frozen=True)
class SeparableBasis:
    """A sampled basis of F separable functions at S scales, in double precision.

    Basis function f is the outer product of the 1-D functions rows[f] (vertical axis) and cols[f], divided by both
    their norms.  The 1-D functions include two orders more than the basis: the gradient of a loss in the scales needs
    no others, because d g_n / d ln s = g_(n+2) + n g_n holds exactly for the sampled functions.
    """

    scales: Tensor  # (S,), what it was sampled at
    functions: Tensor  # (M, S, K), unnormalised 1-D functions, zero outside each scale's support
    norms: Tensor  # (M,), L2 norm of each at scale index 0
    orders: tuple[int, ...]  # Hermite order n of each; order n + 2 of the same sigma stands two places later
    rows: tuple[int, ...]  # (F,)
    cols: tuple[int, ...]  # (F,)
    supports: tuple[int, ...] | None  # (S,), half-widths in pixels; None where only the device knows them
    resample: Callable[[Tensor], Tensor]  # makes `functions` of `scales`

    def dense(self, reach: float = math.inf) -> Tensor:
        """The basis as pictures, (F, S, K, K), without what lies further from the middle, in pixels."""
        cropped = reaching(self.functions, min(reach, self.functions.shape[2] // 2))
        rows, cols = list(self.rows), list(self.cols)  # first chosen, then normalised: the norms of others may be 0
        down, across = cropped[rows] / self.norms[rows, None, None], cropped[cols] / self.norms[cols, None, None]
        return down[..., None] * across[:, :, None]

    def half_widths(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Half-width in pixels of each scale's functions, or a bound, as far as planes (H, W) can see it."""
        reach = max(size) - 1
        if self.supports is None:
            return (reach,) * self.functions.shape[1]
        return tuple(min(support, reach) for support in self.supports)

    def detached(self) -> SeparableBasis:
        """The same without gradient."""
        parts = {name: getattr(self, name).detach() for name in ("scales", "functions", "norms")}
        return replace(self, **parts)

    def normalise(self, weight: Tensor) -> Tensor:
        """Weights (..., F) of the basis as weights of the unnormalised products."""
        return weight / (self.norms[list(self.rows)] * self.norms[list(self.cols)]).to(weight.dtype)


@dataclass(eq=False)
class HermiteBasis:
    """Common part of the two Hermite-Gaussian bases, of n^2 functions for an `effective_size` n.

    Every 1-D function is divided by its own L2 norm at scale index 0.  The norm of a product is the product of the
    norms, so this is the released code's rule: each 2-D function has unit norm at the first scale, and larger scales
    keep their natural 1/s^2 amplitude.
    """

    effective_size: int
    num_orders: int
    multipliers: tuple[float, ...]
    pairs: InitVar[list[tuple[int, int]]]  # which two of the 1-D functions make each basis function

    def __post_init__(self, pairs: list[tuple[int, int]]) -> None:
        self.rows, self.cols = zip(*pairs, strict=True)

    @property
    def num_functions(self) -> int:
        """Number F of functions."""
        return len(self.rows)

    def sample(self, scales: Tensor, size: int | Tensor, window: int | None = None) -> SeparableBasis:
        """The basis on the pixel grid for scales (S,), to which gradients flow, and kernels of odd size, in pixels.

        The support of each scale is a step function of the scales and carries no gradient.  Nobody waits for the values
        of scales in a window, of so many pixels to each side: exact while no scale reaches beyond it; of larger ones it
        cuts off more than Eq. 6 does.
        """
        half, known = window, None
        if window is None:
            require_odd("kernel size", size)
            half = size // 2
            known = tuple(supports(scales, size).nan_to_num(half).clamp(min=0).int().tolist())
        resample = partial(self._functions, size=size, half=half)
        functions = resample(scales)
        norms = torch.linalg.vector_norm(functions[:, 0], dim=-1)
        orders = tuple(range(self.num_orders + 2)) * len(self.multipliers)
        return SeparableBasis(scales, functions, norms, orders, self.rows, self.cols, known, resample)

    def _functions(self, scales: Tensor, size: int | Tensor, half: int) -> Tensor:
        """Unnormalised 1-D functions (M = J * (orders + 2), S, 2 half + 1)."""
        multipliers = torch.tensor(self.multipliers, dtype=torch.float64, device=scales.device)
        sigmas = scales.double() / multipliers[:, None]  # (J, S)
        functions = hermite_gaussians(sigmas, self.num_orders + 2, half)  # (orders + 2, J, S, K)
        offsets = torch.arange(-half, half + 1, device=scales.device).abs()
        functions = functions * (offsets <= supports(scales, size)[:, None])
        return functions.transpose(0, 1).flatten(0, 1)


class VaryingOrderBasis(HermiteBasis):
    """Basis A: orders 0 .. n-1 on both axes at one sigma (used in Sections 4.1 and 4.2).

    Function f = col_order * n + row_order.

    Parameters
    ----------
    effective_size : int
        n, >= 1; 5 in the released code.
    """

    def __init__(self, effective_size: int) -> None:
        require_integer("effective_size", effective_size)
        pairs = [(row, col) for col in range(effective_size) for row in range(effective_size)]
        super().__init__(effective_size, effective_size, (1.0,), pairs)


class VaryingSigmaBasis(HermiteBasis):
    """Basis B: low orders at several sub-sigmas s / mult^j (used in Section 4.3, and by SESN).

    For j = 0, 1, ... all pairs with col_order + row_order <= max_order, column order in the outer loop; the
    first n^2 of them are kept.

    Parameters
    ----------
    effective_size : int
        n, >= 1; 7 in the released code.
    max_order : int
        Largest total order, >= 0.
    mult : float
        Ratio of adjacent sub-sigmas, > 1.
    """

    def __init__(self, effective_size: int, max_order: int = 4, mult: float = 1.4) -> None:
        require_integer("effective_size", effective_size)
        require_integer("max_order", max_order, 0)
        if not (is_finite(mult) and mult > 1):
            raise ValueError(f"mult (ratio of adjacent sub-sigmas) must be finite and > 1, got {mult!r}")
        per_sigma = (max_order + 1) * (max_order + 2) // 2
        multipliers = tuple(mult**j for j in range(math.ceil(effective_size**2 / per_sigma)))
        orders, step = range(max_order + 1), max_order + 3  # 1-D functions of one sub-sigma
        offsets = [j * step for j in range(len(multipliers))]
        pairs = [(at + row, at + col) for at in offsets for col in orders for row in orders[: len(orders) - col]]
        super().__init__(effective_size, len(orders), multipliers, pairs[: effective_size**2])


class SampledBasis(nn.Module):
    """A basis that is given as pictures, at fixed scales: any functions, not only products (DISCO's, for example).

    Parameters
    ----------
    functions : Tensor
        (F, S, K, K), K odd, floating point; used as they are.

    Raises
    ------
    ValueError
        If the pictures are not square with an odd side, not real, or hold anything that is not finite.
    """

    def __init__(self, functions: Tensor) -> None:
        super().__init__()
        shape = tuple(functions.shape)
        if len(shape) != 4 or shape[2] != shape[3] or shape[2] % 2 == 0:
            raise ValueError(f"functions must have the shape (F, S, K, K) with K odd, got {shape}")
        if not functions.is_floating_point():
            raise ValueError(f"functions must be of a floating point type, got {functions.dtype}")
        if functions.is_meta:
            raise ValueError("functions must have values, got a meta tensor: make it under torch.device('cpu')")
        if not bool(torch.isfinite(functions).all()):
            raise ValueError("functions must be finite, got values that are not")
        self._values = functions.detach().clone()
        self.register_buffer("functions", self._values, persistent=False)

    def _apply(self, *arguments: Any, **options: Any) -> SampledBasis:
        if not self.functions.is_meta:
            self._values = self.functions
        super()._apply(*arguments, **options)
        self.functions = self._values.to(self.functions)  # whatever `to_empty` made of them
        return self

    def extra_repr(self) -> str:
        return "{} functions, {} scales, {} x {} pixels".format(*self.functions.shape)

    @property
    def num_functions(self) -> int:
        """Number F of functions."""
        return len(self.functions)

    def checked_for(self, scales: Tensor, size: int) -> SampledBasis:
        """The basis itself, refused where it was made for another number of scales or another kernel size."""
        if self.functions.shape[1:3] != (len(scales), size):
            raise ValueError(
                f"this basis was made for {self.functions.shape[1]} scales and kernels of {self.functions.shape[2]} "
                f"pixels, got {len(scales)} scales and kernel_size {size}; make another one for those"
            )
        return self

    def dense(self, reach: float = math.inf) -> Tensor:
        """The pictures, (F, S, K, K), without what lies further from the middle, in pixels."""
        reach = min(reach, self.functions.shape[2] // 2)
        return reaching(reaching(self.functions, reach).mT, reach).mT
