"""DISCO's bank: exact kernels, its loss, the optimum, and the basis."""

import itertools
import math

import numpy as np
import pytest
import torch
from disco_loss import equivariance_loss, expected_loss, white_noise_images
from torch import Tensor

from scalestudy.layers import disco
from scalestudy.layers.basis import VaryingSigmaBasis
from scalestudy.layers.disco import SCALES, disco_bank, disco_basis, exact_kernels, least_squares, minimise, pair_losses

SMALL = ((1.0, 1.5, 2.0), 11, 5)
TINY = ((1.0, 1.5), 5, 3)


def random_bank(scales: tuple[float, ...], functions: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(functions, len(scales), size, size, generator=generator, dtype=torch.float64)


def test_moments_of_the_noise() -> None:
    def upto(value: float) -> float:
        return 0.5 * (1 + math.erf(value / 255 / math.sqrt(2)))

    probability = [0.0] * 256
    for k in range(-2549, 2550):
        low, high = (k - 1 if k <= 0 else k), (k + 1 if k >= 0 else k)
        probability[k % 256] += upto(high) - upto(low)
    mean = sum(p * v / 255 for v, p in enumerate(probability))
    variance = sum(p * (v / 255 - mean) ** 2 for v, p in enumerate(probability))
    assert disco.noise_moments() == pytest.approx((mean, variance), rel=1e-12)
    images = white_noise_images(200)
    error = math.sqrt(variance / images.numel())
    assert abs(images.mean().item() - mean) < 4 * error < abs(images.mean().item() - 0.5)  # the dropped fraction shows
    assert images.var().item() == pytest.approx(variance, rel=0.005)


def keys(distance: float) -> float:
    """The cubic interpolation kernel with A = -0.75."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def resizing(size: int, ratio: float, nominal: bool) -> np.ndarray:
    """Matrix of the 1-D bicubic resize; on the grid of the whole sizes, or of the nominal ratio."""
    small = math.floor(size / ratio)
    step = ratio if nominal else size / small
    matrix = np.zeros((small, size))
    for out in range(small):
        centre = (out + 0.5) * step - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[out, min(max(tap, 0), size - 1)] += keys(tap - centre)
    return matrix


def by_hand(kernels: Tensor, ratio: float, image: np.ndarray, nominal: bool) -> float:
    """The loss of one pair: convolutions as sums of rolled images, resizing as matrix products."""
    half, matrix, total = kernels.shape[-1] // 2, resizing(len(image), ratio, nominal), 0.0
    for small, large in kernels.numpy():
        one = matrix @ rolled_sum(image, large, half) @ matrix.T
        other = rolled_sum(matrix @ image @ matrix.T, small, half)
        total += ((one - other)[half + 1 : -half - 1, half + 1 : -half - 1] ** 2).sum()
    return math.sqrt(total)


def rolled_sum(image: np.ndarray, kernel: np.ndarray, half: int) -> np.ndarray:
    shifts = range(-half, half + 1)
    return sum(kernel[half + i, half + j] * np.roll(image, (-i, -j), (0, 1)) for i in shifts for j in shifts)


def test_loss_by_hand() -> None:
    scales = (1.0, 1.26, 2.0)
    kernels, images = random_bank(scales, 3, 5), white_noise_images(1, size=31)
    expected = dict.fromkeys((False, True), 0.0)
    for nominal, (i, j) in itertools.product(expected, ((0, 1), (0, 2), (1, 2))):
        expected[nominal] += by_hand(kernels[:, (i, j)], scales[j] / scales[i], images[0, 0].numpy(), nominal)
    loss = equivariance_loss(kernels, scales, images)
    assert loss == pytest.approx(expected[False], rel=1e-12)
    assert abs(loss / expected[True] - 1) > 1e-3


@pytest.mark.parametrize(("scales", "size"), [((1.0, 2.0), 7), ((1.0, 3.0), 9), ((1.0, 2.0, 4.0), 11)])
def test_exact_kernels_lose_nothing(scales: tuple[float, ...], size: int) -> None:
    kernels, images = disco_bank(scales, size, 3), white_noise_images(2, size=156)
    assert equivariance_loss(kernels, scales, images) < 1e-9
    assert equivariance_loss(kernels.roll(1, 0), scales, images) < 1e-9
    kernels[0] = kernels[0].roll(1, -1)
    assert equivariance_loss(kernels, scales, images) > 1


@pytest.mark.parametrize("size", [20, 23])
def test_expected_loss_is_the_exact_expectation(size: int) -> None:
    """E ||R x||^2 = variance * sum over pixels q of ||R e_q||^2 + mean^2 ||R 1||^2, for any linear R."""
    scales, (mean, variance) = (1.0, 1.5, 1.8), disco.noise_moments()
    kernels = random_bank(scales, 2, 5)
    single = torch.eye(size**2, dtype=torch.float64).view(-1, 1, size, size)
    expected = 0.0
    for pair in ((0, 1), (0, 2), (1, 2)):
        part, ratio = kernels[:, pair], tuple(scales[i] for i in pair)
        ones = equivariance_loss(part, ratio, torch.ones(1, 1, size, size))
        expected += math.sqrt(variance * equivariance_loss(part, ratio, single) ** 2 + mean**2 * ones**2)
    assert expected_loss(kernels, scales, size=size) == pytest.approx(expected, rel=1e-10)
    assert expected_loss(kernels, scales, count=9, size=size) == pytest.approx(3 * expected, rel=1e-10)


def test_a_ratio_that_divides_the_size_up_to_rounding() -> None:
    assert [disco.shrunk_size(150, ratio) for ratio in (1.5 - 1e-15, 1.5, 1.5 + 1e-15)] == [100] * 3
    assert disco.shrunk_size(154, 1.26) == 122


def test_integer_scales_are_exact() -> None:
    kernels = disco_bank((1.0, 1.5, 3.0), 15, 5)
    assert kernels.shape == (25, 3, 15, 15) and kernels.dtype == torch.float64
    assert kernels[:, 1].all()  # free parameters everywhere
    for f, (index, factor) in itertools.product(range(25), ((0, 1), (2, 3))):
        assert kernels[f, index].nonzero().tolist() == [[7 + factor * (f // 5 - 2), 7 + factor * (f % 5 - 2)]]
        assert kernels[f, index].sum() == 1


@pytest.mark.parametrize(
    ("scales", "size", "effective_size"),
    [SMALL, TINY, ((1.5, 2.0), 9, 3), ((1.0, 1.1, 1.9), 9, 3), ((1.0, 1.26, 2.52), 9, 3)],
)
def test_optimum(scales: tuple[float, ...], size: int, effective_size: int) -> None:
    """No direction lowers the loss, and its slope there is a ten-thousandth of the slope nearby."""
    kernels, step = disco_bank(scales, size, effective_size), 1e-3
    best = expected_loss(kernels, scales)
    assert best > 0
    for seed in range(5):
        direction = random_bank(scales, effective_size**2, size, seed)
        direction[:, [i for i, factor in enumerate(scales) if not factor % 1]] = 0
        direction /= direction.norm()
        losses = [expected_loss(kernels + t * direction, scales) for t in (-step, step, 0.3 - step, 0.3 + step)]
        assert min(losses) > best
        assert abs(losses[1] - losses[0]) < 1e-4 * (losses[3] - losses[2])


def test_a_least_squares_answer_is_not_the_optimum() -> None:
    """The loss sums norms, not their squares: a single step with equal weights loses."""
    losses, exact = pair_losses(SCALES, 9, disco.IMAGE_SIZE), exact_kernels(SCALES, 9, 3)
    moving = [loss for loss in losses if (loss.small, loss.large) != (0, 3)]
    least, best = least_squares(exact, moving, [1.0] * 5, [1, 2]), minimise(exact, SCALES, [1, 2])
    squares_of_least, squares_of_best = (sum(loss.square(bank) for loss in losses) for bank in (least, best))
    assert squares_of_least < squares_of_best
    assert expected_loss(best, SCALES) < expected_loss(least, SCALES)


def test_a_free_kernel_is_where_the_pixel_is() -> None:
    """Grey stays grey; pixel (0, 2) is one to the right of the centre."""
    kernels, place = disco_bank(SCALES, 9, 3), torch.arange(9).double() - 4
    assert kernels.sum((2, 3)).sub(1).abs().max() < 0.02
    centres = (kernels[2].sum(1) * place).sum(1) / kernels[2].sum((1, 2))
    assert centres.tolist() == pytest.approx(SCALES, abs=0.1)


def test_the_released_size_is_solved_and_equivariant() -> None:
    kernels = disco_bank()
    assert kernels.shape == (49, 4, 15, 15)
    best = expected_loss(kernels, SCALES, count=8)
    assert best == pytest.approx(1162.31711, abs=1e-4)  # the released bank: 1162.31762
    assert equivariance_loss(kernels, SCALES, white_noise_images(1, seed=3)) == pytest.approx(best / 8**0.5, rel=0.02)


def test_solved_once_and_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    banks, threads = [], torch.get_num_threads()
    for count in (1, 2):
        disco._solved.cache_clear()
        torch.set_num_threads(count)
        banks.append(disco_bank(*SMALL))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert torch.equal(*banks)
    monkeypatch.setattr(disco, "minimise", None)
    banks[0].zero_()  # the caller's own
    assert torch.equal(disco_bank(*SMALL), banks[1])


def test_basis_is_the_bank_weighted_by_basis_b() -> None:
    kernels = disco_bank(*SMALL)
    basis = disco_basis(1.5, sigma=1.2, bank=kernels)
    pixels = VaryingSigmaBasis(5, mult=1.5).sample(torch.tensor([1.2], dtype=torch.float64), 5).dense()[:, 0]
    units = pixels / torch.linalg.vector_norm(pixels, dim=(1, 2), keepdim=True)
    torch.testing.assert_close(basis, torch.einsum("gyx,yxskl->gskl", units, kernels.unflatten(0, (5, 5))))
    torch.testing.assert_close(basis[:, 0, 3:8, 3:8], units)
    torch.testing.assert_close(basis[:, 2, 1:11:2, 1:11:2], units)


def test_basis_has_unit_norm_at_the_first_scale_and_depends_on_every_argument() -> None:
    kernels = random_bank(SCALES, 49, 15)
    default = disco_basis(1.5, bank=kernels)
    norms = torch.linalg.vector_norm(default, dim=(2, 3))
    torch.testing.assert_close(norms[:, 0], torch.ones(49, dtype=torch.float64))
    assert (norms[:, 1:] - 1).abs().max() > 0.01
    torch.testing.assert_close(disco_basis(1.5, bank=3 * kernels), default)
    for other in (
        disco_basis(1.9, bank=kernels),
        disco_basis(1.5, sigma=1.8, bank=kernels),
        disco_basis(1.5, bank=kernels.flip(0)),
        disco_basis(1.5, scales=(1.0, 1.3, 1.6, 2.0)),
    ):
        assert other.shape == default.shape and (other - default).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1.0,),), r"scales must be two or more in increasing order with an integer among them, got \(1\.0,\)"),
        (((2.0, 1.0),), r"increasing order .* got \(2\.0, 1\.0\)"),
        (((1.5, 1.9),), r"an integer among them, got \(1\.5, 1\.9\)"),
        (((1.0, 2.0), 11), "kernel_size must be odd and >= 13 pixels .* at scale 2, got kernel_size=11"),
        (((1.0, 1.9), 15, 4), "odd effective_size .* got kernel_size=15 and effective_size=4"),
    ],
)
def test_banks_that_cannot_be_solved(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        disco_bank(*arguments)
    assert disco_bank((1.0, 2.0), 13, 7).shape[-1] == 13  # the smallest that is named


@pytest.mark.parametrize("sigma", [0.0, math.nan])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma .* must be finite and > 0, got {sigma}"):
        disco_basis(1.5, sigma=sigma)
