"""What tests of the baselines share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def assert_algorithms_agree() -> Callable[[nn.Module, Tensor, int], None]:
    """Check that a layer's two algorithms give the same activation and gradients, in float64."""

    def check(layer: nn.Module, x: Tensor, block: int) -> None:
        layer, x = layer.double(), x.double().requires_grad_()
        results = []
        for algorithm in ("direct", "fourier"):
            layer.algorithm = algorithm
            y = layer.activate(x, block)
            weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
            inputs = [x, *layer.parameters()]
            results.append([y, *torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True)])
        assert results[0][0].abs().max() > 0
        for expected, actual in zip(*results, strict=True):
            if expected is None:
                assert actual is None
            else:
                torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())

    return check
