"""MNIST-Scale: 28 x 28 digits scaled down by a factor from [0.3, 1.0), in six published realisations (section 4.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalestudy.data.mnist import DataError, load_mnist
from scalestudy.data.resample import rescale, rescale_unchecked
from scalestudy.data.splits import (
    MNIST_SCALE_COUNTS,
    Split,
    batch_positions,
    check_counts,
    mnist_scale_draws,
    mnist_scale_split,
)

CENTRE = 14.5  # fixed point of the scaling (published recipe), not the middle, 14: digits move to the lower right
AUGMENTATION_RANGE = (0.5, 2.0)  # factors of the random rescaling of training images, uniform (released code)

PUBLISHED = {  # SHA-256 of the published realisations, see `digest`
    0: "ad95f055e8959ad0a03757cdea90cafca916986d7a5c2c158d23b2bb951ef284",
    1: "7c749c2da0c1a3c19d85e5ce7b1a6e1d05d6beeb9658b7df51d9c1b2869615eb",
    2: "d10d0b0c2037ffa0b9ddcab55fc9c626c4b569669d7cbd791168efbdbe4bbd2f",
    3: "8db7b358a381c41410d67feae24a4440e541cc826f87c6c0f13a8de2d5b79ae1",
    4: "c3bcab57eb121b2c0105826542850ed9399f5ec91268781a14721cbd306d851e",
    5: "b8bc3f7b8daf16cbc8a59f0d0756273bb295d909522600bc6e9457a6932ece7c",
}


@dataclass(frozen=True, eq=False)
class MnistScaleSplit(Split):
    """One split of one realisation of MNIST-Scale."""

    images: Tensor  # uint8 (n, 28, 28): the scaled digits, grey levels
    labels: Tensor  # int64 (n,)
    data_scales: Tensor  # float64 (n,), in [0.3, 1.0)
    indices: Tensor  # int64 (n,): positions in MNIST's file order
    dtype: torch.dtype = torch.float32  # of the normalised images
    mean, std = 0.0607, 0.2161  # what all splits are normalised with (published recipe)

    def to(self, device: torch.device | str) -> MnistScaleSplit:
        parts = (self.images, self.labels, self.data_scales, self.indices)
        return MnistScaleSplit(*(part.to(device) for part in parts), self.dtype)

    def scaled(self, indices: Tensor | Sequence[int] | slice, data_scale: float | None = None) -> Tensor:
        """Grey levels of some images; at one data scale, of their digits, scaled as MNIST-Scale itself was made.

        From a data scale of 1 on the digit is larger than in MNIST, and parts of it may leave the image.
        """
        if data_scale is None:
            return self.images[indices]
        digits = load_mnist().images[self.indices[indices].cpu()].to(self.images.device)
        scales = torch.full((len(digits),), data_scale, dtype=torch.float64, device=digits.device)
        return rescale(digits, scales, 28, centre=CENTRE, method="exact")

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, augmentation: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in batches as of `batch`; CPU generators draw the same on every device.

        `generator` shuffles.  `augmentation` rescales each image at random on its own canvas (released code: Pillow's
        affine bicubic transform of the 8-bit image; our reading: about 14.5, because the library of MNIST-Scale's
        recipe put the centre of a 28-pixel image there, for either use).
        """
        if augmentation is None:
            yield from super().batches(batch_size, generator)
            return
        order = batch_positions(len(self), batch_size, generator, self.images.device)
        factors = random_factors(len(self), augmentation).to(self.images.device)  # copied once, not per step
        for positions, of_batch in zip(order, factors.split(batch_size), strict=True):
            levels = rescale_unchecked(self.images[positions], of_batch, 28, centre=CENTRE, method="exact")
            yield self.normalised(levels), self.labels[positions]


def random_factors(count: int, generator: torch.Generator) -> Tensor:
    """Factors of the augmentation, float64 (count,): uniform, the same in one call as in several."""
    low, high = AUGMENTATION_RANGE
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)


def mnist_scale(
    seed: int,
    device: torch.device | str = "cpu",
    counts: tuple[int, int, int] = MNIST_SCALE_COUNTS,
    dtype: torch.dtype = torch.float32,
) -> dict[str, MnistScaleSplit]:
    """Make one realisation of MNIST-Scale (section 4.3), on the CPU: six seconds on one core for a whole one.

    Parameters
    ----------
    seed : int
        0 .. 5: the six published realisations, byte for byte.
    device : torch.device or str
        Where the images are kept (49 MB) and batches are made.
    counts : tuple of three int
        Images in train, validation, test: at most (10000, 2000, 50000), the default. Fewer are the first ones of the
        full split.
    dtype : torch.dtype
        Of the normalised images.

    Returns
    -------
    dict of "train", "validation", "test" to MnistScaleSplit

    Raises
    ------
    ValueError
        On an argument out of its range.
    DataError
        Where MNIST cannot be had, or a whole realisation is not the published one.
    """
    if seed not in PUBLISHED:
        raise ValueError(f"seed must be one of the published realisations of MNIST-Scale, 0 .. 5, got {seed!r}")
    check_counts(counts, MNIST_SCALE_COUNTS)
    mnist, draws, splits = load_mnist(), mnist_scale_draws(seed), {}
    for (name, positions), count in zip(mnist_scale_split(mnist.labels.numpy(), seed).items(), counts, strict=True):
        indices, scales = torch.from_numpy(positions[:count]), torch.from_numpy(draws[name][:count])
        images = rescale(mnist.images[indices], scales, 28, centre=CENTRE, method="exact")
        splits[name] = MnistScaleSplit(images, mnist.labels[indices], scales, indices, dtype)
    if tuple(counts) == MNIST_SCALE_COUNTS and (found := digest(splits)) != PUBLISHED[seed]:
        raise DataError(
            f"realisation {seed} of MNIST-Scale, made here, is not the published one: SHA-256 {found}, expected "
            f"{PUBLISHED[seed]}; the arithmetic of this machine differs, so use another"
        )
    return {name: split.to(device) for name, split in splits.items()}


def digest(splits: Mapping[str, MnistScaleSplit]) -> str:
    """SHA-256 (hexadecimal) of all images, then all labels, data scales and indices, each over the three splits."""
    content = hashlib.sha256()
    for name, kind in {"images": "u1", "labels": "u1", "data_scales": "<f8", "indices": "<u4"}.items():
        for split in splits.values():
            content.update(getattr(split, name).numpy().astype(kind).tobytes())
    return content.hexdigest()
