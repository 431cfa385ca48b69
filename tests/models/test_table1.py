"""The network of Table 1: shapes, parameter counts, options, messages."""

import pytest
import torch
from torch import nn

from scalestudy.layers.scales import DirectScales, FixedScales, IsrScales, SpacingScales, StepRatioScales
from scalestudy.models.table1 import Table1Net


def small(scales=None, **options) -> Table1Net:
    torch.manual_seed(0)
    scales = IsrScales(0.7, 3.0, 3) if scales is None else scales
    return Table1Net(scales, image_size=28, pool_size=7, **options)


def images(count: int = 3, size: int = 28) -> torch.Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("parameterisation", "count"),
    [(FixedScales, 0), (IsrScales, 2), (StepRatioScales, 2), (SpacingScales, 3), (DirectScales, 3)],
)
def test_number_of_parameters(parameterisation, count: int) -> None:
    net = Table1Net(parameterisation(2.0, 3.0, 3))
    by_layer = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    nothing = dict.fromkeys(("projection", "relu", "pool", "flatten"), 0)
    assert by_layer == nothing | {"conv": 400 + count, "norm": 32, "linear": 2570}


def test_defaults_are_those_of_the_paper() -> None:
    net = Table1Net(FixedScales(2.0, 3.0, 3))
    assert (net.image_size, net.pool.kernel_size, net.pool.stride, net.order) == (168, 42, 42, "relu_norm")
    assert (net.conv.kernel_size(), net.conv.bias, net.conv.basis.num_functions) == (49, None, 25)
    assert (net.norm.eps, net.norm.momentum, net.linear.in_features) == (1e-5, 0.1, 256)


@pytest.mark.parametrize("order", ["relu_norm", "norm_relu"])
def test_lines_of_the_table_in_their_order(order: str) -> None:
    names = [type(layer).__name__ for layer in small(order=order)]
    middle = ["ReLU", "BatchNorm2d"] if order == "relu_norm" else ["BatchNorm2d", "ReLU"]
    assert names == ["LiftingConv", "ScaleProjection", *middle, "MaxPool2d", "Flatten", "Linear"]
    printed = str(small(order=order))
    assert sorted(names, key=printed.index) == names
    assert type(small()[:3]) is nn.Sequential and small()[-1].out_features == 10


@pytest.mark.parametrize("order", ["relu_norm", "norm_relu"])
@pytest.mark.parametrize("training", [True, False])
def test_is_its_lines_one_by_one(order: str, training: bool) -> None:
    net = small(order=order).train(training)
    net.norm.bias.data.uniform_(-1, 1)
    net.norm.running_mean.uniform_(-1, 1)
    other = small(order="norm_relu" if order == "relu_norm" else "relu_norm").train(training)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(images()), net[:](images()))
        assert (net(images()) - other(images())).abs().max() > 1e-3


def test_options() -> None:
    options = {"num_filters": 5, "effective_size": 3, "num_classes": 4, "algorithm": "dense"}
    net = Table1Net(FixedScales(0.5, 1, 1), image_size=20, pool_size=6, **options)
    assert net(images(2, 20)).shape == (2, 4)
    assert (net.linear.in_features, net.conv.weight.shape, net.conv.algorithm) == (5 * 3 * 3, (5, 1, 9), "dense")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 29}, "pool_size must be between 1 and image_size = 28, got 29"),
        ({"pool_size": 0}, "pool_size must be between 1 and image_size = 28, got 0"),
        ({"order": "relu"}, "order must be 'relu_norm' or 'norm_relu', got 'relu'"),
    ],
)
def test_bad_options(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table1Net(FixedScales(1.0, 2.0, 2), **{"image_size": 28, "pool_size": 7} | options)


@pytest.mark.parametrize("shape", [(2, 1, 27, 28), (2, 3, 28, 28), (28, 28)])
def test_bad_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Table1Net takes images of shape \(B, 1, 28, 28\), got"):
        small()(torch.zeros(shape))
