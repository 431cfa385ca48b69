"""Where steps whose way back is written by hand give way to plain ones, which torch traces, transforms, differentiates.

Each such step has a plain form beside it, of the same numbers to float rounding: a few matrix products per scale, whose
cost does not depend on the scales either, but without chunks, so that they keep several times the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from scalestudy.layers.precision import full_precision

Gradients = tuple[Tensor | None, ...]


def plain_steps_wanted() -> bool:
    """Whether somebody compiles, exports or traces, or takes derivatives by `torch.func` or forward mode."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a maker of tables, to keep them: as what a training step may take, also from inference mode.

    What is traced makes its own.
    """

    def made(*arguments: Any) -> Any:
        with torch.inference_mode(False), torch.device("cpu"):  # whatever device the caller makes tensors on
            return make(*arguments)

    cache = lru_cache(maxsize=64)(made)

    @wraps(cache)
    def table(*arguments: Any) -> Any:
        return make(*arguments) if plain_steps_wanted() else cache(*arguments)

    return table


def graph_wanted() -> bool:
    """Whether a step is to keep what its way back needs; in inference mode there is none, whatever enable_grad says."""
    return torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def by_hand(
    plain: Callable[..., Tensor], inputs: int
) -> Callable[[Callable[..., Gradients]], Callable[..., Gradients]]:
    """Decorate a ``backward(ctx, grad, *saved)`` without derivatives; it may run inside a caller's autocasting.

    Where derivatives of it are asked for (`create_graph`), or many at once (`is_grads_batched`), ``plain(ctx, *saved)``
    is differentiated in its place, in the first saved tensors, which are the first inputs of the forward pass.
    """

    def decorate(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
        @wraps(backward)
        def guarded(ctx: Any, grad: Tensor) -> Gradients:
            saved = ctx.saved_tensors  # once: checkpoints give them once
            batched = torch._C._functorch.is_legacy_batchedtensor(grad)
            with full_precision(grad.device):
                if not (torch.is_grad_enabled() or batched or plain_steps_wanted()):
                    return backward(ctx, grad, *saved)
                create_graph, needed = torch.is_grad_enabled(), ctx.needs_input_grad
                with torch.enable_grad():  # views, however the inputs depend on each other
                    tensors = [tensor.view_as(tensor) for tensor in saved[:inputs]]
                    y = plain(ctx, *tensors, *saved[inputs:])
                wanted = [tensor for tensor, need in zip(tensors, needed, strict=False) if need]
                found = iter(torch.autograd.grad(y, wanted, grad, create_graph=create_graph))
                return tuple(next(found) if need else None for need in needed)

        return guarded

    return decorate
