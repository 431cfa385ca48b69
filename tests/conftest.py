"""What all tests share: the reference helper is importable as ``reference_files``."""

import sys
from pathlib import Path

_REFERENCE = str(Path(__file__).resolve().parent / "reference")
if _REFERENCE not in sys.path:
    sys.path.insert(0, _REFERENCE)
