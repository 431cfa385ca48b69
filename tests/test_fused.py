"""ReLU, batch norm and max pooling in one step against the three modules of torch."""

import copy

import pytest
import torch
from torch import nn

from scalestudy.fused import _moments, max_pool_2x2, relu_norm_pool_

TOLERANCES = {torch.float64: {"rtol": 1e-10, "atol": 1e-12}, torch.float32: {"rtol": 1e-4, "atol": 1e-5}}
WEIGHTS = {"positive": (0.5, 1.0, 2.0), "negative": (-0.5, -1.0, -2.0), "mixed": (-1.5, 0.7, 1e-3)}


def norm_of(weights, dtype=torch.float64, training=True):
    """A batch norm with a past: running statistics that are not those of a new module."""
    norm = nn.BatchNorm2d(len(weights)).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(weights))
        norm.bias.copy_(torch.linspace(-1, 1, len(weights)))
        norm.running_mean.copy_(torch.linspace(0.1, 0.9, len(weights)))
        norm.running_var.copy_(torch.linspace(0.5, 2.0, len(weights)))
    return norm.train(training)


def modules(x, norm, window):
    return nn.functional.max_pool2d(norm(x.relu()), window)


def fused(x, norm, window):
    return relu_norm_pool_(x.clone(), norm, window)


def outcome(function, x, norm, window):
    """Output, gradients in x, weight and bias of a weighted sum of it, and the norm's buffers afterwards."""
    norm, x = copy.deepcopy(norm), x.clone().requires_grad_()
    y = function(x, norm, window)
    direction = torch.cos(torch.arange(y.numel(), dtype=x.dtype)).view(y.shape)
    gradients = torch.autograd.grad((y * direction).sum(), (x, norm.weight, norm.bias))
    names = ("output", "gradient in x", "gradient in the weight", "gradient in the bias")
    return dict(zip(names, (y.detach(), *gradients), strict=True)) | dict(norm.named_buffers())


def assert_same(x, norm, window, **tolerances):
    ours, theirs = outcome(fused, x, norm, window), outcome(modules, x, norm, window)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, **tolerances, msg=lambda text, name=name: f"{name}: {text}")


def images(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("window", [1, 4, 5], ids=lambda window: f"window {window}")
def test_equals_the_three_modules(dtype, training, weights, window):
    """12 x 12 pixels: 5 does not divide them, so the last pixels are in no window but count in the moments."""
    assert_same(images(4, 3, 12, 12, dtype=dtype), norm_of(weights, dtype, training), window, **TOLERANCES[dtype])


def test_shape_is_rounded_down():
    assert fused(images(2, 3, 11, 9), norm_of(WEIGHTS["mixed"]), 4).shape == (2, 3, 2, 2)


def test_counts_batches_in_training_only():
    norm = norm_of(WEIGHTS["mixed"])
    for _ in range(3):
        fused(images(2, 3, 8, 8), norm, 2)
    assert norm.num_batches_tracked == 3
    fused(images(2, 3, 8, 8), norm.eval(), 2)
    assert norm.num_batches_tracked == 3


def test_overwrites_its_input_by_the_rectified_values():
    x = images(2, 3, 8, 8)
    before = x.clone()
    relu_norm_pool_(x, norm_of(WEIGHTS["mixed"]), 2)
    assert torch.equal(x, before.relu())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("weights", [(1.0, 0.5), (-1.0, -0.5)], ids=["positive", "negative"])
def test_ties_send_their_gradient_where_torch_sends_it(training, weights):
    """Few grey levels: most windows hold their maximum (and their minimum, often the ReLU's 0) several times."""
    x = torch.randint(-1, 3, (3, 2, 8, 8), generator=torch.Generator().manual_seed(1)).double()
    assert_same(x, norm_of(weights, training=training), 4, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_zero_weight_is_the_limit_from_above(training):
    """With weight 0 all pixels of a window tie: torch takes the first, and here it is the largest.

    So the gradient in the weight is the derivative from above; all the rest agrees with the modules.
    """
    x, weights = images(4, 3, 12, 12), (0.0, 1.0, -1.0)
    ours = outcome(fused, x, norm_of(weights, training=training), 4)
    theirs = outcome(modules, x, norm_of(weights, training=training), 4)
    above = outcome(modules, x, norm_of((1e-9, 1.0, -1.0), training=training), 4)
    weight = "gradient in the weight"
    torch.testing.assert_close(ours.pop(weight), above[weight], rtol=1e-7, atol=1e-7)
    assert theirs.pop(weight) is not None
    if training:  # the gradient in x of channel 0 is 0 whatever the pixel
        assert not ours["gradient in x"][:, 0].any()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_channel_that_is_all_zero_after_the_relu(dtype, training):
    x = images(4, 3, 12, 12, dtype=dtype)
    x[:, 1] = -x[:, 1].abs() - 0.1
    norm = norm_of(WEIGHTS["mixed"], dtype, training)
    assert_same(x, norm, 4, **TOLERANCES[dtype])
    ours = outcome(fused, x, norm, 4)
    assert all(value.isfinite().all() for value in ours.values())
    assert not ours["gradient in x"][:, 1].any()
    if training:
        torch.testing.assert_close(ours["output"][:, 1], norm.bias[1].detach().expand(4, 3, 3))


@pytest.mark.parametrize("layout", ["channels last", "transposed", "sliced"])
def test_any_memory_layout(layout):
    def laid_out(x):
        if layout == "channels last":
            return x.clone(memory_format=torch.channels_last)
        return x.clone().transpose(2, 3) if layout == "transposed" else x.clone()[:, :, 1::2, ::3]

    def strided_fused(x, norm, window):
        return relu_norm_pool_(laid_out(x), norm, window)

    def strided_modules(x, norm, window):
        return modules(laid_out(x), norm, window)

    x, norm = images(3, 3, 12, 18), norm_of(WEIGHTS["mixed"])
    ours, theirs = outcome(strided_fused, x, norm, 2), outcome(strided_modules, x, norm, 2)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradcheck(training):
    x = images(2, 3, 4, 5)
    x = (x + 0.2 * x.sign()).requires_grad_()  # the ReLU has a kink at 0
    norm = norm_of(WEIGHTS["mixed"], training=training)

    def function(x, weight, bias):
        fresh = copy.deepcopy(norm)
        del fresh.weight, fresh.bias
        fresh.weight, fresh.bias = weight, bias
        return fused(x, fresh, 2)

    weight, bias = norm.weight.detach().clone().requires_grad_(), norm.bias.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (x, weight, bias))


def test_a_second_derivative_is_refused():
    """It would be wrong: the backward pass is not differentiable."""
    x = images(2, 3, 6, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(fused(x, norm_of(WEIGHTS["mixed"]), 2).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("ratio", [0, 1, 10, 100, 1000], ids=lambda ratio: f"ratio {ratio}")
def test_accuracy_of_the_moments(ratio):
    """The relative error of the variance grows with (mean / std)^2, because the squared mean is subtracted.

    Measured on 8 images of 168 x 168: at most 2.5e-7 (1 + ratio^2) in float32, so 1e-3 where the mean is 100 standard
    deviations.  Rectified responses have ratios of about 1.  In float64 it is below 1e-15 (1 + ratio^2).
    """
    x = (images(8, 2, 168, 168, seed=3) + ratio).relu()
    for dtype, unit in ((torch.float32, 1e-6), (torch.float64, 2e-14)):
        given = x.to(dtype)
        exact = given.double()
        mean, var = _moments(given, given.numel() // 2)
        expected = exact.var((0, 2, 3), correction=0)
        assert ((var.double() - expected).abs() / expected).max() <= unit * (1 + ratio**2)
        torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=unit, atol=0)
        assert mean.dtype == var.dtype == dtype


def test_variance_is_never_negative():
    """A positive constant is the worst case in float32: all roundings of a sum are alike (measured: 1.2e-5 mean^2)."""
    constant = torch.linspace(0.1, 1000, 50)[None, :, None, None].expand(4, 50, 30, 30)
    mean, var = _moments(constant, 4 * 30 * 30)
    assert (var >= 0).all() and (var <= 1e-4 * mean.square()).all()


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
