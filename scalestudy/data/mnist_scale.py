"""MNIST-Scale: 28 x 28 digits scaled down by a factor from [0.3, 1.0) (section 4.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalestudy.data.batching import batch_positions
from scalestudy.data.mnist import load_mnist
from scalestudy.data.realisations import MNIST_SCALE_CENTRE, load_realisation
from scalestudy.data.resample import rescale, rescale_unchecked
from scalestudy.data.splits import MNIST_SCALE_COUNTS, SPLIT_NAMES

MNIST_SCALE_MEAN = 0.0607
"""Mean that all splits are normalised with: a constant of the published recipe."""

MNIST_SCALE_STD = 0.2161
"""Standard deviation that all splits are normalised with: a constant of the published recipe."""

AUGMENTATION_RANGE = (0.5, 2.0)
"""Factors of the random rescaling of training images ("+" in Table 5), uniform: released code."""


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
    dtype : torch.dtype
        Of the normalised images.
    folder : str, optional
        Where MNIST is, for digits at other data scales; see `load_mnist`.
    """

    images: Tensor
    labels: Tensor
    data_scales: Tensor
    indices: Tensor
    dtype: torch.dtype = torch.float32
    folder: str | None = None

    mean = MNIST_SCALE_MEAN
    std = MNIST_SCALE_STD

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """The device on which batches are made."""
        return self.images.device

    def scaled(self, indices: Tensor | Sequence[int] | slice, data_scale: float) -> Tensor:
        """Return the original MNIST digits of some images at one data scale, made as MNIST-Scale itself was.

        Parameters
        ----------
        indices : Tensor of int64, sequence of int, or slice
            Positions in this split, 0 .. n - 1.
        data_scale : float
            Greater than 0; from 1 on the digit is larger than in MNIST, and parts of it may leave the image.

        Returns
        -------
        Tensor
            uint8, shape (b, 28, 28), on the split's device.

        Raises
        ------
        ValueError
            On a data scale that is not positive and finite.
        """
        digits = load_mnist(self.folder).images[self.indices[indices].cpu()].to(self.device)
        scales = torch.full((len(digits),), float(data_scale), dtype=torch.float64, device=self.device)
        return rescale(digits, scales, 28, centre=MNIST_SCALE_CENTRE, method="exact")

    def batch(
        self,
        indices: Tensor | Sequence[int] | slice,
        data_scale: float | None = None,
        augmentation: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return normalised images and labels, made on the device.

        Parameters
        ----------
        indices : Tensor of int64, sequence of int, or slice
            Positions in this split, 0 .. n - 1.
        data_scale : float, optional
            One data scale for all instead of each image's own; see `scaled`.
        augmentation : torch.Generator, optional
            Rescales each image at random, afresh at each call; see `random_factors`.

        Returns
        -------
        images : Tensor
            `dtype`, shape (b, 1, 28, 28): (grey level / 255 - mean) / std.
        labels : Tensor
            int64, shape (b,).
        """
        levels = self.images[indices] if data_scale is None else self.scaled(indices, data_scale)
        if augmentation is not None:
            levels = rescaled(levels, random_factors(len(levels), augmentation).to(self.device))
        return self._normalised(levels), self.labels[indices]

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        augmentation: torch.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once in batches.

        Parameters
        ----------
        batch_size : int
            At least 1; the last batch may be smaller.
        generator : torch.Generator, optional
            Shuffles (a CPU generator gives the same order on every device). Default: the order of the split.
        augmentation : torch.Generator, optional
            See `batch`.

        Yields
        ------
        images, labels : Tensor
            See `batch`.
        """
        order = list(batch_positions(len(self), batch_size, generator, self.device))
        if augmentation is None:
            yield from map(self.batch, order)
            return
        factors = random_factors(len(self), augmentation).to(self.device).split(batch_size)  # copied once, not per step
        for positions, of_batch in zip(order, factors, strict=True):
            yield self._normalised(rescaled(self.images[positions], of_batch)), self.labels[positions]

    def _normalised(self, levels: Tensor) -> Tensor:
        """Grey levels, uint8 (b, 28, 28), as images of `dtype`, (b, 1, 28, 28)."""
        images = levels[:, None].to(self.dtype)
        return images.mul_(1.0 / (255.0 * self.std)).sub_(self.mean / self.std)


def random_factors(count: int, generator: torch.Generator) -> Tensor:
    """Draw the factors of the augmentation of training images, "+" in Table 5.

    Released code: uniform in `AUGMENTATION_RANGE`. A generator gives the same factors in one call as in several.

    Parameters
    ----------
    count : int
        How many images.
    generator : torch.Generator
        A CPU generator gives the same factors on every device.

    Returns
    -------
    Tensor
        float64, shape (count,), on the device of the generator.
    """
    low, high = AUGMENTATION_RANGE
    draws = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)
    return low + (high - low) * draws


def rescaled(images: Tensor, factors: Tensor) -> Tensor:
    """Rescale each image by its own factor, on its own canvas: the augmentation of training images.

    Released code: Pillow's affine bicubic transform of the 8-bit image. Our reading: about 14.5, as in MNIST-Scale
    itself, because the library of that recipe put the centre of a 28-pixel image there, for either use.

    Parameters
    ----------
    images : Tensor
        uint8, shape (b, 28, 28): grey levels.
    factors : Tensor
        float64, shape (b,), greater than 0, on the device of `images`.

    Returns
    -------
    Tensor
        uint8, shape (b, 28, 28), on the device of `images`.
    """
    return rescale_unchecked(images, factors, images.shape[-1], centre=MNIST_SCALE_CENTRE, method="exact")


def mnist_scale(
    seed: int,
    device: torch.device | str = "cpu",
    folder: str | None = None,
    counts: tuple[int, int, int] = MNIST_SCALE_COUNTS,
    dtype: torch.dtype = torch.float32,
) -> dict[str, MnistScaleSplit]:
    """Return one realisation of MNIST-Scale (section 4.3).

    The first call takes about six seconds on one CPU core; then the realisation is kept beside MNIST, see
    `load_realisation`.

    Parameters
    ----------
    seed : int
        0 .. 5: the six published realisations, byte for byte.
    device : torch.device or str
        Where the images are kept (49 MB) and batches are made.
    folder : str, optional
        Where MNIST is; see `load_mnist`.
    counts : tuple of three int
        Images in train, validation, test: at most (10000, 2000, 50000), the default. Fewer are the first ones of the
        full split.
    dtype : torch.dtype
        Of the normalised images.

    Returns
    -------
    dict of str to MnistScaleSplit
        ``"train"``, ``"validation"``, ``"test"``.

    Raises
    ------
    ValueError
        On an argument out of its range.
    DataError
        Where MNIST cannot be had.
    """
    _check_counts(counts)
    arrays = {name: torch.from_numpy(array) for name, array in load_realisation(seed, folder).items()}
    splits, start = {}, 0
    for name, count, full in zip(SPLIT_NAMES, counts, MNIST_SCALE_COUNTS, strict=True):
        part = {key: array[start : start + count].to(device) for key, array in arrays.items()}
        part["labels"], part["indices"] = part["labels"].long(), part["indices"].long()
        splits[name] = MnistScaleSplit(**part, dtype=dtype, folder=folder)
        start += full
    return splits


def _check_counts(counts: tuple[int, int, int]) -> None:
    if len(counts) != 3 or any(
        isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most
        for count, most in zip(counts, MNIST_SCALE_COUNTS, strict=False)
    ):
        raise ValueError(
            f"counts must be three integers, train, validation, test, from 1 to {MNIST_SCALE_COUNTS}, got {counts}; "
            "the published splits have no more images"
        )
