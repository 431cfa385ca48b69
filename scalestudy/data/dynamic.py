"""Dynamic Scale MNIST: digits rescaled on a large canvas, made on the device batch by batch (sections 4.1, 4.2)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scalestudy.data.distributions import ScaleDistribution
from scalestudy.data.mnist import ImageSet, load_mnist
from scalestudy.data.resample import checked_data_scales, rescale_unchecked
from scalestudy.data.splits import DYNAMIC_COUNTS, Split, check_counts, dynamic_scale_split

CANVAS_SIZE = 168
SHRINKS = (1, 2, 3, 4, 6)
_STATISTICS_CHUNK = 256


@dataclass(frozen=True, eq=False)
class DynamicScaleSplit(Split):
    """One split of Dynamic Scale MNIST: small digits and their data scales; large images are made on demand.

    Scaling takes no average (the published recipe): a digit drawn at a data scale below 1 loses strokes to aliasing.
    With `shrink` most digits are drawn below 1, so a shrunk experiment is coarser, not merely smaller (our choice,
    for machines without a GPU).
    """

    digits: Tensor  # uint8 (n, 28, 28), on the device on which batches are made
    labels: Tensor  # int64 (n,)
    data_scales: Tensor  # float64 (n,), greater than 0, in the paper's units: 28 pixels on a canvas of 168
    canvas_size: int = CANVAS_SIZE  # pixels along one side of an image, after shrinking; at least 28 and even
    shrink: int = 1  # divides every length: a digit is drawn at data_scale / shrink
    dtype: torch.dtype = torch.float32  # of the normalised images

    def __post_init__(self) -> None:
        checked_data_scales(self.data_scales, len(self.digits))

    @property
    def mean(self) -> float:
        return self._statistics[0]

    @property
    def std(self) -> float:
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[float, float]:
        """Mean and population standard deviation of all pixels / 255 of the scaled images, from exact integer sums."""
        total = squares = 0
        for start in range(0, len(self), _STATISTICS_CHUNK):
            levels = self.scaled(slice(start, start + _STATISTICS_CHUNK)).flatten().to(torch.float64)
            total += int(levels.sum().item())  # whole numbers below 2**53: float64 adds them exactly
            squares += int(levels.dot(levels).item())
        pixels = len(self) * self.canvas_size**2
        variance = (pixels * squares - total**2) / pixels**2
        return total / pixels / 255.0, math.sqrt(variance) / 255.0

    def scaled(self, indices: Tensor | Sequence[int] | slice, data_scale: float | None = None) -> Tensor:
        """Grey levels, uint8 (b, canvas_size, canvas_size), of some images, at one data scale for all if it is given.

        `indices` are positions in this split, `data_scale` is in the paper's units.
        """
        scales = self.data_scales[indices] if data_scale is None else self.data_scales.new_full((1,), data_scale)
        return rescale_unchecked(self.digits[indices], scales / self.shrink, self.canvas_size)

    def part(self, positions: slice) -> DynamicScaleSplit:
        """Some of its images, normalised as all of them are."""
        fields = (field[positions] for field in (self.digits, self.labels, self.data_scales))
        part = DynamicScaleSplit(*fields, self.canvas_size, self.shrink, self.dtype)
        vars(part)["_statistics"] = self._statistics
        return part


def dynamic_scale_mnist(
    seed: int,
    distribution: ScaleDistribution,
    counts: tuple[int, int, int] = DYNAMIC_COUNTS,
    shrink: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    images: ImageSet = "mnist",
) -> dict[str, DynamicScaleSplit]:
    """Build the three splits of Dynamic Scale MNIST (sections 4.1, 4.2): published digits, scales by `draw_scales`.

    Parameters
    ----------
    seed : int
        0 .. 2**32 - 1; the paper's are 0, 1, 2.
    distribution : LogUniform, LogNormal, Bimodal or SingleScale
        Of the data scales, in the paper's units.
    counts : tuple of three int
        Digits in train, validation, test: at most (10000, 5000, 50000), the default. Fewer are the first ones of the
        full split, with the scales that they have there.
    shrink : {1, 2, 3, 4, 6}
        Divides every length of the experiment; see `DynamicScaleSplit`.
    device : torch.device or str
        Where digits are kept and images are made.
    dtype : torch.dtype
        Of the normalised images.
    images : {"mnist", "fashion_mnist"}
        What is scaled; clothes in the place of digits are not in the paper.

    Returns
    -------
    dict of "train", "validation", "test" to DynamicScaleSplit

    Raises
    ------
    ValueError
        On an argument out of its range.
    DataError
        Where the images cannot be had.
    """
    if shrink not in SHRINKS:
        raise ValueError(f"shrink must be one of {SHRINKS}, got {shrink!r}; 1 is the paper's size")
    check_counts(counts, DYNAMIC_COUNTS)
    mnist = load_mnist(images)
    splits = {}
    for (name, positions), count in zip(dynamic_scale_split(mnist.labels.numpy(), seed).items(), counts, strict=True):
        chosen = torch.from_numpy(positions[:count])
        scales = torch.from_numpy(draw_scales(seed, name, distribution, count))
        parts = (part.to(device) for part in (mnist.images[chosen], mnist.labels[chosen], scales))
        splits[name] = DynamicScaleSplit(*parts, CANVAS_SIZE // shrink, shrink, dtype)
    return splits


def draw_scales(seed: int, split: str, distribution: ScaleDistribution, count: int) -> np.ndarray:
    """Data scales of one split ("train", "validation" or "test"), float64 (count,).

    Our choice, because the authors' draws cannot be had: numpy's PCG64, seeded with the first 128 bits of the SHA-256
    of ``{"distribution": <its fields>, "recipe": "dynamic-scale-mnist/1", "seed": <seed>, "split": <name>}`` as JSON
    with sorted keys and no spaces. The draws depend on nothing else, and the first k of n do not depend on n.
    """
    fields = {"distribution": distribution.model_dump(mode="json"), "seed": seed, "split": split}
    key = fields | {"recipe": "dynamic-scale-mnist/1"}
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
    entropy = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return distribution.sample(count, np.random.Generator(np.random.PCG64(entropy)))


def paper_test_scales() -> tuple[float, ...]:
    """The 45 data scales of the in-depth test: 2**-1 to 2**3.5, ten per octave (Fig. 4).

    The published recipe; the paper's appendix says 2**0.5 to 2**3.5.
    """
    return tuple(np.logspace(-1.0, 3.5, 45, base=2.0).tolist())
