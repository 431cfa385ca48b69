"""The batch of notebooks: checked before anything runs, then executed by papermill, one process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalestudy import files
from scalestudy.paper.freshness import fingerprint, is_fresh, stamp
from scalestudy.paper.study import check_names
from scalestudy.training.device import usable_cores
from scalestudy.training.record import Record

KERNEL = "python3"
_FOLDERS = (files.ROOT_VARIABLE, files.RUNS_VARIABLE, files.RESULTS_VARIABLE, "SCALESTUDY_DATA")
_POLL_SECONDS = 0.2
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class NotebookResult:
    """How the execution of one notebook ended.

    Attributes
    ----------
    name : str
        Such as "04_internal_scale_range".
    output : Path
        The executed copy; where it failed, with the output up to the failing cell.
    seconds : float
    error : str or None
        None where all cells ran; else the failing cell and its exception.
    executed : bool
        False where the copy of an earlier execution still holds.
    """

    name: str
    output: Path
    seconds: float
    error: str | None
    executed: bool = True


def check(names: Sequence[str], parameters: Mapping[str, Any]) -> tuple[Path, ...]:
    """Find notebooks and make sure that each declares every parameter; nothing is executed.

    Parameters
    ----------
    names : sequence of str
        Beginnings of names, such as ``04``; none selects all.
    parameters : mapping
        What `execute` will be given.

    Returns
    -------
    tuple of Path
        Sorted, each once.

    Raises
    ------
    ValueError
        If there are no notebooks, a name selects none, or a notebook does not declare a parameter: papermill
        itself would only warn, and run with the default.
    RuntimeError
        If papermill is not installed.
    """
    available = sorted(files.notebooks().glob("*.ipynb"))
    if not available:
        raise ValueError(
            f"no notebooks in {files.notebooks()}; name the project's folder in the environment variable "
            f"{files.ROOT_VARIABLE}"
        )
    selected = set(available) if not names else set()
    for name in names:
        matching = [path for path in available if path.stem.startswith(name.removesuffix(".ipynb"))]
        if not name or not matching:
            listed = ", ".join(path.stem for path in available)
            raise ValueError(f"notebook must be the beginning of one of {listed}, got {name!r}")
        selected.update(matching)
    for path in sorted(selected):
        check_names(parameters, _declared(path), f"for the notebook {path.stem}, which does not declare it")
    return tuple(sorted(selected))


def execute(
    notebooks: Sequence[Path],
    parameters: Mapping[str, Any],
    folder: Path,
    *,
    jobs: int = 1,
    records: Mapping[Path, Sequence[Record]] | None = None,
    on_result: Callable[[NotebookResult], None] | None = None,
) -> tuple[NotebookResult, ...]:
    """Run notebooks; one that fails does not stop the others.

    Parameters
    ----------
    notebooks : sequence of Path
        As `check` returned them.
    parameters : mapping
        Plain values by name, the same for all.
    folder : Path
        Where the executed copies go, under the same names.  Created where missing.
    jobs : int
        Notebooks at a time, at least 1.
    records : mapping, optional
        The records that each notebook reads.  Where they are given, a notebook whose executed copy follows from the
        same source, parameters, records and code is not executed again.
    on_result : callable, optional
        Called as each notebook ends.

    Returns
    -------
    tuple of NotebookResult
        In the order of `notebooks`.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1 notebook at a time, got {jobs}")
    folder.mkdir(parents=True, exist_ok=True)
    waiting, running, results = [], [], {}
    marks = {path: fingerprint(path, parameters, records[path] if records else ()) for path in notebooks}
    for path in notebooks:
        if records is not None and is_fresh(folder / path.name, marks[path]):
            results[path] = NotebookResult(path.stem, folder / path.name, 0.0, None, executed=False)
            if on_result is not None:
                on_result(results[path])
        else:
            waiting.append(path)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Job(waiting.pop(0), parameters, folder, max(1, usable_cores() // jobs)))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                results[job.source] = job.result()
                if records is not None and results[job.source].error is None:
                    stamp(job.output, marks[job.source])
                if on_result is not None:
                    on_result(results[job.source])
            if running:
                time.sleep(_POLL_SECONDS)
    finally:
        for job in running:
            job.process.terminate()  # all at once: ending a kernel takes seconds
        for job in running:
            job.stop()
    return tuple(results[path] for path in notebooks)


class _Job:
    """One notebook in a process of its own: papermill is not safe in threads."""

    def __init__(self, source: Path, parameters: Mapping[str, Any], folder: Path, threads: int) -> None:
        self.source, self.output = source, folder / source.name
        self._began = time.monotonic()
        # no name: nothing is left behind, however this process ends
        self._report = tempfile.TemporaryFile()  # noqa: SIM115
        request = {
            "source": str(source),
            "output": str(self.output),
            "parameters": dict(parameters),
        }
        # kernels run in the folder of the notebook, where a relative path would name another place
        folders = {name: os.path.abspath(value) for name in _FOLDERS if (value := os.environ.get(name))}
        environment = dict(
            os.environ | folders,
            TQDM_DISABLE="1",
            OMP_NUM_THREADS=str(threads),
            PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path),
        )
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scalestudy.paper.notebook_job"],
            stdin=subprocess.PIPE,
            stdout=self._report,
            env=environment,
            text=True,
        )
        self.process.stdin.write(json.dumps(request))
        self.process.stdin.close()

    def result(self) -> NotebookResult:
        try:
            self._report.seek(0)
            error = json.loads(self._report.read())["error"]
        except (OSError, ValueError):
            error = (
                f"its process ended with exit code {self.process.returncode} without a report; see the standard error"
            )
        self._report.close()
        return NotebookResult(self.source.stem, self.output, time.monotonic() - self._began, error)

    def stop(self) -> None:
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._report.close()


def _declared(path: Path) -> list[str]:
    try:
        from papermill import inspect_notebook
    except ImportError as error:
        raise RuntimeError("executing notebooks needs papermill; pip install 'scalestudy[notebooks]'") from error
    declared = list(inspect_notebook(str(path)))
    if not declared:
        raise ValueError(f"the notebook {path} declares no parameters; tag its cell of literals 'parameters'")
    return declared
