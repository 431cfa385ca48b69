"""Folded planes and the correlation on them: layout by hand, against dense convolution, adjoints, wrap-around."""

import itertools

import pytest
import torch
from agreement import random
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.fast.folded import (
    HorizontalProducts,
    ScaleCorrelation,
    Workspace,
    circle,
    correlate_plainly,
    even_first,
    fold,
    toeplitz,
    unfold,
    vertical_spectra,
)

SIZES = [(6, 8), (7, 8), (6, 9), (7, 9), (2, 2), (1, 5), (5, 1), (1, 1), (2, 7)]
ORDERS = (0, 1, 2, 3)
PAIR_SETS = {
    "all": tuple(itertools.product(range(4), range(4))),
    "some": ((0, 3), (1, 0), (3, 0), (2, 2)),
    "only even columns": ((0, 2), (1, 2), (3, 0)),
    "only odd columns": ((0, 1), (1, 1), (2, 3)),
    "only even rows": ((0, 1), (2, 2), (0, 0)),
    "only odd rows": ((1, 1), (3, 2), (1, 0)),
}


def unfolded(planes: Tensor, *shape: int) -> Tensor:
    out = torch.full(shape, torch.nan, dtype=planes.dtype)
    unfold(planes, out)
    return out


def even_and_odd_functions(half_width: int, window: int) -> Tensor:
    """One function for each of ORDERS, even or odd as the order is, and 0 beyond the half-width."""
    functions = random(len(ORDERS), 2 * window + 1, seed=3)
    parity = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)[:, None]
    functions = functions + parity * functions.flip(1)
    return functions * (torch.arange(-window, window + 1).abs() <= half_width)


def correlation_of(
    size: tuple[int, int], half_width: int, pairs: str = "all", window: int | None = None, period: int | None = None
) -> tuple[ScaleCorrelation, Tensor]:
    functions = even_and_odd_functions(half_width, half_width if window is None else window)
    space = Workspace(torch.float64, torch.device("cpu"))
    cols = even_first({col for _, col in PAIR_SETS[pairs]}, ORDERS)
    (horizontal,) = HorizontalProducts.of_scales(functions[:, None], ORDERS, cols, size[1], torch.float64)
    period = circle(size[0], half_width) if period is None else period
    spectra = vertical_spectra(functions, ORDERS, size[0], period, torch.float64)
    return ScaleCorrelation(spectra, ORDERS, horizontal, size[0], period, space), functions


def dense(x: Tensor, weight: Tensor, functions: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    rows, cols = ([pair[axis] for pair in pairs] for axis in (0, 1))
    kernels = torch.einsum("oif,fh,fw->oihw", weight, functions[rows], functions[cols])
    return functional.conv2d(x, kernels, padding=functions.shape[1] // 2)


@pytest.mark.parametrize("size", [(6, 8), (5, 3)], ids=str)
def test_what_is_computed_in_plain_words(size: tuple[int, int]) -> None:
    """The oracle of this file: two matrices for each pair are a convolution with its kernel."""
    functions, pairs = even_and_odd_functions(3, 4), PAIR_SETS["some"]
    x, weight = random(2, 2, *size), random(3, 2, len(pairs), seed=1)
    plain = correlate_plainly(x, weight, functions, pairs)
    torch.testing.assert_close(plain, dense(x, weight, functions, pairs))


def error(
    correlation: ScaleCorrelation, functions: Tensor, pairs: str, size: tuple[int, int], images: int = 3
) -> float:
    """Largest difference from dense convolution, relative to the largest response; odd functions may have none."""
    x, weight = random(images, 2, *size), random(3, 2, len(PAIR_SETS[pairs]), seed=1)
    mixing = correlation.mixing(weight, PAIR_SETS[pairs])
    found = unfolded(correlation.respond(correlation.project(fold(x), 2), mixing), images, 3, *size)
    expected = correlate_plainly(x, weight, functions, PAIR_SETS[pairs])
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def test_toeplitz_is_zero_padded_correlation() -> None:
    signal = torch.tensor([1.0, 0, 10, 100])
    assert (toeplitz(torch.tensor([1.0, 2.0, 4.0]), 4) @ signal).tolist() == [2, 41, 420, 210]
    assert toeplitz(torch.arange(9.0), 2).tolist() == [[4, 5], [3, 4]]
    assert toeplitz(torch.zeros(2, 3, 5), 7).shape == (2, 3, 7, 7)


def test_fold_by_hand() -> None:
    """The upper half row by row, left half before mirrored right half; then the lower half, mirrored.

    Middle row and middle column belong to the upper left; 0 stands for their mirror images.
    """
    even, odd = torch.arange(16.0).view(1, 1, 4, 4), torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    assert fold(even).tolist() == [[[0, 1, 3, 2], [4, 5, 7, 6]], [[12, 13, 15, 14], [8, 9, 11, 10]]]
    assert fold(odd).tolist() == [[[1, 2, 3, 0], [4, 5, 6, 0]], [[7, 8, 9, 0], [0, 0, 0, 0]]]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_unfold_is_the_inverse_of_fold(size: tuple[int, int]) -> None:
    x = random(2, 3, *size)
    assert fold(x).shape == (2, (size[0] + 1) // 2, 3 * 2 * 2 * ((size[1] + 1) // 2))
    assert torch.equal(unfolded(fold(x), *x.shape), x)
    assert fold(x).square().sum() == pytest.approx(x.square().sum().item())  # nothing twice


def test_workspace_gives_the_same_memory_again() -> None:
    space = Workspace(torch.float32, torch.device("cpu"))
    first = space.take("a", 2, 3)
    assert space.take("a", 5).data_ptr() == first.data_ptr() != space.take("b", 2, 3).data_ptr()
    assert space.take("a", 4, 4).shape == (4, 4)  # more than before


def test_circle_is_as_long_as_needed() -> None:
    assert (circle(10, 3), circle(10, 9), circle(10, 40), circle(1, 3)) == (13, 19, 19, 1)


@pytest.mark.parametrize("pairs", PAIR_SETS)
@pytest.mark.parametrize("width", [1, 2, 5, 6])
def test_horizontal_products(width: int, pairs: str) -> None:
    """Even functions first, kept in new memory if so wanted; what they are, against any gradient; the adjoint."""
    functions = torch.stack([even_and_odd_functions(half_width, 4) for half_width in (2, 4)], 1)
    cols = even_first({col for _, col in PAIR_SETS[pairs]}, ORDERS)
    products = HorizontalProducts.of_scales(functions, ORDERS, cols, width, torch.float64)
    assert len(products) == 2
    space = Workspace(torch.float64, torch.device("cpu"))
    for scale, one in enumerate(products):
        assert [col % 2 for col in one.cols] == [0] * one.num_even + [1] * (len(one.cols) - one.num_even)
        assert one.width == width + width % 2
        x, g = random(3, 1, 1, width), random(3, len(one.cols), 1, width, seed=2)
        lines = fold(x)[0].view(3, -1)
        kept = one.apply(lines, space, keep=True)
        assert torch.equal(one.apply(2 * lines, space, keep=False), 2 * kept)  # which is not in the workspace
        expected = torch.einsum("cij,bhwj->bchi", toeplitz(functions[list(one.cols), scale], width), x)
        folded_g = torch.stack([fold(gradient[:, None])[0].view(len(one.cols), 2, -1) for gradient in g])
        assert (kept * folded_g).sum().item() == pytest.approx((expected * g).sum().item(), abs=1e-12)
        assert (lines * one.adjoint(folded_g)).sum().item() == pytest.approx((expected * g).sum().item(), abs=1e-12)


@pytest.mark.parametrize("pairs", PAIR_SETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_dense_convolution(size: tuple[int, int], pairs: str) -> None:
    """Kernels smaller than the plane, as large, and larger: circles of even and of odd length."""
    for half_width in (1, 2, 3, 6, 12):
        assert error(*correlation_of(size, half_width, pairs), pairs, size) < 1e-13


@pytest.mark.parametrize("half_width", [2, 3, 4, 9])
@pytest.mark.parametrize("size", [(8, 6), (5, 6)], ids=str)
def test_a_shorter_circle_wraps_round(size: tuple[int, int], half_width: int) -> None:
    """Functions that end before their window, on longer circles; negative control: one row less, and a border shows."""
    enough = circle(size[0], half_width)
    for period in (enough, enough + 1, enough + 2, 2 * size[0] + 30):
        assert error(*correlation_of(size, half_width, window=half_width + 5, period=period), "all", size) < 1e-13
    assert error(*correlation_of(size, half_width, period=enough - 1), "all", size) > 1e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_adjoints(size: tuple[int, int]) -> None:
    """<respond(x), g> = <x, adjoint(g)> = <weight, moments(g, x)>; `spectrum` leaves what was projected alone."""
    pairs = PAIR_SETS["some"]
    correlation, _ = correlation_of(size, 3, "some")
    x, g, weight = random(3, 2, *size), random(3, 4, *size, seed=2), random(4, 2, len(pairs), seed=1)
    mixing = correlation.mixing(weight, pairs)
    y = unfolded(correlation.respond(correlation.project(fold(x), 2), mixing), *g.shape)
    projected = correlation.project(fold(x), 2)
    before = projected.clone()
    spectrum = correlation.spectrum(fold(g), 4)
    assert torch.equal(projected, before)
    moments = correlation.moments(torch.bmm(projected, spectrum.mT), 4, pairs)
    adjoint = unfolded(correlation.adjoint(spectrum, mixing), *x.shape)
    expected = (y * g).sum().item()
    assert (x * adjoint).sum().item() == pytest.approx(expected, rel=1e-12)
    assert moments.shape == weight.shape
    assert (weight * moments).sum().item() == pytest.approx(expected, rel=1e-12)
