"""Networks of the study."""

from scalestudy.models.table1 import Table1Net

__all__ = ["Table1Net"]
