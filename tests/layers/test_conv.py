"""The layers: values by hand, public usage, sharing, saving, and messages for bad input."""

import copy
import math

import pytest
import torch
from agreement import EVERY, random
from torch import Tensor, nn

from scalestudy.layers.basis import SampledBasis, VaryingSigmaBasis
from scalestudy.layers.conv import GroupConv, LiftingConv, ScaleProjection
from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IsrScales,
    StepRatioScales,
)


def lifting(scales=None, channels: tuple[int, int] = (1, 2), **options) -> LiftingConv:
    torch.manual_seed(0)
    return LiftingConv(*channels, IsrScales(1.0, 2.3, 3) if scales is None else scales, 2, **options).double()


@EVERY
def test_one_gaussian_by_hand(algorithm: str) -> None:
    """One scale of 1 pixel, one Gaussian, 3 x 3: neighbours weigh q = exp(-1/2), corners q^2, all over 1 + 2 q^2."""
    conv = lifting(FixedScales(1.0, 1, 1), (1, 1), kernel_size=3, algorithm=algorithm, bias=True)
    conv.weight.data = torch.tensor([[[2.0, 0, 0, 0]]], dtype=torch.float64)
    conv.bias.data.fill_(10.0)
    x = torch.zeros(1, 1, 4, 5, dtype=torch.float64)
    x[0, 0, 1, 2], x[0, 0, 3, 4] = 1.0, 3.0
    q = math.exp(-0.5)
    kernel = torch.tensor([[q * q, q, q * q], [q, 1, q], [q * q, q, q * q]], dtype=torch.float64) * 2 / (1 + 2 * q * q)
    expected = torch.full((4, 5), 10.0, dtype=torch.float64)
    expected[0:3, 1:4] += kernel
    expected[2:4, 3:5] += 3 * kernel[:2, :2]  # the rest of this one lies outside
    torch.testing.assert_close(conv(x)[0, 0, 0], expected)
    torch.testing.assert_close(conv.project(x)[0, 0], expected)
    torch.testing.assert_close(conv.kernels()[0, 0, 0], kernel)


@EVERY
@pytest.mark.parametrize(("function", "axis"), [(1, 0), (2, 1)])
def test_correlation_not_convolution(function: int, axis: int, algorithm: str) -> None:
    """A first-order function weighs higher indices positively; function 1 is of the row axis, 2 of the column axis."""
    conv = lifting(FixedScales(1.0, 1, 1), (1, 1), algorithm=algorithm)
    conv.weight.data = torch.eye(4, dtype=torch.float64)[function].view(1, 1, 4)
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 4, 4] = 1.0
    y = conv(x)[0, 0, 0].detach()
    assert y.select(axis, 3)[4] > 0.1
    torch.testing.assert_close(y.flip(axis), -y)


@EVERY
def test_each_option_changes_something(algorithm: str) -> None:
    x = random(1, 1, 24, 24)
    reference = lifting(algorithm=algorithm)(x)
    for options in ({"extent": 2.0}, {"kernel_size": 5}, {"scales": IsrScales(1.0, 2.6, 3)}):
        assert (lifting(algorithm=algorithm, **options)(x) - reference).abs().max() > 1e-3
    biased = lifting(bias=True, algorithm=algorithm)
    biased.bias.data = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(biased(x) - reference, biased.bias.view(1, 2, 1, 1, 1).expand_as(reference))
    torch.testing.assert_close(biased.without_bias(x), reference)
    torch.testing.assert_close(biased.project(x), biased(x).amax(2))


def test_kernel_size_follows_the_scales() -> None:
    conv = lifting(DirectScales(2.0, 3.0, 3))
    assert conv.kernel_size() == 49
    conv.scales.sigmas.data[1] = 7.1
    assert conv.kernel_size() == 2 * 29 + 1
    assert lifting(kernel_size=15).kernel_size() == 15
    assert conv.kernels().shape == (2, 1, 3, 59, 59)


def test_shared_scales_are_counted_once_and_gather_gradients() -> None:
    torch.manual_seed(0)
    scales = StepRatioScales(1.0, 2.3, 3)
    first, second = lifting(scales), GroupConv(2, 1, scales, 2).double()
    net = nn.Sequential(first, second)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2 * 4 + 2 * 4 + 2
    x, apart = random(1, 1, 9, 9), []
    for own in (0, 1):  # one layer keeps the scales, the other gets a fixed copy of them
        part = nn.Sequential(copy.deepcopy(first), copy.deepcopy(second))
        part[1 - own].scales = copy.deepcopy(scales).requires_grad_(False)
        part(x).square().sum().backward()
        apart.append(part[own].scales.gamma.grad)
    net(x).square().sum().backward()
    together = scales.gamma.grad
    torch.testing.assert_close(together, apart[0] + apart[1])
    assert all(part.abs() > 1e-6 for part in apart)


def test_scale_projection() -> None:
    x = random(2, 3, 4, 5, 6).requires_grad_()
    y = ScaleProjection()(x)
    y.sum().backward()
    assert torch.equal(y, x.amax(2))
    assert torch.equal(x.grad, (x == x.amax(2, keepdim=True)).double())


def test_projection_of_a_subclass_is_that_of_its_own_response() -> None:
    class Doubled(LiftingConv):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layer = Doubled(1, 2, FixedScales.from_values([1.0, 1.5, 2.3]), effective_size=2)
    x = random(2, 1, 9, 9, dtype=torch.float32)
    assert torch.equal(layer.project(x), layer(x).amax(2))


def test_repr_tells_the_layer() -> None:
    basis = "basis=VaryingOrderBasis(effective_size=2, num_orders=2, multipliers=(1.0,))"
    assert f"LiftingConv(\n  1, 2, {basis}, extent=4.0\n" in repr(lifting())
    assert "internal_scales=[1, 1.517, 2.3]" in repr(lifting())
    options = {"kernel_size": 5, "stride": 2, "padding": "valid", "algorithm": "dense"}
    shown = "kernel_size=5, stride=2, padding='valid', algorithm='dense', bias=True\n"
    assert shown in repr(lifting(bias=True, **options))


SCALES = FixedScales(1.0, 2.0, 2)
EITHER = "give either effective_size .* or basis, got "
PICTURES = random(4, 2, 5, 5, seed=3, dtype=torch.float32)
SAMPLED = {"effective_size": None, "basis": SampledBasis(PICTURES), "kernel_size": 5}


class Miscounted(InternalScales):
    def __init__(self, num_scales: int | None) -> None:
        super().__init__()
        self.num_scales = num_scales

    def forward(self) -> torch.Tensor:
        return torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be an integer >= 1, got 0"),
        ({"out_channels": True}, "out_channels must be an integer >= 1, got True"),
        ({"scales": [1.0, 2.0]}, r"scales must be an InternalScales module .* got \[1\.0, 2\.0\]"),
        ({"effective_size": None}, EITHER + "effective_size=None and basis=None"),
        ({"basis": VaryingSigmaBasis(2)}, EITHER + "effective_size=2 and basis=VaryingS"),
        ({"extent": 0.0}, r"extent .* must be finite and > 0, got 0\.0"),
        ({"extent": math.nan}, "extent .* got nan"),
        ({"kernel_size": 4}, "kernel_size must be an odd integer >= 3 pixels, got 4"),
        ({"algorithm": "fft"}, r"algorithm must be one of \('auto', 'separable', 'fourier', 'dense'\), got 'fft'"),
        ({"effective_size": 33, "algorithm": "separable"}, "'separable' needs a Hermite basis of at most 32 orders"),
        ({"extent": "4"}, "extent .* must be finite and > 0, got '4'"),
        ({"effective_size": None, "basis": 5}, "basis must be a VaryingOrderBasis, VaryingSigmaBasis or Samp.* got 5"),
        ({"stride": 0}, "stride must be an integer >= 1, got 0"),
        ({"stride": (2, 2)}, r"stride must be an integer >= 1, got \(2, 2\)"),
        ({"padding": 0}, r"padding must be one of \('same', 'valid'\), got 0"),
        ({"groups": 2}, "in_channels must be a multiple of groups=2, got 1"),
        ({"scales": Miscounted(None)}, r"Miscounted must return num_scales=None scales, .* of that length, got \(2,\)"),
        ({"scales": Miscounted(3)}, "Miscounted must return num_scales=3 scales"),
        (SAMPLED | {"kernel_size": 7}, "made for 2 scales and kernels of 5 pixels, got 2 scales and kernel_size 7"),
        (SAMPLED | {"scales": FixedScales(1.0, 2.0, 3)}, r"made for 2 scales .* got 3 scales"),
        (SAMPLED | {"algorithm": "separable"}, "'separable' needs a Hermite basis"),
        (
            SAMPLED | {"scales": IsrScales(1.0, 2.0, 2)},
            "beside a SampledBasis, which they do not change, must be fixed, got Isr",
        ),
    ],
)
@pytest.mark.parametrize("kind", [LiftingConv, GroupConv])
def test_bad_options(kind, options, message) -> None:
    good = {"in_channels": 1, "out_channels": 2, "scales": SCALES, "effective_size": 2}
    with pytest.raises(ValueError, match=message):
        kind(**good | options)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (lifting(), (1, 8, 8), r"LiftingConv takes a tensor of shape \(B, C, H, W\) with C = 1, got shape \(1, 8, 8\)"),
        (lifting(), (1, 2, 8, 8), r"with C = 1, got shape \(1, 2, 8, 8\)"),
        (GroupConv(2, 1, SCALES, 2), (1, 2, 8, 8), r"GroupConv takes a tensor of shape \(B, C, S, H, W\) with C = 2"),
        (GroupConv(2, 1, SCALES, 2), (1, 2, 3, 8, 8), r"2 internal scales on axis 2, got shape \(1, 2, 3, 8, 8\)"),
        (lifting(), (2, 1, 0, 8), r"LiftingConv takes images of at least 1 x 1 pixels, got shape \(2, 1, 0, 8\)"),
        (
            lifting(padding="valid"),
            (2, 1, 18, 21),
            "'valid' needs images as large as the kernels, 21 pix.*, got 18 x 21",
        ),
        (ScaleProjection(), (1, 2, 8, 8), r"ScaleProjection takes a tensor \(B, C, S, H, W\), got shape \[1, 2"),
    ],
)
def test_bad_inputs(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape, dtype=torch.float64))


REFUSED, TOO_FEW = r"scales must be from 0.25 \(at extent 4\) to 10,000 pixels, got ", r"\] leave too few of "
OUT_OF_RANGE = [
    ([0.2, 1.0], {}, REFUSED + r"\[0.2\d*, 1.0\]; start within"),
    ([1.0, -2.0], {}, REFUSED + r"\[1.0, -2.0\]"),
    ([0.0, math.nan], {}, REFUSED + r"\[0.0, nan\]"),
    ([1.0, math.inf], {}, REFUSED + r"\[1.0, inf\]"),
    ([1.0, 1e10], {}, REFUSED + r"\[1.0, 10000000000.0\]"),
    ([1.5, 11.3], {"kernel_size": 15}, r"scales \[1.5, 11.3\d*" + TOO_FEW + "15 pixels to the first of them for Vary"),
    ([0.09, 1.0], {"extent": 12.0}, r"scales \[0.09\d*, 1.0" + TOO_FEW + "25 pixels to the first"),  # float32 ends
]


@EVERY
@pytest.mark.parametrize(("values", "options", "message"), OUT_OF_RANGE)
def test_scales_that_cannot_be_sampled_are_refused(values, options, message, algorithm) -> None:
    """At the start, and whenever they are used: they may have been learned or loaded."""
    conv = LiftingConv(1, 1, DirectScales(1.0, 2.0, 2), 5, algorithm=algorithm, **options)
    conv.scales.load_state_dict({"sigmas": torch.tensor(values)})
    for use in (lambda: conv(torch.randn(1, 1, 28, 28)), conv.kernels, conv.export):
        with pytest.raises(ValueError, match=message):
            use()
    with pytest.raises(ValueError, match=message):
        LiftingConv(1, 1, conv.scales, 5, algorithm=algorithm, **options)
    conv.scales.sigmas.data = torch.tensor([0.25, 0.75])
    assert torch.isfinite(LiftingConv(1, 1, conv.scales, 5)(torch.randn(1, 1, 12, 12))).all()


def test_auto_takes_the_cheaper_algorithm() -> None:
    """Few channels in: products of 1-D functions; many: the Fourier domain; small kernels: dense."""
    lift = LiftingConv(1, 32, FixedScales(1.5, 2.0, 4), basis=VaryingSigmaBasis(7), kernel_size=15)
    group = GroupConv(32, 63, FixedScales(1.5, 2.0, 4), basis=VaryingSigmaBasis(7), kernel_size=15)
    assert (lift.chosen_algorithm(56, 56), group.chosen_algorithm(28, 28)) == ("separable", "fourier")
    with pytest.raises(ValueError, match="got 'Dense'"):
        group.algorithm = "Dense"
    assert LiftingConv(1, 2, FixedScales(2.0, 3.0, 3), 33).chosen_algorithm(56, 56) == "fourier"
    group.algorithm = "dense"
    assert group.chosen_algorithm(28, 28) == "dense"
    table1 = LiftingConv(1, 16, FixedScales(2.0, 3.0, 3), 5)
    assert table1.chosen_algorithm(168, 168) == table1.chosen_algorithm(56, 56) == "separable"
    small = LiftingConv(1, 16, FixedScales(0.5, 2.0, 3), 5)
    assert small.chosen_algorithm(28, 28) == small.chosen_algorithm(512, 512) == "dense"
    for other in (small.double(), small.to("meta")):
        assert other.chosen_algorithm(512, 512) == "separable", "libraries have quick small kernels in float32 on a CPU"


@pytest.mark.parametrize("algorithm", ["auto", "fourier", "dense"])
@pytest.mark.parametrize("kind", [LiftingConv, GroupConv])
def test_any_pictures_will_do_as_a_basis(kind: type, algorithm: str) -> None:
    basis = SampledBasis(PICTURES)
    conv = kind(2, 3, SCALES, basis=basis, kernel_size=5, algorithm=algorithm)
    x = torch.randn(2, 2, *([2] if kind is GroupConv else []), 9, 9, generator=torch.Generator().manual_seed(0))
    kernels = torch.einsum("oif,fshw->soihw", conv.weight, PICTURES)
    planes = x.unbind(2) if kind is GroupConv else [x] * 2
    expected = [nn.functional.conv2d(plane, kernel, padding=2) for plane, kernel in zip(planes, kernels, strict=True)]
    torch.testing.assert_close(conv(x), torch.stack(expected, 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conv.kernels(), kernels.transpose(0, 1).transpose(1, 2))
    conv.scales = IsrScales(2.0, 3.0, 2)
    for run in (conv, torch.compile(conv, backend="eager", fullgraph=True), lambda x: conv.to("meta")(x.to("meta"))):
        with pytest.raises(Exception, match="beside a SampledBasis, which they do not change, must be fixed, got Isr"):
            run(x)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(4, 2, 4, 4), r"shape \(F, S, K, K\) with K odd, got \(4, 2, 4, 4\)"),
        (torch.full((1, 1, 3, 3), math.nan), "must be finite"),
        (PICTURES * 1j, "must be of a floating point type, got torch.complex64"),
        (torch.ones(1, 1, 3, 3, dtype=torch.int64), "must be of a floating point type, got torch.int64"),
        (PICTURES.to("meta"), "must have values, got a meta tensor"),
    ],
)
def test_bad_pictures(pictures, message) -> None:
    with pytest.raises(ValueError, match=message):
        SampledBasis(pictures)
