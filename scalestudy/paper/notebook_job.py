"""Execute one notebook with papermill; the request comes as JSON on the standard input.

Started by `scalestudy.paper.notebooks` as ``python -m scalestudy.paper.notebook_job``.  The kernel ends with its
notebook, on SIGTERM, and when the process that asked for it has ended.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_SOURCE_LINES = 3
_QUIET = "--log-level=50"
"""For the kernel, which otherwise logs the interrupt that precedes its shutdown as an error."""


def main() -> None:
    """Run the requested notebook and write ``{"error": null or text}`` to the standard output."""
    signal.signal(signal.SIGINT, _ignore)  # Ctrl-C reaches us too: the parent decides, and stops us
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    request = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as report:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else is printed must not get into the report
        error = run(Path(request["source"]), Path(request["output"]), request["parameters"])
        json.dump({"error": error}, report)


def run(source: Path, output: Path, parameters: dict[str, Any]) -> str | None:
    """Execute a notebook in its own folder; return None, or what went wrong and in which cell."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from scalestudy.paper.notebooks import KERNEL

    with tempfile.TemporaryDirectory(prefix="nb") as sockets:
        # TCP ports of kernels that start at the same time collide; files cannot
        transport = {"transport": "ipc", "ip": os.path.join(sockets, "k")} if os.name == "posix" else {}
        try:
            papermill.execute_notebook(
                str(source),
                str(output),
                parameters=parameters,
                kernel_name=KERNEL,
                progress_bar=False,
                cwd=str(source.parent),
                config=Config({"KernelManager": transport, "NotebookClient": {"extra_arguments": [_QUIET]}}),
            )
        except PapermillExecutionError as error:
            lines = [line for line in error.source.splitlines() if line.strip()][:_SOURCE_LINES]
            return f"cell In [{error.exec_count}] failed with {error.ename}: {error.evalue}\n  " + "\n  ".join(lines)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def _watch(parent: int) -> None:
    """End with the process that asked for the notebook."""
    while os.getppid() == parent:
        time.sleep(1.0)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


def _leave(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, _ignore)  # a second one must not disturb the end of the kernel
    logging.disable()  # from here on libraries have nothing to tell but that the kernel died under their hands
    raise SystemExit(128 + number)


def _ignore(number: int, frame: object) -> None:
    """Not ``SIG_IGN``, which the kernel would inherit."""


if __name__ == "__main__":
    main()
