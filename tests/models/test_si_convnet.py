"""SI-ConvNet: rescaling about the centre, maximum over scales."""

import pytest
import torch
from torch import nn

from scalestudy.models.si_convnet import ScaleInvariantConv, SIConvNet, resize_about_centre, resizing
from scalestudy.models.sicnn import COLUMN_SCALES


@pytest.mark.parametrize(("size", "block", "channels"), [(28, 2, 2), (14, 3, 2), (28, 1, 1)])
@pytest.mark.parametrize("shift", [-0.3, 0.3])
def test_algorithms_agree(assert_algorithms_agree, size: int, block: int, channels: int, shift: float) -> None:
    """Also where a bias of either sign makes the zeros outside of shrunk responses count, before ReLU."""
    torch.manual_seed(0)
    layer = ScaleInvariantConv(channels, 3)
    layer.bias.data += shift
    assert_algorithms_agree(layer, torch.randn(2, channels, size, size), block)


def test_algorithms_agree_on_doubled_images() -> None:
    torch.manual_seed(0)
    layer = ScaleInvariantConv(1, 3, doubled=True).double()
    images = nn.functional.interpolate(torch.randn(2, 1, 14, 14).double(), scale_factor=2)
    fast = layer.activate(images, 1)
    layer.algorithm = "direct"
    torch.testing.assert_close(fast, layer.activate(images, 1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("factor", COLUMN_SCALES)
def test_rescaling_is_separable(factor: float) -> None:
    x = torch.randn(1, 2, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = resizing(28, factor, torch.float64)
    torch.testing.assert_close(resize_about_centre(x, factor), matrix @ x @ matrix.T)


def test_rescaling_by_hand() -> None:
    """Factor 0.3 of 56 pixels: 16 pixels, 20 of padding; first and last pixel are those of the image."""
    matrix = resizing(56, 0.3, torch.float64)
    covered = matrix.any(1).nonzero().flatten().tolist()
    assert covered == list(range(20, 36))
    assert (matrix[20, 0], matrix[35, 55]) == (1, pytest.approx(1))
    assert matrix[covered].sum(1).tolist() == pytest.approx([1] * 16)
    enlarged = resizing(56, 3.33, torch.float64)  # 186 pixels, the central 56 of them, from 65 on
    position = 65 * 55 / 185
    assert enlarged[0].nonzero().flatten().tolist() == [int(position), int(position) + 1]
    assert enlarged[0, int(position) + 1].item() == pytest.approx(position % 1)


def test_response_is_at_least_that_of_the_plain_convolution() -> None:
    torch.manual_seed(0)
    net, x = SIConvNet(), torch.randn(1, 32, 28, 28)
    plain = nn.functional.conv2d(x, net.conv2.weight, net.conv2.bias, padding=3)
    assert (net.conv2(x) >= plain).all()
    assert (net.conv2(x) > plain).any()
