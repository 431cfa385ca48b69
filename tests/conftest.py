"""What all tests share: helpers of ``reference`` and ``runs`` can be imported; MNIST; a fixture for tests that draw."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scalestudy.data import Mnist

for _folder in ("reference", "runs"):
    sys.path.insert(0, str(Path(__file__).resolve().parent / _folder))


@pytest.fixture(scope="session")
def mnist() -> Mnist:
    """The 70,000 digits; tests that need them are skipped where they cannot be had."""
    from scalestudy.data import DataError, load_mnist
    from scalestudy.files import StoreError

    try:
        return load_mnist()
    except (DataError, StoreError) as reason:
        pytest.skip(f"MNIST cannot be had: {reason}")


@pytest.fixture
def untouched_settings() -> Iterator[None]:
    """No test leaves a figure open or a setting changed."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")
