"""Assertions that all layers and algorithms share, and the layers that share them."""

import copy
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from scalestudy.layers.basis import HermiteBasis, SampledBasis, VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.layers.conv import GroupConv, LiftingConv, ScaleProjection, run_layers
from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IntervalScales,
    IsrScales,
    SpacingScales,
    StepRatioScales,
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Projected(nn.Module):
    """`LiftingConv.project` as a module."""

    def __init__(self, conv: LiftingConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.project(x)


class OneStep(nn.Sequential):
    """`run_layers` as a module; ``self[:]`` runs the same layers one by one."""

    def __getitem__(self, index: slice) -> nn.Module:
        return nn.Sequential(OrderedDict(self._modules))[index]

    def forward(self, x: Tensor) -> Tensor:
        return run_layers(self, x)


KINDS = ("lift", "project", "group", "pool")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY = pytest.mark.parametrize("algorithm", ["separable", "fourier", "dense"])
BY_HAND = pytest.mark.parametrize("algorithm", ["separable", "fourier"])  # whose way back is written by hand
BASES = {
    "varying order": VaryingOrderBasis(2),
    "varying sigma": VaryingSigmaBasis(3, max_order=2, mult=1.4),
    "few pairs": HermiteBasis(2, 4, (1.0,), [(0, 3), (1, 0), (3, 0), (2, 2)]),
    "odd columns": HermiteBasis(2, 4, (1.0,), [(0, 1), (1, 1), (2, 3)]),
}
PARAMETERISATIONS = [FixedScales, IsrScales, DirectScales, StepRatioScales, SpacingScales, IntervalScales]


def layer_of(
    kind: str,
    scales: InternalScales | None = None,
    channels: tuple[int, int] = (2, 3),
    basis: HermiteBasis | SampledBasis | None = None,
    algorithm: str = "separable",
    window: int = 2,
    **options,
) -> nn.Module:
    """A layer in float64; of the kind "pool", those of Table 1 up to the pooling, with a batch norm that has a past."""
    torch.manual_seed(0)
    scales = IsrScales(0.9, 2.3, 3) if scales is None else scales
    basis = VaryingOrderBasis(2) if basis is None else basis
    cls = GroupConv if kind == "group" else LiftingConv
    conv = cls(*channels, scales, basis=basis, algorithm=algorithm, **options).double()
    if kind == "project":
        return Projected(conv)
    if kind != "pool":
        return conv
    norm = nn.BatchNorm2d(channels[1]).double()
    for name, ends in (
        ("weight", (-1.5, 0.7)),
        ("bias", (-1, 1)),
        ("running_mean", (0.1, 0.9)),
        ("running_var", (0.5, 2)),
    ):
        getattr(norm, name).data.copy_(torch.linspace(*ends, channels[1]))
    parts = [("conv", conv), ("projection", ScaleProjection()), ("relu", nn.ReLU()), ("norm", norm)]
    return OneStep(OrderedDict([*parts, ("pool", nn.MaxPool2d(window))]))


def conv_of(layer: nn.Module) -> LiftingConv | GroupConv:
    return getattr(layer, "conv", layer)


def images_for(layer: nn.Module, size: tuple[int, int] = (8, 12), batch: int = 2) -> Tensor:
    conv = conv_of(layer)
    return random(batch, conv.in_channels, *([conv.num_scales] if isinstance(conv, GroupConv) else []), *size, seed=1)


def by_dense(layer: nn.Module) -> nn.Module:
    """A copy that builds kernels and convolves, and takes one module after the other."""
    layer = copy.deepcopy(layer)
    conv_of(layer).algorithm = "dense"
    return layer


def in_chunks_of(*lengths: int) -> Callable:
    """A `SeparableLayer.chunks` that cuts the batch into these."""

    def chunks(_: object, x: Tensor) -> Iterator[slice]:
        assert sum(lengths) == len(x)
        ends = itertools.accumulate(lengths)
        return (slice(end - length, end) for end, length in zip(ends, lengths, strict=True))

    return chunks


def outcome(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients of a weighted sum of it in input and parameters, buffers afterwards; of a copy of the layer."""
    layer, x = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    y = layer(x)
    direction = torch.cos(torch.arange(y.numel(), dtype=y.dtype, device=y.device)).view(y.shape)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    gradients = torch.autograd.grad((y * direction).sum(), (x, *parameters))
    names = (f"gradient in {name}" for name in ("x", *names))
    return {"output": y.detach(), **dict(zip(names, gradients, strict=True)), **dict(layer.named_buffers())}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    """Relative to the largest number of each kind."""
    assert found.keys() == expected.keys()
    for name, other in expected.items():
        assert found[name].dtype == other.dtype, name
        atol = tolerance * max(1e-3, other.abs().max().item()) if other.numel() else 0
        torch.testing.assert_close(found[name], other, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_as_dense(layer: nn.Module, x: Tensor, tolerance: float = 1e-10) -> None:
    assert_same(outcome(layer, x), outcome(by_dense(layer), x), tolerance)


def assert_right_derivatives(layer: nn.Module, x: Tensor, second: bool = False, **options) -> None:
    """Against finite differences, in input and parameters; of float64, with scales away from the steps of supports."""
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    check = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
    assert check(function, (x.detach().clone().requires_grad_(), *parameters), **options)


def assert_any_set_of_gradients(layer: nn.Module, x: Tensor) -> None:
    """Each input and parameter has the same gradient, whichever of the others want one."""
    layer, x = copy.deepcopy(layer), x.detach().clone()
    tensors, everything = [x, *layer.parameters()], []
    for need in itertools.product([True, False], repeat=len(tensors)):
        for tensor, wanted in zip(tensors, need, strict=True):
            tensor.requires_grad_(wanted)
        y = layer(x).square().sum()
        assert y.requires_grad == any(need)
        asked = [tensor for tensor in tensors if tensor.requires_grad]
        found = list(torch.autograd.grad(y, asked)) if asked else []
        everything = everything or list(found)
        for wanted, expected in zip(need, everything, strict=True):
            if wanted:
                torch.testing.assert_close(found.pop(0), expected, rtol=1e-10, atol=1e-10)
