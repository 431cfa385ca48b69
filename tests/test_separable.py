"""The fast algorithms against dense convolution: values, gradients, chunks, both ways to convolve a scale."""

import functools
import itertools

import pytest
import torch
from torch import Tensor, nn

from scalestudy import separable
from scalestudy.basis import HermiteBasis, VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.conv import GroupConv, LiftingConv, ScaleProjection
from scalestudy.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IsrScales,
    SpacingScales,
    StepRatioScales,
)
from scalestudy.separable import toeplitz

BASES = {"varying order": VaryingOrderBasis(2), "varying sigma": VaryingSigmaBasis(3, max_order=2, mult=1.4)}
SCALES = {
    "fixed": FixedScales,
    "isr": IsrScales,
    "direct": DirectScales,
    **{f"step ratio, {kind}": functools.partial(StepRatioScales, increment=kind) for kind in ("squared", "linear")},
    "step ratio, leaky": functools.partial(StepRatioScales, increment="leaky_relu"),
    **{f"spacing, {kind}": functools.partial(SpacingScales, increment=kind) for kind in ("squared", "linear")},
    "spacing, leaky": functools.partial(SpacingScales, increment="leaky_relu"),
}
STRATEGIES = ("chosen", "matrices", "kernels")


class Projected(nn.Module):
    """`LiftingConv.project` as a module."""

    def __init__(self, conv: LiftingConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.project(x)


def force(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """Convolve every scale in one way, whatever is cheaper."""

    def matrices(functions, pairs, support, out_channels, height, width):
        return separable._MatrixProducts(functions, pairs, height, width)

    def kernels(functions, pairs, support, out_channels, height, width):
        return separable._SmallKernel(functions, pairs, support, height, width)

    if strategy != "chosen":
        monkeypatch.setattr(separable, "_convolution", {"matrices": matrices, "kernels": kernels}[strategy])


def random_input(kind: str, in_channels: int, num_scales: int, size: tuple[int, int], batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, in_channels, num_scales, *size) if kind == "group" else (batch, in_channels, *size)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def layer_of(kind: str, scales: InternalScales, basis: HermiteBasis, channels: tuple[int, int], **options) -> nn.Module:
    torch.manual_seed(0)
    conv = (GroupConv if kind == "group" else LiftingConv)(*channels, scales, basis=basis, **options).double()
    return Projected(conv) if kind == "project" else conv


def result(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, and gradients of a fixed random sum of it in input and parameters."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (y * weights.to(y.dtype)).sum().backward()
    return [y.detach(), x.grad, *[parameter.grad.clone() for parameter in layer.parameters()]]


def assert_same(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-11) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=rtol * other.abs().max().item())


def check_gradients(layer: nn.Module, x: Tensor) -> None:
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    inputs = (x.requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_toeplitz_is_zero_padded_correlation() -> None:
    function = torch.tensor([1.0, 2.0, 4.0])
    signal = torch.tensor([1.0, 0.0, 10.0, 100.0])
    assert toeplitz(function, 4) @ signal == pytest.approx([2.0, 41.0, 420.0, 210.0])
    assert toeplitz(torch.arange(9.0), 2).tolist() == [[4.0, 5.0], [3.0, 4.0]]
    assert toeplitz(torch.zeros(2, 3, 5), 7).shape == (2, 3, 7, 7)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("parameterisation", SCALES)
def test_gradcheck(kind, parameterisation, strategy, monkeypatch) -> None:
    """Scales away from the steps of their supports: 0.7, 1.014, 1.47 at extent 2 (kernel size 7)."""
    force(monkeypatch, strategy)
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 1)  # a chunk per image
    layer = layer_of(kind, SCALES[parameterisation](0.7, 2.1, 3), BASES["varying order"], (2, 3), extent=2.0, bias=True)
    check_gradients(layer, random_input(kind, 2, 3, (5, 6)))


@pytest.mark.parametrize("algorithm", ["separable", "dense"])
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("basis", BASES)
def test_gradcheck_of_bases_and_algorithms(kind, basis, algorithm) -> None:
    layer = layer_of(kind, IsrScales(0.7, 2.1, 3), BASES[basis], (2, 2), extent=2.0, algorithm=algorithm)
    check_gradients(layer, random_input(kind, 2, 3, (4, 5)))


def test_every_entry_of_the_jacobian() -> None:
    """The full gradient check, not the projected one, on one small layer."""
    layer = layer_of("lift", SpacingScales(0.7, 2.1, 2), VaryingOrderBasis(2), (1, 2), extent=2.0)
    x = random_input("lift", 1, 2, (4, 3)).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


CASES = [
    ("small image", (1.0, 2.5, 3), (9, 9), (1, 2)),
    ("non-square", (0.9, 2.3, 2), (14, 7), (3, 2)),
    ("kernel larger than image", (1.6, 2.4, 3), (5, 8), (2, 3)),
    ("kernel much larger than image", (3.0, 3.0, 2), (4, 3), (2, 2)),
    ("one row", (0.8, 1.7, 2), (1, 12), (1, 1)),
    ("single scale", (1.3, 1, 1), (8, 9), (2, 2)),
    ("many scales", (0.8, 3.1, 7), (8, 8), (1, 2)),
    ("descending scales", None, (8, 8), (2, 2)),
]


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize(("values", "size", "channels"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_both_strategies_equal_dense(values, size, channels, kind, basis, monkeypatch) -> None:
    scales = DirectScales(*(values or (1.0, 2.0, 3)))
    if values is None:
        scales.sigmas.data = torch.tensor([2.1, 1.4, 0.9])
    x = random_input(kind, channels[0], scales.num_scales, size)
    expected = result(layer_of(kind, scales, BASES[basis], channels, algorithm="dense", bias=True), x)
    for strategy in STRATEGIES:
        with monkeypatch.context() as patch:
            force(patch, strategy)
            layer = layer_of(kind, scales, BASES[basis], channels, algorithm="separable", bias=True)
            assert_same(result(layer, x), expected)


def test_both_strategies_are_used() -> None:
    """The rule of choice must have both outcomes within the paper's range of scales."""
    basis = VaryingOrderBasis(5).sample(torch.tensor([1.0, 6.0]), 49)
    pairs = separable._pairs(basis)
    chosen = [separable._convolution(basis.functions[:, s], pairs, basis.supports[s], 16, 168, 168) for s in (0, 1)]
    assert [type(one) for one in chosen] == [separable._SmallKernel, separable._MatrixProducts]


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_chunks_change_nothing(kind, monkeypatch) -> None:
    """Chunks of 1, 2 (uneven) and all of 5 images; the boundaries lie between images only."""
    layer = layer_of(kind, IsrScales(1.0, 2.3, 3), BASES["varying order"], (2, 2))
    x = random_input(kind, 2, 3, (6, 7), batch=5)
    expected = result(layer, x)
    seen = set()
    for size in (1, 2 * 4 * 2 * 42 * 8, 2 * 8 * 2 * 42 * 8):
        monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", size)
        seen.add(len(list(separable._chunks(x, 4))))
        assert_same(result(layer, x), expected)
    assert seen == {5, 3, 2}


def test_unknown_devices_count_as_gpus(monkeypatch) -> None:
    monkeypatch.delitem(separable._CHUNK_BYTES, "cpu")
    monkeypatch.setitem(separable._CHUNK_BYTES, "cuda", 1)
    assert len(list(separable._chunks(torch.zeros(3, 1, 2, 2), 4))) == 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_non_contiguous_inputs_and_expanded_gradients(strategy, monkeypatch) -> None:
    force(monkeypatch, strategy)
    layer = layer_of("lift", IsrScales(0.9, 2.3, 2), BASES["varying order"], (2, 2))
    x = random_input("lift", 2, 2, (7, 6))
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    found = []
    for image in (x, strided, x[:1].expand(2, -1, -1, -1)):
        image = image.detach().requires_grad_()
        layer(image).sum().backward()
        found.append(image.grad)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])  # the gradient of a sum does not depend on the input


@pytest.mark.parametrize("need", list(itertools.product([False, True], repeat=3)))
def test_any_set_of_wanted_gradients(need) -> None:
    layer = layer_of("lift", IsrScales(0.9, 2.3, 2), BASES["varying order"], (1, 2))
    x = random_input("lift", 1, 2, (6, 6)).requires_grad_()
    tensors = [x, layer.weight, layer.scales.gamma]
    everything = torch.autograd.grad(layer(x).square().sum(), tensors)
    for tensor, wanted in zip([x, layer.weight, *layer.scales.parameters()], [*need, need[2]], strict=True):
        tensor.requires_grad_(wanted)
    y = layer(x).square().sum()
    assert y.requires_grad == any(need)
    wanted = [i for i in range(3) if need[i]]
    if wanted:
        found = torch.autograd.grad(y, [tensors[i] for i in wanted])
        assert_same(list(found), [everything[i] for i in wanted])


def test_second_derivatives_are_refused() -> None:
    layer = layer_of("lift", IsrScales(0.9, 2.3, 2), BASES["varying order"], (1, 1))
    x = random_input("lift", 1, 2, (5, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_project_equals_projection(strategy, monkeypatch) -> None:
    force(monkeypatch, strategy)
    scales = StepRatioScales(0.9, 3.0, 4)
    conv = layer_of("lift", scales, BASES["varying order"], (2, 3))
    x = random_input("lift", 2, 4, (11, 9))
    assert_same(result(Projected(conv), x), result(nn.Sequential(conv, ScaleProjection()), x))


def test_float32_is_close_to_float64() -> None:
    layer = layer_of("lift", IsrScales(2.0, 3.0, 3), VaryingOrderBasis(5), (1, 4))
    x = random_input("lift", 1, 3, (40, 40))
    expected = result(layer, x)
    found = result(layer.float(), x.float())
    assert all(tensor.dtype == torch.float32 for tensor in found)
    assert_same([tensor.double() for tensor in found[:3]], expected[:3], rtol=2e-6)
    assert_same([tensor.double() for tensor in found[3:]], expected[3:], rtol=1e-4)
