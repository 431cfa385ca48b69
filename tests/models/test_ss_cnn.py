"""SS-CNN: log-radial harmonics, steering."""

import math

import pytest
import torch
from torch import nn

from scalestudy.models.ss_cnn import FILTER_SIZES, SSCNN, SteerableConv, log_radial_harmonics


@pytest.mark.parametrize(("size", "block", "channels"), [(12, 2, 2), (14, 3, 2), (12, 1, 1)])
def test_algorithms_agree(assert_algorithms_agree, size: int, block: int, channels: int) -> None:
    torch.manual_seed(0)
    assert_algorithms_agree(SteerableConv(channels, 3), torch.randn(2, channels, size, size), block)


def test_algorithms_agree_on_doubled_images() -> None:
    torch.manual_seed(0)
    layer = SteerableConv(1, 2, doubled=True).double()
    images = nn.functional.interpolate(torch.randn(2, 1, 10, 10).double(), scale_factor=2)
    fast = layer.activate(images, 1)
    layer.algorithm = "direct"
    torch.testing.assert_close(fast, layer.activate(images, 1), rtol=1e-11, atol=1e-11)


def test_harmonics() -> None:
    """Unit norm; nothing beyond 8 pixels; even under a turn by 180 degrees."""
    for part in log_radial_harmonics():
        assert part.shape == (3, 17, 17, 9)
        torch.testing.assert_close(part.square().sum((1, 2)), torch.ones(3, 9, dtype=torch.float64))
        rows, cols = torch.meshgrid(torch.arange(-8, 9), torch.arange(-8, 9), indexing="ij")
        assert not part[:, rows.square() + cols.square() > 64].any()
        torch.testing.assert_close(part, part.flip(1, 2))


def test_harmonic_by_hand() -> None:
    """Order 1 at angle 0 (up), 3 pixels above the centre, relative to 1 pixel: cos(kappa ln 3 - pi/4) / 3."""
    real, imag = log_radial_harmonics()
    kappa = 2 * math.pi / math.log(8 * math.sqrt(2))
    phase = kappa * math.log(3) - math.pi / 4
    assert (real[1, 5, 8, 0] / real[1, 7, 8, 0]).item() == pytest.approx(math.cos(phase) / 3 / math.cos(math.pi / 4))
    assert (imag[1, 5, 8, 0] / imag[1, 7, 8, 0]).item() == pytest.approx(math.sin(phase) / 3 / math.sin(-math.pi / 4))


def test_steering_at_the_reference_size_is_none() -> None:
    torch.manual_seed(0)
    layer = SteerableConv(2, 3)
    expected = torch.einsum("koif,khwf->oihw", layer.mult_real, layer.filter_real)
    expected = expected - torch.einsum("koif,khwf->oihw", layer.mult_imag, layer.filter_imag)
    torch.testing.assert_close(layer.kernels(11), expected[..., 3:14, 3:14])
    assert [layer.kernels(size).shape[-1] for size in FILTER_SIZES] == [7, 9, 11, 13, 15, 17]


def test_steering_turns_the_numbers() -> None:
    torch.manual_seed(0)
    layer = SteerableConv(1, 1).double()
    theta = [-2 * math.pi * k / math.log(8 * math.sqrt(2)) * math.log(17 / 11) for k in (0.5, 1, 2)]
    turned = torch.complex(layer.mult_real, layer.mult_imag) * torch.exp(1j * torch.tensor(theta)).view(3, 1, 1, 1)
    filters = torch.complex(layer.filter_real, layer.filter_imag)
    expected = torch.einsum("koif,khwf->oihw", turned, filters).real
    torch.testing.assert_close(layer.kernels(17), expected)


def test_unused_parameters_get_no_gradient() -> None:
    torch.manual_seed(0)
    net = SSCNN()
    nn.functional.cross_entropy(net(torch.randn(2, 1, 28, 28)), torch.tensor([0, 1])).backward()
    unused = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert unused == {f"conv{i}.const_real" for i in (1, 2, 3)} | {"unused_norm.weight", "unused_norm.bias"}


def test_initialisation() -> None:
    torch.manual_seed(0)
    layer, bound = SteerableConv(4, 30), math.sqrt(2 / (9 * 4 * 30))
    for parameter in (layer.mult_real, layer.mult_imag):
        assert 0.98 * bound < parameter.abs().max() <= bound
