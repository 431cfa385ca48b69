"""What all tests share: ``reference_files`` can be imported, and a fixture for tests that draw."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_REFERENCE = str(Path(__file__).resolve().parent / "reference")
if _REFERENCE not in sys.path:
    sys.path.insert(0, _REFERENCE)


@pytest.fixture
def untouched_settings() -> Iterator[None]:
    """No test leaves a figure open or a setting changed."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")
