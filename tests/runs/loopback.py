"""A real Dask cluster on this machine: a scheduler and workers, each a process of its own."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from batches import HERE, ROOT, started, wait_until

_PATIENCE = 300


class Cluster(ExitStack):
    """`with Cluster(folder) as cluster:` runs a scheduler; workers are added, and killed, by name.

    Each worker has a run store of its own, `folder / name`, unless `runs` names one.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        super().__init__()
        self.folder, self._variables = folder, variables
        self.file = folder / "scheduler.json"
        self.workers: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.file)
        self.scheduler = self._start("scheduler", *arguments, **self._variables)
        wait_until(lambda: self.address or self.scheduler.poll() is not None)
        return self

    @property
    def address(self) -> str:
        try:
            return json.loads(self.file.read_text())["address"]
        except (OSError, ValueError):
            return ""

    def add(self, name: str, *options: object, runs: Path | None = None, path: Path | None = None, **variables) -> None:
        """Start a worker, on one thread unless `options` say otherwise; `path` comes first in its import path."""
        variables["SCALESTUDY_RUNS"] = str(runs or self.folder / name)
        options = ("--name", name, *(("--nthreads", 1) if "--nthreads" not in options else ()), *options)
        self.workers[name] = self._start("worker", self.address, *options, path=path, **variables)

    def wait_for(self, count: int) -> dict[str, dict]:
        """Wait until that many workers are there; the scheduler's view of them by name."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=_PATIENCE)
            found = client.sync(client.scheduler.identity, n_workers=-1)["workers"].values()
            return {worker["name"]: worker for worker in found}

    def _start(self, kind: str, *arguments: object, path: Path | None = None, **variables: str) -> subprocess.Popen:
        places = [*([path] if path else []), HERE, ROOT]
        variables["PYTHONPATH"] = os.pathsep.join(map(str, places))
        environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self.folder), **variables}
        command = (sys.executable, "-m", "dask", kind, *arguments, "--no-dashboard")
        with (self.folder / "dask.log").open("ab") as log:
            process = started(*command, env=environment, cwd=self.folder, stdout=log, stderr=log)
            return self.enter_context(process)
