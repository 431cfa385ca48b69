"""Which digits are in which split, as the published recipes draw them, and how a split is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

SPLIT_NAMES = ("train", "validation", "test")
DYNAMIC_COUNTS = (10_000, 5_000, 50_000)
MNIST_SCALE_COUNTS = (10_000, 2_000, 50_000)


def dynamic_scale_split(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Positions of the digits of Dynamic Scale MNIST (sections 4.1, 4.2) by split, in random order.

    The published recipe: both steps from a fresh generator of the same seed.
    """
    return _two_steps(labels, DYNAMIC_COUNTS, np.random.RandomState(seed), np.random.RandomState(seed))


def mnist_scale_split(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Positions of the digits of MNIST-Scale (section 4.3) by split: the published recipe, one stream for both steps.

    8,000 digits are unused; the published realisations are seeds 0 .. 5.
    """
    stream = np.random.RandomState(seed)
    return _two_steps(labels, MNIST_SCALE_COUNTS, stream, stream)


def _two_steps(
    labels: np.ndarray, counts: Sequence[int], first: np.random.RandomState, second: np.random.RandomState
) -> dict[str, np.ndarray]:
    """Training and validation together against test, then one against the other."""
    train, validation, test = counts
    rest, tested = stratified_split(labels, (train + validation, test), first)
    parts = stratified_split(labels[rest], (train, validation), second)
    return dict(zip(SPLIT_NAMES, (rest[parts[0]], rest[parts[1]], tested), strict=True))


def stratified_split(
    labels: np.ndarray, sizes: tuple[int, int], stream: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two disjoint parts (positions in random order) that keep the class proportions; the rest stays unused.

    What scikit-learn's ``train_test_split(stratify=labels)`` draws from the same stream, so it needs numpy's legacy
    generator.
    """
    present, counts = np.unique(labels, return_counts=True)
    first = _apportion(counts, sizes[0], stream)
    second = _apportion(counts - first, sizes[1], stream)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label, count, a, b in zip(present, counts, first, second, strict=True):
        members = np.flatnonzero(labels == label)[stream.permutation(count)]
        parts[0].append(members[:a])
        parts[1].append(members[a : a + b])
    return stream.permutation(np.concatenate(parts[0])), stream.permutation(np.concatenate(parts[1]))


def _apportion(counts: np.ndarray, total: int, stream: np.random.RandomState) -> np.ndarray:
    """Share `total` among classes in proportion to `counts`: floors, then units by descending fractional part.

    Ties are drawn without replacement, and drawn even where all of a group receive, because that moves the stream.
    """
    exact = counts / counts.sum() * total
    quotas = np.floor(exact)
    missing = int(total - quotas.sum())
    fractions = exact - quotas
    for fraction in np.unique(fractions)[::-1]:
        if missing == 0:
            break
        (group,) = np.nonzero(fractions == fraction)
        receiving = stream.choice(group, size=min(len(group), missing), replace=False)
        quotas[receiving] += 1
        missing -= len(receiving)
    return quotas.astype(np.int64)


def mnist_scale_draws(seed: int) -> dict[str, np.ndarray]:
    """Data scale of every MNIST-Scale image, in [0.3, 1.0), in the order of `mnist_scale_split`.

    The published recipe: two draws per image, an unused angle and the scale, images in the order train, TEST,
    validation.
    """
    train, validation, test = MNIST_SCALE_COUNTS
    draws = np.random.RandomState([seed]).random_sample(2 * (train + validation + test))
    scales = 0.3 + 0.7 * draws[1::2]
    return {"train": scales[:train], "validation": scales[train + test :], "test": scales[train : train + test]}


def check_counts(counts: tuple[int, int, int], most: tuple[int, int, int]) -> None:
    """Refuse counts of train, validation and test that the splits do not have."""
    if len(counts) != 3 or not all(1 <= count <= limit for count, limit in zip(counts, most, strict=True)):
        raise ValueError(f"counts must be those of train, validation, test, from 1 to {most}, got {counts}; lower them")


def batch_positions(
    count: int, batch_size: int, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, ...]:
    """The positions 0 .. count - 1 in batches; the generator shuffles, one of the CPU alike on every device."""
    if generator is None:
        order = torch.arange(count, device=device)
    else:
        order = torch.randperm(count, generator=generator, device=generator.device).to(device)
    return order.split(batch_size)


class Split:
    """Normalised images and labels of one split; subclasses have `labels`, `dtype`, `mean`, `std` and `scaled`."""

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, levels: Tensor) -> Tensor:
        """(grey level / 255 - mean) / std, (b, 1, N, N)."""
        return levels[:, None].to(self.dtype).mul_(1.0 / (255.0 * self.std)).sub_(self.mean / self.std)

    def batch(self, indices: Tensor | Sequence[int] | slice, data_scale: float | None = None) -> tuple[Tensor, Tensor]:
        """Normalised images, `dtype` (b, 1, N, N), and labels; arguments as of `scaled`.

        At one data scale the normalisation stays that of the split as drawn (the published recipe).
        """
        return self.normalised(self.scaled(indices, data_scale)), self.labels[indices]

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in batches as of `batch`; a generator shuffles, the same on every device."""
        return map(self.batch, batch_positions(len(self), batch_size, generator, self.labels.device))
