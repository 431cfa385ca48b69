"""SiCNN: rescaled kernels, columns."""

import pytest
import torch
from torch import nn

from scalestudy.models.sicnn import COLUMN_KERNEL_SIZE, COLUMN_SCALES, ColumnConv, SiCNN, enlarging, rescale_kernels


@pytest.mark.parametrize(("size", "block"), [(8, 2), (14, 3)])
def test_algorithms_agree(assert_algorithms_agree, size: int, block: int) -> None:
    torch.manual_seed(0)
    assert_algorithms_agree(ColumnConv(2, 3), torch.randn(2, 7 * 2, size, size), block)


def test_algorithms_agree_in_the_first_layer() -> None:
    torch.manual_seed(0)
    layer = ColumnConv(1, 2, doubled=True).double()
    images = nn.functional.interpolate(torch.randn(2, 1, 7, 7).double(), scale_factor=2)
    fast = layer.activate(images, 1)
    gradient = torch.autograd.grad(fast.square().sum(), layer.weight)[0]
    layer.algorithm = "direct"
    direct = layer.activate(images, 1)
    torch.testing.assert_close(fast, direct, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(direct.square().sum(), layer.weight)[0], rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("factor", COLUMN_SCALES)
def test_kernels_keep_their_norm_and_their_linear_map(factor: float) -> None:
    weight = torch.randn(2, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernels = rescale_kernels(weight, factor)
    assert kernels.shape[2:] == (COLUMN_KERNEL_SIZE, COLUMN_KERNEL_SIZE) == (23, 23)
    torch.testing.assert_close(kernels.abs().sum((2, 3)), weight.abs().sum((2, 3)))
    matrix = enlarging(factor, torch.float64)
    edge = (23 - len(matrix)) // 2
    linear = nn.functional.pad(matrix @ weight @ matrix.T, 4 * [edge])
    ratio = kernels[linear != 0] / linear[linear != 0]
    assert torch.equal(kernels == 0, linear == 0)
    torch.testing.assert_close(kernels, linear * (weight.abs().sum((2, 3)) / linear.abs().sum((2, 3)))[..., None, None])
    assert (ratio > 0).all()


def test_support_of_the_kernels_grows_with_the_factor() -> None:
    sizes = [len(enlarging(factor, torch.float64)) for factor in COLUMN_SCALES]
    assert sizes == sorted(sizes)
    assert (sizes[3], sizes[-1]) == (7, 23)


def test_nearest_enlargement_by_hand() -> None:
    """Factor 3.33: source index floor(i / 3.33) of 23 pixels, minus 8 of padding, 27 pixels cropped on the left."""
    matrix = enlarging(3.33, torch.float64)
    sources = [int((i + 27) / 3.33) - 8 for i in range(23)]
    assert sources[0] == 0 and sources[-1] == 6
    assert matrix.argmax(1).tolist() == sources
    assert torch.equal(matrix.sum(1), torch.ones(23, dtype=torch.float64))


def test_columns_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    layer, x = ColumnConv(2, 3), torch.randn(1, 14, 8, 8)
    changed = x.clone()
    changed[:, 4:6] += 1  # column 2
    difference = (layer.activate(changed, 2) - layer.activate(x, 2)).abs().amax((0, 2, 3)).view(7, 3).amax(1)
    assert (difference > 1e-3).tolist() == [column == 2 for column in range(7)]


def test_columns_meet_in_a_maximum() -> None:
    torch.manual_seed(0)
    net = SiCNN().eval()
    x = torch.randn(1, 1, 28, 28).repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = net.norm1(net.conv1.activate(x, 1))
    y = net.norm3(net.conv3.activate(net.norm2(net.conv2.activate(y, 2)), 3))
    assert y.shape == (1, 7 * 95, 2, 2)
    assert torch.equal(net.features(x), y.view(1, 7, 95, 2, 2).amax(1))
