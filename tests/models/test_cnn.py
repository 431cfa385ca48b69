"""The plain CNN, and what it shares with the other baselines."""

import pytest
import torch
from torch import nn

from scalestudy.models.blocks import PooledLayer
from scalestudy.models.cnn import CNN, SpatialConv


@pytest.mark.parametrize(("channels", "size", "block"), [(1, 8, 1), (3, 8, 2), (3, 14, 3)])
def test_algorithms_agree(assert_algorithms_agree, channels: int, size: int, block: int) -> None:
    torch.manual_seed(0)
    assert_algorithms_agree(SpatialConv(channels, 4), torch.randn(2, channels, size, size), block)


def test_algorithms_agree_on_doubled_images() -> None:
    torch.manual_seed(0)
    layer = SpatialConv(1, 4, doubled=True).double()
    images = nn.functional.interpolate(torch.randn(2, 1, 5, 5).double(), scale_factor=2)
    fast = layer.activate(images, 1)
    layer.algorithm = "direct"
    torch.testing.assert_close(fast, layer.activate(images, 1), rtol=1e-12, atol=1e-12)


def test_layer_is_initialised_as_in_pytorch() -> None:
    torch.manual_seed(0)
    layer = SpatialConv(2, 400)
    bound = (2 * 49) ** -0.5
    for parameter in (layer.weight, layer.bias):
        assert 0.98 * bound < parameter.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_steps_of_the_released_code() -> None:
    """Convolution, ReLU, pooling, batch norm, thrice; linear, batch norm, ReLU, dropout, linear."""
    torch.manual_seed(0)
    net = CNN().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    images = torch.randn(2, 1, 28, 28)
    x = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(8, 8, 2)]
    sizes = []
    for index, pool in enumerate(pools, 1):
        conv, norm = getattr(net, f"conv{index}"), getattr(net, f"norm{index}")
        x = norm(pool(nn.functional.conv2d(x, conv.weight, conv.bias, padding=3).relu()))
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(32, 28, 28), (63, 14, 14), (95, 2, 2)]
    torch.testing.assert_close(net(images), net.head(x.flatten(1)), rtol=1e-4, atol=1e-5)


def test_bad_algorithm() -> None:
    with pytest.raises(ValueError, match=r"algorithm must be one of \('fourier', 'direct'\), got 'fft'"):
        CNN(algorithm="fft")


def test_layer_without_fast_way() -> None:
    with pytest.raises(TypeError, match="PooledLayer does not say how it is computed fast"):
        PooledLayer("fourier", doubled=False).activate(torch.zeros(1, 1, 8, 8), 1)
