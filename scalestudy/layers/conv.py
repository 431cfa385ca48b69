"""Scale convolutions with fixed or learnable internal scales.

Tensors are (B, C, H, W) before the lifting convolution and (B, C, S, H, W) after it.  "Convolution" is
cross-correlation, of zero padding and stride 1 unless asked for otherwise.  `algorithms` says how they compute.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from scalestudy.layers.algorithms import Algorithm as Algorithm
from scalestudy.layers.algorithms import is_separable
from scalestudy.layers.base import ScaleConv
from scalestudy.layers.fast.plain import plain_steps_wanted
from scalestudy.layers.fast.pooled import are_plain, can_pool, project_relu_norm_pool


class LiftingConv(ScaleConv):
    """Scale convolution T -> H (Eq. 3): an image in, a response per internal scale out.

    y[b, o, s] = sum_i x[b, i] * kernel_s[o, i],   kernel_s[o, i] = sum_f weight[o, i, f] basis[f, s].

    Parameters
    ----------
    in_channels, out_channels : int
        Channels I and O, >= 1.
    scales : InternalScales
        Internal scales, fixed or learnable; may be shared between layers.
    effective_size : int, optional
        n of the varying-order basis (basis A): n^2 functions.  Either this or `basis`.
    basis : HermiteBasis or SampledBasis, optional
        Another basis, for example ``VaryingSigmaBasis(7)``.
    extent : float
        k of Eq. 6: the kernel reaches k sigmas of the largest scale (4 in the released code).
    kernel_size : int, optional
        Fixes the kernel size in pixels (odd, >= 3) instead of Eq. 6.
    stride : int
        Keeps every such row and column of the response, from the first.
    padding : {"same", "valid"}
        Zeros around the images, so that the response has their size, or none.
    groups : int
        Groups of channels that do not meet, as in `nn.Conv2d`.
    bias : bool
        Adds one bias per output channel, shared by all scales.
    algorithm : {"auto", "separable", "fourier", "dense"}
        How to compute; never changes the result beyond rounding.  See `chosen_algorithm`.
    device, dtype
        Of weights and bias, as in `nn.Conv2d`; the scales have their own.

    Shape
    -----
    (B, I, H, W) -> (B, O, S, H, W), of the type of the weights; under autocast, which changes nothing inside, any
    floating point type comes in.  Sampling on the pixel grid and cutting off at k sigmas make its scale equivariance
    (Eq. 1) approximate; see `scalestudy.layers.equivariance`.

    Raises
    ------
    ValueError
        When called, too: for images of another type or shape, and for scales that left the range that kernels can be
        sampled at (at least 1 / extent pixels).  Learned scales on a GPU and in graphs that are compiled, exported or
        traced give NaN instead, which needs no waiting.

    Notes
    -----
    Derivatives of derivatives, `torch.func`, forward mode, `torch.compile`, `torch.export` and tracing take plain
    matrix products, of several times the memory (`scalestudy.layers.fast.plain`).  Graphs have no break, and those of
    learned scales serve while the kernel size changes: they reckon with kernels as large as the images.
    Dynamic H and W are refused there ("You marked h as dynamic but your code specialized it to be a constant").

    Scales that are about as small as that have huge responses, because the functions are normalised at the first of
    them.  "separable" sums over the height of the image and "fourier" over all of it, so their rounding errors are up
    to 1e-7 of the largest response in float32, and a pixel that is not finite spoils what was summed with it; "dense"
    has local errors.
    """

    _axes = "BCHW"

    def project(self, x: Tensor) -> Tensor:
        """``ScaleProjection()(conv(x))``, (B, O, H, W), without keeping the response of every scale in memory."""
        if not are_plain([self], [LiftingConv]):
            return ScaleProjection()(self(x))  # hooks see the call, and a subclass may compute something else
        return self._projected(x)

    def _projected(self, x: Tensor) -> Tensor:
        return self._with_bias(self._correlate(x, project=True))


class GroupConv(ScaleConv):
    """Scale convolution H -> H (Eq. 4): each scale convolved with its own kernel, no mixing of scales.

    y[b, o, s] = sum_i x[b, i, s] * kernel_s[o, i], (B, I, S, H, W) -> (B, O, S, H, W).  Parameters as in `LiftingConv`.
    """

    _axes = "BCSHW"


class ScaleProjection(nn.Module):
    """Maximum over the scale axis (Table 1, "scale-projection"), (B, C, S, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"ScaleProjection takes a tensor (B, C, S, H, W), got shape {list(x.shape)}")
        return x.max(dim=2).values


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``nn.Sequential(*layers)(x)``; one step stands for several of them only where nobody can tell (`are_plain`)."""
    layers = list(layers)
    if not plain_steps_wanted() and are_plain(layers[:2], (LiftingConv, ScaleProjection)):
        conv, _, *layers = layers
        conv._check(x)
        usual = conv.bias is None and (conv.stride, conv.groups, conv.padding) == (1, 1, "same")
        separable = conv.algorithm in ("auto", "separable") and is_separable(conv.basis)
        if usual and separable and can_pool(x, conv.weight, layers[:3]):
            basis, _ = conv._sampled_for(x.shape[-2:])
            _, norm, pool, *layers = layers
            x = project_relu_norm_pool(x, conv.weight, basis, norm, pool.kernel_size)
        else:
            x = conv.project(x)
    for layer in layers:
        x = layer(x)
    return x
