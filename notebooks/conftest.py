"""How nbval compares the notebooks: with committed records only, decimals by tolerance."""

from __future__ import annotations

import math
import os
import re
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RTOL, ATOL = 1e-4, 1e-6
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")
_SKIPPED = ("text/html", "image/svg+xml", "stderr")


class Approximate(str):
    """Text that equals another when their decimals agree to `RTOL` and `ATOL` and all else agrees to the letter."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        ours, theirs = _NUMBER.findall(self), _NUMBER.findall(other)
        # Runs of blanks and dashes are column widths: a number may have become one digit longer.
        return _skeleton(self) == _skeleton(other) and all(
            math.isclose(float(a), float(b), rel_tol=RTOL, abs_tol=ATOL) for a, b in zip(ours, theirs, strict=True)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other


def _skeleton(text: str) -> str:
    return re.sub(r"\s+", " ", _NUMBER.sub("#", text))


def pytest_configure(config: pytest.Config) -> None:
    """Kernels inherit the environment: no runs of the user, results in a temporary folder, whatever is set."""
    place = tempfile.TemporaryDirectory(prefix="scalestudy-nbval-")
    config.add_cleanup(place.cleanup)
    os.environ |= {
        "SCALESTUDY_ROOT": str(HERE.parent),
        "SCALESTUDY_RUNS": os.path.join(place.name, "runs"),
        "SCALESTUDY_RESULTS": place.name,
        "TQDM_DISABLE": "1",
    }
    try:
        from nbval.plugin import IPyNbCell, IPyNbFile
    except ImportError:
        return
    exact_sanitize, exact_setup = IPyNbCell.sanitize, IPyNbFile.setup

    def sanitize(self: IPyNbCell, text: object) -> object:
        clean = exact_sanitize(self, text)
        return Approximate(clean) if isinstance(clean, str) else clean

    def setup(self: IPyNbFile) -> None:
        exact_setup(self)
        self.skip_compare = (*self.skip_compare, *_SKIPPED)

    IPyNbCell.sanitize, IPyNbFile.setup = sanitize, setup
