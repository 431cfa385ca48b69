"""Convolution in the Fourier domain: equal to direct convolution, values and gradients, for every shape and option."""

import pytest
import torch
from agreement import random
from torch import Tensor
from torch.nn import functional

from scalestudy.layers.fast import fourier
from scalestudy.layers.fast.fourier import correlate_fourier, fourier_cost, phases, plan_for

DOUBLE = torch.float64


def inputs_of(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]


def direct(x: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Build each kernel and convolve."""
    responses = []
    for scale in range(basis.shape[1]):
        kernel = torch.einsum("oif,fhw->oihw", weight, basis[:, scale])
        planes = x[:, :, scale] if x.dim() == 5 else x
        responses.append(functional.conv2d(planes, kernel, padding=kernel.shape[-1] // 2))
    return torch.stack(responses, 2)


CASES = {
    "lifting": ((3, 2, 9, 9), (4, 2, 5), (5, 3, 5, 5)),
    "one plane per scale": ((3, 2, 3, 9, 9), (4, 2, 5), (5, 3, 5, 5)),
    "not square": ((2, 2, 3, 6, 11), (4, 2, 5), (5, 3, 7, 7)),
    "even period": ((2, 1, 10, 8), (2, 1, 3), (3, 2, 5, 5)),
    "one pixel kernels": ((2, 2, 6, 6), (3, 2, 1), (1, 2, 1, 1)),
    "kernels larger than one side": ((2, 2, 3, 9), (3, 2, 2), (2, 2, 11, 11)),
    "kernels larger than the plane": ((2, 2, 5, 5), (3, 2, 2), (2, 2, 15, 15)),
    "a single image": ((1, 1, 4, 4), (1, 1, 1), (1, 1, 3, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_direct_convolution(case: str) -> None:
    inputs = inputs_of(*CASES[case])
    response, expected = correlate_fourier(*inputs), direct(*inputs)
    upstream = random(*expected.shape, seed=9)
    found, wanted = (torch.autograd.grad(y, inputs, upstream, retain_graph=True) for y in (response, expected))
    for ours, theirs in zip((response, *found), (expected, *wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * theirs.abs().max().item())


def test_chunks_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of((5, 2, 2, 8, 8), (3, 2, 4), (4, 2, 5, 5))
    whole = torch.autograd.grad(correlate_fourier(*inputs).square().sum(), inputs)
    monkeypatch.setitem(fourier._CHUNK_BYTES, "cpu", 1)
    monkeypatch.setitem(fourier._BLOCK_BYTES, "cpu", 1)
    pieces = torch.autograd.grad(correlate_fourier(*inputs).square().sum(), inputs)
    for first, second in zip(whole, pieces, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_cost_counts_channels_and_pixels() -> None:
    assert fourier_cost(8, 8, (28, 28), 7) < fourier_cost(16, 8, (28, 28), 7) < fourier_cost(16, 8, (28, 28), 14)
    assert fourier_cost(4, 4, (14, 14), 13) == fourier_cost(4, 4, (14, 14), 40)  # nothing beyond the plane


def test_plan_transforms_as_numpy_does() -> None:
    planes = random(2, 3, 6, 7)
    plan = plan_for((6, 7), 2, DOUBLE, torch.device("cpu"))
    expected = torch.fft.rfft2(planes, s=(8, 9)).permute(3, 2, 0, 1).flatten(0, 1)  # (V U, B, C)
    real, negative_imag = plan.analysis.apply(planes).unbind(1)
    torch.testing.assert_close(torch.complex(real, -negative_imag), expected)


def test_one_sample_less_would_wrap_round() -> None:
    """Negative control: the period n + h is the least that works."""
    signal, kernel = random(6), random(5)
    expected = functional.conv1d(signal[None, None], kernel[None, None], padding=2)[0, 0]
    assert phases(6, 2).shape == (8, 2, 8)
    for period in (8, 7):
        spectra = torch.fft.rfft(signal, period) * torch.fft.rfft(kernel, period).conj()
        found = torch.fft.irfft(spectra, period).roll(2)[:6]
        assert torch.allclose(found, expected) == (period == 8)
