"""The batch of notebooks: checked before anything runs, then executed by papermill, each in a process of its own."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from scalestudy import files

_LONGEST_TEMPORARY = 80  # characters of a temporary folder in which sockets can lie: their paths end at 107


class NotebookResult(NamedTuple):
    """How a notebook ended: `error` is None, or the failing cell; not `executed` where its copy still holds."""

    name: str
    seconds: float = 0.0
    error: str | None = None
    executed: bool = True


def check(names: Sequence[str], parameters: Iterable[str]) -> list[Path]:
    """The notebooks whose names begin so (none: all), each of which declares the parameters: papermill only warns."""
    try:
        import nbconvert  # noqa: F401  (for the report: told before anything runs)
        from papermill import inspect_notebook
    except ImportError as error:
        raise RuntimeError(
            "executing notebooks needs papermill and nbconvert; pip install 'scalestudy[notebooks]'"
        ) from error
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
        if missing := sorted(set(parameters) - set(inspect_notebook(_escaped(path)))):
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
    inputs: Iterable[Path] | None,
    on_result: Callable[[NotebookResult], None],
) -> list[NotebookResult]:
    """Run notebooks, `jobs` at a time, into copies in `folder`; one that fails does not stop the others.

    With `inputs`, the files that their outputs follow from beside sources and code, copies that still hold are kept.
    """
    from scalestudy.training.device import usable_cores  # imports torch, which the processes of the pool do without

    folder.mkdir(parents=True, exist_ok=True)
    given, stale, results = list(inputs or ()), [], []
    for path in notebooks:
        if inputs is None or not is_fresh(folder / path.name, parameters, [path, *given]):
            stale.append(path)
            continue
        results.append(NotebookResult(path.stem, executed=False))
        on_result(results[-1])
    context, threads = multiprocessing.get_context("spawn"), max(1, usable_cores() // jobs)
    with ProcessPoolExecutor(jobs, context, initializer=_prepare, initargs=(threads,)) as pool:
        try:
            running = [pool.submit(_execute, path, folder / path.name, dict(parameters)) for path in stale]
            for future in as_completed(running):
                results.append(future.result())
                on_result(results[-1])
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(results)


def _prepare(threads: int) -> None:
    """Ready a process of the pool: it leaves on SIGTERM and with the process that asked for it, after its kernel."""
    signal.signal(signal.SIGINT, _ignore)  # Ctrl-C reaches us too: the parent decides, and stops us
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    for variable in (files.ROOT_VARIABLE, files.RUNS_VARIABLE, files.RESULTS_VARIABLE, files.DATA_VARIABLE):
        if path := files.named(variable):
            os.environ[variable] = str(path)  # a kernel runs in the folder of its notebook
    os.environ |= {
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def _leave(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, _ignore)  # a second one must not disturb the end of the kernel
    logging.disable()  # from here on libraries have nothing to tell but that the kernel died under their hands
    raise SystemExit(128 + number)


def _ignore(number: int, frame: object) -> None:
    """Not ``SIG_IGN``, which the kernel would inherit."""


def _leave_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _execute(source: Path, output: Path, parameters: dict[str, Any]) -> NotebookResult:
    began = time.monotonic()
    try:
        error = _run(source, output, parameters)
    except SystemExit as leaving:
        os._exit(leaving.code)  # the pool would wait for more work
    except Exception as failed:
        error = f"{type(failed).__name__}: {failed}"
    return NotebookResult(source.stem, time.monotonic() - began, error)


def _run(source: Path, output: Path, parameters: dict[str, Any]) -> str | None:
    """Execute a notebook in its own folder; return None, or which cell failed."""
    import papermill
    from ipykernel.kernelspec import write_kernel_spec
    from traitlets.config import Config

    short = None if len(tempfile.gettempdir()) <= _LONGEST_TEMPORARY else "/tmp"
    with tempfile.TemporaryDirectory(prefix="nb", dir=short) as place:
        write_kernel_spec(os.path.join(place, "kernels", "python3"))  # this interpreter, whatever is called python3
        os.environ["JUPYTER_PATH"] = place
        # TCP ports of kernels that start at the same time collide; files cannot
        transport = {"transport": "ipc", "ip": os.path.join(place, "k")} if os.name == "posix" else {}
        quiet = {"extra_arguments": ["--log-level=50"]}  # the interrupt before its end would be logged as an error
        try:
            papermill.execute_notebook(
                _escaped(source), _escaped(output), parameters, kernel_name="python3", progress_bar=False,
                cwd=source.parent, config=Config({"KernelManager": transport, "NotebookClient": quiet}),
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            lines = [line for line in error.source.splitlines() if line.strip()][:3]
            return f"cell In [{error.exec_count}] failed with {error.ename}: {error.evalue}\n  " + "\n  ".join(lines)
    return None


def _escaped(path: Path) -> str:
    """A path as papermill takes it, which formats what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")
