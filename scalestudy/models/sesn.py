"""Scale-equivariant networks with a scale axis: SESN, DISCO, and the paper's with learned scales.

SESN (Sosnovik et al., 2020) convolves with filters that are sums of Hermite-Gaussian functions at four fixed scales and
takes the maximum over scales at the end; DISCO (Sosnovik et al., 2021) does the same with functions that are optimised
to make a discrete scale convolution equivariant; the paper (Section 4.3) learns SESN's scales.  All three are one
network here, of 494,549 parameters and those of the scales.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.basis import SampledBasis, VaryingSigmaBasis
from scalestudy.layers.conv import GroupConv, LiftingConv
from scalestudy.layers.disco import SCALES, disco_basis
from scalestudy.layers.fast.pooled import are_plain
from scalestudy.layers.scales import (
    DirectScales,
    FixedScales,
    InternalScales,
    IntervalScales,
    SpacingScales,
    StepRatioScales,
)
from scalestudy.models.frame import CHANNELS, MnistScaleNet
from scalestudy.models.pooling import block_pool, max_pool_2x2

EFFECTIVE_SIZE = 7  # n of the bases: n^2 = 49 functions
KERNEL_SIZE = 15  # fixed kernel size of SESN and DISCO in pixels
NUM_SCALES = 4

Pooling = Literal["max", "average"]


class ScaleAxisNet(MnistScaleNet):
    """Lifting convolution, two group convolutions, maximum over scales, classifier (see `MnistScaleNet`).

    Each of the first two blocks is convolution, ReLU, 2 x 2 pooling, batch norm with statistics over all scales; the
    third is convolution, scale projection, ReLU, pooling to 2 x 2, batch norm.

    `scales` (in pixels of the enlarged images) and `basis` are shared by the convolutions.  `kernel_size` in pixels is
    fixed, or None and follows the largest scale (Eq. 6).  `relu` is that of the first two blocks; the released code of
    the paper leaves it out.  `pooling` "average" is DISCO's, whose tail is a 7 x 7 maximum with stride 1, then means of
    2 x 2 with stride 4.
    """

    def __init__(
        self,
        scales: InternalScales,
        basis: VaryingSigmaBasis | SampledBasis,
        *,
        kernel_size: int | None = KERNEL_SIZE,
        relu: bool = True,
        pooling: Pooling = "max",
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
    ) -> None:
        super().__init__(in_channels, num_classes, image_size)
        if pooling not in ("max", "average"):
            raise ValueError(f"pooling must be 'max' or 'average', got {pooling!r}")
        self.scales, self.relu, self.pooling = scales, relu, pooling
        first, second, third = CHANNELS
        shared = {"basis": basis, "kernel_size": kernel_size, "bias": True}
        self.conv1 = LiftingConv(in_channels, first, scales, **shared)
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = GroupConv(first, second, scales, **shared)
        self.norm2 = nn.BatchNorm2d(second)
        self.conv3 = GroupConv(second, third, scales, **shared)
        self.norm3 = nn.BatchNorm2d(third)
        side = None if pooling == "max" else (image_size // 2 - 8) // 4 + 1
        self.head = self.classifier(third, side)

    def features(self, x: Tensor) -> Tensor:
        x = self._block(x, self.conv1, self.norm1)
        x = self._block(x, self.conv2, self.norm2)
        x, bias = _response(self.conv3, x)
        x = x.max(dim=2).values
        if self.pooling == "max":
            return self.norm3(_bias_relu(block_pool(x, 3), bias))
        x = _bias_relu(functional.max_pool2d(x, 7, 1), bias)
        return self.norm3(functional.avg_pool2d(x, 2, 4))

    def _block(self, x: Tensor, conv: LiftingConv | GroupConv, norm: nn.BatchNorm2d) -> Tensor:
        """Convolution to batch norm; scales are laid into the batch, which no step but the convolution mixes.

        A maximum changes place with bias and ReLU, which both keep the order of values: a quarter of the work.
        """
        y, bias = _response(conv, x)
        y = y.transpose(1, 2)  # (B, S, C, H, W)
        folded = y.flatten(0, 1)
        if self.pooling == "max":
            folded = _bias_relu(max_pool_2x2(folded), bias, self.relu)
        else:
            folded = functional.avg_pool2d(_bias_relu(folded, bias, self.relu), 2)
        return norm(folded).unflatten(0, y.shape[:2]).transpose(1, 2)


def _response(conv: LiftingConv | GroupConv, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The response without its bias, and the bias; where somebody listens to the layer (hooks), with it, and None."""
    return (conv.without_bias(x), conv.bias) if are_plain([conv], [type(conv)]) else (conv(x), None)


def _bias_relu(x: Tensor, bias: Tensor | None, relu: bool = True) -> Tensor:
    """Add a bias per channel to (B, C, H, W), if there is one, and rectify."""
    if bias is None:
        return x.relu() if relu else x
    x = x + bias[:, None, None]
    return x.relu_() if relu else x


def sesn(sigma: float = 1.5, mult: float = 1.4, **options: Any) -> ScaleAxisNet:
    """SESN with Hermite basis: fixed scales sigma 2^(i/3), rounded to two decimals, kernels of 15 pixels.

    The configuration of the DISCO repository, which the paper says it took its baselines from.  (SESN's own repository
    has sigma 2.0, ratio 1.5; with "+" 1.5, 1.4 and 13 pixels.)
    """
    scales = FixedScales.from_values([round(sigma * 2 ** (i / 3), 2) for i in range(NUM_SCALES)])
    return ScaleAxisNet(scales, VaryingSigmaBasis(EFFECTIVE_SIZE, mult=mult), **options)


def disco(mult: float = 1.5, basis: Tensor | None = None, **options: Any) -> ScaleAxisNet:
    """DISCO: SESN's network with the optimised basis of `scalestudy.layers.disco`, and average pooling.

    Sigma 1.9 as in the released configuration (the paper's Table 6 lists scales that start at 1.8).  A `basis`
    (49, 4, 15, 15) may take the place of our own solution.
    """
    sigma = 1.9
    basis = disco_basis(mult=mult, sigma=sigma) if basis is None else basis
    scales = FixedScales.from_values([sigma * step for step in SCALES])
    return ScaleAxisNet(scales, SampledBasis(basis), pooling="average", **options)


def _ours(
    kind: type[InternalScales],
    sigma: float = 1.5,
    isr: float = 2.0,
    num_scales: int = NUM_SCALES,
    mult: float = 1.4,
    *,
    like_sesn: bool = False,
    **options: Any,
) -> ScaleAxisNet:
    """The paper's network: SESN's with learned scales, from where the released code starts.

    As released, without ReLU in the first two blocks, and with kernels that follow the largest scale (27 pixels at the
    start; Eq. 6).  `like_sesn`: in nothing but its scales different from `sesn`, for "all methods adopt the same
    training strategy" (Section 4.3).
    """
    scales, basis = kind(sigma, isr, num_scales), VaryingSigmaBasis(EFFECTIVE_SIZE, mult=mult)
    return ScaleAxisNet(scales, basis, kernel_size=KERNEL_SIZE if like_sesn else None, relu=like_sesn, **options)


ours_isr = partial(_ours, StepRatioScales)
ours_spacings = partial(_ours, SpacingScales)
ours_direct = partial(_ours, DirectScales)
ours_isr_like_sesn = partial(ours_isr, like_sesn=True)
single_scale = partial(ours_direct, isr=1.0, num_scales=1)
interval_scales = partial(_ours, IntervalScales)
