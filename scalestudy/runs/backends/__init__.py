"""Where runs are executed: the one seam between `scalestudy.runs.execution` and processes or machines."""

from scalestudy.runs.backends.base import Backend, Outcome, RunStopped, WorkersUnavailable
from scalestudy.runs.backends.in_process import InProcess
from scalestudy.runs.backends.local_processes import LocalProcesses

__all__ = ["Backend", "InProcess", "LocalProcesses", "Outcome", "RunStopped", "WorkersUnavailable"]
