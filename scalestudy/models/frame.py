"""What all systems of Table 5 share: input, size of the blocks, classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scalestudy.layers.scales import InternalScales

IMAGE_SIZE = 28
"""Height and width of an MNIST-Scale image in pixels."""

CHANNELS = (32, 63, 95)
"""Channels of the three blocks; SEVF, DSS's relatives and SS-CNN take fewer to stay near 495k parameters."""

DROPOUT = 0.7
HIDDEN_FEATURES = 256
NUM_CLASSES = 10


class MnistScaleNet(nn.Module):
    """A system of Table 5: images doubled in size, three convolution blocks, classifier.

    Released code of SESN and of the paper (the paper prints none of it): 28 x 28 images are enlarged to 56 x 56 by
    doubling each pixel; the blocks end on 56 -> 28 -> 14 -> 2 pixels.  Subclasses say what the blocks are.

    Attributes
    ----------
    scales : InternalScales or None
        The internal scales where the system has some that are modules (fixed or learned), else None.
    head : nn.Sequential
        See `classifier`.

    Shape
    -----
    (B, 1, 28, 28) -> logits (B, 10).
    """

    scales: InternalScales | None
    head: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.scales = None

    def features(self, x: Tensor) -> Tensor:
        """Map enlarged images (B, 1, 56, 56) to features (B, C, 2, 2)."""
        raise TypeError(f"{type(self).__name__} does not say what its convolution blocks are")

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"{type(self).__name__} takes images of shape (B, 1, {IMAGE_SIZE}, {IMAGE_SIZE}), "
                f"got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError(
                f"{type(self).__name__} takes normalised images of a floating point type, got {images.dtype}; see "
                "scalestudy.data.mnist_scale"
            )
        if not len(images):
            return images.new_zeros(0, NUM_CLASSES)
        enlarged = functional.interpolate(images, scale_factor=2, mode="nearest")
        return self.head(self.features(enlarged).flatten(1))


def classifier(channels: int, *, bias: bool = False) -> nn.Sequential:
    """Linear, batch norm, ReLU, dropout 0.7, linear (released code; not in the paper).

    Parameters
    ----------
    channels : int
        Channels C of the last block, whose maps are 2 x 2: the input is (B, 4 C), channel-major.
    bias : bool
        Of the first linear layer; SEVF and SS-CNN have it.
    """
    return nn.Sequential(
        nn.Linear(4 * channels, HIDDEN_FEATURES, bias=bias),
        nn.BatchNorm1d(HIDDEN_FEATURES),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN_FEATURES, NUM_CLASSES),
    )
