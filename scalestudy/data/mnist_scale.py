"""MNIST-Scale: 28 x 28 digits scaled down by a factor from [0.3, 1.0) (section 4.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalestudy.data.batching import batch_positions
from scalestudy.data.mnist import load_mnist
from scalestudy.data.resample import rescale
from scalestudy.data.splits import mnist_scale_draws, mnist_scale_split

MNIST_SCALE_CENTRE = 14.5
"""Fixed point of the scaling, pixels: the published recipe; not the middle, 14, so digits move to the lower right."""

MNIST_SCALE_MEAN = 0.0607
"""Mean that all splits are normalised with: a constant of the published recipe."""

MNIST_SCALE_STD = 0.2161
"""Standard deviation that all splits are normalised with: a constant of the published recipe."""


@dataclass(frozen=True, eq=False)
class MnistScaleSplit:
    """One split of one realisation of MNIST-Scale.

    Parameters
    ----------
    images : Tensor
        uint8, shape (n, 28, 28): the scaled digits, grey levels.
    labels : Tensor
        int64, shape (n,).
    data_scales : Tensor
        float64, shape (n,), in [0.3, 1.0).
    indices : Tensor
        int64, shape (n,): positions in MNIST's file order.
    """

    images: Tensor
    labels: Tensor
    data_scales: Tensor
    indices: Tensor

    mean = MNIST_SCALE_MEAN
    std = MNIST_SCALE_STD

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Return normalised images, float32 (b, 1, 28, 28), (grey level / 255 - mean) / std, and labels, int64 (b,)."""
        images = self.images[indices][:, None].to(torch.float32)
        return images.mul_(1.0 / (255.0 * self.std)).sub_(self.mean / self.std), self.labels[indices]

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once in batches, shuffled by `generator` where one is given; see `batch`."""
        for positions in batch_positions(len(self), batch_size, generator, self.images.device):
            yield self.batch(positions)


def mnist_scale(seed: int, device: torch.device | str = "cpu", folder: str | None = None) -> dict[str, MnistScaleSplit]:
    """Regenerate one realisation of MNIST-Scale (section 4.3).

    The published recipe: seeds 0 .. 5 are, byte for byte, the six published realisations. Takes about six seconds
    on one CPU core.

    Parameters
    ----------
    seed : int
        0 .. 2**32 - 1.
    device : torch.device or str
        Where the images are made and kept (49 MB).
    folder : str, optional
        Where MNIST is; see `load_mnist`.

    Returns
    -------
    dict of str to MnistScaleSplit
        ``"train"`` (10,000), ``"validation"`` (2,000), ``"test"`` (50,000).
    """
    mnist = load_mnist(folder)
    positions = mnist_scale_split(mnist.labels.numpy(), seed)
    draws = mnist_scale_draws(seed)
    splits = {}
    for name, chosen in positions.items():
        indices, scales = torch.from_numpy(chosen), torch.from_numpy(draws[name]).to(device)
        images = rescale(mnist.images[indices].to(device), scales, 28, centre=MNIST_SCALE_CENTRE, method="exact")
        splits[name] = MnistScaleSplit(images, mnist.labels[indices].to(device), scales, indices.to(device))
    return splits
