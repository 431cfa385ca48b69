"""Networks of the study: Table 1's, and the systems compared in Table 5."""

from scalestudy.models.frame import MnistScaleNet
from scalestudy.models.systems import SYSTEMS, System, build
from scalestudy.models.table1 import Table1Net

__all__ = ["SYSTEMS", "MnistScaleNet", "System", "Table1Net", "build"]
