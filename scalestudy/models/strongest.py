"""Convolution and max pooling in one step, exactly, for the systems of Table 5.

After a block only one pixel of each pooling window is left, so responses need not be stored: the last matrix product
of a convolution delivers the pixels of a window side by side, their maximum and its place are kept, and the backward
pass computes the rest anew.  What a layer does to its input before the kernel (resize, blur), to its response after it
(resize back, pick windows), and to its kernel (enlarge, dilate), are matrices along each axis, which multiply those
of the convolution and cost nothing.

Two ways to compute: in the Fourier domain for many input channels (as `fourier`, where kernels are weights
of a basis); for one input channel as a sum of k^2 fixed linear maps of the image.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from scalestudy.layers.precision import full_precision
from scalestudy.models.fourier_response import FourierResponse, PooledPlan, pooled_plan
from scalestudy.models.patch_response import PatchPlan, PatchResponse, patch_plan
from scalestudy.models.pooling import Axis, Windows


def make_plan(axis: Axis, channels: int, like: Tensor) -> PooledPlan | PatchPlan:
    """Plan for planes of so many input channels, on the device and in the precision of `like`."""
    return patch_plan(axis, like) if channels == 1 else pooled_plan(axis, like)


def strongest_response(
    x: Tensor, weight: Tensor, plan: PooledPlan | PatchPlan, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """Maximum over pooling windows, and over groups of kernels, of a convolution.

    Parameters
    ----------
    x : Tensor
        (B, I, H, H).
    weight : Tensor
        (G O, I, k, k), groups first.
    plan : PooledPlan or PatchPlan
        See `make_plan`.
    groups : int
        G: the maximum is also over groups.

    Returns
    -------
    maximum : Tensor
        (B, O, n, n), n windows along each axis.
    index : Tensor
        Where it is, ((group s) + row place) s + column place; the same shape, no gradient.
    """
    function = FourierResponse if isinstance(plan, PooledPlan) else PatchResponse
    dtype = torch.promote_types(x.dtype, weight.dtype)
    with full_precision(x.device):
        return function.apply(x.to(dtype), weight.to(dtype), plan, groups)


def strongest_of_doubled(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """`strongest_response` of the first block, to pixel-doubled images (B, 1, 2 n, 2 n): (B, O, n, n).

    A kernel on a doubled image is four smaller ones on the image, one for each pixel of a window: offset d at place p
    meets pixel floor((p + d) / 2).
    """
    offsets = torch.arange(weight.shape[-1]) - weight.shape[-1] // 2
    pixels = torch.stack([(place + offsets).div(2, rounding_mode="floor") for place in (0, 1)])  # (2, k)
    reach = int(pixels.abs().max())
    meets = (pixels[:, None] == torch.arange(-reach, reach + 1)[:, None]).to(weight)  # (2, 2 reach + 1, k)
    small = torch.einsum("pyh,qxw,gohw->gpqoyx", meets, meets, weight[:, 0].unflatten(0, (groups, -1)))
    size = x.shape[-1] // 2
    plan = _undivided_plan(size, 2 * reach + 1, x.dtype, x.device)
    return strongest_response(x[:, :, ::2, ::2], small.flatten(0, 3).unsqueeze(1), plan, 4 * groups)[0]


@lru_cache(maxsize=16)
def _undivided_plan(size: int, kernel_size: int, dtype: torch.dtype, device: torch.device) -> PatchPlan:
    """Windows of a single pixel."""
    identity = torch.eye(size, dtype=torch.float64)
    windows = Windows(torch.arange(size)[None], 0, size)
    axis = Axis(windows, torch.eye(kernel_size, dtype=torch.float64), identity, identity)
    return patch_plan(axis, torch.empty(0, dtype=dtype, device=device))


def doubling(size: int) -> Tensor:
    """Pixel doubling along an axis: (size, size / 2)."""
    return torch.eye(size // 2, dtype=torch.float64).repeat_interleave(2, 0)
