"""The layers of the systems: rescaled kernels as bases, rescaled images, vector fields, pooling."""

import math

import pytest
import torch
from released import resized_kernels, responses_to_resized
from torch import Tensor, nn

from scalestudy.layers.basis import SampledBasis
from scalestudy.layers.conv import GroupConv, LiftingConv
from scalestudy.layers.scales import FixedScales
from scalestudy.models import kernels
from scalestudy.models.dss import BLUR_TAPS, BLUR_VARIANCE, DilatedConv
from scalestudy.models.kernels import COLUMN_SCALES, log_radial_harmonics
from scalestudy.models.pooling import block_pool, larger, max_pool_2x2
from scalestudy.models.sevf import (
    ANGLES,
    RESIZE_FACTORS,
    SEVF,
    ScalarFieldConv,
    VectorFieldConv,
    VectorNorm,
    longest_vectors,
)
from scalestudy.models.ss_cnn import SteerableConv


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(kind: type, basis: Tensor, weight: Tensor) -> LiftingConv | GroupConv:
    """A scale convolution with this basis and these weights (O, I, ...)."""
    scales = FixedScales.from_values([1.0] * basis.shape[1])
    made = kind(*weight.shape[1::-1], scales, basis=SampledBasis(basis), kernel_size=basis.shape[-1]).double()
    made.weight.data = weight.detach().flatten(2)
    return made


def test_systems_are_scale_convolutions_with_other_bases() -> None:
    """CNN and DSS, whose layers take shorter ways, and SiCNN up to the norm of its kernels."""
    pixels, apart = torch.eye(7).double(), torch.zeros(13, 7).double()
    apart[::2] = pixels
    bases = kernels.pictures([pixels]), kernels.pictures([kernels.centred(pixels, 13), apart])
    weight, x, planes = randn(3, 2, 7, 7), randn(2, 2, 12, 12, seed=1), randn(2, 2, 2, 12, 12, seed=2)
    plain = layer(LiftingConv, bases[0], weight).project(x)
    torch.testing.assert_close(plain, nn.functional.conv2d(x, weight, padding=3))
    dilated = DilatedConv(2, 3).double()
    torch.testing.assert_close(layer(GroupConv, bases[1], dilated.weight)(planes), dilated(planes))
    enlarged = layer(LiftingConv, kernels.enlarged_pixels(), weight).kernels()
    for column, factor in enumerate(COLUMN_SCALES):
        theirs, ours = resized_kernels(weight, factor), enlarged[:, :, column]
        edge, count = (23 - kernels.COLUMN_SIZES[column]) // 2, ours.count_nonzero()
        assert nn.functional.pad(ours, 4 * [-edge - 1]).count_nonzero() < count
        assert nn.functional.pad(ours, 4 * [-edge]).count_nonzero() == count
        ours = ours * (weight.abs().sum((2, 3)) / ours.abs().sum((2, 3)))[..., None, None]
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(theirs.abs().sum((2, 3)), weight.abs().sum((2, 3)))


def test_harmonics() -> None:
    """Unit norm; nothing beyond 8 pixels; even under a turn by 180 degrees; one value by hand."""
    for part in log_radial_harmonics():
        assert part.shape == (3, 17, 17, 9)
        torch.testing.assert_close(part.square().sum((1, 2)), torch.ones(3, 9, dtype=torch.float64))
        rows, cols = torch.meshgrid(torch.arange(-8, 9), torch.arange(-8, 9), indexing="ij")
        assert not part[:, rows.square() + cols.square() > 64].any()
        torch.testing.assert_close(part, part.flip(1, 2))
    phase = 2 * math.pi / math.log(8 * math.sqrt(2)) * math.log(3) - math.pi / 4  # order 1, angle 0: 3 pixels up
    for part, value in zip(log_radial_harmonics(), (math.cos(phase), -math.sin(phase)), strict=True):
        assert (part[1, 5, 8, 0] / part[1, 7, 8, 0]).item() == pytest.approx(value / 3 * math.sqrt(2))


@pytest.mark.parametrize(("size", "place"), [(11, 2), (17, 5)])
def test_steering_turns_the_numbers(size: int, place: int) -> None:
    torch.manual_seed(0)
    conv, edge = SteerableConv(1, 2).double(), (17 - size) // 2
    theta = [-2 * math.pi * k / math.log(8 * math.sqrt(2)) * math.log(size / 11) for k in (0.5, 1, 2)]
    numbers = torch.complex(*conv.weight.unflatten(2, (2, 3, 9)).unbind(2))
    numbers = numbers * torch.exp(1j * torch.tensor(theta))[:, None]
    expected = torch.einsum("oikf,khwf->oihw", numbers, torch.complex(*log_radial_harmonics())).real
    expected = nn.functional.pad(expected[..., edge : 17 - edge, edge : 17 - edge], 4 * [edge])
    torch.testing.assert_close(conv.kernels()[:, :, place], expected, rtol=1e-6, atol=1e-7)


def test_scale_space() -> None:
    """Discrete Gaussian: symmetric, sum 1, variance t; a level is blurred by it along rows and columns."""
    taps, positions = torch.tensor(BLUR_TAPS, dtype=torch.float64), torch.arange(-4, 5)
    assert torch.equal(taps, taps.flip(0))
    assert taps.sum().item() == pytest.approx(1)
    assert (taps * positions**2).sum().item() == pytest.approx(BLUR_VARIANCE, rel=1e-4)  # cut off at 4 pixels
    image = torch.zeros(1, 1, 11, 11)
    image[0, 0, 5, 4] = 1
    itself, blurred = DilatedConv(1, 1).lift(image)
    expected = torch.zeros(11, 11)
    expected[1:10, 0:9] = torch.outer(taps, taps).float()
    assert torch.equal(itself, image)
    torch.testing.assert_close(blurred[0, 0], expected)


def test_factors_and_angles() -> None:
    assert [round(56 * factor) for factor in RESIZE_FACTORS] == [22, 28, 35, 44, 56, 71, 89, 112]
    assert (ANGLES[4], ANGLES[7] - ANGLES[0]) == (0, pytest.approx(2 * math.pi / 3))


def test_rounding_chooses_the_angle_on_a_constant_background() -> None:
    """Why the first layer of the vector net keeps the released steps: elsewhere its angles would be others."""
    torch.manual_seed(0)
    weights = [ScalarFieldConv(1, 8).weight] * len(ANGLES)
    inner = responses_to_resized(torch.full((1, 1, 56, 56), -0.28), weights)[..., 24:32, 24:32]
    assert 0 < (inner.amax(0) - inner.amin(0)).abs().max() < 1e-6


def test_turned_kernels() -> None:
    """At the scale of angle a, kernels are the vector (wu, wv) turned by -a, for u and for v."""
    torch.manual_seed(0)
    conv = VectorFieldConv(2, 3).double()
    for angle, turned in zip(ANGLES, conv.turned_weights(), strict=True):
        number = torch.complex(conv.weight_u, conv.weight_v) * torch.exp(torch.tensor(-1j * angle))
        torch.testing.assert_close(turned, torch.cat([number.real, number.imag], 1))


def test_longest_vectors_and_their_norm_by_hand() -> None:
    magnitude, angle = torch.tensor([[[[1.0, 5.0], [4.5, 0.0]]]]), torch.tensor([[[[1.0, math.pi], [2.0, 3.0]]]])
    assert longest_vectors(magnitude, angle, 1).flatten().tolist() == pytest.approx([-5, 0], abs=1e-6)
    norm = VectorNorm(1)
    vectors = torch.tensor([[3.0, 0.0], [4.0, 1.0]]).view(1, 2, 1, 1, 2)  # lengths 5 and 1: biased variance 4
    torch.testing.assert_close(norm(vectors), vectors / (4 + 1e-5) ** 0.5)
    assert norm.running_var.item() == pytest.approx(0.5 * 1 + 0.5 * 8)
    torch.testing.assert_close(norm.eval()(vectors), vectors / (4.5 + 1e-5) ** 0.5)
    assert norm.running_var.item() == pytest.approx(4.5)


def test_gradients_are_finite_where_vectors_are_zero() -> None:
    torch.manual_seed(0)
    net, images = SEVF(), torch.zeros(2, 1, 28, 28)
    images[0, 0, 10:14, 10:14] = 1  # with zeros around: no response, no length
    nn.functional.cross_entropy(net(images), torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters() if p.grad is not None)


def test_of_equal_values_the_first_gets_the_gradient() -> None:
    first, second = (torch.tensor(values, requires_grad=True) for values in ([1.0, 2.0, 5.0], [1.0, 3.0, 4.0]))
    maximum = larger(first, second)
    maximum.sum().backward()
    assert (maximum.tolist(), first.grad.tolist(), second.grad.tolist()) == ([1, 3, 5], [1, 0, 1], [0, 1, 0])
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    max_pool_2x2(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("shape", [(3, 3), (1, 4)])
def test_maps_of_odd_sides_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=f"maps must have an even height and width, got .*{shape[0]}, {shape[1]}"):
        block_pool(torch.zeros(1, 1, *shape), 2)


@pytest.mark.parametrize("conv", [ScalarFieldConv(1, 2), VectorFieldConv(1, 2)], ids=lambda conv: type(conv).__name__)
def test_vector_fields_on_images_that_are_not_square_are_refused(conv) -> None:
    shape = (1, 1, 5, 7) if isinstance(conv, ScalarFieldConv) else (1, 2, 1, 5, 7)
    with pytest.raises(ValueError, match="square images, got 5 x 7 pixels"):
        conv(torch.zeros(shape))
