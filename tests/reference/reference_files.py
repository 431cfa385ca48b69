"""Where the reference files of the tests lie; `tests/conftest.py` puts this folder on the import path."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

ENVIRONMENT_VARIABLE = "SCALESTUDY_REFERENCE"
REFERENCE_NAMES = (
    "basis_vectors.npz",
    "disco_basis.npz",
    "disco_released_basis.npz",
    "dynamic_scale_mnist_vectors.npz",
    "mnist_scale_hashes.json",
    "mnist_scale_vectors.npz",
    "params.json",
    "table1_net_vectors.npz",
    "table5_vectors.npz",
    "tolerance.json",
)
_HERE = Path(__file__).resolve().parent
_BESIDE_CHECKOUT = _HERE.parents[2] / "shared" / "reference"


def reference_folder() -> Path:
    """The first folder that is searched: the one that ``SCALESTUDY_REFERENCE`` names, else this one.

    A name that cannot be meant is refused: nothing would be tested.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if not named:
        return _HERE
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{ENVIRONMENT_VARIABLE}={named!r} is no folder: name the one of the reference files.")
    if not any((folder / name).is_file() for name in REFERENCE_NAMES):
        raise FileNotFoundError(
            f"{ENVIRONMENT_VARIABLE}={named!r} holds none of {list(REFERENCE_NAMES)}: name the folder that does."
        )
    return folder


def _folders() -> list[Path]:
    """All folders that are searched, in this order."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return [reference_folder()] if named else [reference_folder(), _BESIDE_CHECKOUT]


def reference_file(name: str) -> Path:
    """The path of one reference file; skips the calling test where it cannot be found.

    ``SCALESTUDY_REFERENCE`` overrides every other place; without it, this folder is searched, then the folder of
    reference files beside the checkout (for files too large to be kept with the tests).
    """
    folders = _folders()
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"reference file {name!r} is in none of {[str(folder) for folder in folders]}; "
        f"set {ENVIRONMENT_VARIABLE} to a folder that holds it"
    )


def reference_paths(pattern: str) -> list[Path]:
    """The paths of all reference files whose name matches, sorted by name; the places of `reference_file`."""
    found = {path.name: path for folder in reversed(_folders()) for path in folder.glob(pattern)}
    return [found[name] for name in sorted(found)]


@functools.lru_cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of one reference file."""
    with np.load(reference_file(name), allow_pickle=False) as archive:
        return dict(archive)


def or_skipped(names: Callable[[], list]) -> list:
    """Values of a parametrised test that come from a reference file; one skipped stand-in where there is no file."""
    try:
        return names()
    except pytest.skip.Exception as reason:
        return [pytest.param("", marks=pytest.mark.skip(reason=str(reason)))]


def deviation(value: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected value (absolute where zeros are expected)."""
    assert value.shape == expected.shape
    return np.abs(value.detach().numpy() - expected).max() / (np.abs(expected).max() or 1.0)
