"""The network of Table 1, used in Sections 4.1 and 4.2."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from scalestudy.layers.conv import Algorithm, LiftingConv, ScaleProjection, run_layers
from scalestudy.layers.scales import InternalScales

Order = Literal["relu_norm", "norm_relu"]


class Table1Net(nn.Sequential):
    """Lifting convolution, scale projection, ReLU and batch norm, max pooling, linear layer: the lines of Table 1.

    Not printed there but in the released code: effective size 5 (25 functions of basis A), extent 4, no bias in the
    convolution, pooling stride equal to its window, linear layer with bias.  Several lines run as one step where nobody
    can tell, see `scalestudy.layers.conv.run_layers`.

    Parameters
    ----------
    scales : InternalScales
        Internal scales in pixels of the images that the network gets.
    image_size : int
        Height and width H of the images in pixels (168 in the paper).
    pool_size : int
        Pooling window in pixels, at most image_size (42 in the paper).
    num_filters : int
        Filters of the convolution (16 in the paper).
    effective_size : int
        n of the basis; n^2 functions.
    num_classes : int
        Number of outputs.
    order : {"relu_norm", "norm_relu"}
        ReLU before batch norm, as in the released code, or after it, as printed in Table 1.
    algorithm : {"auto", "separable", "fourier", "dense"}
        See `LiftingConv`.

    Shape
    -----
    (B, 1, H, H) -> logits (B, num_classes).
    """

    def __init__(
        self,
        scales: InternalScales,
        *,
        image_size: int = 168,
        pool_size: int = 42,
        num_filters: int = 16,
        effective_size: int = 5,
        num_classes: int = 10,
        order: Order = "relu_norm",
        algorithm: Algorithm = "auto",
    ) -> None:
        if not 1 <= pool_size <= image_size:
            raise ValueError(f"pool_size must be between 1 and image_size = {image_size}, got {pool_size!r}")
        if order not in ("relu_norm", "norm_relu"):
            raise ValueError(f"order must be 'relu_norm' or 'norm_relu', got {order!r}")
        relu, norm = ("relu", nn.ReLU()), ("norm", nn.BatchNorm2d(num_filters))
        lines = [
            ("conv", LiftingConv(1, num_filters, scales, effective_size, algorithm=algorithm)),
            ("projection", ScaleProjection()),
            *((relu, norm) if order == "relu_norm" else (norm, relu)),
            ("pool", nn.MaxPool2d(pool_size)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(num_filters * (image_size // pool_size) ** 2, num_classes)),
        ]
        super().__init__(OrderedDict(lines))
        self.image_size, self.order = image_size, order

    def __getitem__(self, index: int | slice) -> nn.Module:
        return nn.Sequential(OrderedDict(self._modules))[index]  # a part of this network is no Table1Net

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (1, self.image_size, self.image_size):
            raise ValueError(
                f"Table1Net takes images of shape (B, 1, {self.image_size}, {self.image_size}), "
                f"got {tuple(images.shape)}"
            )
        return run_layers(self, images)
