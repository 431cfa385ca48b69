"""Which digits are in which split, as the published recipes draw them."""

from collections.abc import Sequence

import numpy as np

SPLIT_NAMES = ("train", "validation", "test")
DYNAMIC_COUNTS = (10_000, 5_000, 50_000)
MNIST_SCALE_COUNTS = (10_000, 2_000, 50_000)


def stratified_split(
    labels: np.ndarray, sizes: tuple[int, int], random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two disjoint parts that keep the class proportions.

    The published recipe: what scikit-learn's ``train_test_split(stratify=labels)`` draws from the same stream, so it
    uses numpy's legacy generator. Digits in neither part stay unused.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Class of each item, 0 or greater.
    sizes : tuple of two int
        Items in part 1 and in part 2, each at least 1, together at most n.
    random_state : numpy.random.RandomState
        Advanced by the draw.

    Returns
    -------
    part_1, part_2 : ndarray of int64
        Positions in `labels`, in random order, of lengths `sizes`.

    Raises
    ------
    ValueError
        Where `sizes` do not fit.
    """
    labels = _checked_labels(labels)
    if len(sizes) != 2 or min(sizes) < 1 or sum(sizes) > len(labels):
        raise ValueError(
            f"sizes must be two counts of at least 1 that add up to at most the {len(labels)} labels, got {sizes}; "
            "ask for smaller parts"
        )
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    counts = counts[present]
    first = _apportion(counts, sizes[0], random_state)
    second = _apportion(counts - first, sizes[1], random_state)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label, count, a, b in zip(present, counts, first, second, strict=True):
        members = np.flatnonzero(labels == label)[random_state.permutation(count)]
        parts[0].append(members[:a])
        parts[1].append(members[a : a + b])
    return (
        random_state.permutation(np.concatenate(parts[0])),
        random_state.permutation(np.concatenate(parts[1])),
    )


def _apportion(counts: np.ndarray, total: int, random_state: np.random.RandomState) -> np.ndarray:
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
        receiving = random_state.choice(group, size=min(len(group), missing), replace=False)
        quotas[receiving] += 1
        missing -= len(receiving)
    return quotas.astype(np.int64)


def dynamic_scale_split(labels: np.ndarray | Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """Split the 70,000 digits for Dynamic Scale MNIST (sections 4.1, 4.2).

    The published recipe: 15,000 / 50,000, then 10,000 / 5,000 of the 15,000, both steps from a fresh generator of the
    same seed.

    Parameters
    ----------
    labels : ndarray of int, shape (70000,)
        MNIST's labels in file order (or as many labels as hold 65,000).
    seed : int
        0 .. 2**32 - 1.

    Returns
    -------
    dict of str to ndarray of int64
        ``"train"`` (10,000), ``"validation"`` (5,000), ``"test"`` (50,000): positions in `labels`.
    """
    labels, seed = _checked_labels(labels), checked_seed(seed)
    rest, test = stratified_split(labels, (15_000, 50_000), np.random.RandomState(seed))
    train, validation = stratified_split(labels[rest], (10_000, 5_000), np.random.RandomState(seed))
    return {"train": rest[train], "validation": rest[validation], "test": test}


def mnist_scale_split(labels: np.ndarray | Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """Split the 70,000 digits for MNIST-Scale (section 4.3).

    The published recipe: 12,000 / 50,000 (8,000 unused), then 10,000 / 2,000 of the 12,000, one stream over both
    steps. The six published realisations are seeds 0 .. 5.

    Parameters
    ----------
    labels : ndarray of int, shape (70000,)
        MNIST's labels in file order.
    seed : int
        0 .. 2**32 - 1.

    Returns
    -------
    dict of str to ndarray of int64
        ``"train"`` (10,000), ``"validation"`` (2,000), ``"test"`` (50,000): positions in `labels`.
    """
    labels, seed = _checked_labels(labels), checked_seed(seed)
    stream = np.random.RandomState(seed)
    rest, test = stratified_split(labels, (12_000, 50_000), stream)
    train, validation = stratified_split(labels[rest], (10_000, 2_000), stream)
    return {"train": rest[train], "validation": rest[validation], "test": test}


def mnist_scale_draws(seed: int) -> dict[str, np.ndarray]:
    """Return the data scale of every MNIST-Scale image (section 4.3).

    The published recipe: two draws per image, an unused angle and the scale, images in the order train, TEST,
    validation; the scale is 0.3 + 0.7 x draw.

    Parameters
    ----------
    seed : int
        0 .. 2**32 - 1; the published realisations are 0 .. 5.

    Returns
    -------
    dict of str to ndarray of float64
        Data scales in [0.3, 1.0), in the order of `mnist_scale_split`.
    """
    train, validation, test = MNIST_SCALE_COUNTS
    draws = np.random.RandomState([checked_seed(seed)]).random_sample(2 * (train + validation + test))
    scales = 0.3 + 0.7 * draws[1::2]
    return {"train": scales[:train], "validation": scales[train + test :], "test": scales[train : train + test]}


def _checked_labels(labels: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return labels as a one-dimensional array of non-negative integers, or say what is wrong."""
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise ValueError(
            f"labels must be a one-dimensional array of integers of at least 0, got shape {array.shape} and type "
            f"{array.dtype}; give the class of each digit"
        )
    return array


def checked_seed(seed: int) -> int:
    """Return the seed as an int.

    Raises
    ------
    ValueError
        Where it is no integer in 0 .. 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer in 0 .. {2**32 - 1}, got {seed!r}; the paper's seeds are 0, 1, 2")
    return int(seed)
