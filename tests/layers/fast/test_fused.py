"""Convolution, ReLU, batch norm and max pooling in one step against the four modules of torch."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from scalestudy.layers import conv as conv_module
from scalestudy.layers.basis import HermiteBasis, VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.layers.conv import LiftingConv
from scalestudy.layers.fast import folded, separable
from scalestudy.layers.fast import pooled as fused
from scalestudy.layers.fast.pooled import can_pool_folded, max_pool_2x2
from scalestudy.layers.fast.separable import SeparableLayer
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, StepRatioScales

WEIGHTS = {"positive": (0.5, 1.0, 2.0), "negative": (-0.5, -1.0, -2.0), "mixed": (-1.5, 0.7, 1e-3)}
BASES = {"varying order": VaryingOrderBasis(3), "varying sigma": VaryingSigmaBasis(3, max_order=2, mult=1.4)}


class Block(nn.Module):
    """The four modules, in one step or one after the other, with a batch norm that has a past."""

    def __init__(self, window: int = 2, weights=WEIGHTS["mixed"], channels: int = 1, **options) -> None:
        super().__init__()
        options = {
            "scales": IsrScales(0.9, 2.3, 3),
            "basis": BASES["varying order"],
            "algorithm": "separable",
        } | options
        torch.manual_seed(0)
        self.conv = LiftingConv(channels, len(weights), **options)
        self.norm = nn.BatchNorm2d(len(weights))
        self.window, self.fused = window, True
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor(weights))
            self.norm.bias.copy_(torch.linspace(-1, 1, len(weights)))
            self.norm.running_mean.copy_(torch.linspace(0.1, 0.9, len(weights)))
            self.norm.running_var.copy_(torch.linspace(0.5, 2.0, len(weights)))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return self.conv.project_relu_norm_pool(x, self.norm, self.window)
        return nn.functional.max_pool2d(self.norm(self.conv.project(x).relu()), self.window)

    def apart(self, algorithm: str = "dense") -> "Block":
        """A copy that takes one step after the other."""
        block = copy.deepcopy(self)
        block.fused, block.conv.algorithm = False, algorithm
        return block


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def outcome(block: Block, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients of a weighted sum of it in input and parameters, and the norm's buffers; keeps the block."""
    block, x = copy.deepcopy(block), x.clone().requires_grad_()
    y = block(x)
    direction = torch.cos(torch.arange(y.numel(), dtype=x.dtype, device=x.device)).view(y.shape)
    names, parameters = zip(*block.named_parameters(), strict=True)
    gradients = torch.autograd.grad((y * direction).sum(), (x, *parameters))
    return {
        "output": y.detach(),
        **dict(zip((f"gradient in {name}" for name in ("x", *names)), gradients, strict=True)),
        **dict(block.norm.named_buffers()),
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    """Relative to the largest number of each kind."""
    assert found.keys() == expected.keys()
    for name, other in expected.items():
        assert found[name].dtype == other.dtype, name
        atol = tolerance * max(1e-3, other.abs().max().item())
        torch.testing.assert_close(found[name], other, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def assert_equals_modules(block: Block, x: Tensor, tolerance: float = 1e-10) -> None:
    assert_same(outcome(block, x), outcome(block.apart(), x), tolerance)


@pytest.fixture
def forbid_fallback(monkeypatch) -> None:
    """Fails where the modules are called one by one."""

    def refuse(self: LiftingConv, x: Tensor) -> Tensor:
        raise AssertionError("took one step after the other")

    monkeypatch.setattr(LiftingConv, "project", refuse)


def in_chunks_of(*lengths: int):
    """A `SeparableLayer.chunks` that cuts the batch into these."""

    def chunks(self: SeparableLayer, batch: int):
        assert sum(lengths) == batch
        ends = list(itertools.accumulate(lengths))
        return (slice(end - length, end) for end, length in zip(ends, lengths, strict=True))

    return chunks


@pytest.mark.parametrize(
    ("size", "window", "possible"),
    [
        ((168, 168), 42, True),
        ((8, 12), 2, True),
        ((8, 10), 2, False),  # windows of 2 tile 10 columns, but not their halves
        ((10, 8), 2, False),
        ((8, 8), 3, False),
        ((8, 8), 5, False),
        ((6, 7), 1, False),
        ((6, 8), 1, True),
    ],
)
def test_where_windows_tile_both_halves(size, window, possible) -> None:
    assert can_pool_folded(size, nn.BatchNorm2d(2), window) is possible


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}], ids=str)
def test_other_norms_take_the_modules(options, training) -> None:
    conv, norm = LiftingConv(1, 3, IsrScales(1.0, 2.0, 2), 2).double(), nn.BatchNorm2d(3, **options).double()
    norm.train(training)
    x = images(4, 1, 8, 12)
    assert not can_pool_folded(x.shape[-2:], norm, 2)
    found = conv.project_relu_norm_pool(x, copy.deepcopy(norm), 2)
    assert torch.equal(found, nn.functional.max_pool2d(copy.deepcopy(norm)(conv.project(x).relu()), 2))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize(("size", "window"), [((12, 8), 1), ((8, 12), 2), ((16, 8), 4)], ids=str)
def test_equals_the_modules(size, window, weights, training) -> None:
    block = Block(window, weights, scales=StepRatioScales(0.9, 2.3, 3)).train(training)
    assert_equals_modules(block, images(4, 1, *size))


@pytest.mark.usefixtures("forbid_fallback")
def test_takes_one_step() -> None:
    """So that the comparisons in this file are not of the modules with themselves."""
    assert outcome(Block(), images(2, 1, 8, 12))["output"].shape == (2, 3, 4, 6)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_float32_is_close_to_the_modules(weights, training) -> None:
    block = Block(2, weights).train(training)
    x = images(4, 1, 12, 8)
    expected = {
        name: value.float() if value.is_floating_point() else value for name, value in outcome(block.apart(), x).items()
    }
    assert_same(outcome(block.float(), x.float()), expected, 1e-4)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize(
    "scales",
    [FixedScales(1.3, 1, 1), DirectScales(0.8, 3.1, 5), IsrScales(2.0, 2.3, 2)],
    ids=lambda s: str(s.num_scales),
)
def test_scales_bases_and_several_channels(scales, basis, training) -> None:
    """One scale and many, two input channels, kernels that are larger than the image."""
    block = Block(scales=scales, basis=BASES[basis], channels=2).train(training)
    assert_equals_modules(block, images(3, 2, 8, 12))


def columns_only(basis: HermiteBasis, col: int) -> HermiteBasis:
    """The functions of a basis with one and the same horizontal function."""
    basis = copy.copy(basis)
    pairs = [pair for pair in zip(basis.rows, basis.cols, strict=True) if pair[1] == col]
    basis.rows, basis.cols = (tuple(pair[axis] for pair in pairs) for axis in (0, 1))
    return basis


ONE_COLUMN = {
    "one function": VaryingOrderBasis(1),
    "one function of basis B": VaryingSigmaBasis(1, max_order=0, mult=1.4),
    "even column": columns_only(VaryingOrderBasis(3), 2),
    "odd column": columns_only(VaryingOrderBasis(3), 1),
    "two columns": VaryingOrderBasis(2),
}


@pytest.mark.parametrize("lengths", [(5,), (1, 4), (3, 2)], ids=str)
@pytest.mark.parametrize("values", [(6.0, 9.0), (2.0, 1.5, 1.0), (1.0, 1.5, 2.0)], ids=str)
@pytest.mark.parametrize("basis", ONE_COLUMN)
def test_what_is_kept_for_the_way_back_is_not_overwritten(basis, values, lengths, monkeypatch) -> None:
    """Scales that fit the memory of the one before, and bases for whose products nothing need change place."""
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(*lengths))
    block = Block(scales=FixedScales.from_values(values), basis=ONE_COLUMN[basis])
    assert_equals_modules(block, images(5, 1, 8, 12))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("lengths", [(1, 1, 1, 1, 1), (2, 2, 1), (3, 2), (5,)], ids=str)
def test_chunks_change_nothing(lengths, training, monkeypatch) -> None:
    """The statistics are those of the whole batch."""
    monkeypatch.setattr(SeparableLayer, "chunks", in_chunks_of(*lengths))
    block = Block().train(training)
    found = outcome(block, images(5, 1, 8, 12))
    assert_same(found, outcome(block.apart(), images(5, 1, 8, 12)))


def test_chunks_of_the_device(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(fused, "unfold", lambda planes, out: seen.append(len(out)) or folded.unfold(planes, out))
    monkeypatch.setitem(separable._CHUNK_BYTES, "cpu", 2 * 3 * 8 * 12 * 8)
    assert_equals_modules(Block(), images(5, 1, 8, 12))
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
def test_running_statistics_follow_the_momentum(momentum) -> None:
    blocks = [Block(), Block().apart()]
    for block in blocks:
        block.norm.momentum = momentum
        for step in range(3):
            block(images(4, 1, 8, 12, seed=step))
    ours, theirs = (dict(block.norm.named_buffers()) for block in blocks)
    assert_same(ours, theirs)
    assert ours["num_batches_tracked"] == 3
    assert torch.equal(ours["running_mean"], Block().norm.running_mean) == (momentum == 0)


def test_eval_mode_leaves_the_norm_alone() -> None:
    block = Block().eval()
    before = {name: value.clone() for name, value in block.norm.state_dict().items()}
    outcome_of_a_copy = outcome(block, images(4, 1, 8, 12))
    block(images(4, 1, 8, 12))
    assert all(torch.equal(value, before[name]) for name, value in block.norm.state_dict().items())
    assert torch.equal(outcome_of_a_copy["running_mean"], before["running_mean"])


def test_eval_mode_takes_each_image_for_itself() -> None:
    x = images(4, 1, 8, 12)
    block = Block().eval()
    torch.testing.assert_close(block(x)[2:3], block(x[2:3]))
    block.train()
    assert (block(x)[2:3] - block(x[2:3])).abs().max() > 1e-3


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_zero_weight_is_the_limit_from_above(training) -> None:
    """With weight 0 all pixels of a window tie: torch takes the first, and here it is the largest.

    So the gradient in the weight is the derivative from above; all the rest agrees with the modules.
    """
    x, name = images(4, 1, 8, 12), "gradient in norm.weight"
    block = Block(weights=(0.0, 1.0, -1.0)).train(training)
    ours, theirs = outcome(block, x), outcome(block.apart(), x)
    above = outcome(Block(weights=(1e-9, 1.0, -1.0)).train(training).apart(), x)
    torch.testing.assert_close(ours.pop(name), above[name], rtol=1e-7, atol=1e-7)
    theirs.pop(name)
    assert not ours["gradient in conv.weight"][0].any()
    assert_same(ours, theirs)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_channel_that_is_all_zero_after_the_relu(training, weights) -> None:
    """The sum of positive pixels with a negative weight."""
    block = Block(weights=weights).train(training)
    with torch.no_grad():
        block.conv.weight[1] = 0
        block.conv.weight[1, 0, 0] = -1.0  # the Gaussian
    x = images(4, 1, 8, 12).abs() + 0.1
    assert_equals_modules(block, x)
    found = outcome(block, x)
    assert all(value.isfinite().all() for value in found.values())
    assert not found["gradient in conv.weight"][1].any()
    if training:
        torch.testing.assert_close(found["output"][:, 1], block.norm.bias[1].detach().expand(4, 4, 6))
        assert found["running_var"][1] == pytest.approx(0.9 * block.norm.running_var[1].item())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_equal_pixels(training) -> None:
    """Grey images: many pixels of a window are as large, and any may get its gradient; all else is the same."""
    block = Block(window=4).train(training)
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None, None, None].expand(4, 1, 48, 40)
    ours, theirs = outcome(block, x), outcome(block.apart(), x)
    names = ("output", "gradient in norm.bias", "gradient in norm.weight", "running_mean", "running_var")
    assert_same(*({name: found[name] for name in names} for found in (ours, theirs)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_maxima_of_folded_windows(window, ties) -> None:
    """Each place points to a pixel of its own window that has the window's maximum."""
    channels, batch, size = 2, 3, (4 * window, 6 * window)
    x = images(batch, channels, *size)
    x = x.round() if ties else x
    maps = folded.fold(x)
    windows = fused._FoldedWindows(maps, channels, batch, window)
    values, places = windows.maxima(), windows.places()
    pooled = torch.empty(batch, channels, 4, 6, dtype=torch.float64)
    folded.unfold(values.flatten(2), pooled)
    assert torch.equal(pooled, nn.functional.max_pool2d(x, window))
    assert torch.equal(maps.view(-1)[places], values)
    numbers = torch.arange(4 * 6).view(4, 6).double().repeat_interleave(window, 0).repeat_interleave(window, 1)
    numbers = folded.fold((100 * torch.arange(batch * channels).view(batch, channels, 1, 1) + numbers).contiguous())
    own = numbers.view(2, 2, window, -1, window)[:, :, 0, :, 0]
    assert torch.equal(numbers.view(-1)[places].flatten(2), own)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("basis", BASES)
def test_gradcheck(basis, training) -> None:
    """Scales away from the steps of their supports."""
    block = Block(scales=IsrScales(0.7, 2.1, 3), basis=BASES[basis], extent=2.0).train(training)
    names, parameters = zip(*block.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (images(2, 1, 8, 4).requires_grad_(), *parameters), fast_mode=True)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_entry_of_the_jacobian(training) -> None:
    block = Block(weights=(1.5, -0.5), scales=IsrScales(0.7, 2.1, 2), extent=2.0).train(training)
    names, parameters = zip(*block.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (images(2, 1, 4, 4).requires_grad_(), *parameters))


NEEDS = [need for need in itertools.product([False, True], repeat=5) if any(need)]


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: "".join("-+"[one] for one in need))
def test_any_set_of_wanted_gradients(need) -> None:
    block, x = Block(), images(2, 1, 8, 4).requires_grad_()
    tensors = [x, block.conv.weight, block.conv.scales.gamma, block.norm.weight, block.norm.bias]
    everything = torch.autograd.grad(block(x).square().sum(), tensors)
    for parameter in block.parameters():
        parameter.requires_grad_(False)
    for tensor, wanted in zip(tensors, need, strict=True):
        tensor.requires_grad_(wanted)
    chosen = [number for number, wanted in enumerate(need) if wanted]
    found = torch.autograd.grad(block(x).square().sum(), [tensors[number] for number in chosen])
    for one, number in zip(found, chosen, strict=True):
        torch.testing.assert_close(one, everything[number], rtol=1e-10, atol=1e-10)


def test_a_second_derivative_is_refused() -> None:
    """It would be wrong: the backward pass is not differentiable."""
    x = images(2, 1, 8, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(Block()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_second_backward_pass_gives_the_same() -> None:
    block, x = Block(), images(2, 1, 8, 12).requires_grad_()
    y, tensors = block(x).square().sum(), [x, *block.parameters()]
    first = torch.autograd.grad(y, tensors, retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(first, torch.autograd.grad(y, tensors), strict=True))


def test_results_are_not_overwritten_by_the_next_call() -> None:
    """A forward and a backward pass of other images between forward and backward, which even move the statistics."""
    block = Block().eval()
    x, other = images(2, 1, 8, 12), images(3, 1, 8, 12, seed=1)
    expected, between = outcome(block, x), outcome(block, other)
    given = x.clone().requires_grad_()
    y = block(given)
    assert_same(outcome(block, other), between, 0)
    block.train()(other)
    direction = torch.cos(torch.arange(y.numel(), dtype=x.dtype, device=x.device)).view(y.shape)
    gradients = torch.autograd.grad((y * direction).sum(), [given, *block.parameters()])
    again = [y.detach(), *gradients]
    assert all(torch.equal(one, value) for one, value in zip(again, list(expected.values())[: len(again)], strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode, monkeypatch) -> None:
    """The same output and statistics, and nothing kept; what is cached then still serves for training."""
    for cache in (folded._vertical_transform, folded._places, fused._first_places):
        cache.cache_clear()
    kept = []
    forward = fused._ProjectPool.forward

    def spy(ctx, *arguments):
        kept.append(ctx)
        return forward(ctx, *arguments)

    monkeypatch.setattr(fused._ProjectPool, "forward", staticmethod(spy))
    block, x = Block(), images(2, 1, 8, 12)
    with mode():
        y = block(x)
    found = outcome(Block(), x)
    assert y.grad_fn is None
    without, with_gradients = kept
    assert not any(without.maps + without.places + without.projected + [won for wins in without.wins for won in wins])
    assert [len(with_gradients.maps), len(with_gradients.places), len(with_gradients.wins[0])] == [1, 1, 3]
    torch.testing.assert_close(y, found["output"], rtol=1e-13, atol=1e-13)  # with gradients, more functions are at hand
    for name, value in block.norm.named_buffers():
        torch.testing.assert_close(value, found[name], rtol=1e-13, atol=1e-13)


def test_no_device_is_asked_for_values() -> None:
    """A meta tensor has none; on a GPU each question would stop the device."""
    block, x = Block().to("meta"), torch.zeros(2, 1, 8, 12, device="meta", dtype=torch.float64)
    assert {name: value.shape for name, value in outcome(block, x).items()} == {
        name: value.shape for name, value in outcome(Block(), images(2, 1, 8, 12)).items()
    }


@pytest.mark.parametrize("layout", ["channels last", "transposed", "sliced", "expanded"])
def test_any_memory_layout(layout) -> None:
    def laid_out(x: Tensor) -> Tensor:
        return {
            "channels last": lambda: x.contiguous(memory_format=torch.channels_last),
            "transposed": lambda: x.mT.contiguous().mT,
            "sliced": lambda: x.repeat_interleave(2, -1)[..., ::2],
            "expanded": lambda: x[:1].expand(len(x), -1, -1, -1),
        }[layout]()

    block, x = Block(channels=2), images(3, 2, 8, 12)
    assert not laid_out(x).is_contiguous()
    assert_same(outcome(block, laid_out(x)), outcome(block, laid_out(x).contiguous()), 0)
    y = block(laid_out(x).requires_grad_() if layout != "expanded" else laid_out(x))
    expanded = torch.autograd.grad(y, block.conv.weight, torch.ones((), dtype=y.dtype).expand(y.shape), True)
    assert torch.equal(*expanded, *torch.autograd.grad(y, block.conv.weight, torch.ones_like(y)))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("size", "window", "bias"),
    [((8, 10), 2, False), ((7, 9), 2, False), ((9, 8), 4, False), ((8, 6), 5, False), ((8, 12), 2, True)],
    ids=str,
)
def test_other_sizes_and_a_bias_take_the_modules(size, window, bias, training, monkeypatch) -> None:
    monkeypatch.setattr(conv_module, "project_relu_norm_pool", None)
    block = Block(window, bias=bias).train(training)
    if bias:
        block.conv.bias.data.uniform_(-1, 1)
    assert_equals_modules(block, images(3, 1, *size))


@pytest.mark.parametrize("algorithm", ["fourier", "dense"])
def test_other_algorithms_take_the_modules(algorithm, monkeypatch) -> None:
    expected = outcome(Block(), images(3, 1, 8, 12))
    monkeypatch.setattr(conv_module, "project_relu_norm_pool", None)
    assert_same(outcome(Block(algorithm=algorithm), images(3, 1, 8, 12)), expected)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LiftingConv takes a tensor of shape \(B, C, H, W\) with C = 1, got shape"):
        Block()(images(2, 3, 8, 12))


def test_nan_scales_show() -> None:
    """A diverged network runs on, and nobody takes its output for a number."""
    block = Block(scales=DirectScales(1.0, 2.0, 2))
    block.conv.scales.sigmas.data.fill_(torch.nan)
    found = outcome(block, images(2, 1, 8, 12))
    assert found["output"].isnan().all()
    assert found["gradient in conv.weight"].isnan().all()
    assert found["running_mean"].isnan().all()


def test_a_shorter_circle_shows(monkeypatch) -> None:
    """Negative control of the comparison with the modules."""
    expected = outcome(Block().apart(), images(2, 1, 8, 12))
    assert_same(outcome(Block(), images(2, 1, 8, 12)), expected)
    monkeypatch.setattr(separable, "circle", lambda height, half_width: height)
    with pytest.raises(AssertionError, match="output"):
        assert_same(outcome(Block(), images(2, 1, 8, 12)), expected, 1e-3)


def one_pixel_wide(weights: Tensor) -> Block:
    """A block whose convolution multiplies an image by the weight of each channel."""
    block = Block(weights=[1.0] * len(weights), scales=FixedScales(0.1, 1, 1), basis=VaryingOrderBasis(1))
    block.norm.momentum = 1.0  # the running statistics are those of the batch
    block.conv.weight.data = weights.double().view(-1, 1, 1)
    return block


@pytest.mark.parametrize("ratio", [0, 1, 10, 100], ids=lambda ratio: f"ratio {ratio}")
def test_accuracy_of_the_statistics(ratio) -> None:
    """The relative error of the variance grows with (mean / std)^2, because the squared mean is subtracted.

    Rectified responses have ratios of about 1.
    """
    x = (images(8, 1, 84, 84, seed=3) + ratio).float()
    exact = x.double().relu()
    for dtype, unit in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        block = one_pixel_wide(torch.ones(1)).to(dtype)
        block(x.to(dtype))
        mean, var = block.norm.running_mean, block.norm.running_var
        assert mean.dtype == var.dtype == dtype
        assert (var.double() / exact.var() - 1).abs() <= unit * (1 + ratio**2)
        torch.testing.assert_close(mean.double(), exact.mean()[None], rtol=unit, atol=0)


def test_variance_is_never_negative() -> None:
    """Constant images are the worst case: nothing is left of the squares when the squared mean is subtracted."""
    block = one_pixel_wide(torch.linspace(0.1, 1000, 50)).float()
    y = block(torch.ones(4, 1, 32, 32))
    mean, var = block.norm.running_mean, block.norm.running_var
    assert (var >= 0).all()
    assert (var <= 1e-5 * mean.square()).all()
    assert y.isfinite().all()


def test_autocast_changes_neither_type_nor_result() -> None:
    block, x = Block().float(), images(2, 1, 8, 12).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, Block().float()(x))


@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_2x2(ties: bool) -> None:
    """Values and gradients of torch's pooling, also where pixels are equal: both give all to the first."""
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    x = x.round() if ties else x
    upstream = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(1))
    results = []
    for pool in (max_pool_2x2, lambda maps: torch.nn.functional.max_pool2d(maps, 2)):
        maps = x.clone().requires_grad_()
        pooled = pool(maps)
        results.append((pooled.detach(), *torch.autograd.grad(pooled, maps, upstream)))
    assert torch.equal(results[0][0], results[1][0])
    if ties:
        torch.testing.assert_close(*(_block_sums(grad) for _, grad in results))
    else:
        assert torch.equal(results[0][1], results[1][1])
    assert not max_pool_2x2(x).requires_grad


def _block_sums(grad: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(grad, 2)
