"""Convolution in the Fourier domain: cost, transforms, period; `test_algorithms` holds it equal to dense."""

import torch
from agreement import random
from torch.nn import functional

from scalestudy.layers.fast.fourier import correlate_fourier, fourier_cost, plan_for

CPU = torch.device("cpu")


def test_kernels_of_one_pixel() -> None:
    """Which no layer has: a sum over channels."""
    x, weight, basis = random(2, 2, 6, 6), random(3, 2, 1, seed=1), random(1, 2, 1, 1, seed=2)
    expected = torch.einsum("bihw,oif,fs->boshw", x, weight, basis[..., 0, 0])
    torch.testing.assert_close(correlate_fourier(x, weight, basis), expected)


def test_cost_counts_channels_and_pixels() -> None:
    assert fourier_cost(8, 8, (28, 28), 7) < fourier_cost(16, 8, (28, 28), 7) < fourier_cost(16, 8, (28, 28), 14)
    assert fourier_cost(4, 4, (14, 14), 13) == fourier_cost(4, 4, (14, 14), 40)  # nothing beyond the plane


def test_plan_transforms_as_numpy_does() -> None:
    planes = random(2, 3, 6, 7)
    plan = plan_for((6, 7), 2, torch.float64, CPU)
    expected = torch.fft.rfft2(planes, s=(8, 9)).permute(3, 2, 0, 1).flatten(0, 1)  # (V U, B, C)
    real, negative_imag = plan.analysis.apply(planes).unbind(1)
    torch.testing.assert_close(torch.complex(real, -negative_imag), expected)


def test_one_sample_less_would_wrap_round() -> None:
    """Negative control: the period n + h is the least that works."""
    signal, kernel = random(6), random(5)
    expected = functional.conv1d(signal[None, None], kernel[None, None], padding=2)[0, 0]
    assert plan_for((6, 6), 2, torch.float64, CPU).analysis.rows.shape == (8, 2, 12)
    for period in (8, 7):
        spectra = torch.fft.rfft(signal, period) * torch.fft.rfft(kernel, period).conj()
        found = torch.fft.irfft(spectra, period).roll(2)[:6]
        assert torch.allclose(found, expected) == (period == 8)
