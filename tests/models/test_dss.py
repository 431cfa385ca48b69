"""DSS: Gaussian scale space, dilated convolution."""

import pytest
import torch
from torch import nn

from scalestudy.models.dss import BLUR_VARIANCE, DSS, DilatedConv, LiftedConv, ScalarDSS, ScaleSpaceLift, blur_taps


@pytest.mark.parametrize(("size", "block"), [(8, 2), (14, 3)])
def test_algorithms_agree(assert_algorithms_agree, size: int, block: int) -> None:
    torch.manual_seed(0)
    assert_algorithms_agree(DilatedConv(2, 3), torch.randn(2, 2, 2, size, size), block)


@pytest.mark.parametrize(("size", "block", "channels"), [(8, 2, 3), (14, 3, 3), (8, 1, 1)])
def test_algorithms_agree_with_lift(assert_algorithms_agree, size: int, block: int, channels: int) -> None:
    torch.manual_seed(0)
    layer = LiftedConv(channels, 3)
    layer.double().lift.taps = blur_taps()  # not rounded to float32 in between
    assert_algorithms_agree(layer, torch.randn(2, channels, size, size), block)


def test_algorithms_agree_on_doubled_images() -> None:
    torch.manual_seed(0)
    layer = LiftedConv(1, 3, doubled=True).double()
    layer.lift.taps = blur_taps()
    images = nn.functional.interpolate(torch.randn(2, 1, 6, 6).double(), scale_factor=2)
    fast = layer.activate(images, 1)
    layer.algorithm = "direct"
    torch.testing.assert_close(fast, layer.activate(images, 1), rtol=1e-11, atol=1e-11)


def test_taps() -> None:
    """Discrete Gaussian: symmetric, sum 1, variance t."""
    taps, positions = blur_taps(), torch.arange(-4, 5)
    assert BLUR_VARIANCE == 0.1875
    assert torch.equal(taps, taps.flip(0))
    assert taps.sum().item() == pytest.approx(1)
    assert (taps * positions**2).sum().item() == pytest.approx(BLUR_VARIANCE, rel=1e-4)  # cut off at 4 pixels


def test_lift_by_hand() -> None:
    image = torch.zeros(1, 1, 11, 11)
    image[0, 0, 5, 4] = 1
    lifted = ScaleSpaceLift()(image)
    assert lifted.shape == (1, 1, 2, 11, 11)
    assert torch.equal(lifted[:, :, 0], image)
    expected = torch.zeros(11, 11)
    expected[1:10, 0:9] = torch.outer(blur_taps(), blur_taps()).float()
    torch.testing.assert_close(lifted[0, 0, 1], expected)


def test_level_one_is_dilated() -> None:
    """The response to one bright pixel is the flipped kernel, at every second pixel on level 1."""
    torch.manual_seed(0)
    layer, x = DilatedConv(1, 1), torch.zeros(1, 1, 2, 15, 15)
    x[..., 7, 7] = 1
    y = layer(x)[0, 0].detach()
    kernel = layer.weight[0, 0].detach().flip(0, 1)
    torch.testing.assert_close(y[0, 4:11, 4:11], kernel)
    torch.testing.assert_close(y[1, 1:14:2, 1:14:2], kernel)
    assert (y[1] != 0).sum() == 49


def test_initialisation() -> None:
    torch.manual_seed(0)
    assert DilatedConv(4, 200).weight.std().item() == pytest.approx((2 / (49 * 4)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("net_class", "norm"), [(DSS, nn.BatchNorm3d), (ScalarDSS, nn.BatchNorm2d)])
def test_norms(net_class, norm) -> None:
    net = net_class()
    assert all(isinstance(part, norm) for part in (net.norm1, net.norm2, net.norm3))
    assert net.features(torch.randn(2, 1, 56, 56)).shape == (2, 95, 2, 2)
