"""The fast algorithm against dense convolution: values, gradients, chunks, what it keeps, what it costs."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scalestudy.layers.basis import (
    HermiteBasis,
    VaryingOrderBasis,
    VaryingSigmaBasis,
    kernel_size,
    kernel_size_on_device,
)
from scalestudy.layers.conv import GroupConv, LiftingConv, ScaleProjection, correlate_dense
from scalestudy.layers.fast import folded, separable
from scalestudy.layers.fast.folded import Workspace
from scalestudy.layers.fast.maximum import ScaleMaximum, split_by_winner
from scalestudy.layers.fast.separable import SeparableLayer, correlate_separable, separable_cost
from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IsrScales,
    SpacingScales,
    StepRatioScales,
)

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


class Projected(nn.Module):
    """`LiftingConv.project` as a module."""

    def __init__(self, conv: LiftingConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.project(x)


def in_chunks_of(*lengths: int):
    """A `SeparableLayer.chunks` that cuts the batch into these."""

    def chunks(self: SeparableLayer, batch: int) -> Iterator[slice]:
        assert sum(lengths) == batch
        ends = list(itertools.accumulate(lengths))
        return (slice(end - length, end) for end, length in zip(ends, lengths, strict=True))

    return chunks


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


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("parameterisation", SCALES)
def test_gradcheck(kind, parameterisation, monkeypatch) -> None:
    """Scales away from the steps of their supports: 0.7, 1.014, 1.47 at extent 2 (kernel size 7)."""
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
    ("one column", (0.8, 1.7, 2), (11, 1), (2, 1)),
    ("one pixel", (0.8, 1.7, 2), (1, 1), (2, 2)),
    ("even and odd", (0.8, 1.7, 2), (10, 7), (1, 3)),
    ("odd and even", (0.8, 1.7, 2), (7, 10), (1, 3)),
    ("single scale", (1.3, 1, 1), (8, 9), (2, 2)),
    ("many scales", (0.8, 3.1, 7), (8, 8), (1, 2)),
    ("descending scales", None, (8, 8), (2, 2)),
]


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize(("values", "size", "channels"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_equals_dense(values, size, channels, kind, basis) -> None:
    """Three images: in one chunk, and in one of two and one of one."""
    scales = DirectScales(*(values or (1.0, 2.0, 3)))
    if values is None:
        scales.sigmas.data = torch.tensor([2.1, 1.4, 0.9])
    x = random_input(kind, channels[0], scales.num_scales, size, batch=3)
    expected = result(layer_of(kind, scales, BASES[basis], channels, algorithm="dense", bias=True), x)
    layer = layer_of(kind, scales, BASES[basis], channels, algorithm="separable", bias=True)
    assert_same(result(layer, x), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeparableLayer, "chunks", in_chunks_of(2, 1))
        assert_same(result(layer, x), expected)


@pytest.mark.parametrize("order", [0, 1])
def test_functions_of_one_parity(order: int) -> None:
    """A basis of even or of odd functions only: nothing of the other kind is left to multiply."""
    torch.manual_seed(0)
    sampled = VaryingOrderBasis(order + 1).sample(torch.tensor([1.0, 1.8], dtype=torch.float64), 15)
    basis = dataclasses.replace(sampled, rows=(order,), cols=(order,))
    x, weight = random_input("lift", 2, 2, (9, 8)), torch.randn(3, 2, 1, dtype=torch.float64)
    found = correlate_separable(x, weight, basis, torch.tensor([1.0, 1.8], dtype=torch.float64))
    torch.testing.assert_close(found, correlate_dense(x, weight, basis))


def test_a_shorter_circle_wraps_round(monkeypatch) -> None:
    """Negative control of the comparison with dense convolution."""
    x = random_input("lift", 2, 2, (9, 8))
    expected = layer_of("lift", FixedScales(1.0, 2.0, 2), BASES["varying order"], (2, 2), algorithm="dense")(x)
    layer = layer_of("lift", FixedScales(1.0, 2.0, 2), BASES["varying order"], (2, 2), algorithm="separable")
    torch.testing.assert_close(layer(x), expected)
    monkeypatch.setattr(separable, "circle", lambda height, half_width: height)
    assert (layer(x) - expected).abs().max() > 0.1 * expected.abs().max()


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("lengths", [(1, 1, 1, 1, 1), (2, 2, 1), (3, 2), (1, 4), (5,)], ids=str)
def test_chunks_change_nothing(kind, lengths, monkeypatch) -> None:
    layer = layer_of(kind, IsrScales(1.0, 2.3, 3), BASES["varying order"], (2, 2), algorithm="separable")
    x = random_input(kind, 2, 3, (6, 7), batch=5)
    expected = [result(layer, image[None]) for image in x]  # whose images are alone
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(*lengths))
    assert_same([layer(x).detach()], [torch.cat([y for y, *_ in expected])])
    monkeypatch.undo()
    whole = result(layer, x)
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(*lengths))
    assert_same(result(layer, x), whole)


def chunks_of(batch: int, dtype: torch.dtype = torch.float64) -> list[tuple[int, int]]:
    """Of a layer with 3 channels out and 6 x 7 pixels."""
    basis = BASES["varying order"].sample(torch.tensor([1.0, 2.0], dtype=torch.float64), 9)
    layer = SeparableLayer(torch.zeros(3, 2, 4, dtype=dtype), basis.detached(), (6, 7))
    return [(chunk.start, chunk.stop) for chunk in layer.chunks(batch)]


def test_chunks_fit_the_device(monkeypatch) -> None:
    """The responses of one scale to one image are 3 x 6 x 7 numbers; a chunk is at least one image."""
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 2 * 3 * 6 * 7 * 8)
    assert chunks_of(5) == [(0, 2), (2, 4), (4, 5)]
    assert chunks_of(5, torch.float32) == [(0, 4), (4, 5)]
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 3 * 3 * 6 * 7 * 8 - 1)
    assert chunks_of(4) == [(0, 2), (2, 4)]
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 1)
    assert chunks_of(2) == [(0, 1), (1, 2)]
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 1 << 30)
    assert chunks_of(5) == [(0, 5)]


def test_unknown_devices_count_as_gpus(monkeypatch) -> None:
    monkeypatch.delitem(separable._CHUNK_BYTES, "cpu")
    monkeypatch.setitem(separable._CHUNK_BYTES, "cuda", 1)
    assert len(chunks_of(3)) == 3
    monkeypatch.setitem(separable._CHUNK_BYTES, "cuda", 1 << 30)
    assert len(chunks_of(3)) == 1


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_non_contiguous_inputs_and_expanded_gradients(kind) -> None:
    layer = layer_of(kind, IsrScales(0.9, 2.3, 2), BASES["varying order"], (2, 2), algorithm="separable")
    x = random_input(kind, 2, 2, (7, 6))
    strided = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not strided.is_contiguous()
    assert_same(result(layer, strided), result(layer, x), rtol=0)
    assert_same(result(layer, x[:1].expand(2, *x.shape[1:])), result(layer, x[:1].repeat(2, *[1] * (x.dim() - 1))), 0)
    for image in (x, strided):
        y = layer(image.requires_grad_())
        ones = torch.ones((), dtype=torch.float64)
        expanded = torch.autograd.grad(y, image, ones.expand(y.shape), retain_graph=True)
        assert_same(list(expanded), list(torch.autograd.grad(y, image, torch.ones_like(y))), rtol=0)


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_results_are_not_overwritten_by_the_next_call(kind) -> None:
    """Neither outputs nor gradients lie in the workspace, and a backward pass may come after another forward pass."""
    layer = layer_of(kind, IsrScales(0.9, 2.3, 3), BASES["varying order"], (2, 2), algorithm="separable")
    x, other = (random_input(kind, 2, 3, (6, 7), batch=batch) for batch in (2, 3))
    expected, expected_of_other = result(layer, x), result(layer, other)
    kept = [tensor.clone() for tensor in expected]
    assert_same(expected, kept, rtol=0)
    inputs = [x.clone().requires_grad_(), other.clone().requires_grad_()]
    outputs = [layer(image) for image in inputs]
    for y, image, wanted in zip(outputs, inputs, (expected, expected_of_other), strict=True):
        weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        found = torch.autograd.grad((y * weights).sum(), [image, *layer.parameters()])
        assert_same([y.detach(), *found], wanted, rtol=0)


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_a_second_backward_pass_gives_the_same(kind) -> None:
    layer = layer_of(kind, IsrScales(0.9, 2.3, 3), BASES["varying order"], (2, 2), algorithm="separable")
    x = random_input(kind, 2, 3, (6, 7)).requires_grad_()
    y, tensors = layer(x).square().sum(), [x, *layer.parameters()]
    first = torch.autograd.grad(y, tensors, retain_graph=True)
    assert_same(list(torch.autograd.grad(y, tensors)), list(first), rtol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_without_gradients(kind, mode, monkeypatch) -> None:
    """The same output, and nothing kept; what is cached then still serves for training."""
    folded._vertical_transform.cache_clear()
    folded._places.cache_clear()
    maxima = []

    class Spy(ScaleMaximum):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            maxima.append(self)

    monkeypatch.setattr(separable, "ScaleMaximum", Spy)
    layer = layer_of(kind, IsrScales(0.9, 2.3, 3), BASES["varying order"], (2, 2), algorithm="separable")
    x = random_input(kind, 2, 3, (6, 7))
    with mode():
        y = layer(x)
    assert y.grad_fn is None
    assert not any(maximum.wins for maximum in maxima)
    maxima.clear()
    with_gradients, *gradients = result(layer, x)
    assert torch.equal(y, with_gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert [len(maximum.wins) for maximum in maxima] == ([2] if kind == "project" else [])


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
@pytest.mark.parametrize("need", list(itertools.product([False, True], repeat=3)))
def test_any_set_of_wanted_gradients(need, kind) -> None:
    layer = layer_of(kind, IsrScales(0.9, 2.3, 2), BASES["varying order"], (1, 2), algorithm="separable")
    conv = layer.conv if kind == "project" else layer
    x = random_input(kind, 1, 2, (6, 5)).requires_grad_()
    tensors = [x, conv.weight, conv.scales.gamma]
    everything = torch.autograd.grad(layer(x).square().sum(), tensors)
    for tensor, wanted in zip([x, conv.weight, *conv.scales.parameters()], [*need, need[2]], strict=True):
        tensor.requires_grad_(wanted)
    y = layer(x).square().sum()
    assert y.requires_grad == any(need)
    wanted = [i for i in range(3) if need[i]]
    if wanted:
        found = torch.autograd.grad(y, [tensors[i] for i in wanted])
        assert_same(list(found), [everything[i] for i in wanted])


@pytest.mark.parametrize("kind", ["lift", "project"])
def test_second_derivatives_are_refused(kind) -> None:
    layer = layer_of(kind, IsrScales(0.9, 2.3, 2), BASES["varying order"], (1, 1), algorithm="separable")
    x = random_input(kind, 1, 2, (5, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("size", [(11, 9), (10, 12), (8, 7)], ids=str)
def test_project_equals_projection(size) -> None:
    scales = StepRatioScales(0.9, 3.0, 4)
    conv = layer_of("lift", scales, BASES["varying order"], (2, 3), algorithm="separable")
    x = random_input("lift", 2, 4, size)
    assert_same(result(Projected(conv), x), result(nn.Sequential(conv, ScaleProjection()), x))


@pytest.mark.parametrize("size", [(8, 10), (9, 7)], ids=str)
def test_of_equal_scales_the_earlier_one_gets_the_gradient(size) -> None:
    """Scales 1 and 2 are the same, and larger than scale 0: only the normaliser and the first of the two count."""
    layer = layer_of("project", DirectScales(0.8, 1.75, 3), BASES["varying order"], (2, 3), algorithm="separable")
    layer.conv.scales.sigmas.data = torch.tensor([0.8, 1.4, 1.4], dtype=torch.float64)
    x = random_input("project", 2, 3, size)
    *_, found = result(layer, x)
    assert not found[2]
    assert found[0].abs() > 0.1
    assert found[1].abs() > 0.1
    assert_same(result(layer, x), result(nn.Sequential(layer.conv, ScaleProjection()), x))


def test_scale_maximum_and_its_gradient_by_hand() -> None:
    """Three scales at five pixels; the gradient of a tie goes to the earlier one."""
    responses = [[1.0, 5.0, 2.0, 0.0, 3.0], [2.0, 4.0, 2.0, 1.0, 3.0], [0.0, 5.0, 2.0, 1.0, 4.0]]
    first, *others = (torch.tensor(response) for response in responses)
    space = Workspace(torch.float32, torch.device("cpu"))
    maximum = ScaleMaximum(first.clone(), True, space)
    for response in others:
        maximum.add(response)
    assert maximum.values.tolist() == [2.0, 5.0, 2.0, 1.0, 4.0]
    assert [won.tolist() for won in maximum.wins] == [[1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    parts = [part.tolist() for part in split_by_winner(gradient, maximum.wins, space)]
    assert parts == [[0.0, 0.0, 0.0, 0.0, 5.0], [1.0, 0.0, 0.0, 4.0, 0.0]]
    assert gradient.tolist() == [0.0, 2.0, 3.0, 0.0, 0.0]


def test_half_widths_end_where_the_planes_do() -> None:
    basis = VaryingOrderBasis(2).sample(torch.tensor([1.0, 2.0, 3.0]), 25)
    assert basis.supports == (4, 8, 12)
    assert basis.half_widths((40, 30)) == (4, 8, 12)
    assert basis.half_widths((7, 10)) == (4, 8, 9)


def test_detached_basis_has_the_same_values_without_gradient() -> None:
    basis = VaryingOrderBasis(2).sample(torch.tensor([1.0, 2.0], requires_grad=True), 17)
    constant = basis.detached()
    assert basis.functions.requires_grad and basis.norms.requires_grad
    assert not (constant.functions.requires_grad or constant.norms.requires_grad)
    assert torch.equal(constant.dense(), basis.dense())


@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_nan_scales_show(kind) -> None:
    """A diverged network runs on, and nobody takes its output for a number."""
    layer = layer_of(kind, DirectScales(1.0, 2.0, 2), BASES["varying order"], (1, 2), algorithm="separable")
    (layer.conv if kind == "project" else layer).scales.sigmas.data.fill_(torch.nan)
    found = result(layer, random_input(kind, 1, 2, (6, 7)))
    assert all(tensor.isnan().all() for tensor in found)


@pytest.mark.parametrize("size", [(8, 6), (5, 9)], ids=str)
def test_supports_need_not_be_known(size) -> None:
    """As on devices that are not asked for values: a wide window, in which the functions end somewhere."""
    scales = torch.tensor([0.8, 1.3], dtype=torch.float64)
    known = VaryingOrderBasis(2).sample(scales, kernel_size(scales))
    unknown = VaryingOrderBasis(2).sample_on_device(scales, kernel_size_on_device(scales), 14)
    assert unknown.supports is None
    assert unknown.half_widths(size) == (max(size) - 1,) * 2
    x, weight = random_input("lift", 2, 2, size), torch.randn(3, 2, 4, dtype=torch.float64)
    expected = correlate_separable(x, weight, known, scales)
    torch.testing.assert_close(correlate_separable(x, weight, unknown, scales), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fixed_size", [None, 9])
@pytest.mark.parametrize("kind", ["lift", "project", "group"])
def test_no_device_is_asked_for_values(kind, fixed_size) -> None:
    """A meta tensor has none; on a GPU each question would stop the device."""
    layer = layer_of(kind, IsrScales(0.9, 2.3, 3), BASES["varying order"], (2, 2), kernel_size=fixed_size)
    expected = result(layer, random_input(kind, 2, 3, (6, 7)))
    layer = layer.to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        (layer.conv if kind == "project" else layer).scales().max().item()
    x = torch.empty_like(random_input(kind, 2, 3, (6, 7)), device="meta").requires_grad_()
    y = layer(x)
    gradients = torch.autograd.grad(y, [x, *layer.parameters()], torch.empty_like(y))
    assert [tensor.shape for tensor in (y, *gradients)] == [tensor.shape for tensor in expected]


def test_float32_is_close_to_float64() -> None:
    layer = layer_of("lift", IsrScales(2.0, 3.0, 3), VaryingOrderBasis(5), (1, 4))
    x = random_input("lift", 1, 3, (40, 40))
    expected = result(layer, x)
    found = result(layer.float(), x.float())
    assert all(tensor.dtype == torch.float32 for tensor in found)
    assert_same([tensor.double() for tensor in found[:3]], expected[:3], rtol=2e-6)
    assert_same([tensor.double() for tensor in found[3:]], expected[3:], rtol=1e-4)


class CountMultiplications(TorchDispatchMode):
    """Counts those of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm", "baddbmm_"):
            left, right = args[-2:]
            self.count += left.numel() * right.shape[-1]
        assert "conv" not in name and name not in ("einsum", "mv", "dot", "matmul", "linear"), name
        return function(*args, **(kwargs or {}))


def counted(basis, channels: tuple[int, int], size: tuple[int, int], step: str) -> list[int]:
    """Multiplications by scale of one image's step, without what is done once for all images.

    Steps: "forward", "weights" (backward to the weights), and "scales" (to weights and scales).
    """
    weight = torch.zeros(channels[1], channels[0], len(basis.rows), dtype=torch.float64)
    layer = SeparableLayer(weight, basis.detached(), size, derivatives=step == "scales")
    layer.begin_gradients()
    planes, gradient = (folded.fold(torch.zeros(1, count, *size, dtype=torch.float64)) for count in channels)
    counts = []
    for scale in range(basis.functions.shape[1]):
        with CountMultiplications() as counter:
            if step == "forward":
                layer.respond(layer.project(planes, scale), scale)
            else:
                layer.accumulate(layer.project(planes, scale), gradient, scale)
        counts.append(counter.count)
    return counts


COSTS = list(itertools.product(BASES, [(1, 4), (3, 2)]))


@pytest.mark.parametrize(("basis", "channels"), COSTS, ids=str)
@pytest.mark.parametrize("step", ["forward", "weights"])
@pytest.mark.parametrize("size", [(8, 12), (10, 6), (2, 2)], ids=str)
def test_cost_is_what_is_done(basis, channels, size, step) -> None:
    """Forward, and as much again on the way back to the weights."""
    sampled = BASES[basis].sample(torch.tensor([0.9, 2.4], dtype=torch.float64), 21)
    expected = [separable_cost(sampled, *channels, size, half_width) for half_width in sampled.supports]
    assert counted(sampled, channels, size, step) == expected


@pytest.mark.parametrize(("basis", "channels"), COSTS, ids=str)
@pytest.mark.parametrize("size", [(8, 12), (10, 6)], ids=str)
def test_learning_scales_costs_two_more_horizontal_functions(basis, channels, size) -> None:
    """The backward pass costs as much as with those in the basis; sub-sigmas with few functions need not both."""
    sampled = BASES[basis].sample(torch.tensor([0.9, 2.4], dtype=torch.float64), 21)
    own = tuple(zip(sampled.rows, sampled.cols, strict=True))
    pairs = separable._derivatives(own, sampled.orders, torch.device("cpu")).pairs
    assert len({col for _, col in pairs}) - len(set(sampled.cols)) == {"varying order": 2, "varying sigma": 3}[basis]
    more = dataclasses.replace(sampled, rows=[row for row, _ in pairs], cols=[col for _, col in pairs])
    expected = [separable_cost(more, *channels, size, half_width) for half_width in sampled.supports]
    assert counted(sampled, channels, size, "scales") == expected


@pytest.mark.parametrize(("basis", "channels"), COSTS, ids=str)
@pytest.mark.parametrize("size", [(8, 11), (9, 6), (7, 7)], ids=str)
def test_odd_sides_cost_no_more_than_the_next_even_ones(basis, channels, size) -> None:
    sampled = BASES[basis].sample(torch.tensor([0.9, 2.4], dtype=torch.float64), 21)
    even = tuple(side + side % 2 for side in size)
    for count, half_width in zip(counted(sampled, channels, size, "forward"), sampled.supports, strict=True):
        at_least, at_most = (separable_cost(sampled, *channels, sides, half_width) for sides in (size, even))
        assert at_least < count <= at_most


def test_cost_by_hand() -> None:
    """4 x 6 pixels, kernels of half-width 2: a circle of 6 rows, frequencies 0 .. 3; 2 functions; 1 -> 3.

    Halves of 2 rows and 3 columns: cosines and sines 2 (4 x 2 x 6); horizontal products 2 (4 2 x 3 x 2 3);
    the mix 4 (6 x 4 x 6); back 2 (2 x 4 x 3 6).
    """
    basis = BASES["varying order"]
    expected = 2 * 4 * 2 * 6 + 2 * 8 * 3 * 6 + 4 * 6 * 4 * 6 + 2 * 2 * 4 * 18
    assert separable_cost(basis, 1, 3, (4, 6), 2) == expected


def test_cost_hardly_depends_on_the_scales() -> None:
    """At most twice as many frequencies, while a dense kernel costs K^2."""
    basis = VaryingOrderBasis(5)
    costs = [separable_cost(basis, 1, 16, (168, 168), half_width) for half_width in (4, 24, 167, 500)]
    assert costs == sorted(costs)
    assert costs[2] == costs[3] < 2 * costs[0]
