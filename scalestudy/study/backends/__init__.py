"""Where runs are executed: the one seam between `scalestudy.study.execution` and processes or machines."""

from scalestudy.study.backends.base import Backend, Outcome, RunStopped, WorkersUnavailable
from scalestudy.study.backends.in_process import InProcess
from scalestudy.study.backends.local_processes import LocalProcesses

__all__ = ["Backend", "InProcess", "LocalProcesses", "Outcome", "RunStopped", "WorkersUnavailable"]
