"""What all scale convolutions share: arguments and their checks, weights, the basis at the present scales."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor

from scalestudy.layers.algorithms import SEPARABLE_ORDERS, Algorithm, correlate, dense_kernels, fastest, is_separable
from scalestudy.layers.basis import (
    HermiteBasis,
    SampledBasis,
    SeparableBasis,
    VaryingOrderBasis,
    dynamic_size,
    dynamic_size_on_device,
    require_odd,
)
from scalestudy.layers.described import Described
from scalestudy.layers.export import DenseConv
from scalestudy.layers.scales import FixedScales, InternalScales, is_finite, require_integer

Padding = Literal["same", "valid"]
_LARGEST_SCALE = 10_000  # pixels (our choice: beyond all images; filters are sampled as far as they reach)


class ScaleConv(Described):
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
        stride: int = 1,
        padding: Padding = "same",
        groups: int = 1,
        bias: bool = False,
        algorithm: Algorithm = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("stride", stride), ("groups", groups)):
            require_integer(name, number)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            require_integer(name, channels)
            if channels % groups:
                raise ValueError(f"{name} must be a multiple of groups={groups}, got {channels}")
        if padding not in get_args(Padding):
            raise ValueError(f"padding must be one of {get_args(Padding)}, got {padding!r}")
        if not (is_finite(extent) and extent > 0):
            raise ValueError(f"extent (k of Eq. 6, in sigmas) must be finite and > 0, got {extent!r}")
        if kernel_size is not None:
            require_odd("kernel_size", kernel_size)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.extent, self.fixed_size, self.stride, self.padding = extent, kernel_size, stride, padding
        self.basis, self.scales = _basis_of(effective_size, basis), scales
        self.algorithm = algorithm
        place = {"device": device, "dtype": dtype}
        shape = (out_channels, in_channels // groups, self.basis.num_functions)
        self.weight = nn.Parameter(torch.empty(shape, **place))
        self.bias = nn.Parameter(torch.empty(out_channels, **place)) if bias else None
        self.reset_parameters()
        self._check_scales()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as `nn.Conv2d` does, and set the bias to 0; the scales stay."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def algorithm(self) -> Algorithm:
        """How to compute, as it was asked for; see `chosen_algorithm`."""
        return self._algorithm

    @algorithm.setter
    def algorithm(self, name: Algorithm) -> None:
        if name not in get_args(Algorithm):
            raise ValueError(f"algorithm must be one of {get_args(Algorithm)}, got {name!r}")
        if name == "separable" and not is_separable(self.basis):
            bound = f"a Hermite basis of at most {SEPARABLE_ORDERS} orders"
            raise ValueError(f"algorithm 'separable' needs {bound}, got {self.basis!r}; 'fourier' takes any")
        self._algorithm = name

    @property
    def num_scales(self) -> int:
        """Number of internal scales S."""
        return self.scales.num_scales

    def kernel_size(self) -> int:
        """Present kernel size K in pixels (Eq. 6, unless it is fixed)."""
        return self.fixed_size or dynamic_size(self.scales.values(), self.extent)

    def kernels(self) -> Tensor:
        """Present dense kernels, (O, I / groups, S, K, K): what Fig. 1 calls the multi-scale kernel."""
        return dense_kernels(self.weight, self._sampled(self.scales()).dense()).movedim(0, 2)

    @torch.no_grad()
    def export(self) -> DenseConv:
        """A plain `nn.Conv2d` with the present kernels and the axes of this layer: same outputs, to float rounding.

        For TorchScript, ONNX and other programs; it learns kernels, not scales, and costs what dense ones do.
        """
        if any(vars(self).get(name) is not None for name in ("weight", "bias")):
            raise ValueError(
                "export() must find parameters, got what a hook (of pruning or weight norm) made of them at the last "
                "call, maybe before a step: make it permanent first, with torch.nn.utils.prune.remove for example"
            )
        kernels = self.kernels().movedim(2, 0)
        padding = kernels.shape[-1] // 2 if self.padding == "same" else 0
        lifts = "S" not in self._axes
        return DenseConv(kernels, self.bias, lifts, stride=self.stride, groups=self.groups, padding=padding)

    def without_bias(self, x: Tensor) -> Tensor:
        """The response before the bias is added: a maximum and a bias can change places."""
        return self(x, add_bias=False)  # a call, which hooks see

    def forward(self, x: Tensor, add_bias: bool = True) -> Tensor:
        y = self._correlate(x, project=False)
        return self._with_bias(y).contiguous() if add_bias else y

    def chosen_algorithm(self, height: int, width: int) -> Algorithm:
        """What "auto" stands for on images of this size, with the present scales."""
        return self._sampled_for((height, width))[1]

    def _fastest(self, size: tuple[int, int], kernel_size: int) -> Algorithm:
        """The algorithm for planes (H, W): unless one was named, that with fewer multiplications."""
        if self.algorithm != "auto":
            return self.algorithm
        channels = self.in_channels // self.groups, self.out_channels // self.groups
        return fastest(self.basis, *channels, size, kernel_size, self.weight)

    def _sampled(self, scales: Tensor) -> SeparableBasis | SampledBasis:
        """The basis at the present scales (S,) and kernel size; refused where it cannot be sampled there."""
        values = scales.tolist()
        if any(scale < self._least_scale or scale > _LARGEST_SCALE for scale in values):
            raise ValueError(
                f"internal scales must be from {self._least_scale:.4g} (at extent {self.extent:g}) to "
                f"{_LARGEST_SCALE:,} pixels, got {values}; start within, let them learn more slowly, or raise extent"
            )
        size = self.fixed_size or dynamic_size(values, self.extent)
        if isinstance(self.basis, SampledBasis):
            return self.basis.checked_for(scales, size)
        basis = self.basis.sample(scales, size)
        norms = basis.norms.tolist()
        if min(norms[function] for function in {*basis.rows, *basis.cols}) ** 2 < torch.finfo(torch.float32).tiny:
            raise ValueError(
                f"internal scales {values} leave too few of {size} pixels to the first of them for {self.basis!r}: "
                "it must be larger, or nearer to the largest one, or the kernels larger"
            )
        return basis

    @property
    def _least_scale(self) -> float:
        """Smallest scale in pixels whose functions see their neighbours; rounding forgiven."""
        return (1 - 1e-6) / self.extent

    def _sampled_for(self, size: tuple[int, int]) -> tuple[SeparableBasis | SampledBasis, Algorithm]:
        """The basis at the present scales, and the algorithm, for planes (H, W).

        Eq. 6 needs the value of the largest scale.  A device other than the CPU would have to stop for it at each step,
        and a graph to be broken and, for another kernel size, to be made anew.  There kernels are sampled as large as
        scales of the size of the planes make them, and cut on the device; scales that are too small become NaN, which
        shows in every response.
        """
        self._check_basis()
        scales, compiled = self.scales(), torch.compiler.is_compiling()
        several = not compiled and is_batchedtensor(scales)  # of a vmap over layers
        traced = several or compiled or scales.is_meta or torch.jit.is_tracing()
        if traced and isinstance(self.basis, SampledBasis):
            return self.basis, self._fastest(size, self.basis.functions.shape[2])
        if compiled:
            size = tuple(len([0] * side) for side in size)  # numbers: with symbols a graph would take minutes to make
        if traced or scales.device.type != "cpu":
            alone = traced and not several and isinstance(self.scales, FixedScales)
            known = self.kernel_size() if alone else self.fixed_size
            bound = known or 2 * math.ceil(self.extent * max(size)) + 1
            algorithm = self._fastest(size, bound)
            if traced or algorithm == "separable":
                scales = torch.where(scales < self._least_scale, torch.nan, scales)
                side = known or dynamic_size_on_device(scales, self.extent)
                return self.basis.sample(scales, side, bound // 2), algorithm
        basis = self._sampled(scales)
        return basis, self._fastest(size, basis.functions.shape[2])

    def _correlate(self, x: Tensor, project: bool) -> Tensor:
        self._check(x)
        basis, algorithm = self._sampled_for(x.shape[-2:])
        dtype = torch.promote_types(self.weight.dtype, torch.float32)  # no sums in half precision
        x, weight = x.to(dtype), self.weight.to(dtype)
        if self.groups == 1:
            y = correlate(algorithm, x, weight, basis, project)
        else:
            groups = zip(x.chunk(self.groups, 1), weight.chunk(self.groups), strict=True)
            y = torch.cat([correlate(algorithm, *group, basis, project) for group in groups], 1)
        return self._cut(y).to(self.weight.dtype)

    def _cut(self, y: Tensor) -> Tensor:
        """What stride and padding leave of a response of the images' size."""
        if (self.stride, self.padding) == (1, "same"):
            return y
        (height, width), edge = y.shape[-2:], self.kernel_size() // 2 if self.padding == "valid" else 0
        if min(height, width) <= 2 * edge:
            needed = f"as large as the kernels, {2 * edge + 1} pixels"
            raise ValueError(f"padding='valid' needs images {needed}, got {height} x {width} pixels")
        return y[..., edge : height - edge : self.stride, edge : width - edge : self.stride]

    def _with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.view(-1, *[1] * (y.dim() - 2))

    @torch.no_grad()
    def _check_scales(self) -> None:
        """Refuse scales that the basis cannot be sampled at, so that it could not be normalised, or not learned."""
        if not isinstance(self.scales, InternalScales):
            raise ValueError(f"scales must be an InternalScales module such as FixedScales, got {self.scales!r}")
        scales, number = self.scales(), getattr(self.scales, "num_scales", None)
        if scales.shape != (number,):
            name = type(self.scales).__name__
            raise ValueError(
                f"{name} must return num_scales={number} scales, a tensor of that length, got {tuple(scales.shape)}"
            )
        self._check_basis()
        if not scales.is_meta:
            self._sampled(scales)

    def _check_basis(self) -> None:
        """Scales may have been set later, or made learnable."""
        if isinstance(self.basis, SampledBasis) and any(part.requires_grad for part in self.scales.parameters()):
            name = type(self.scales).__name__  # repr would ask for values, which a graph has not
            raise ValueError(f"scales beside a SampledBasis, which they do not change, must be fixed, got {name}")

    def _check(self, x: Tensor) -> None:
        name, axes, shape, own = type(self).__name__, ", ".join(self._axes), tuple(x.shape), self.weight.dtype
        if x.dim() != len(self._axes) or x.shape[1] != self.in_channels:
            raise ValueError(f"{name} takes a tensor of shape ({axes}) with C = {self.in_channels}, got shape {shape}")
        if "S" in self._axes and x.shape[2] != self.num_scales:
            raise ValueError(f"{name} has {self.num_scales} internal scales on axis 2, got shape {shape}")
        if 0 in shape[-2:]:
            raise ValueError(f"{name} takes images of at least 1 x 1 pixels, got shape {shape}")
        if not x.is_floating_point() or (x.dtype != own and not torch.is_autocast_enabled(x.device.type)):
            remedy = f"call x.to({own}), or {name}.to of the type of the images"
            raise ValueError(f"{name} takes real tensors of the type of its weights, {own}, got {x.dtype}; {remedy}")

    def description(self) -> str:
        size = f"extent {self.extent:g}" if self.fixed_size is None else f"kernels of {self.fixed_size} pixels"
        return f"a convolution with {self.basis!r} and {size}"

    def extra_repr(self) -> str:
        usual = {"stride": 1, "padding": "same", "groups": 1, "algorithm": "auto"}
        shown = {} if isinstance(self.basis, SampledBasis) else {"basis": self.basis}
        shown |= {"extent": self.extent} if self.fixed_size is None else {"kernel_size": self.fixed_size}
        shown |= {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        shown |= {} if self.bias is None else {"bias": True}
        return f"{self.in_channels}, {self.out_channels}, " + ", ".join(f"{name}={shown[name]!r}" for name in shown)


def _basis_of(effective_size: int | None, basis: HermiteBasis | SampledBasis | None) -> HermiteBasis | SampledBasis:
    if (effective_size is None) == (basis is None):
        given = f"got effective_size={effective_size!r} and basis={basis!r}"
        raise ValueError(f"give either effective_size (for the varying-order basis) or basis, {given}")
    basis = VaryingOrderBasis(effective_size) if basis is None else basis
    if not isinstance(basis, HermiteBasis | SampledBasis):
        raise ValueError(f"basis must be a VaryingOrderBasis, VaryingSigmaBasis or SampledBasis, got {basis!r}")
    return basis
