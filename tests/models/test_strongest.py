"""Convolution and max pooling in one step against the steps one by one."""

import pytest
import torch
from torch.nn import functional

from scalestudy.layers.fast import fourier
from scalestudy.models import pooling
from scalestudy.models.pooling import Axis, block_pool, largest, pooling_windows, spread, window_maximum
from scalestudy.models.strongest import doubling, make_plan, strongest_of_doubled, strongest_response


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def axis_of(size: int, block: int, kernel_size: int = 7) -> Axis:
    identity = torch.eye(size, dtype=torch.float64)
    return Axis(pooling_windows(size, block), torch.eye(kernel_size, dtype=torch.float64), identity, identity)


def assert_same(expected: torch.Tensor, actual: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Same values and same gradients in all inputs."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    weights = randn(*expected.shape, seed=9)
    gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (expected, actual)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "block"), [(8, 1), (14, 3)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7, 17])
def test_equals_convolution_then_pooling(channels: int, size: int, block: int, kernel_size: int) -> None:
    x, weight = randn(2, channels, size, size).requires_grad_(), randn(4, channels, kernel_size, kernel_size, seed=1)
    weight.requires_grad_()
    expected = block_pool(functional.conv2d(x, weight, padding=kernel_size // 2), block)
    actual, _ = strongest_response(x, weight, make_plan(axis_of(size, block, kernel_size), channels, x))
    assert_same(expected, actual, [x, weight])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("size", "block"), [(8, 1), (14, 3)])
def test_groups_resampling_and_embedding(channels: int, size: int, block: int) -> None:
    x, weight = randn(3, channels, size, size).requires_grad_(), randn(6, channels, 3, 3, seed=1).requires_grad_()
    before, after, embedding = randn(11, size, seed=2), randn(size, 11, seed=3), randn(5, 3, seed=4)
    axis = Axis(pooling_windows(size, block), embedding, before, after)
    resampled = before @ x @ before.T
    response = after @ functional.conv2d(resampled, embedding @ weight @ embedding.T, padding=2) @ after.T
    expected = block_pool(response.unflatten(1, (3, 2)).max(1).values, block)
    assert_same(expected, strongest_response(x, weight, make_plan(axis, channels, x), groups=3)[0], [x, weight])


@pytest.mark.parametrize("channels", [1, 3])
def test_many_slices_of_the_batch_and_blocks_of_frequencies(channels: int, monkeypatch) -> None:
    x, weight = randn(5, channels, 8, 8).requires_grad_(), randn(2, channels, 3, 3, seed=1).requires_grad_()
    plan = make_plan(axis_of(8, 2, 3), channels, x)
    whole, _ = strongest_response(x, weight, plan)
    monkeypatch.setitem(pooling.CHUNK_BYTES, "cpu", 1)
    monkeypatch.setitem(fourier._BLOCK_BYTES, "cpu", 1)
    assert len(list(fourier.chunks(x, 10, pooling.CHUNK_BYTES))) == 5
    assert_same(whole, strongest_response(x, weight, plan)[0], [x, weight])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_doubled_images(groups: int, kernel_size: int) -> None:
    weight = randn(2 * groups, 1, kernel_size, kernel_size, seed=1).requires_grad_()
    images = functional.interpolate(randn(2, 1, 6, 6), scale_factor=2, mode="nearest")
    response = functional.conv2d(images, weight, padding=kernel_size // 2)
    expected = functional.max_pool2d(response.unflatten(1, (groups, -1)).max(1).values, 2)
    assert_same(expected, strongest_of_doubled(images, weight, groups), [weight])
    assert torch.equal(doubling(4), torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64))


def test_only_known_rows_count() -> None:
    """Where the response is known on part of an axis, windows without a known row are left out."""
    windows = pooling_windows(10, 1, known=(3, 6))
    assert (windows.first, windows.total, windows.rows.tolist()) == (1, 5, [[3, 4], [3, 5]])
    windows = pooling_windows(14, 3)
    assert (windows.first, windows.total) == (0, 2)
    assert windows.rows.T.tolist() == [[0, 0, 0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12, 13]]
    x = randn(1, 2, 14, 14)
    rows = windows.rows.T.flatten()
    assert torch.equal(functional.max_pool2d(x[..., rows, :][..., rows], 8), block_pool(x, 3))


@pytest.mark.parametrize("size", [2, 3])
def test_window_maximum_and_its_adjoint(size: int) -> None:
    places = randn(2, size, size, 3, 1, 2, 2)
    maximum, index = window_maximum(places)
    assert torch.equal(maximum, places.amax((0, 1, 2)))
    assert torch.equal(places.flatten(0, 2).gather(0, index.long()[None])[0], maximum)
    grad = randn(3, 1, 2, 2, seed=1)
    for order in ((0, 1, 2, 3, 4, 5, 6), (1, 5, 3, 0, 4, 2, 6)):
        back = spread(grad, index, 2, size, order)
        expected = torch.where(places == maximum, grad, 0.0).permute(order)
        assert torch.equal(back, expected)
        assert back.is_contiguous()


def test_largest_sends_the_gradient_to_the_first_maximum() -> None:
    first, second = torch.tensor([1.0, 2.0, 5.0], requires_grad=True), torch.tensor([1.0, 3.0, 4.0], requires_grad=True)
    maximum, index = largest([first, second])
    assert (maximum.tolist(), index.tolist()) == ([1, 3, 5], [0, 1, 0])
    maximum.sum().backward()
    assert (first.grad.tolist(), second.grad.tolist()) == ([1, 0, 1], [0, 1, 0])


def test_mixed_precision() -> None:
    """Under autocast nothing is computed in a shorter type; of two types the wider counts."""
    x, weight = randn(1, 2, 8, 8).float(), randn(3, 2, 3, 3).float()
    plan = make_plan(axis_of(8, 1, 3), 2, x)
    expected, _ = strongest_response(x, weight, plan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(strongest_response(x, weight, plan)[0], expected)
        assert strongest_response(x.bfloat16(), weight, plan)[0].dtype == torch.float32


def test_bad_block() -> None:
    with pytest.raises(ValueError, match="block must be 1, 2 or 3, got 4"):
        block_pool(torch.zeros(1, 1, 8, 8), 4)
