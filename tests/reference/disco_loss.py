"""DISCO's loss, drawn and expected: what its bank minimises, evaluated without what the solver takes for granted."""

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.disco import IMAGE_SIZE, border, minimum_size, pair_losses, shrink, shrunk_size


def white_noise_images(count: int, size: int = IMAGE_SIZE, seed: int = 0) -> Tensor:
    """White noise (B, 1, size, size) as in the released code: N(0, 1) * 255 as a byte, divided by 255."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, size, size, generator=generator, dtype=torch.float64)
    return (noise * 255).trunc().remainder(256) / 255


def equivariance_loss(bank: Tensor, scales: tuple[float, ...], images: Tensor) -> float:
    """DISCO's loss of a bank (F, S, K, K) on images (B, 1, H, W): sum over pairs of scales of one norm.

    Evaluated in float64: in float32 the norm of so many values reads 0.2 % low.
    """
    bank, cut = bank.double(), border(bank.shape[-1])
    assert min(images.shape[-2:]) >= minimum_size(scales, bank.shape[-1], kept=1)
    squares = dict.fromkeys(itertools.combinations(range(len(scales)), 2), 0.0)
    for image in images.double().split(1):
        large = {j: _convolve(image, bank[:, j]) for j in range(1, len(scales))}  # each (1, F, H, W)
        for i, j in squares:
            size = tuple(shrunk_size(side, scales[j] / scales[i]) for side in images.shape[-2:])
            difference = shrink(large[j], size) - _convolve(shrink(image, size), bank[:, i])
            squares[i, j] += float(difference[..., cut:-cut, cut:-cut].square().sum())
    return sum(math.sqrt(square) for square in squares.values())


def expected_loss(bank: Tensor, scales: tuple[float, ...], count: int = 1, size: int = IMAGE_SIZE) -> float:
    """What `equivariance_loss` is on average for `count` images of white noise: roots of expected squared norms.

    The norm of finitely many images scatters around it, by about 0.2 % for 8 images of 154 pixels.
    """
    losses = pair_losses(scales, bank.shape[-1], size)
    return math.sqrt(count) * sum(math.sqrt(loss.square(bank.double())) for loss in losses)


def _convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve images (B, 1, H, W), which wrap around, with kernels (F, K, K) (not flipped, as torch does)."""
    half = kernels.shape[-1] // 2
    return functional.conv2d(functional.pad(images, (half,) * 4, mode="circular"), kernels[:, None])
