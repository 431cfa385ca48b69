"""The data sets against published hashes and recorded images.

The full images of MNIST-Scale are hashed for the first seed; set ``SCALESTUDY_ALL_SEEDS=1`` for all (seconds each).
"""

import functools
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from reference_files import arrays, reference_file

from scalestudy.data import load_mnist, mnist_scale, rescale
from scalestudy.data.realisations import PUBLISHED
from scalestudy.data.splits import dynamic_scale_split, mnist_scale_draws, mnist_scale_split

NAMES = {"train": "train", "validation": "val", "test": "test"}


@functools.lru_cache
def _hashes() -> dict:
    return json.loads(reference_file("mnist_scale_hashes.json").read_text())


def _labels() -> np.ndarray:
    return load_mnist().labels.numpy()


def _hash(array: np.ndarray, kind: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype=kind).tobytes()).hexdigest()


def test_there_is_something_to_compare() -> None:
    assert _hashes()["seeds"]
    assert _hashes()["dynamic_scale_mnist_split"]["seeds"]
    assert len(arrays("dynamic_scale_mnist_vectors.npz")["index"]) > 0
    assert len(arrays("mnist_scale_vectors.npz")["index"]) > 0


def test_dynamic_scale_splits() -> None:
    for seed, expected in _hashes()["dynamic_scale_mnist_split"]["seeds"].items():
        split = dynamic_scale_split(_labels(), int(seed))
        for name, positions in split.items():
            assert len(positions) == expected[NAMES[name]]["n"]
            assert positions[:8].tolist() == expected[NAMES[name]]["first8"], (seed, name)
            assert _hash(positions, "<u4") == expected[NAMES[name]]["sha256_index"], (seed, name)


def test_mnist_scale_splits_and_draws() -> None:
    for seed, expected in _hashes()["seeds"].items():
        split, draws = mnist_scale_split(_labels(), int(seed)), mnist_scale_draws(int(seed))
        for name, positions in split.items():
            part = expected[NAMES[name]]
            assert _hash(positions, "<u4") == part["sha256_index"], (seed, name)
            assert _hash(_labels()[positions], "u1") == part["sha256_labels"], (seed, name)
            assert _hash(draws[name], "<f8") == part["sha256_scales"], (seed, name)
        assert _hash(np.concatenate(list(split.values())), "<u4") == expected["sha256_index"]


@pytest.mark.parametrize("method", ["exact", "matmul"])
@pytest.mark.parametrize(
    ("name", "canvas", "centre"),
    [("dynamic_scale_mnist_vectors.npz", 168, 84.0), ("mnist_scale_vectors.npz", 28, 14.5)],
)
def test_images_pixel_for_pixel(name: str, canvas: int, centre: float, method: str) -> None:
    vectors = arrays(name)
    digits = load_mnist().images[torch.from_numpy(vectors["index"].astype(np.int64))]
    scales = torch.from_numpy(vectors["scale"])
    expected = torch.from_numpy(vectors["image"])
    assert torch.equal(rescale(digits, scales, canvas, centre=centre, method=method), expected)
    assert not torch.equal(rescale(digits, scales, canvas, centre=centre - 0.5, method=method), expected)


def test_mnist_scale_realisations_byte_for_byte() -> None:
    for seed in PUBLISHED if os.environ.get("SCALESTUDY_ALL_SEEDS") else [0]:
        splits = mnist_scale(seed)  # refuses what does not have the hash in `PUBLISHED`
        if expected := _hashes()["seeds"].get(str(seed)):
            pixels = [split.images.numpy() for split in splits.values()]
            for name, part in zip(splits, pixels, strict=True):
                assert int(part.sum(dtype=np.int64)) == expected[NAMES[name]]["sum_pixels"], (seed, name)
                assert _hash(part, "u1") == expected[NAMES[name]]["sha256_images"], (seed, name)
            assert _hash(np.concatenate(pixels), "u1") == expected["sha256_images"], seed
