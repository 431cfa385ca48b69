"""What all tests share: helpers of ``reference`` and ``runs`` can be imported; MNIST."""

from __future__ import annotations

import sys
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
