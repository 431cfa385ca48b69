"""The recipes of docs/cluster.md are tried as far as one machine allows: they are read from the page, not copied.

Commands that a test machine lacks are stood in for: `sbatch` and `scancel`, `ssh`, `nvidia-smi`; and `scalestudy`
itself, which writes its arguments down and waits, so that the cluster that a recipe made can be looked at meanwhile.
"""

import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import pytest
from batches import started, wait_until
from distributed import Client

from scalestudy import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
RECIPE = re.compile(r"^<!-- recipe: ([\w-]+) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPES = {name: block for name, _, block in RECIPE.findall(TEXT)}
PATIENCE = 300  # seconds

STAND_INS = {
    "bin/nvidia-smi": '[ "$1" = --query-gpu=index ] && printf "0\\n1\\n"',
    "bin/ssh": '[ "$1" = -n ] && cd "$HOSTS_FOLDER/$2" && exec bash -c "$3"',
    # jobs are recorded, the first one is executed
    "bin/sbatch": 'cp "$1" "$JOBS/$$.sh"; echo "Submitted batch job $$"\n'
    'if mkdir "$JOBS/first" 2>/dev/null; then bash "$JOBS/$$.sh" >"$JOBS/log" 2>&1 </dev/null & fi',
    "bin/scancel": 'printf "%s\\n" "$@" >>"$JOBS/cancelled"',
    ".venv/bin/dask": f'exec {shlex.quote(sys.executable)} -m dask "$@"',
    ".venv/bin/scalestudy": "trap 'exit 143' TERM\n"
    'printf "%s\\n" "$@" >arguments.new; mv arguments.new arguments\n'
    'until [ -e end ]; do sleep 0.05; done; exit "$(cat end)"',
}


def recipe(name: str, adapted: dict[str, str] | None = None) -> str:
    """The text of a recipe, with what a reader adapts replaced."""
    text = RECIPES[name]
    for old, new in (adapted or {}).items():
        assert old in text
        text = text.replace(old, new)
    return text


class Place:
    """A folder like a checkout, with the stand-ins; `running` starts a recipe in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout, self.jobs = folder, folder / "checkout", folder / "jobs"
        self.jobs.mkdir()
        for path, script in STAND_INS.items():
            self.add(self.checkout / path, script)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASK", "SCALESTUDY"))}
        self.environment = kept | {"JOBS": str(self.jobs), "OMP_NUM_THREADS": "1"}
        self.environment |= dict.fromkeys(("HOME", "HOSTS_FOLDER"), str(folder))
        self.environment |= dict.fromkeys(("DASK_CONFIG", "DASK_TEMPORARY_DIRECTORY"), str(folder / "dask"))
        self.environment["PATH"] = f"{self.checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"

    @staticmethod
    def add(path: Path, script: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    @contextmanager
    def running(self, *command: object, **environment: str) -> Iterator[subprocess.Popen]:
        """Start a command in the checkout, or a recipe in bash; in the end, nothing that it started is left."""
        if len(command) == 1:
            (self.checkout / "recipe").write_text(*command, encoding="utf-8")
            command = ("bash", "-e", "recipe")
        log, environment = (self.folder / "log").open("ab"), self.environment | environment
        try:
            with log, started(*command, cwd=self.checkout, env=environment, stdout=log, stderr=log) as process:
                yield process
        except BaseException as error:
            error.add_note((self.folder / "log").read_text(errors="replace"))
            raise

    def arguments(self, process: subprocess.Popen) -> dict[str, object]:
        """What `scalestudy` was called with, as its own parser understands it; it waits until `end`."""
        written = self.checkout / "arguments"
        wait_until(lambda: written.exists() or process.poll() is not None)
        return accept(written.read_text().splitlines())

    def end(self, process: subprocess.Popen, code: int) -> None:
        """Let `scalestudy` end; the recipe must end with the same exit code and leave no process."""
        (self.checkout / "end.new").write_text(str(code))
        (self.checkout / "end.new").rename(self.checkout / "end")
        assert process.wait(PATIENCE) == code
        with suppress(ProcessLookupError):
            wait_until(lambda: os.killpg(process.pid, 0))  # raises when the group is gone


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def accept(arguments: list[str]) -> dict[str, object]:
    """The parameters of a `scalestudy` command line, as its own parser understands it."""
    command, name, context = cli.main, "scalestudy", click.Context(cli.main)
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
    return command.make_context(name, arguments).params


def workers(scheduler: object, count: int, variable: str) -> list[tuple[str, str, int, dict]]:
    """Of each worker: a variable of its environment, host, threads, resources; sorted."""
    with Client(scheduler, timeout=PATIENCE, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=PATIENCE)
        found = client.scheduler_info(n_workers=-1)["workers"]
        values = client.run(os.getenv, variable)
    told = [(values[address], one["host"], one["nthreads"], one["resources"]) for address, one in found.items()]
    assert len(told) == count
    return sorted(told, key=str)


def test_every_gpu_of_a_host_gets_a_worker_of_its_own(place, port):
    with place.running(recipe("gpus", {"8786": port})) as process:
        arguments = place.arguments(process)
        found = workers(arguments["scheduler"], 2, "CUDA_VISIBLE_DEVICES")
        assert found == [(gpu, "127.0.0.1", 1, {"GPU": 1}) for gpu in ("0", "1")]
        assert arguments["device"] == "cuda"
        place.end(process, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_workers_come_from_every_host_and_leave_with_the_scheduler(place, port):
    hosts = ["127.0.0.2", "127.0.0.3"]
    homes = [place.folder / host / "scalestudy" for host in hosts]
    for home in homes:
        place.add(home / ".venv/bin/dask", STAND_INS[".venv/bin/dask"])
    adapted = {"10.0.0.1": "127.0.0.1", "10.0.0.2 10.0.0.3": " ".join(hosts), "8786": port}
    with place.running(recipe("ssh", adapted)) as process:
        found = workers(place.arguments(process)["scheduler"], 2, "PWD")
        assert found == [(str(home), host, 4, {"GPU": 4}) for home, host in zip(homes, hosts, strict=True)]
        place.end(process, 0)


def test_slurm_jobs_become_workers_and_are_cancelled_in_the_end(place):
    with place.running(sys.executable, "-c", recipe("slurm-cluster", {'"ib0"': '"lo"'})) as process:
        arguments = place.arguments(process)
        ((data, _, *slots),) = workers(arguments["scheduler"], 1, "SCALESTUDY_DATA")
        assert (data, slots) == (str(place.folder / "mnist"), [1, {"GPU": 1}])
        assert arguments["device"] == "cuda"
        wait_until(lambda: len(list(place.jobs.glob("*.sh"))) == 20)
        place.end(process, 143)
    jobs = list(place.jobs.glob("*.sh"))
    assert set((place.jobs / "cancelled").read_text().split()) == {job.stem for job in jobs}
    for job in jobs:
        check_job(job)


def check_job(job: Path) -> None:
    """The script of a Slurm job: its resources, and a worker that leaves in time."""
    assert subprocess.run(["bash", "-n", job], check=False).returncode == 0
    lines = job.read_text(encoding="utf-8").splitlines()
    wanted = {"--gres=gpu:1", "-p gpu", "-n 1", "--cpus-per-task=4", "--mem=15G", "-t 01:00:00"}
    assert wanted <= {line.removeprefix("#SBATCH ") for line in lines}
    (command,) = (shlex.split(line) for line in lines if line.startswith(sys.executable))
    options = dict(itertools.pairwise(command))
    assert command[1:3] == ["-m", "distributed.cli.dask_worker"]
    assert (options["--nthreads"], options["--resources"]) == ("1", "GPU=1")
    minutes = [int(options[name].removesuffix("m")) for name in ("--lifetime", "--lifetime-stagger")]
    assert sum(minutes) < 60


def test_a_slurm_job_is_the_command_and_its_budget_fits(place):
    script = recipe("slurm-lease")
    with place.running(script) as process:
        parameters = place.arguments(process)
        process.terminate()
        assert process.wait(PATIENCE) == 143
    assert parameters["time_budget"] == 55 * 60
    assert "#SBATCH --time=01:00:00" in script


ASK = """
import sys, distributed
with distributed.Client(sys.argv[1], timeout=5) as client:
    print(client.submit(sum, [40, 2]).result())
"""


def test_tls_lets_in_only_who_has_the_key(place):
    with place.running(f"{recipe('tls')}\nenv | grep ^DASK_DISTRIBUTED >key") as process:
        assert process.wait(PATIENCE) == 0
    key = dict(line.split("=", 1) for line in (place.checkout / "key").read_text().splitlines())
    dask, here = ".venv/bin/dask", ("--host=127.0.0.1", "--no-dashboard", "--dashboard-address=127.0.0.1:0")
    file = place.checkout / "scheduler.json"
    with place.running(dask, "scheduler", "--protocol=tls", *here, "--port=0", "--scheduler-file", file, **key):
        wait_until(file.exists)
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tls://")
        with place.running(dask, "worker", address, "--no-nanny", *here, **key):
            with place.running(sys.executable, "-c", ASK, address, **key) as client:
                assert client.wait(PATIENCE) == 0
            for known in (address, address.replace("tls:", "tcp:")):
                with place.running(sys.executable, "-c", ASK, known) as client:
                    assert client.wait(PATIENCE) == 1
    assert (place.folder / "log").read_text().count("\n42\n") == 1


def page_commands() -> list[str]:
    """Every `scalestudy` command line of the page, in a block or in the text."""
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE)]
    lines = [line.split("#")[0] for block in RECIPES.values() for line in block.splitlines()]
    command = re.compile(r"scalestudy ((?:run|reproduce|status|merge|data|report)\b.*)")
    return sorted({match[1].strip() for match in map(command.search, [*lines, *spans]) if match})


def test_every_command_of_the_page_is_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(page_commands()) > 8
    for arguments in map(shlex.split, page_commands()):
        if arguments[0] == "merge":
            Path(arguments[1]).mkdir(parents=True)
        accept(arguments)
    with pytest.raises(click.UsageError):
        accept(["run", "--no-such-option"])


def test_every_block_is_a_named_recipe_without_errors_of_syntax(tmp_path):
    blocks = RECIPE.findall(TEXT)
    assert len(blocks) == len(RECIPES) == len(re.findall(r"^```\w+$", TEXT, flags=re.MULTILINE))
    for name, language, text in blocks:
        if language == "python":
            compile(text, name, "exec")
        else:
            assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0, name
