"""Networks of the study: Table 1's, and the systems compared in Table 5; importing this does not import torch."""

from typing import Any

from scalestudy.models.systems import SYSTEMS, System, build, register

__all__ = ["SYSTEMS", "MnistScaleNet", "System", "Table1Net", "build", "register"]


def __getattr__(name: str) -> Any:
    if name == "Table1Net":
        from scalestudy.models.table1 import Table1Net as found
    elif name == "MnistScaleNet":
        from scalestudy.models.frame import MnistScaleNet as found
    else:
        raise AttributeError(name)
    return found
