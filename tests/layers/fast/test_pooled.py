"""Convolution, projection, ReLU, batch norm and max pooling in one step against the five modules one by one."""

import copy
import functools
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from agreement import OneStep, assert_same, assert_same_as_dense, by_dense, in_chunks_of, layer_of, outcome, random
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from scalestudy.layers import conv as conv_module
from scalestudy.layers.basis import HermiteBasis, VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.layers.conv import LiftingConv, ScaleProjection
from scalestudy.layers.fast.pooled import can_pool
from scalestudy.layers.fast.separable import SeparableLayer
from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, StepRatioScales

WEIGHTS = {"positive": (0.5, 1.0, 2.0), "negative": (-0.5, -1.0, -2.0), "mixed": (-1.5, 0.7, 1e-3)}
BASES = {"varying order": VaryingOrderBasis(3), "varying sigma": VaryingSigmaBasis(3, max_order=2, mult=1.4)}
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def five(window: int = 2, weights=WEIGHTS["mixed"], channels: int = 1, **options) -> OneStep:
    """The layers of Table 1 up to the pooling, by `run_layers`; ``five()[:]`` are the same one by one."""
    layers = layer_of("pool", channels=(channels, len(weights)), window=window, **options)
    layers.norm.weight.data.copy_(torch.tensor(weights))
    return layers


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list:
    """One entry for each time that the one step is taken."""
    taken, step = [], conv_module.project_relu_norm_pool
    monkeypatch.setattr(conv_module, "project_relu_norm_pool", lambda *given: taken.append(1) or step(*given))
    return taken


@MODES
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize(("size", "window"), [((12, 8), 1), ((8, 12), 2), ((16, 8), 4)], ids=str)
def test_equals_the_modules(size, window, weights, training, steps) -> None:
    layers = five(window, weights, scales=StepRatioScales(0.9, 2.3, 3)).train(training)
    assert_same_as_dense(layers, random(4, 1, *size))
    assert steps


@MODES
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize(
    "scales", [FixedScales(1.3, 1, 1), DirectScales(0.8, 3.1, 5), IsrScales(2.0, 2.3, 2)], ids=repr
)
def test_scales_bases_and_several_channels(scales, basis, training) -> None:
    """One scale and many, two input channels, kernels that are larger than the image."""
    assert_same_as_dense(five(scales=scales, basis=BASES[basis], channels=2).train(training), random(3, 2, 8, 12))


def columns_only(basis: HermiteBasis, col: int) -> HermiteBasis:
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
    assert_same_as_dense(five(scales=FixedScales.from_values(values), basis=ONE_COLUMN[basis]), random(5, 1, 8, 12))


@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
def test_running_statistics_follow_the_momentum(momentum) -> None:
    layers = five()
    layers.norm.momentum = momentum
    assert_same_as_dense(layers, random(4, 1, 8, 12))
    layers(random(4, 1, 8, 12))
    assert torch.equal(layers.norm.running_mean, five().norm.running_mean) == (momentum == 0)


@MODES
def test_zero_weight_is_the_limit_from_above(training) -> None:
    """With weight 0 all pixels of a window tie; the largest is taken: the gradient in the weight is that from above."""
    x, name = random(4, 1, 8, 12), "gradient in norm.weight"
    layers = five(weights=(0.0, 1.0, -1.0)).train(training)
    ours, theirs = outcome(layers, x), outcome(by_dense(layers), x)
    theirs.pop(name)
    above = outcome(by_dense(five(weights=(1e-9, 1.0, -1.0)).train(training)), x)[name]
    torch.testing.assert_close(ours.pop(name), above, rtol=1e-7, atol=1e-7)
    assert not ours["gradient in conv.weight"][0].any()
    assert_same(ours, theirs, 1e-10)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@MODES
def test_channel_that_is_all_zero_after_the_relu(training, weights) -> None:
    """The sum of positive pixels with a negative weight."""
    layers = five(weights=weights).train(training)
    layers.conv.weight.data[1] = 0
    layers.conv.weight.data[1, 0, 0] = -1.0  # the Gaussian
    x = random(4, 1, 8, 12).abs() + 0.1
    assert_same_as_dense(layers, x)
    assert not outcome(layers, x)["gradient in conv.weight"][1].any()


@MODES
def test_equal_pixels(training) -> None:
    """Grey images: many pixels of a window are as large, and any may get its gradient; all else is the same."""
    layers = five(window=4).train(training)
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None, None, None].expand(4, 1, 48, 40)
    names = ("output", "gradient in norm.bias", "gradient in norm.weight", "norm.running_mean", "norm.running_var")
    ours, theirs = outcome(layers, x), outcome(by_dense(layers), x)
    assert_same(*({name: found[name] for name in names} for found in (ours, theirs)), 1e-10)


def test_all_that_is_kept_is_seen_by_hooks_and_given_back() -> None:
    """By those of saved tensors; without gradients nothing is kept."""
    layers, x, kept = five(), random(2, 1, 8, 12), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(weakref.ref(tensor)) or tensor, lambda t: t
    ):
        with torch.no_grad():
            layers(x)
        assert not kept
        y = layers(x).sum()
    alive = [tensor().shape for tensor in kept if tensor() is not None and tensor().dtype == torch.int8]
    assert alive == [(3, 12, 2, 8)] * 2  # who won, at each scale but the first
    y.backward()
    assert all(tensor() is None or tensor().numel() <= x.numel() for tensor in kept)


def test_passes_at_the_same_time() -> None:
    """Two threads through one graph do not disturb each other."""
    layers, x = five(scales=IsrScales(0.9, 2.3, 3)), random(8, 1, 16, 24)
    y, parameters = layers(x).square().sum(), list(layers.parameters())
    expected = torch.autograd.grad(y, parameters, retain_graph=True)
    with ThreadPoolExecutor(2) as threads:
        passes = [threads.submit(torch.autograd.grad, y, parameters, retain_graph=True) for _ in range(10)]
    for one in passes:
        assert all(torch.equal(*pair) for pair in zip(one.result(), expected, strict=True))


@pytest.mark.parametrize("size", [(168, 168), (8, 12), (8, 10), (10, 8), (6, 7), (6, 8)], ids=str)
@pytest.mark.parametrize("window", [1, 2, 3, 5, 42])
def test_windows_tile_the_images(size, window) -> None:
    possible = size[0] % window == 0 and size[1] % window == 0
    layers = [nn.ReLU(), nn.BatchNorm2d(2), nn.MaxPool2d(window)]
    assert can_pool(torch.zeros(1, 1, *size), torch.zeros(2, 1, 4), layers) is possible


def negative(kind: type, *arguments) -> nn.Module:
    """A layer of a class that is derived from this one and computes something else."""

    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        return -kind.forward(layer, x)

    return type("Negative", (kind,), {"forward": forward})(*arguments)


def switched_off() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3)
    norm.track_running_stats = False
    return norm


OTHERS = {
    "conv": [lambda: negative(LiftingConv, 1, 3, IsrScales(0.9, 2.3, 3), 2)],
    "projection": [lambda: negative(ScaleProjection)],
    "relu": [nn.LeakyReLU, nn.GELU, nn.Identity],
    "norm": [
        lambda: nn.BatchNorm2d(3, affine=False),
        lambda: nn.BatchNorm2d(3, bias=False),
        lambda: nn.BatchNorm2d(3, momentum=None),
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        lambda: nn.SyncBatchNorm(3),
        lambda: nn.GroupNorm(1, 3),
        lambda: negative(nn.BatchNorm2d, 3),
        switched_off,
        nn.Identity,
    ],
    "pool": [
        lambda: nn.AvgPool2d(2),
        lambda: nn.MaxPool2d((2, 2)),
        lambda: nn.MaxPool2d((1, 2)),
        lambda: nn.MaxPool2d(2, 1),
        lambda: nn.MaxPool2d(2, padding=1),
        lambda: nn.MaxPool2d(2, dilation=2),
        lambda: nn.AdaptiveMaxPool2d(2),
    ],
}


@MODES
@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param(name, make, id=f"{name} {number}")
        for name, makes in OTHERS.items()
        for number, make in enumerate(makes)
    ],
)
def test_other_layers_do_what_they_do(name: str, make: Callable, training: bool, steps: list) -> None:
    layers, x = five(), random(3, 1, 8, 12)
    setattr(layers, name, make().double())
    layers.train(training)
    assert_same(outcome(layers, x), outcome(layers[:], x))
    assert not steps


def test_a_pool_that_returns_more() -> None:
    layers = five()
    layers.pool.return_indices = True
    assert [part.shape for part in layers(random(2, 1, 8, 12))] == [(2, 3, 4, 6)] * 2


def test_what_does_not_fit_is_refused_as_by_the_modules() -> None:
    layers = five().eval()
    with pytest.raises(ValueError, match=r"LiftingConv takes a tensor of shape \(B, C, H, W\) with C = 1, got shape"):
        layers(random(2, 3, 8, 12))
    with pytest.raises(ValueError, match=r"got shape \(12,\)"):
        layers(random(12))
    layers.norm = nn.BatchNorm2d(1).double().eval()
    with pytest.raises(RuntimeError, match="running_mean"):
        layers(random(2, 1, 8, 12))
    layers = five(window=1).train()
    before = layers.norm.running_mean.clone()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layers(random(1, 1, 1, 1))
    assert torch.equal(layers.norm.running_mean, before)


@MODES
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((8, 11), {}),
        ((9, 7), {"window": 4}),
        ((8, 12), {"bias": True}),
        ((8, 12), {"algorithm": "fourier"}),
        ((8, 12), {"algorithm": "dense"}),
    ],
    ids=str,
)
def test_other_sizes_algorithms_and_a_bias_take_the_modules(size, options, training, steps) -> None:
    layers = five(**options).train(training)
    if layers.conv.bias is not None:
        layers.conv.bias.data.uniform_(-1, 1)
    assert_same_as_dense(layers, random(3, 1, *size))
    assert not steps


@pytest.mark.parametrize("name", ["conv", "projection", "relu", "norm", "pool"])
@pytest.mark.parametrize(
    "kind", ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook", "patched", "global"]
)
def test_hooks_run(kind: str, name: str, steps: list) -> None:
    layers, x = five(), random(2, 1, 8, 12).requires_grad_()
    part, seen = layers.get_submodule(name), []
    if kind == "patched":
        part.forward = lambda x: seen.append(part) or type(part).forward(part, x)
        undo = functools.partial(delattr, part, "forward")
    else:
        everywhere = nn.modules.module.register_module_forward_hook
        register = everywhere if kind == "global" else getattr(part, f"register_{kind}")
        undo = register(lambda module, *_: seen.append(module) if module is part else None).remove
    layers(x).sum().backward()
    undo()
    assert seen == [part] and not steps
    layers(x).sum().backward()
    assert seen == [part] and steps


PRUNED = functools.partial(prune.l1_unstructured, name="weight", amount=0.5)


@pytest.mark.parametrize("tool", [spectral_norm, PRUNED, parametrizations.spectral_norm, parametrizations.weight_norm])
def test_tools_that_change_the_weights_change_the_result(tool: Callable) -> None:
    """Over two steps of an optimiser, beside the modules."""
    x, found = random(3, 1, 8, 12), []
    for one_by_one in (False, True):
        torch.manual_seed(0)
        layers = five()
        untouched = outcome(layers, x)["output"]
        tool(layers.conv)
        optimiser = torch.optim.SGD(layers.parameters(), lr=1e-3)
        for _ in range(2):
            optimiser.zero_grad()
            y = (layers[:] if one_by_one else layers)(x)
            y.square().sum().backward()
            optimiser.step()
        assert (y - untouched).abs().max() > 1e-3
        found.append({"output": y.detach(), **layers.state_dict()})
    assert_same(*found)


def one_pixel_wide(weights: Tensor) -> OneStep:
    """Layers whose convolution multiplies an image by the weight of each channel."""
    layers = five(weights=[1.0] * len(weights), scales=FixedScales(0.1, 1, 1), basis=VaryingOrderBasis(1), extent=10.0)
    layers.norm.momentum = 1.0  # the running statistics are those of the batch
    layers.conv.weight.data = weights.double().view(-1, 1, 1)
    return layers


@pytest.mark.parametrize("ratio", [0, 1, 10, 100], ids=lambda ratio: f"ratio {ratio}")
def test_accuracy_of_the_statistics(ratio) -> None:
    """The relative error of the variance grows with (mean / std)^2; rectified responses have ratios of about 1."""
    x = (random(8, 1, 84, 84, seed=3) + ratio).float()
    exact = x.double().relu()
    for dtype, unit in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        layers = one_pixel_wide(torch.ones(1)).to(dtype)
        layers(x.to(dtype))
        mean, var = layers.norm.running_mean, layers.norm.running_var
        assert mean.dtype == var.dtype == dtype
        assert (var.double() / exact.var() - 1).abs() <= unit * (1 + ratio**2)
        torch.testing.assert_close(mean.double(), exact.mean()[None], rtol=unit, atol=0)


def test_variance_is_never_negative() -> None:
    """Constant images are the worst case: nothing is left of the squares when the squared mean is subtracted."""
    layers = one_pixel_wide(torch.linspace(0.1, 1000, 50)).float()
    y = layers(torch.ones(4, 1, 32, 32))
    mean, var = layers.norm.running_mean, layers.norm.running_var
    assert (var >= 0).all()
    assert (var <= 1e-5 * mean.square()).all()
    assert y.isfinite().all()
