"""What the tests of this folder share lies in `agreement`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
