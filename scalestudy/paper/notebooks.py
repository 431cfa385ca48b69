"""The batch of notebooks: checked before anything runs, then executed by papermill, each in a kernel of its own."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

from scalestudy import files


class NotebookResult(NamedTuple):
    """How a notebook ended: `error` is None, or the failing cell; not `executed` where its copy still holds."""

    name: str
    seconds: float = 0.0
    error: str | None = None
    executed: bool = True


def extra(name: str) -> ModuleType:
    """A module of the extra "notebooks"."""
    try:
        return import_module(name)
    except ImportError as error:
        raise RuntimeError(f"notebooks and report need {name}; pip install 'scalestudy[notebooks]'") from error


def check(names: Sequence[str], parameters: Iterable[str]) -> list[Path]:
    """The notebooks whose names begin so (none: all), each of which declares the parameters: papermill only warns."""
    papermill, _ = extra("papermill"), extra("nbconvert")  # the second one for the report: told before anything runs
    available = sorted(files.notebooks().glob("*.ipynb"))
    if not available:
        raise ValueError(
            f"no notebooks in {files.notebooks()}; name the project's folder in the environment variable "
            f"{files.ROOT_VARIABLE}"
        )
    for name in names:
        if not name or not any(path.stem.startswith(name) for path in available):
            listed = ", ".join(path.stem for path in available)
            raise ValueError(f"notebook must be the beginning of one of {listed}, got {name!r}")
    selected = [path for path in available if not names or path.stem.startswith(tuple(names))]
    for path in selected:
        if missing := sorted(set(parameters) - set(papermill.inspect_notebook(_escaped(path)))):
            raise ValueError(
                f"the notebook {path.stem} must declare the parameters {', '.join(missing)}; add them to its cell with "
                "the tag 'parameters'"
            )
    return selected


def is_of(executed: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether an executed copy is whole, without an error, and of these parameters."""
    try:
        told = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]
        return told["parameters"] == parameters and bool(told["end_time"]) and not told["exception"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_fresh(executed: Path, parameters: Mapping[str, Any], inputs: Iterable[Path]) -> bool:
    """Whether a copy is of these parameters, and newer than `inputs`, the measurements of cost, and this package."""
    code = (path for path in Path(__file__).resolve().parents[1].rglob("*.*") if path.suffix != ".pyc")
    newest = max(path.stat().st_mtime for path in [*inputs, *files.benchmarks().glob("*.json"), *code])
    return is_of(executed, parameters) and executed.stat().st_mtime > newest


def execute(
    notebooks: Sequence[Path],
    parameters: Mapping[str, Any],
    folder: Path,
    *,
    jobs: int,
    inputs: Sequence[Path] | None,
    on_result: Callable[[NotebookResult], None],
) -> list[NotebookResult]:
    """Run notebooks, `jobs` at a time, into copies in `folder`; one that fails does not stop the others.

    With `inputs`, the files that their outputs follow from beside sources and code, copies that still hold are kept.
    """
    from scalestudy.training.device import usable_cores  # imports torch

    folder.mkdir(parents=True, exist_ok=True)
    stale = [
        path for path in notebooks if inputs is None or not is_fresh(folder / path.name, parameters, [path, *inputs])
    ]
    results = [NotebookResult(path.stem, executed=False) for path in notebooks if path not in stale]
    for result in results:
        on_result(result)
    with TemporaryDirectory(prefix="nb") as place, ThreadPoolExecutor(jobs) as pool:
        _write_kernel(Path(place), max(1, usable_cores() // jobs))
        running = [pool.submit(_execute, path, folder / path.name, dict(parameters)) for path in stale]
        try:
            for future in as_completed(running):
                results.append(future.result())
                on_result(results[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_kernels(running)
            raise
    return sorted(results)


def _write_kernel(place: Path, threads: int) -> None:
    """Have kernels run this interpreter, whatever is called python3 elsewhere, with the folders of this process."""
    from ipykernel.kernelspec import write_kernel_spec

    environment = {
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    folders = (files.ROOT_VARIABLE, files.RUNS_VARIABLE, files.RESULTS_VARIABLE, files.DATA_VARIABLE)
    environment |= {name: str(path) for name in folders if (path := files.named(name))}  # a kernel runs elsewhere
    quiet = ["--log-level=50"]  # the interrupt before its end would be logged as an error
    write_kernel_spec(place / "kernels" / "python3", {"env": environment}, quiet)
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(place), os.environ.get("JUPYTER_PATH", "")])


def _end_kernels(running: Sequence[Future]) -> None:
    """End the kernels under way, also those about to start; that of a process that was killed leaves by itself."""
    import psutil  # comes with ipykernel

    logging.disable()  # libraries have nothing to tell from here on but that a kernel died under their hands
    while wait(running, timeout=0.2).not_done:
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # it has just ended
                if "ipykernel_launcher" in child.cmdline():
                    child.kill()


def _execute(source: Path, output: Path, parameters: dict[str, Any]) -> NotebookResult:
    """Execute a notebook in its own folder."""
    import papermill
    from jupyter_core.utils import ensure_event_loop

    began, error = time.monotonic(), None
    given = (_escaped(source), _escaped(output), parameters)
    here = {"metadata": {"path": str(source.parent)}}  # papermill's own `cwd` is that of all threads
    try:
        with closing(ensure_event_loop()):  # this thread's, which papermill leaves open
            papermill.execute_notebook(*given, kernel_name="python3", progress_bar=False, resources=here)
    except papermill.PapermillExecutionError as failed:
        lines = [line for line in failed.source.splitlines() if line.strip()][:3]
        error = "\n  ".join([f"cell In [{failed.exec_count}] failed with {failed.ename}: {failed.evalue}", *lines])
    except Exception as failed:
        error = f"{type(failed).__name__}: {failed}"
    return NotebookResult(source.stem, time.monotonic() - began, error)


def _escaped(path: Path) -> str:
    """A path as papermill takes it, which formats what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")
