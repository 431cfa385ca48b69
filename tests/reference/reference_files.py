"""Where the reference files of the tests lie; `tests/conftest.py` puts this folder on the import path."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

ENVIRONMENT_VARIABLE = "SCALESTUDY_REFERENCE"
_HERE = Path(__file__).resolve().parent


def _folders() -> list[Path]:
    """The one that ``SCALESTUDY_REFERENCE`` names, else this one, then that beside the checkout (for large files).

    A name that cannot be meant is refused: nothing would be tested.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if not named:
        return [_HERE, _HERE.parents[2] / "shared" / "reference"]
    folder = Path(named).expanduser()
    if not any(path.suffix in (".npz", ".json") for path in folder.glob("*")):
        raise FileNotFoundError(f"{ENVIRONMENT_VARIABLE}={named!r} holds no reference files: name the folder that does")
    return [folder]


def reference_file(name: str) -> Path:
    """The path of one reference file; skips the calling test where it cannot be found."""
    found = reference_paths(name)
    if not found:
        folders = ", ".join(map(str, _folders()))
        pytest.skip(f"there is no {name!r} in {folders}; set {ENVIRONMENT_VARIABLE} to a folder that holds it")
    return found[0]


def reference_paths(pattern: str) -> list[Path]:
    """The paths of all reference files whose name matches, sorted by name."""
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
