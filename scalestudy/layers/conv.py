"""Scale convolutions with fixed or learnable internal scales, and the exact fast algorithm behind them.

Tensors are (B, C, H, W) before the lifting convolution and (B, C, S, H, W) after it.  "Convolution" is
cross-correlation with zero padding and stride 1; the output has the size of the input.

Three algorithms compute the same numbers, to float rounding.  "dense" builds the K x K kernel of every scale and
convolves, as the released code does: the reference.  "separable" uses that basis functions are products, "fourier" goes
through spectra of planes (see the modules of these names in `fast`); the cost of both hardly depends on the scales.
"auto" takes the one with fewer multiplications: "separable" where few channels come in, else "fourier".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.basis import (
    HermiteBasis,
    SampledBasis,
    SeparableBasis,
    VaryingOrderBasis,
    dynamic_size,
    dynamic_size_on_device,
    require_odd,
)
from scalestudy.layers.fast.fourier import correlate_fourier, fourier_cost
from scalestudy.layers.fast.pooled import can_pool_folded, is_plain, project_relu_norm_pool
from scalestudy.layers.fast.separable import correlate_separable, separable_cost
from scalestudy.layers.scales import InternalScales, require_integer

Algorithm = Literal["auto", "separable", "fourier", "dense"]
_FOURIER_HANDICAP = 1.5  # a multiplication of "fourier" takes so much longer than others (measured on a CPU)


def correlate_dense(x: Tensor, weight: Tensor, basis: SeparableBasis | SampledBasis) -> Tensor:
    """Scale convolution by K x K kernels, as the released code computes it; see `correlate_separable`."""
    kernels = torch.einsum("oif,fshw->soihw", weight, basis.dense().to(x.dtype))
    inputs, padding = x.unbind(2) if x.dim() == 5 else [x] * len(kernels), kernels.shape[-1] // 2
    responses = [functional.conv2d(x, kernel, padding=padding) for x, kernel in zip(inputs, kernels, strict=True)]
    return torch.stack(responses, 2)


class _ScaleConv(nn.Module):
    """What lifting and group convolutions share: weights, basis, scales, algorithm."""

    _axes: str  # of the input, a letter each

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scales: InternalScales,
        effective_size: int | None = None,
        *,
        basis: HermiteBasis | SampledBasis | None = None,
        extent: float = 4.0,
        kernel_size: int | None = None,
        bias: bool = False,
        algorithm: Algorithm = "auto",
    ) -> None:
        super().__init__()
        require_integer("in_channels", in_channels)
        require_integer("out_channels", out_channels)
        if not isinstance(scales, InternalScales):
            raise ValueError(f"scales must be an InternalScales module such as FixedScales, got {scales!r}")
        if (effective_size is None) == (basis is None):
            given = f"got effective_size={effective_size!r} and basis={basis!r}"
            raise ValueError(f"give either effective_size (for the varying-order basis) or basis, {given}")
        if not (math.isfinite(extent) and extent > 0):
            raise ValueError(f"extent (k of Eq. 6, in sigmas) must be finite and > 0, got {extent!r}")
        if kernel_size is not None:
            require_odd("kernel_size", kernel_size)
        if algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm must be one of {get_args(Algorithm)}, got {algorithm!r}")
        if algorithm == "separable" and isinstance(basis, SampledBasis):
            raise ValueError("algorithm 'separable' needs a Hermite basis, got a SampledBasis; 'fourier' takes any")
        self.in_channels, self.out_channels, self.scales = in_channels, out_channels, scales
        self.basis = VaryingOrderBasis(effective_size) if basis is None else basis
        self.extent, self.fixed_size, self.algorithm = extent, kernel_size, algorithm
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, self.basis.num_functions))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._check_sampling()

    @property
    def num_scales(self) -> int:
        """Number of internal scales S."""
        return self.scales.num_scales

    def kernel_size(self) -> int:
        """Present kernel size K in pixels (Eq. 6, unless it is fixed)."""
        return self.fixed_size or dynamic_size(self.scales(), self.extent)

    def kernels(self) -> Tensor:
        """Present dense kernels, (O, I, S, K, K): what Fig. 1 calls the multi-scale kernel."""
        basis = self._sampled(self.scales()).dense()
        return torch.einsum("oif,fshw->oishw", self.weight, basis.to(self.weight.dtype))

    def without_bias(self, x: Tensor) -> Tensor:
        """The response before the bias is added: a maximum and a bias can change places."""
        self._check(x)
        return self._correlate(x, project=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._with_bias(self.without_bias(x))

    def chosen_algorithm(self, height: int, width: int) -> Algorithm:
        """What "auto" stands for on images of this size, with the present scales."""
        return self._sampled_for((height, width))[1]

    def _algorithm(self, size: tuple[int, int], kernel_size: int) -> Algorithm:
        """The algorithm for planes (H, W): unless one was named, that with fewer multiplications."""
        if self.algorithm != "auto":
            return self.algorithm
        channels, half_width = (self.in_channels, self.out_channels), min(kernel_size // 2, max(size) - 1)
        fourier = _FOURIER_HANDICAP * fourier_cost(*channels, size, half_width)
        if isinstance(self.basis, SampledBasis):
            dense = math.prod(channels) * kernel_size**2 * math.prod(size)
            return "dense" if dense < fourier else "fourier"
        return "separable" if separable_cost(self.basis, *channels, size, half_width) <= fourier else "fourier"

    def _sampled(self, scales: Tensor) -> SeparableBasis | SampledBasis:
        size = self.fixed_size or dynamic_size(scales, self.extent)
        given = isinstance(self.basis, SampledBasis)
        return self.basis.checked_for(scales, size) if given else self.basis.sample(scales, size)

    def _sampled_for(self, size: tuple[int, int]) -> tuple[SeparableBasis | SampledBasis, Algorithm]:
        """The basis at the present scales, and the algorithm, for planes (H, W).

        Eq. 6 needs the value of the largest scale, for which a device other than the CPU would have to stop at each
        step.  There the separable algorithm takes kernels as large as scales of the size of the planes make them, and
        cuts them on the device.
        """
        scales = self.scales()
        if scales.device.type != "cpu":
            bound = self.fixed_size or 2 * math.ceil(self.extent * max(size)) + 1
            if self._algorithm(size, bound) == "separable":
                side = self.fixed_size or dynamic_size_on_device(scales, self.extent)
                return self.basis.sample_on_device(scales, side, bound // 2), "separable"
        basis = self._sampled(scales)
        return basis, self._algorithm(size, basis.functions.shape[2])

    def _correlate(self, x: Tensor, project: bool) -> Tensor:
        basis, algorithm = self._sampled_for(x.shape[-2:])
        if algorithm == "separable":
            return correlate_separable(x, self.weight, basis, project=project)
        dense = algorithm == "dense"
        y = correlate_dense(x, self.weight, basis) if dense else correlate_fourier(x, self.weight, basis.dense())
        return y.max(dim=2).values if project else y

    def _with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.view(-1, *[1] * (y.dim() - 2))

    @torch.no_grad()
    def _check_sampling(self) -> None:
        """Refuse scales so small that a basis function has no pixel to live on: it could not be normalised."""
        basis = self._sampled(self.scales())
        if isinstance(basis, SeparableBasis) and not bool((basis.norms[[*basis.rows, *basis.cols]] > 0).all()):
            raise ValueError(
                f"scales start at {self.scales.values()[0]:.4g} pixels, too small to sample the basis on the pixel "
                f"grid: at extent {self.extent:g} start at {1.0 / self.extent:.4g} pixels or more, or raise extent"
            )

    def _check(self, x: Tensor) -> None:
        name, axes, shape = type(self).__name__, ", ".join(self._axes), tuple(x.shape)
        if x.dim() != len(self._axes) or x.shape[1] != self.in_channels:
            raise ValueError(f"{name} takes a tensor of shape ({axes}) with C = {self.in_channels}, got shape {shape}")
        if "S" in self._axes and x.shape[2] != self.num_scales:
            raise ValueError(f"{name} has {self.num_scales} internal scales on axis 2, got shape {shape}")

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, num_functions={self.basis.num_functions}, "
            f"extent={self.extent}, algorithm={self.algorithm!r}"
        )


class LiftingConv(_ScaleConv):
    """Scale convolution T -> H (Eq. 3): an image in, a response per internal scale out.

    y[b, o, s] = sum_i x[b, i] * kernel_s[o, i],   kernel_s[o, i] = sum_f weight[o, i, f] basis[f, s].

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    scales : InternalScales
        Internal scales, fixed or learnable; may be shared between layers.
    effective_size : int, optional
        n of the varying-order basis (basis A): n^2 functions.  Either this or `basis`.
    basis : HermiteBasis or SampledBasis, optional
        Another basis, for example ``VaryingSigmaBasis(7)``.
    extent : float
        k of Eq. 6: the kernel reaches k sigmas of the largest scale (4 in the released code).
    kernel_size : int, optional
        Fixes the kernel size in pixels (odd, >= 3) instead of Eq. 6.
    bias : bool
        Adds one bias per output channel, shared by all scales.
    algorithm : {"auto", "separable", "fourier", "dense"}
        How to compute; never changes the result beyond rounding.  See `chosen_algorithm`.

    Shape
    -----
    (B, I, H, W) -> (B, O, S, H, W), float32 or float64.  Sampling on the pixel grid and cutting off at k sigmas make
    its scale equivariance (Eq. 1) approximate; see `scalestudy.layers.equivariance`.
    """

    _axes = "BCHW"

    def project(self, x: Tensor) -> Tensor:
        """``ScaleProjection()(conv(x))``, (B, O, H, W), without keeping the response of every scale in memory."""
        self._check(x)
        return self._with_bias(self._correlate(x, project=True))


class GroupConv(_ScaleConv):
    """Scale convolution H -> H (Eq. 4): each scale convolved with its own kernel, no mixing of scales.

    y[b, o, s] = sum_i x[b, i, s] * kernel_s[o, i], (B, I, S, H, W) -> (B, O, S, H, W).  Parameters as in `LiftingConv`.
    """

    _axes = "BCSHW"


class ScaleProjection(nn.Module):
    """Maximum over the scale axis (Table 1, "scale-projection"), (B, C, S, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"ScaleProjection takes a tensor (B, C, S, H, W), got shape {tuple(x.shape)}")
        return x.max(dim=2).values


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``nn.Sequential(*layers)(x)``; one step stands for several of them only where nobody can tell (`is_plain`)."""
    layers = list(layers)
    if len(layers) > 1 and is_plain(layers[0], LiftingConv) and is_plain(layers[1], ScaleProjection):
        conv, _, *layers = layers
        conv._check(x)
        basis, algorithm = conv._sampled_for(x.shape[-2:])
        if algorithm == "separable" and conv.bias is None and can_pool_folded(x, conv.out_channels, layers[:3]):
            _, norm, pool, *layers = layers
            x = project_relu_norm_pool(x, conv.weight, basis, norm, pool.kernel_size)
        else:
            x = conv.project(x)
    for layer in layers:
        x = layer(x)
    return x
