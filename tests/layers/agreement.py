"""Assertions that all layers and algorithms share: same outputs, gradients and buffers; right derivatives."""

import copy
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def outcome(layer: nn.Module, x: Tensor, run: Callable = lambda layer, x: layer(x)) -> dict[str, Tensor]:
    """Output, gradients of a weighted sum of it in input and parameters, buffers afterwards; of a copy of the layer."""
    layer, x = copy.deepcopy(layer), x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = run(layer, x)
    direction = torch.cos(torch.arange(y.numel(), dtype=y.dtype, device=y.device)).view(y.shape)
    learned = {name: parameter for name, parameter in layer.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad((y * direction).sum(), (x, *learned.values()))
    names = (f"gradient in {name}" for name in ("x", *learned))
    return {"output": y.detach(), **dict(zip(names, gradients, strict=True)), **dict(layer.named_buffers())}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-11) -> None:
    """Relative to the largest number of each kind."""
    assert found.keys() == expected.keys()
    for name, other in expected.items():
        assert found[name].dtype == other.dtype, name
        atol = tolerance * max(1e-3, other.abs().max().item()) if other.numel() else 0
        torch.testing.assert_close(found[name], other, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def by_dense(layer: nn.Module) -> nn.Module:
    """A copy that builds kernels and convolves."""
    layer = copy.deepcopy(layer)
    for part in layer.modules():
        if hasattr(part, "algorithm"):
            part.algorithm = "dense"
    return layer


def assert_same_as_dense(layer: nn.Module, x: Tensor, tolerance: float = 1e-11) -> None:
    assert_same(outcome(layer, x), outcome(by_dense(layer), x), tolerance)


def assert_right_derivatives(layer: nn.Module, x: Tensor, run: Callable = lambda layer, x: layer(x), **options) -> None:
    """Against finite differences, in input and parameters; of float64, with scales away from the steps of supports."""
    names, parameters = zip(*layer.named_parameters(), strict=True)

    class Run(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return run(self.layer, x)

    def function(x: Tensor, *values: Tensor) -> Tensor:
        given = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Run(), given, (x,))

    assert torch.autograd.gradcheck(function, (x.detach().clone().requires_grad_(), *parameters), **options)


def in_chunks_of(*lengths: int) -> Callable:
    """A `SeparableLayer.chunks` that cuts the batch into these."""

    def chunks(_: object, x: Tensor) -> Iterator[slice]:
        assert sum(lengths) == len(x)
        ends = itertools.accumulate(lengths)
        return (slice(end - length, end) for end, length in zip(ends, lengths, strict=True))

    return chunks


def assert_any_set_of_gradients(layer: nn.Module, x: Tensor, run: Callable = lambda layer, x: layer(x)) -> None:
    """Each input and parameter has the same gradient, whichever of the others want one."""
    layer, x = copy.deepcopy(layer), x.detach().clone()
    tensors = [x, *layer.parameters()]
    everything = None
    for need in itertools.product([True, False], repeat=len(tensors)):
        for tensor, wanted in zip(tensors, need, strict=True):
            tensor.requires_grad_(wanted)
        y = run(layer, x).square().sum()
        assert y.requires_grad == any(need)
        if not any(need):
            continue
        found = list(torch.autograd.grad(y, [tensor for tensor in tensors if tensor.requires_grad]))
        everything = everything or list(found)
        for wanted, expected in zip(need, everything, strict=True):
            if wanted:
                torch.testing.assert_close(found.pop(0), expected, rtol=1e-10, atol=1e-10)


def assert_second_derivatives_are_refused(
    layer: nn.Module, x: Tensor, run: Callable = lambda layer, x: layer(x)
) -> None:
    """They would be wrong: the backward pass is not differentiable."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run(layer, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
