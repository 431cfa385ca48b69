"""Realisations of MNIST-Scale: kept once, verified when read, made again where damaged.

That the recipe gives the published pixels is tested in ``tests/reference/test_data_reference.py``.
"""

import logging

import numpy as np
import pytest

from scalestudy.data import DataError, realisations
from scalestudy.data.realisations import (
    PUBLISHED,
    cached_realisations,
    checked_realisation,
    digest,
    load_realisation,
    realisation_path,
)

SIZE = 62_000


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """Of the right shape, but made in no time."""
    stream = np.random.default_rng(3)
    images = np.zeros((SIZE, 28, 28), np.uint8)
    images[:, 5, 5] = stream.integers(0, 256, SIZE)
    return {
        "images": images,
        "labels": stream.integers(0, 10, SIZE).astype(np.uint8),
        "data_scales": stream.random(SIZE),
        "indices": np.arange(SIZE, dtype=np.uint32),
    }


@pytest.fixture
def calls(made, monkeypatch):
    """Seeds that were generated; every realisation is `made`, and taken for the published one but number 5."""
    seeds = []
    digests = {seed: digest(made) for seed in range(5)} | {5: PUBLISHED[5]}
    monkeypatch.setattr(realisations, "PUBLISHED", digests)
    monkeypatch.setattr(realisations, "generate", lambda seed, folder=None: seeds.append(seed) or made)
    return seeds


def same(first, second) -> bool:
    return list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_second_call_reads_the_file(calls, made, tmp_path, caplog):
    assert same(load_realisation(4, tmp_path), made)
    again = load_realisation(4, tmp_path)
    assert same(again, made)
    assert [again[name].dtype for name in again] == [np.uint8, np.uint8, np.float64, np.uint32]
    assert calls == [4]
    files = [path.name for path in (tmp_path / "mnist_scale").iterdir()]
    assert files == ["realisation-4-recipe-1.npz"]
    assert caplog.records == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "foreign", "other content"])
def test_a_damaged_file_is_made_again(damage, calls, made, tmp_path, caplog):
    load_realisation(3, tmp_path)
    path = realisation_path(3, tmp_path)
    whole = path.read_bytes()
    if damage == "other content":
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["labels"] = arrays["labels"][::-1]
        np.savez_compressed(path, **arrays)
    elif damage == "foreign":
        np.savez(path, other=np.zeros(3))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes({"cut": whole[:-500], "flipped": flipped, "empty": b"", "text": b"hello"}[damage])
    assert [(report.seed, report.status) for report in cached_realisations(tmp_path)] == [(3, "damaged")]
    assert same(load_realisation(3, tmp_path), made)
    assert calls == [3, 3]
    assert f"{path} is damaged; generating realisation 3 of MNIST-Scale again" in caplog.text
    assert path.read_bytes() == whole
    assert [(report.seed, report.status) for report in cached_realisations(tmp_path)] == [(3, "ok")]


def test_what_is_not_the_published_realisation_is_refused(calls, made, tmp_path):
    with pytest.raises(DataError, match="realisation 5 of MNIST-Scale, generated here, is not the published one: SHA"):
        load_realisation(5, tmp_path)
    assert cached_realisations(tmp_path) == ()
    realisations._write(realisation_path(5, tmp_path), made)  # whole, but not seed 5
    assert [(report.seed, report.status) for report in cached_realisations(tmp_path)] == [(5, "damaged")]


def test_a_folder_that_cannot_be_written_costs_the_cache_only(calls, made, tmp_path, caplog):
    (tmp_path / "mnist_scale").write_text("a file where the folder should be")
    assert same(load_realisation(3, tmp_path), made)
    assert f"cannot keep MNIST-Scale in {tmp_path / 'mnist_scale'}" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_killed_writer_leaves_no_half_file(calls, made, tmp_path, monkeypatch):
    def killed(*paths):
        raise OSError("no space left")

    monkeypatch.setattr(realisations.os, "replace", killed)
    assert same(load_realisation(3, tmp_path), made)
    assert list((tmp_path / "mnist_scale").iterdir()) == []


def test_files_of_another_recipe_or_name_are_left_alone(calls, tmp_path):
    folder = tmp_path / "mnist_scale"
    folder.mkdir()
    for name in ("realisation-3-recipe-2.npz", "realisation-x-recipe-1.npz", "notes.txt"):
        (folder / name).write_text("mine")
    assert cached_realisations(tmp_path) == ()
    load_realisation(3, tmp_path)
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("seed", [-1, 6, 2**32, 1.0, "0", True, None])
def test_seeds_out_of_range(seed, calls, tmp_path):
    message = rf"seed must be one of the published realisations of MNIST-Scale, 0 \.\. 5, got {seed!r}"
    for function in (checked_realisation, lambda seed: load_realisation(seed, tmp_path)):
        with pytest.raises(ValueError, match=message):
            function(seed)
    assert calls == []


def test_the_kept_copy_of_a_published_realisation_is_the_published_one(mnist):
    """Generates it on a machine that has none yet (seconds)."""
    labels = mnist.labels.numpy()
    arrays = load_realisation(0)
    assert digest(arrays) == PUBLISHED[0] != PUBLISHED[1]
    assert arrays["images"].shape == (SIZE, 28, 28)
    assert np.array_equal(arrays["labels"], labels[arrays["indices"]])
    assert len(np.unique(arrays["indices"])) == SIZE
    assert arrays["data_scales"].min() >= 0.3 and arrays["data_scales"].max() < 1
    changed = arrays | {"data_scales": arrays["data_scales"] + 1e-12}
    assert digest(changed) != digest(arrays)
