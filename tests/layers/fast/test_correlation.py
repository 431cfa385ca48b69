"""Separable correlation of one scale: against dense convolution, in blocks or not, wrap-around."""

import itertools

import pytest
import torch
from agreement import random
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.fast import correlation as module
from scalestudy.layers.fast.correlation import (
    ScaleCorrelation,
    blocks,
    circle,
    correlate_plainly,
    toeplitz,
    turn,
    turned_back,
)

SIZES = [(6, 8), (7, 8), (6, 9), (7, 9), (2, 2), (1, 5), (5, 1), (1, 1), (2, 7), (3, 24), (2, 75)]
ORDERS = (0, 1, 2, 3)
PAIR_SETS = {
    "all": tuple(itertools.product(range(4), range(4))),
    "some": ((0, 3), (1, 0), (3, 0), (2, 2)),
    "only even columns": ((0, 2), (1, 2), (3, 0)),
    "only odd columns": ((0, 1), (1, 1), (2, 3)),
    "only even rows": ((0, 1), (2, 2), (0, 0)),
    "only odd rows": ((1, 1), (3, 2), (1, 0)),
}


def even_and_odd_functions(half_width: int, window: int) -> Tensor:
    """One function for each of ORDERS, even or odd as the order is, and 0 beyond the half-width."""
    functions = random(len(ORDERS), 2 * window + 1, seed=3)
    parity = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)[:, None]
    functions = functions + parity * functions.flip(1)
    return functions * (torch.arange(-window, window + 1).abs() <= half_width)


def correlation_of(
    weight: Tensor, size: tuple[int, int], half_width: int, pairs: str, window: int | None = None
) -> tuple[ScaleCorrelation, Tensor]:
    functions = even_and_odd_functions(half_width, half_width if window is None else window)
    cols = tuple({col for _, col in PAIR_SETS[pairs]})
    return ScaleCorrelation(weight, PAIR_SETS[pairs], functions, cols, size, half_width), functions


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


def error(size: tuple[int, int], half_width: int, pairs: str = "all", window: int | None = None) -> float:
    """Largest difference from dense convolution, relative to the largest response; odd functions may have none."""
    x, weight = random(3, 2, *size), random(3, 2, len(PAIR_SETS[pairs]), seed=1)
    correlation, functions = correlation_of(weight, size, half_width, pairs, window)
    planes = turn(x)
    found = turned_back(correlation.respond(correlation.project(planes), *planes.shape[1:3]))
    expected = correlate_plainly(x, weight, functions, PAIR_SETS[pairs])
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def test_toeplitz_is_zero_padded_correlation() -> None:
    signal = torch.tensor([1.0, 0, 10, 100])
    assert (toeplitz(torch.tensor([1.0, 2.0, 4.0]), 4) @ signal).tolist() == [2, 41, 420, 210]
    assert toeplitz(torch.arange(9.0), 2).tolist() == [[4, 5], [3, 4]]
    assert toeplitz(torch.zeros(2, 3, 5), 7).shape == (2, 3, 7, 7)


def test_blocks_cover_the_width() -> None:
    """They have at least 12 columns, and margins; the whole plane is one where they would save less than a third."""
    assert [blocks(*at) for at in ((168, 0), (168, 50), (168, 51), (75, 8), (56, 20), (13, 1), (29, 1))] == [
        (14, 12, 0), (14, 12, 50), (1, 168, 0), (6, 13, 8), (1, 56, 0), (1, 13, 0), (2, 15, 1)
    ]  # fmt: skip


def test_circle_is_as_long_as_needed() -> None:
    """And then up to a length that is good for an FFT."""
    assert [circle(*at) for at in ((10, 3), (10, 9), (10, 40), (1, 3), (168, 20))] == [15, 20, 20, 1, 192]


@pytest.mark.parametrize("pairs", PAIR_SETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_dense_convolution(size: tuple[int, int], pairs: str) -> None:
    """Kernels smaller than the plane, as large, and larger: circles of even and of odd length."""
    for half_width in (1, 2, 3, 6, 12):
        assert error(size, half_width, pairs) < 1e-13


@pytest.mark.parametrize("half_width", [2, 3, 4, 9])
@pytest.mark.parametrize("size", [(8, 6), (5, 6)], ids=str)
def test_a_shorter_circle_wraps_round(size: tuple[int, int], half_width: int, monkeypatch) -> None:
    """Functions that end before their window, on longer circles; negative control: one row less, and a border shows."""
    enough = size[0] + min(half_width, size[0] - 1)
    for period in (enough, enough + 1, enough + 2, 2 * size[0] + 30):
        monkeypatch.setattr(module, "circle", lambda height, half_width, period=period: period)
        assert error(size, half_width, window=half_width + 5) < 1e-13
    monkeypatch.setattr(module, "circle", lambda height, half_width: enough - 1)
    assert error(size, half_width) > 1e-3


@pytest.mark.parametrize("half_width", [1, 6])
@pytest.mark.parametrize("size", [(7, 9), (3, 24), (2, 75)], ids=str)
def test_adjoint_is_the_transpose(size: tuple[int, int], half_width: int) -> None:
    """Of the response to all images; wanted functions that the weights have not change nothing."""
    x, gradient = turn(random(2, 3, *size)), turn(random(2, 2, *size, seed=1))
    weight, functions, pairs = (
        random(2, 3, 4, seed=2),
        even_and_odd_functions(half_width, half_width),
        PAIR_SETS["some"],
    )
    for cols in ((0, 2, 3), (0, 2, 3, 1)):
        correlation = ScaleCorrelation(weight, pairs, functions, cols, size, half_width)
        responses = correlation.respond(correlation.project(x), *x.shape[1:3])
        spectrum = correlation.accumulate(correlation.zero_total(), correlation.project(x), gradient)
        back = correlation.adjoint(spectrum, *gradient.shape[1:3])
        torch.testing.assert_close((responses * gradient).sum(), (x * back).sum(), rtol=1e-12, atol=1e-12)


def test_narrower_bands_show(monkeypatch) -> None:
    """Negative control of the blocks: one column less to each side."""
    assert error((3, 24), 2) < 1e-13
    monkeypatch.setattr(module, "blocks", lambda width, half_width: (2, 12, half_width - 1))
    assert error((3, 24), 2) > 1e-3
