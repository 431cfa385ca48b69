"""Hermite-Gaussian functions and bases: values by hand, identities, truncation, normalisation."""

import math

import pytest
import torch

from scalestudy.layers.basis import (
    HermiteBasis,
    VaryingOrderBasis,
    VaryingSigmaBasis,
    dynamic_size,
    hermite_gaussians,
    supports,
)

HERMITE = [
    lambda t: 1.0,
    lambda t: t,
    lambda t: t**2 - 1,
    lambda t: t**3 - 3 * t,
    lambda t: t**4 - 6 * t**2 + 3,
    lambda t: t**5 - 10 * t**3 + 15 * t,
]


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
def test_functions_against_the_printed_polynomials(sigma: float) -> None:
    sampled = hermite_gaussians(double(sigma), 6, 4)
    assert sampled.shape == (6, 1, 9)
    for order, polynomial in enumerate(HERMITE):
        expected = [math.exp(-(x**2) / (2 * sigma**2)) * polynomial(x / sigma) / sigma for x in range(-4, 5)]
        assert sampled[order, 0].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 3.7])
def test_derivative_in_the_logarithm_of_the_scale(sigma: float) -> None:
    """d g_n / d ln s = g_(n+2) + n g_n, exactly for the sampled functions; any other combination is visibly wrong."""
    log_sigma = double(math.log(sigma)).requires_grad_()
    exact = torch.autograd.functional.jacobian(lambda u: hermite_gaussians(u.exp(), 6, 8)[:, 0], log_sigma)[..., 0]
    functions = hermite_gaussians(log_sigma.detach().exp(), 8, 8)[:, 0]
    orders = torch.arange(6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(functions[2:] + orders * functions[:6], exact, rtol=1e-12, atol=1e-12)
    assert ((functions[2:] + (orders + 1) * functions[:6]) - exact).abs().max() > 0.1


@pytest.mark.parametrize(
    ("scales", "extent", "expected"),
    [
        ([2.0, 6.0], 4.0, 49),
        ([2.0, 6.0000005], 4.0, 51),  # one float32 step above: the released learnable networks start here
        ([6.0, 2.0], 4.0, 49),
        ([1.0, 1.5], 3.0, 11),
        ([0.01], 4.0, 3),
        ([-1.0], 4.0, 3),
        ([math.nan, 1.0], 4.0, 3),
    ],
)
def test_dynamic_size(scales: list[float], extent: float, expected: int) -> None:
    assert dynamic_size(torch.tensor(scales).tolist(), extent) == expected


@pytest.mark.parametrize(
    ("scales", "size", "expected"),
    [
        ((2, 2 * 3**0.5, 6), 49, [17, 29, 49]),
        ((4, 4 * 6**0.5, 24), 193, [33, 79, 193]),
        ((1.5, 1.89, 2.38, 3.0), 25, [13, 15, 19, 25]),
        ((3.0, 1.5), 15, [15, 7]),  # the largest scale need not be the last
    ],
)
def test_supports(scales: tuple[float, ...], size: int, expected: list[int]) -> None:
    assert (2 * supports(double(*scales), size) + 1).tolist() == expected


@pytest.mark.parametrize(
    "basis", [VaryingOrderBasis(1), VaryingOrderBasis(4), VaryingSigmaBasis(7), VaryingSigmaBasis(2, 0, 1.3)]
)
@pytest.mark.parametrize("scales", [(4.0,), (4.0, 5.6, 8.0), (8.0, 4.0)])
def test_unit_norm_at_the_first_scale_and_natural_amplitude_after(basis: HermiteBasis, scales) -> None:
    size = dynamic_size(scales)
    dense = basis.sample(double(*scales), size).dense()
    assert dense.shape == (basis.num_functions, len(scales), size, size)
    assert basis.num_functions == basis.effective_size**2
    norms = torch.linalg.vector_norm(dense, dim=(2, 3))
    torch.testing.assert_close(norms[:, 0], torch.ones_like(norms[:, 0]))
    for i, scale in enumerate(scales[1:], 1):  # the norm of psi(x / s) / s^2 is in proportion to 1 / s
        torch.testing.assert_close(norms[:, i], torch.full_like(norms[:, i], scales[0] / scale), rtol=0.15, atol=0)


def test_every_scale_is_zero_outside_its_support() -> None:
    basis = VaryingOrderBasis(3).sample(double(2, 2 * 3**0.5, 6), 49)
    assert basis.supports == (8, 14, 24)
    rows = basis.dense().abs().amax((0, 3)) > 0
    assert rows.sum(1).tolist() == [17, 29, 49]


PAIRS = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]  # (row, column)


@pytest.mark.parametrize(
    ("basis", "wanted"),
    [
        (VaryingOrderBasis(3), [((f % 3, f // 3), 3.0) for f in range(9)]),
        (VaryingSigmaBasis(3, 2, 1.5), [(pair, 3.0) for pair in PAIRS] + [(pair, 2.0) for pair in PAIRS[:3]]),
    ],
)
def test_order_of_the_functions(basis: HermiteBasis, wanted: list) -> None:
    """A: f = col_order * n + row_order.  B: all of total order <= max_order, columns outermost; the next sub-sigma."""
    dense = basis.sample(double(3.0), 25).dense()[:, 0]
    for f, ((row, col), sigma) in enumerate(wanted):
        profile = hermite_gaussians(double(sigma), 3, 12)[:, 0]
        expected = torch.outer(profile[row], profile[col])
        torch.testing.assert_close(dense[f], expected / expected.norm())


def test_scales_that_have_diverged() -> None:
    """NaN scales give NaN; a scale whose support is negative gives zero instead of an error."""
    basis = VaryingOrderBasis(2).sample(double(math.nan, math.nan), 3)
    assert basis.supports == (1, 1) and basis.dense().isnan().any()
    basis = VaryingOrderBasis(2).sample(double(1.0, -0.9), 9)
    assert basis.supports == (4, 0) and basis.dense()[:, 0].any() and not basis.dense()[:, 1].any()


def test_unused_functions_that_vanish_leave_gradients_alone() -> None:
    """The first order is 0 in the middle, and so small a sigma sees no other pixel; but it is not in the basis."""
    scales = double(0.5, 2.0).requires_grad_()
    sampled = VaryingSigmaBasis(3, 0, 1.4).sample(scales, 17)
    assert 0 in sampled.norms
    sampled.dense().square().sum().backward()
    assert scales.grad.isfinite().all()


@pytest.mark.parametrize("size", [4, 1, -3, 5.0, True])
def test_bad_kernel_size(size) -> None:
    with pytest.raises(ValueError, match=f"kernel size must be an odd integer >= 3 pixels, got {size}"):
        VaryingOrderBasis(2).sample(double(1.0), size)


@pytest.mark.parametrize("kind", [VaryingOrderBasis, VaryingSigmaBasis])
@pytest.mark.parametrize("effective_size", [0, 2.5, True, "5"])
def test_bad_effective_size(kind, effective_size) -> None:
    with pytest.raises(ValueError, match=f"effective_size must be an integer >= 1, got {effective_size!r}"):
        kind(effective_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_order": -1}, "max_order must be an integer >= 0, got -1"),
        ({"mult": 1.0}, r"mult .* must be finite and > 1, got 1\.0"),
        ({"mult": math.nan}, "mult .* got nan"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        VaryingSigmaBasis(3, **options)
