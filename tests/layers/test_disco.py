"""DISCO's bank: exact kernels, its loss, the optimum, solved banks on disk, and the basis."""

import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scalestudy.layers.basis import VaryingSigmaBasis
from scalestudy.layers.disco import (
    SCALES,
    bank,
    cache,
    disco_bank,
    disco_basis,
    equivariance_loss,
    expected_loss,
    white_noise_images,
)
from scalestudy.layers.disco.bank import exact_kernels
from scalestudy.layers.disco.loss import noise_moments, shrunk_size
from scalestudy.layers.disco.optimum import _least_squares, minimise, pair_losses

SMALL = ((1.0, 1.5, 2.0), 11, 5)
TINY = ((1.0, 1.5), 5, 3)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of solved banks, and nothing solved before."""
    monkeypatch.setenv("SCALESTUDY_DATA", str(tmp_path))
    forget()
    return tmp_path / "disco"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small systems of equations: more threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def forget() -> None:
    """Forget what this process has solved: the files remain."""
    bank._solved.cache_clear()


def random_bank(scales: tuple[float, ...], functions: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(functions, len(scales), size, size, generator=generator, dtype=torch.float64)


# --- images


def test_white_noise_is_a_byte_that_wraps_around() -> None:
    images = white_noise_images(3, size=200, seed=5)
    assert images.shape == (3, 1, 200, 200) and images.dtype == torch.float64
    grey = images * 255
    assert (grey - grey.round()).abs().max() < 1e-9
    assert images.min() == 0 and images.max() == 1
    assert torch.equal(images, white_noise_images(3, size=200, seed=5))
    assert not torch.equal(images, white_noise_images(3, size=200, seed=6))
    zeros = (grey < 0.5).double().mean().item()
    twice = 1 / 256 + 1 / math.sqrt(2 * math.pi) / 255  # all between -1 and 1: the fraction is dropped towards zero
    assert zeros == pytest.approx(twice, rel=0.15) and zeros > 1.2 / 256


def test_moments_of_the_noise() -> None:
    def upto(value: float) -> float:
        return 0.5 * (1 + math.erf(value / 255 / math.sqrt(2)))

    probability = [0.0] * 256
    for k in range(-2549, 2550):
        low, high = (k - 1 if k <= 0 else k), (k + 1 if k >= 0 else k)
        probability[k % 256] += upto(high) - upto(low)
    mean = sum(p * v / 255 for v, p in enumerate(probability))
    variance = sum(p * (v / 255 - mean) ** 2 for v, p in enumerate(probability))
    assert noise_moments() == pytest.approx((mean, variance), rel=1e-12)
    images = white_noise_images(200)
    error = math.sqrt(variance / images.numel())
    assert abs(images.mean().item() - mean) < 4 * error
    assert images.var().item() == pytest.approx(variance, rel=0.005)
    assert abs(images.mean().item() - 0.5) > 4 * error  # that the fraction is dropped does show


# --- loss


def keys(distance: float) -> float:
    """The cubic interpolation kernel with A = -0.75."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def resizing(size: int, ratio: float, *, nominal: bool = False) -> np.ndarray:
    """Matrix of the 1-D bicubic resize; on the grid of the whole sizes, or of the nominal ratio."""
    small = math.floor(size / ratio)
    step = ratio if nominal else size / small
    matrix = np.zeros((small, size))
    for out in range(small):
        centre = (out + 0.5) * step - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[out, min(max(tap, 0), size - 1)] += keys(tap - centre)
    return matrix


def by_hand(kernels: np.ndarray, scales: tuple[float, float], image: np.ndarray, *, nominal: bool = False) -> float:
    """The loss of one pair: convolutions as sums of rolled images, resizing as matrix products."""
    half = kernels.shape[-1] // 2
    matrix = resizing(len(image), scales[1] / scales[0], nominal=nominal)
    total = 0.0
    for small, large in kernels:
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
    pairs = ((0, 1), (0, 2), (1, 2))
    expected, nominal = (
        sum(
            by_hand(kernels[:, pair].numpy(), (scales[pair[0]], scales[pair[1]]), images[0, 0].numpy(), nominal=grid)
            for pair in pairs
        )
        for grid in (False, True)
    )
    loss = equivariance_loss(kernels, scales, images)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert abs(loss / nominal - 1) > 1e-3


def test_loss_is_one_norm_over_all_images_and_functions() -> None:
    kernels, images = random_bank((1.0, 1.5), 4, 5), white_noise_images(3, size=24)
    parts = [
        equivariance_loss(kernels[f : f + 1], (1.0, 1.5), images[b : b + 1]) ** 2 for f in range(4) for b in range(3)
    ]
    assert equivariance_loss(kernels, (1.0, 1.5), images) == pytest.approx(math.sqrt(sum(parts)), rel=1e-12)
    assert equivariance_loss(kernels.float(), (1.0, 1.5), images.float()) == pytest.approx(
        math.sqrt(sum(parts)), rel=1e-5
    )


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
    scales, (mean, variance) = (1.0, 1.5, 1.8), noise_moments()
    kernels = random_bank(scales, 2, 5)
    single = torch.eye(size**2, dtype=torch.float64).view(-1, 1, size, size)
    expected = 0.0
    for pair in ((0, 1), (0, 2), (1, 2)):
        part, ratio = kernels[:, pair], tuple(scales[i] for i in pair)
        ones = equivariance_loss(part, ratio, torch.ones(1, 1, size, size))
        expected += math.sqrt(variance * equivariance_loss(part, ratio, single) ** 2 + mean**2 * ones**2)
    assert expected_loss(kernels, scales, size=size) == pytest.approx(expected, rel=1e-10)
    assert expected_loss(kernels, scales, count=9, size=size) == pytest.approx(3 * expected, rel=1e-10)


def test_expected_loss_and_drawn_images() -> None:
    kernels = disco_bank(*TINY)
    drawn = equivariance_loss(kernels, TINY[0], white_noise_images(8, seed=1))
    assert drawn == pytest.approx(expected_loss(kernels, TINY[0], count=8), rel=0.01)


def test_a_ratio_that_divides_the_size_up_to_rounding() -> None:
    for ratio in (1.5 - 1e-15, 1.5, 1.5 + 1e-15):
        assert shrunk_size(150, ratio) == 100
    assert shrunk_size(154, 1.26) == 122


# --- bank


def test_integer_scales_are_exact() -> None:
    kernels = disco_bank((1.0, 1.5, 3.0), 15, 5)
    assert kernels.shape == (25, 3, 15, 15) and kernels.dtype == torch.float64
    for f in range(25):
        for index, factor in ((0, 1), (2, 3)):
            assert kernels[f, index].nonzero().tolist() == [[7 + factor * (f // 5 - 2), 7 + factor * (f % 5 - 2)]]
            assert kernels[f, index].sum() == 1
        assert (kernels[f, 1] != 0).all()  # free parameters everywhere


@pytest.mark.parametrize(
    ("scales", "size", "effective_size"),
    [SMALL, TINY, ((1.5, 2.0), 9, 3), ((1.0, 1.1, 1.9), 9, 3), ((1.0, 1.26, 2.52), 9, 3)],
)
def test_optimum(scales: tuple[float, ...], size: int, effective_size: int) -> None:
    """No direction lowers the loss, and its slope there is a ten-thousandth of the slope nearby."""
    kernels = disco_bank(scales, size, effective_size)
    free = [i for i, factor in enumerate(scales) if factor % 1]
    best = expected_loss(kernels, scales)
    assert best > 0
    for seed in range(5):
        direction = random_bank(scales, effective_size**2, size, seed)
        direction[:, [i for i in range(len(scales)) if i not in free]] = 0
        direction /= direction.norm()
        step = 1e-3
        losses = [expected_loss(kernels + t * direction, scales) for t in (-step, step, 0.3 - step, 0.3 + step)]
        assert min(losses) > best
        assert abs(losses[1] - losses[0]) < 1e-4 * (losses[3] - losses[2])


def test_optimum_on_fresh_images() -> None:
    scales, size, effective_size = SMALL
    kernels, images = disco_bank(*SMALL), white_noise_images(2, seed=99)
    best = equivariance_loss(kernels, scales, images)
    for seed in range(2):
        noise = 0.01 * random_bank(scales, effective_size**2, size, seed)
        noise[:, [0, 2]] = 0
        assert equivariance_loss(kernels + noise, scales, images) > best
    linear = kernels.clone()  # free kernels as a careful person would guess them: bilinear weights
    linear[:, 1] = bilinear(1.5, size, effective_size)
    assert equivariance_loss(linear, scales, images) > 1.05 * best


def bilinear(factor: float, size: int, effective_size: int) -> Tensor:
    place = factor * (torch.arange(effective_size).double() - effective_size // 2) + size // 2
    weights = (1 - (place[:, None] - torch.arange(size)).abs()).clamp(min=0)  # (n, K)
    return (weights[:, None, :, None] * weights[None, :, None, :]).flatten(0, 1)


def test_a_least_squares_answer_is_not_the_optimum() -> None:
    """The loss sums norms, not their squares: a single step with equal weights loses."""
    scales, size, effective_size = (1.0, 1.26, 1.59, 2.0), 9, 3
    losses = pair_losses(scales, size)

    def squares(kernels: Tensor) -> float:
        return sum(loss.square(kernels) for loss in losses)

    exact = exact_kernels(scales, size, effective_size)
    moving = [loss for loss in losses if (loss.small, loss.large) != (0, 3)]
    least = _least_squares(exact, moving, [1.0] * 5, [1, 2])
    best = minimise(exact, scales, [1, 2])
    assert squares(least) < squares(best) and expected_loss(best, scales) < expected_loss(least, scales)


def test_where_the_optimisation_starts_does_not_matter() -> None:
    scales, size, effective_size = SMALL
    start = exact_kernels(scales, size, effective_size)
    other = start.clone()
    other[:, 1] = random_bank((1.0,), effective_size**2, size)[:, 0]
    assert (minimise(start, scales, [1]) - minimise(other, scales, [1])).abs().max() < 1e-9


def test_mirror_images() -> None:
    """White noise and the resizing grid have no preferred direction: mirrored pixels have mirrored kernels."""
    kernels = disco_bank(*SMALL).view(5, 5, 3, 11, 11)
    assert (kernels - kernels.flip(0, 3)).abs().max() < 1e-9
    assert (kernels - kernels.flip(1, 4)).abs().max() < 1e-9
    assert (kernels - kernels.permute(1, 0, 2, 4, 3)).abs().max() < 1e-9
    assert (kernels - kernels.flip(0)).abs().max() > 0.5


def test_a_free_kernel_is_where_the_pixel_is() -> None:
    kernels = disco_bank((1.0, 1.26, 1.59, 2.0), 9, 3)
    place = torch.arange(9).double() - 4
    assert kernels.sum((2, 3)).sub(1).abs().max() < 0.02  # grey stays grey
    for index, factor in enumerate((1.0, 1.26, 1.59, 2.0)):
        centre = (kernels[2, index].sum(0) * place).sum() / kernels[2, index].sum()  # pixel (0, 2): one to the right
        assert centre.item() == pytest.approx(factor, abs=0.1)


def test_the_released_size_is_solved_and_equivariant() -> None:
    kernels = disco_bank()
    assert kernels.shape == (49, 4, 15, 15)
    best = expected_loss(kernels, SCALES, count=8)
    assert best == pytest.approx(1162.31711, abs=1e-4)  # the released bank: 1162.31762
    assert equivariance_loss(kernels, SCALES, white_noise_images(1, seed=3)) == pytest.approx(best / 8**0.5, rel=0.02)


def test_determinism() -> None:
    first = disco_bank(*SMALL)
    forget()
    assert torch.equal(first, disco_bank(*SMALL))
    cache.bank_path(cache.bank_folder(), cache.bank_key(*SMALL)).unlink()
    forget()
    assert torch.equal(first, disco_bank(*SMALL))


def test_the_number_of_threads_does_not_matter() -> None:
    """A test, a worker or a notebook may be the first to solve it; all runs on this machine then read that bank."""
    banks = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        banks.append(disco_bank(folder=cache.bank_folder() / str(threads)))
        assert torch.get_num_threads() == threads
    assert torch.equal(*banks)


# --- solved banks on disk


def refuse(*_: object) -> Tensor:
    raise AssertionError("a solved bank is solved again")


def test_a_bank_is_solved_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not folder.exists()
    first = disco_bank(*TINY)
    kept = first.clone()
    (path,) = folder.iterdir()
    assert path == cache.bank_path(folder, cache.bank_key(*TINY))
    monkeypatch.setattr(bank, "minimise", refuse)
    first.zero_()  # the caller's own: neither memory nor file may follow
    assert torch.equal(disco_bank(*TINY), kept)
    forget()
    assert torch.equal(disco_bank(*TINY), kept)
    forget()
    for other in (((1.0, 1.6), 5, 3), ((1.0, 1.5), 7, 3), ((1.0, 1.5), 9, 5), ((1.0, 1.5, 2.0), 5, 3)):
        with pytest.raises(AssertionError, match="solved again"):
            disco_bank(*other)


def test_where_solved_banks_lie(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disco_bank(*TINY, folder=tmp_path / "mine")
    assert [path.suffix for path in (tmp_path / "mine").iterdir()] == [".npz"] and not folder.exists()
    assert cache.bank_folder() == folder
    monkeypatch.delenv("SCALESTUDY_DATA")
    assert cache.bank_folder().parts[-2:] == ("scalestudy", "disco")


def test_integer_scales_need_no_file(folder: Path) -> None:
    disco_bank((1.0, 2.0), 5, 3)
    assert not folder.exists()


def rewritten(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as archive:
        content = dict(archive)
    np.savez(path, **content | changes)


def one_array() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


def one_wrong_value(path: Path) -> None:
    with np.load(path) as archive:
        values = archive["bank"]
    values[0, 1, 2, 2] += 1e-12
    rewritten(path, bank=values)


def one_wrong_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a bank"),
    "one array": lambda path: path.write_bytes(one_array()),
    "an object": lambda path: rewritten(path, bank=np.array([None])),
    "no checksum": lambda path: np.savez(path, bank=np.zeros((9, 2, 5, 5))),
    "value": one_wrong_value,
    "bit": one_wrong_bit,
    "single precision": lambda path: rewritten(path, bank=np.zeros((9, 2, 5, 5), np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_solved_again(damage: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = disco_bank(*TINY)
    (path,) = folder.iterdir()
    DAMAGE[damage](path)
    forget()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(disco_bank(*TINY), good)
    assert path.name in caplog.text and "solved again and replaced" in caplog.text
    assert torch.equal(cache.load_bank(folder, cache.bank_key(*TINY)), good)
    assert list(folder.iterdir()) == [path]


def test_a_file_of_another_bank_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, other = disco_bank(*TINY), disco_bank((1.0, 1.6), 5, 3)
    key, foreign = cache.bank_key(*TINY), cache.bank_key((1.0, 1.6), 5, 3)
    cache.bank_path(folder, key).write_bytes(cache.bank_path(folder, foreign).read_bytes())
    forget()
    assert torch.equal(disco_bank(*TINY), good) and not torch.equal(good, other)
    assert "belongs to another bank" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert disco_bank(*TINY, folder=tmp_path / "file" / "disco").shape == (9, 2, 5, 5)
    assert "cannot keep the solved bank" in caplog.text


def test_no_half_file_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(cache.os, "replace", full)
    assert disco_bank(*TINY).shape == (9, 2, 5, 5)
    assert list(folder.iterdir()) == [] and "disk full" in caplog.text


# --- basis


def test_basis_is_the_bank_weighted_by_basis_b() -> None:
    scales, size, effective_size = SMALL
    kernels = disco_bank(*SMALL)
    basis = disco_basis(1.5, sigma=1.2, max_order=3, scales=scales, kernel_size=size, effective_size=effective_size)
    assert basis.shape == (25, 3, 11, 11)
    pixels = VaryingSigmaBasis(5, 3, 1.5).sample(torch.tensor([1.2]), 5).dense()[:, 0]
    for g in (0, 7, 24):
        unit = pixels[g] / pixels[g].norm()
        expected = sum(unit[f // 5, f % 5] * kernels[f] for f in range(25))
        torch.testing.assert_close(basis[g], expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(basis[g, 0, 3:8, 3:8], unit.double(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(basis[g, 2, 1:11:2, 1:11:2], unit.double(), rtol=1e-6, atol=1e-7)


def test_basis_has_unit_norm_at_the_first_scale() -> None:
    kernels = random_bank(SCALES, 49, 15)
    norms = torch.linalg.vector_norm(disco_basis(1.5, bank=kernels), dim=(2, 3))
    torch.testing.assert_close(norms[:, 0], torch.ones(49, dtype=torch.float64))
    assert (norms[:, 1:] - 1).abs().max() > 0.01
    torch.testing.assert_close(disco_basis(1.5, bank=3 * kernels), disco_basis(1.5, bank=kernels))


def test_basis_depends_on_every_argument() -> None:
    kernels = random_bank(SCALES, 49, 15)
    default = disco_basis(1.5, bank=kernels)
    for other in (
        disco_basis(1.9, bank=kernels),
        disco_basis(1.5, sigma=1.8, bank=kernels),
        disco_basis(1.5, max_order=3, bank=kernels),
        disco_basis(1.5, bank=kernels.flip(0)),
    ):
        assert other.shape == default.shape and (other - default).abs().max() > 1e-3


# --- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1.0,), 15, 7), "two or more positive finite numbers in increasing order"),
        (((2.0, 1.0), 15, 7), r"increasing order, got \(2\.0, 1\.0\)"),
        (((1.0, 1.0), 15, 7), "increasing order"),
        (((0.0, 1.0), 15, 7), "positive"),
        (((1.0, math.inf), 15, 7), "finite"),
        (((1.0, math.nan, 2.0), 15, 7), "increasing order"),
        (((1.5, 1.9), 15, 7), r"scales must include an integer, got \(1\.5, 1\.9\)"),
        (((1.0, 2.0), 14, 7), "kernel_size must be an odd integer >= 3 pixels, got 14"),
        (((1.0, 2.0), 15.0, 7), r"kernel_size must be .*, got 15\.0"),
        (((1.0, 2.0), 15, 4), "effective_size must be an odd integer >= 3 pixels, got 4"),
        (((1.0, 2.0), 15, 1), "effective_size must be .*, got 1"),
        (((1.0, 2.0), 11, 7), "does not fit its kernel: .*kernel_size >= 13, or effective_size <= 5, or scales <= 1.6"),
        (((1.0, 1.9), 11, 7), r"does not fit its kernel: .*at scale 1\.9 reaches 6 pixels .*kernel_size >= 13"),
        (((1.0, 5.0), 5, 3), "kernel_size >= 11, or scales <= 2$"),
    ],
)
def test_arguments_that_cannot_be_solved(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        disco_bank(*arguments)


def test_the_smallest_kernel_that_is_named_fits() -> None:
    assert disco_bank((1.0, 2.0), 13, 7).shape[-1] == 13
    assert disco_bank((1.0, 2.0), 11, 5).shape[-1] == 11
    assert disco_bank((1.0, 2.0), 5, 3).shape[-1] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, r"sigma .* must be finite and > 0, got 0\.0"),
        ({"sigma": math.nan}, "sigma .* got nan"),
        ({"mult": 1.0}, "mult"),
        ({"max_order": -1}, "max_order"),
        ({"scales": (1.0, 2.0)}, r"bank must have shape \(49, 2, 15, 15\).*got \(49, 4, 15, 15\)"),
        ({"effective_size": 5}, r"bank must have shape \(25, 4, 15, 15\)"),
        ({"kernel_size": 17}, r"bank must have shape \(49, 4, 17, 17\)"),
    ],
)
def test_errors_of_the_basis(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        disco_basis(**{"mult": 1.5, "bank": torch.ones(49, 4, 15, 15)} | changes)


def test_errors_of_the_loss() -> None:
    kernels, images = random_bank(SCALES, 2, 5), white_noise_images(1, size=20)
    with pytest.raises(ValueError, match=r"bank must have shape \(functions, 2 scales, K, K\).*got \(2, 4, 5, 5\)"):
        equivariance_loss(kernels, (1.0, 2.0), images)
    with pytest.raises(ValueError, match="odd K"):
        expected_loss(kernels[..., :4, :4], SCALES)
    with pytest.raises(ValueError, match=r"size must be at least 14 pixels .* got 13"):
        expected_loss(kernels, SCALES, size=13)
    with pytest.raises(ValueError, match=r"images must have shape \(B, 1, H, W\), got \(1, 20, 20\)"):
        equivariance_loss(kernels, SCALES, images[0])
    with pytest.raises(ValueError, match="at least 14 pixels per side"):
        equivariance_loss(kernels, SCALES, images[..., :13])
    assert equivariance_loss(kernels, SCALES, images[..., :14, :14]) > 0
    for arguments, message in (((0,), "count must be an integer >= 1, got 0"), ((1, 0), "size must be .* got 0")):
        with pytest.raises(ValueError, match=message):
            white_noise_images(*arguments)
