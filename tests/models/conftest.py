"""The released code's steps, which the benchmarks time, are what the tests of the systems compare with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
