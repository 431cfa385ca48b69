"""What all systems of Table 5 share: doubled images, three blocks, classifier."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.scales import InternalScales, require_integer
from scalestudy.models.pooling import block_pool

CHANNELS = (32, 63, 95)  # of the three blocks; SEVF and SS-CNN take fewer to stay near 495k parameters
HIDDEN_FEATURES = 256
DROPOUT = 0.7


class MnistScaleNet(nn.Module):
    """A system of Table 5: images doubled in size, convolutions, classifier; subclasses add `head` and `features`.

    Released code of SESN and of the paper (the paper prints none of it): each pixel is doubled, the blocks end on
    56 -> 28 -> 14 -> 2 pixels.  `scales` are the internal scales, where a system has some that are modules.
    (B, C, N, N) -> logits (B, num_classes); C = 1, N = 28 and 10 classes on MNIST-Scale.
    """

    head: nn.Module
    features: Callable[[Tensor], Tensor]  # enlarged images (B, C, 2 N, 2 N) to (B, C', n, n); n = 2 for N = 28

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        require_integer("in_channels", in_channels)
        require_integer("num_classes", num_classes)
        require_integer("image_size", image_size)
        if image_size < 16 or image_size % 2:
            raise ValueError(
                f"image_size must be even and at least 16 pixels, got {image_size}; pad images of another size"
            )
        self.in_channels, self.num_classes, self.image_size = in_channels, num_classes, image_size
        self.scales: InternalScales | None = None

    def classifier(self, channels: int, side: int | None = None, *, bias: bool = False) -> nn.Sequential:
        """Linear, batch norm, ReLU, dropout 0.7, linear (released code); `side` n is that of the usual last pooling."""
        side = (self.image_size // 2 + 4) // 8 if side is None else side
        return nn.Sequential(
            nn.Linear(channels * side**2, HIDDEN_FEATURES, bias=bias),
            nn.BatchNorm1d(HIDDEN_FEATURES),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN_FEATURES, self.num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        name, shape = type(self).__name__, (self.in_channels, self.image_size, self.image_size)
        if images.shape[1:] != shape:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"{name} takes images of shape (B, {expected}), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(f"{name} takes normalised images of a floating point type, got {images.dtype}")
        enlarged = functional.interpolate(images, scale_factor=2, mode="nearest")
        return self.head(self.features(enlarged).flatten(1))


class BlockNet(MnistScaleNet):
    """A system whose three blocks are `convolution`, max pooling, ReLU, batch norm; ReLU and pooling commute.

    `copies` groups of channels lie side by side between the blocks; `bias` is that of the first linear layer.
    """

    convolution: Callable[[int, int], nn.Module]  # of input and output channels, with initial weights
    channels = CHANNELS
    norm: type[nn.Module] = nn.BatchNorm2d
    copies = 1
    bias = False

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__(in_channels, num_classes, image_size)
        first, second, third = self.channels
        self.conv1, self.norm1 = self.convolution(in_channels, first), self.norm(self.copies * first)
        self.conv2, self.norm2 = self.convolution(first, second), self.norm(self.copies * second)
        self.conv3, self.norm3 = self.convolution(second, third), self.norm(self.copies * third)
        self.head = self.classifier(third, bias=self.bias)

    def features(self, x: Tensor) -> Tensor:
        x = self.norm1(block_pool(self.conv1(x), 1).relu())
        x = self.norm2(block_pool(self.conv2(x), 2).relu())
        return self.norm3(block_pool(self.conv3(x), 3).relu())
