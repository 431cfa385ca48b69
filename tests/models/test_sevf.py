"""SEVF: vector fields of scale."""

import math

import pytest
import torch
from torch import nn

from scalestudy.models.sevf import (
    ANGLES,
    RESIZE_FACTORS,
    SEVF,
    ScalarFieldConv,
    ScalarSEVF,
    VectorFieldConv,
    VectorNorm,
    resize,
    resizing,
    respond,
    vector_pool,
)


@pytest.mark.parametrize(("size", "block", "channels"), [(12, 2, 2), (14, 3, 2)])
def test_algorithms_agree_on_vectors(assert_algorithms_agree, size: int, block: int, channels: int) -> None:
    torch.manual_seed(0)
    assert_algorithms_agree(VectorFieldConv(channels, 3), torch.randn(2, 2, channels, size, size), block)


@pytest.mark.parametrize(("size", "block", "channels"), [(12, 2, 2), (14, 3, 2), (12, 1, 1)])
def test_algorithms_agree_on_scalars(assert_algorithms_agree, size: int, block: int, channels: int) -> None:
    torch.manual_seed(0)
    assert_algorithms_agree(ScalarFieldConv(channels, 3), torch.randn(2, channels, size, size), block)


def test_algorithms_agree_on_doubled_images() -> None:
    torch.manual_seed(0)
    layer = ScalarFieldConv(1, 3, doubled=True).double()
    images = nn.functional.interpolate(torch.randn(2, 1, 6, 6).double(), scale_factor=2)
    fast = layer.activate(images, 1)
    layer.algorithm = "direct"
    torch.testing.assert_close(fast, layer.activate(images, 1), rtol=1e-11, atol=1e-11)


def test_factors_and_angles() -> None:
    assert RESIZE_FACTORS[4] == 1
    assert RESIZE_FACTORS[5] / RESIZE_FACTORS[4] == pytest.approx(1.26)
    assert ANGLES[7] - ANGLES[0] == pytest.approx(2 * math.pi / 3)
    assert ANGLES[4] == 0
    assert [round(56 * factor) for factor in RESIZE_FACTORS] == [22, 28, 35, 44, 56, 71, 89, 112]


@pytest.mark.parametrize("new_size", [5, 8, 13])
def test_resize_is_separable(new_size: int) -> None:
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = resizing(8, new_size, torch.float64)
    torch.testing.assert_close(resize(x, new_size), matrix @ x @ matrix.T)


def test_magnitude_and_angle_of_the_strongest_scale() -> None:
    torch.manual_seed(0)
    layer, x = ScalarFieldConv(2, 3).double(), torch.randn(1, 2, 12, 12).double()
    magnitude, angle = layer(x)
    responses = torch.stack([respond(x, layer.weight, factor) for factor in RESIZE_FACTORS])
    for j, expected in enumerate(ANGLES):
        chosen = responses.argmax(0) == j
        assert chosen.any()
        assert (angle[chosen] == expected).all()
        assert torch.equal(magnitude[chosen], responses[j][chosen].clamp(min=0))


def test_turned_kernels() -> None:
    """At the scale of angle a, kernels are the vector (wu, wv) turned by -a, for u and for v."""
    torch.manual_seed(0)
    layer = VectorFieldConv(2, 3).double()
    for angle, turned in zip(ANGLES, layer.turned_weights(), strict=True):
        number = torch.complex(layer.weight_u, layer.weight_v) * torch.exp(torch.tensor(-1j * angle))
        torch.testing.assert_close(turned, torch.cat([number.real, number.imag], 1))


def test_vector_pool_keeps_the_longest_vector() -> None:
    vectors = torch.zeros(1, 2, 1, 2, 2)
    vectors[0, :, 0, 0, 1] = torch.tensor([3.0, -4.0])
    vectors[0, :, 0, 1, 0] = torch.tensor([4.5, 0.0])
    assert vector_pool(vectors, 1).flatten().tolist() == [3.0, -4.0]


def test_vector_norm_by_hand() -> None:
    norm = VectorNorm(1)
    vectors = torch.tensor([[3.0, 0.0], [4.0, 1.0]]).view(1, 2, 1, 1, 2)  # lengths 5 and 1: biased variance 4
    torch.testing.assert_close(norm(vectors), vectors / (4 + 1e-5) ** 0.5)
    assert norm.running_var.item() == pytest.approx(0.5 * 1 + 0.5 * 8)
    torch.testing.assert_close(norm.eval()(vectors), vectors / (4.5 + 1e-5) ** 0.5)
    assert norm.running_var.item() == pytest.approx(4.5)


def test_gradients_are_finite_where_vectors_are_zero() -> None:
    torch.manual_seed(0)
    net = SEVF()
    images = torch.zeros(2, 1, 28, 28)
    images[0, 0, 10:14, 10:14] = 1  # with zeros around: no response, no length
    nn.functional.cross_entropy(net(images), torch.tensor([0, 1])).backward()
    unused = {"norm1.weight", "norm2.weight"}
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (name in unused)
        assert name in unused or (parameter.grad.isfinite().all() and parameter.grad.any())


@pytest.mark.parametrize("net_class", [SEVF, ScalarSEVF])
def test_head_has_a_bias(net_class) -> None:
    assert net_class().head[0].bias is not None


def test_rounding_chooses_the_angle_on_a_constant_background() -> None:
    """Why the first layer of the vector net keeps the released steps: elsewhere its angles would be others."""
    torch.manual_seed(0)
    layer = ScalarFieldConv(1, 8)
    responses = torch.stack([respond(torch.full((1, 1, 56, 56), -0.28), layer.weight, q) for q in RESIZE_FACTORS])
    inner = responses[..., 24:32, 24:32]
    spread_of_scales = (inner.amax(0) - inner.amin(0)).abs().max()
    assert 0 < spread_of_scales < 1e-6
    assert SEVF().conv1.algorithm == "direct"
