"""Dynamic Scale MNIST: digits rescaled on a large canvas, made on the device batch by batch (sections 4.1, 4.2)."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scalestudy.data.batching import batch_positions
from scalestudy.data.distributions import ScaleDistribution, parse_distribution
from scalestudy.data.mnist import Mnist, load_mnist
from scalestudy.data.resample import checked_data_scales, rescale_unchecked
from scalestudy.data.splits import DYNAMIC_COUNTS, SPLIT_NAMES, checked_seed, dynamic_scale_split

SHRINKS = (1, 2, 3, 4, 6)
_STATISTICS_CHUNK = 256
_STATISTICS: dict[tuple, tuple[float, float]] = {}


@dataclass(frozen=True, eq=False)
class DynamicScaleSplit:
    """One split of Dynamic Scale MNIST: small digits and their data scales; large images are made on demand.

    Parameters
    ----------
    digits : Tensor
        uint8, shape (n, 28, 28), on the device on which batches are made.
    labels : Tensor
        int64, shape (n,), the same device.
    data_scales : Tensor
        float64, shape (n,), the same device: one data scale per digit, in the paper's units (28 pixels on a canvas of
        168), drawn once; greater than 0.
    canvas_size : int
        Pixels along one side of an image, after shrinking; at least 28 and even.
    shrink : int
        Every length is divided by it: a digit is drawn at data_scale / shrink. 1 is the paper's size.
    dtype : torch.dtype
        Of the normalised images.

    Raises
    ------
    ValueError
        On lengths that do not match, an empty split, or data scales that are not positive and finite.

    Notes
    -----
    Scaling takes no average (the published recipe): a digit drawn at a data scale below 1 loses strokes to aliasing.
    With `shrink` most digits are drawn below 1, so a shrunk experiment is coarser, not merely smaller (our choice,
    for machines without a GPU).
    """

    digits: Tensor
    labels: Tensor
    data_scales: Tensor
    canvas_size: int = 168
    shrink: int = 1
    dtype: torch.dtype = torch.float32
    _drawn_scales: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.digits.dtype != torch.uint8 or self.digits.ndim != 3 or len(self.digits) == 0:
            raise ValueError(
                f"digits must be uint8 of shape (n, 28, 28) with n at least 1, got {self.digits.dtype} "
                f"{tuple(self.digits.shape)}; give MNIST's grey levels"
            )
        if self.labels.shape != (len(self.digits),):
            raise ValueError(
                f"labels must have shape ({len(self.digits)},), one per digit, got {tuple(self.labels.shape)}; "
                "index labels and digits alike"
            )
        _check_shrink(self.shrink)
        _check_canvas(self.canvas_size, self.digits.shape[-1])
        drawn = checked_data_scales(self.data_scales, len(self.digits)) / self.shrink
        object.__setattr__(self, "_drawn_scales", drawn)

    def __len__(self) -> int:
        return len(self.digits)

    @property
    def device(self) -> torch.device:
        """The device on which batches are made."""
        return self.digits.device

    @property
    def mean(self) -> float:
        """Mean of all pixels of this split's scaled images, in [0, 1]; computed once, exactly, then remembered."""
        return _statistics(self)[0]

    @property
    def std(self) -> float:
        """Population standard deviation of all pixels of this split's scaled images; see `mean`."""
        return _statistics(self)[1]

    def scaled(self, indices: Tensor | Sequence[int] | slice, data_scale: float | None = None) -> Tensor:
        """Return scaled images as grey levels.

        Parameters
        ----------
        indices : Tensor of int64, sequence of int, or slice
            Positions in this split, 0 .. n - 1.
        data_scale : float, optional
            One data scale for all, in the paper's units, instead of each digit's own.

        Returns
        -------
        Tensor
            uint8, shape (b, canvas_size, canvas_size).
        """
        indices = self._indices(indices)
        if data_scale is None:
            scales = self._drawn_scales[indices]
        else:
            scales = self._drawn_scales.new_full((1,), _positive(data_scale) / self.shrink)
        return rescale_unchecked(self.digits[indices], scales, self.canvas_size)

    def batch(self, indices: Tensor | Sequence[int] | slice, data_scale: float | None = None) -> tuple[Tensor, Tensor]:
        """Return normalised images and labels, made on the device.

        Parameters
        ----------
        indices : Tensor of int64, sequence of int, or slice
            Positions in this split, 0 .. n - 1.
        data_scale : float, optional
            One data scale for all, in the paper's units, instead of each digit's own. The normalisation stays that of
            the split as drawn, as in the paper's per-scale test (the published recipe).

        Returns
        -------
        images : Tensor
            `dtype`, shape (b, 1, canvas_size, canvas_size): (grey level / 255 - mean) / std.
        labels : Tensor
            int64, shape (b,).
        """
        mean, std = _statistics(self)
        indices = self._indices(indices)
        images = self.scaled(indices, data_scale)[:, None].to(self.dtype)
        return images.mul_(1.0 / (255.0 * std)).sub_(mean / std), self.labels[indices]

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, data_scale: float | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every digit once, in batches.

        Parameters
        ----------
        batch_size : int
            At least 1; the last batch may be smaller.
        generator : torch.Generator, optional
            Shuffles (a CPU generator gives the same order on every device). Default: the order of the split.
        data_scale : float, optional
            See `batch`.

        Yields
        ------
        images, labels : Tensor
            See `batch`.
        """
        for positions in batch_positions(len(self), batch_size, generator, self.device):
            yield self.batch(positions, data_scale)

    def _indices(self, indices: Tensor | Sequence[int] | slice) -> Tensor | slice:
        """Return positions as a slice, or as an int64 tensor on the device."""
        if isinstance(indices, slice):
            return indices
        return torch.as_tensor(indices, dtype=torch.int64).to(self.device)


def dynamic_scale_mnist(
    seed: int,
    distribution: ScaleDistribution | str | dict,
    counts: tuple[int, int, int] = DYNAMIC_COUNTS,
    shrink: int = 1,
    canvas_size: int = 168,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    folder: str | None = None,
) -> dict[str, DynamicScaleSplit]:
    """Build the three splits of Dynamic Scale MNIST (sections 4.1, 4.2).

    The digits of each split are the published ones of the seed. Their scales are our own draws (see `draw_scales`),
    because the authors' depend on unrecorded global random state.

    Parameters
    ----------
    seed : int
        0 .. 2**32 - 1; the paper's are 0, 1, 2.
    distribution : distribution, str or dict
        Of the data scales, in the paper's units; see `parse_distribution`.
    counts : tuple of three int
        Digits in train, validation, test: at most (10000, 5000, 50000), the default. Fewer are the first ones of the
        full split, with the scales that they have there.
    shrink : {1, 2, 3, 4, 6}
        Divides every length of the experiment; see `DynamicScaleSplit`.
    canvas_size : int
        Before shrinking; the paper's is 168. canvas_size / shrink must be an even integer of at least 28.
    device : torch.device or str
        Where digits are kept and images are made.
    dtype : torch.dtype
        Of the normalised images.
    folder : str, optional
        Where MNIST is; see `load_mnist`, which fetches it where missing.

    Returns
    -------
    dict of str to DynamicScaleSplit
        ``"train"``, ``"validation"``, ``"test"``.

    Raises
    ------
    ValueError
        On an argument out of its range.
    DataError
        Where MNIST cannot be had.
    """
    distribution = parse_distribution(distribution)
    _check_shrink(shrink)
    _check_counts(counts)
    if isinstance(canvas_size, bool) or not isinstance(canvas_size, int) or canvas_size % shrink:
        raise ValueError(
            f"canvas_size must be an integer that shrink {shrink} divides, got {canvas_size!r}; the paper's 168 can be "
            f"divided by each of {SHRINKS}"
        )
    _check_canvas(canvas_size // shrink, 28)
    mnist = load_mnist(folder)
    positions = dynamic_scale_split(mnist.labels.numpy(), checked_seed(seed))
    splits = {}
    for name, count in zip(SPLIT_NAMES, counts, strict=True):
        digits, labels = _select(mnist, positions[name][:count], device)
        scales = torch.from_numpy(draw_scales(seed, name, distribution, count)).to(device)
        splits[name] = DynamicScaleSplit(digits, labels, scales, canvas_size // shrink, shrink, dtype)
    return splits


def draw_scales(seed: int, split: str, distribution: ScaleDistribution, count: int) -> np.ndarray:
    """Draw the data scales of one split.

    Our choice, because the authors' draws cannot be had: numpy's PCG64, seeded with the first 128 bits of the SHA-256
    of ``{"distribution": <its fields>, "recipe": "dynamic-scale-mnist/1", "seed": <seed>, "split": <name>}`` as JSON
    with sorted keys and no spaces. The draws depend on nothing else, and the first k of n do not depend on n.

    Parameters
    ----------
    seed : int
        0 .. 2**32 - 1.
    split : {"train", "validation", "test"}
        Which split.
    distribution : distribution
        Of the data scales.
    count : int
        How many.

    Returns
    -------
    ndarray of float64, shape (count,)
    """
    if split not in SPLIT_NAMES:
        raise ValueError(
            f"split must be one of {SPLIT_NAMES}, got {split!r}; the paper's three splits have these names"
        )
    key = {
        "distribution": distribution.model_dump(mode="json"),
        "recipe": "dynamic-scale-mnist/1",
        "seed": checked_seed(seed),
        "split": split,
    }
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
    entropy = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return distribution.sample(count, np.random.Generator(np.random.PCG64(entropy)))


def paper_test_scales() -> tuple[float, ...]:
    """Return the 45 data scales of the in-depth test: 2**-1 to 2**3.5, ten per octave (Fig. 4).

    The published recipe; the paper's appendix says 2**0.5 to 2**3.5.
    """
    return tuple(np.logspace(-1.0, 3.5, 45, base=2.0).tolist())


def scale_test_batches(
    split: DynamicScaleSplit, batch_size: int, data_scales: Sequence[float] | None = None
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yield every digit of a split at each of several data scales (Fig. 4).

    Images are normalised with the mean and standard deviation of `split` as drawn from its own distribution, not per
    scale (the published recipe).

    Parameters
    ----------
    split : DynamicScaleSplit
        The test split under the training distribution.
    batch_size : int
        At least 1.
    data_scales : sequence of float, optional
        In the paper's units, each greater than 0. Default: `paper_test_scales`.

    Yields
    ------
    data_scale : float
        All batches of one data scale follow each other.
    images, labels : Tensor
        See `DynamicScaleSplit.batch`.
    """
    for data_scale in paper_test_scales() if data_scales is None else data_scales:
        for images, labels in split.batches(batch_size, data_scale=data_scale):
            yield data_scale, images, labels


def _statistics(split: DynamicScaleSplit) -> tuple[float, float]:
    """Return mean and population standard deviation of a split's pixels / 255, from exact integer sums.

    Remembered in the process by the content of digits and data scales, the canvas size and the shrink factor.
    """
    key = split.__dict__.get("_key")
    if key is None:
        content = hashlib.sha256(split.digits.cpu().numpy().tobytes())
        content.update(split.data_scales.cpu().numpy().tobytes())
        key = (content.hexdigest(), len(split), split.canvas_size, split.shrink)
        object.__setattr__(split, "_key", key)
    if key not in _STATISTICS:
        total = squares = 0
        for start in range(0, len(split), _STATISTICS_CHUNK):
            levels = split.scaled(slice(start, start + _STATISTICS_CHUNK)).flatten().to(torch.float64)
            total += int(levels.sum().item())  # whole numbers below 2**53: float64 adds them exactly
            squares += int(levels.dot(levels).item())
        pixels = len(split) * split.canvas_size**2
        variance = (pixels * squares - total**2) / pixels**2
        _STATISTICS[key] = (total / pixels / 255.0, math.sqrt(variance) / 255.0)
    mean, std = _STATISTICS[key]
    if std == 0:
        raise ValueError(
            f"data_scales must leave something of the digits, got images that are all grey level {mean * 255:g}; "
            "use data scales nearer to 1"
        )
    return mean, std


def _select(mnist: Mnist, positions: np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor]:
    chosen = torch.from_numpy(positions)
    return mnist.images[chosen].to(device), mnist.labels[chosen].to(device)


def _check_shrink(shrink: int) -> None:
    if isinstance(shrink, bool) or shrink not in SHRINKS:
        raise ValueError(f"shrink must be one of {SHRINKS}, got {shrink!r}; 1 is the paper's size")


def _check_canvas(canvas_size: int, digit_size: int) -> None:
    if canvas_size < digit_size or (canvas_size - digit_size) % 2:
        raise ValueError(
            f"canvas_size must after shrinking be at least the digit's {digit_size} pixels and differ from it by an "
            f"even number, got {canvas_size}; use 168 (the paper's) or a smaller shrink"
        )


def _check_counts(counts: tuple[int, int, int]) -> None:
    if len(counts) != 3 or any(
        isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most
        for count, most in zip(counts, DYNAMIC_COUNTS, strict=False)
    ):
        raise ValueError(
            f"counts must be three integers, train, validation, test, from 1 to {DYNAMIC_COUNTS}, got {counts}; the "
            "published split has no more digits"
        )


def _positive(data_scale: float) -> float:
    if not (math.isfinite(data_scale) and data_scale > 0):
        raise ValueError(f"data_scale must be greater than 0 and finite, got {data_scale}; 1 leaves a digit as it is")
    return float(data_scale)
