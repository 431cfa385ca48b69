"""Networks of the study: Table 1's, and the systems compared in Table 5; importing this does not import torch."""

from typing import Any

from scalestudy.models.systems import SYSTEMS, System, build, register

__all__ = ["SYSTEMS", "System", "Table1Net", "build", "register"]


def __getattr__(name: str) -> Any:
    if name != "Table1Net":
        raise AttributeError(name)
    from scalestudy.models.table1 import Table1Net

    return Table1Net
