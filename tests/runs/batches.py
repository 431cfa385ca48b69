"""Batches of fake training, here or in a process of their own that a test can kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from fake_training import spec_of

from scalestudy.runs.batch import run_all
from scalestudy.runs.store import RunStore

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

SCRIPT = """
import json
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell hands it down as ignored
from scalestudy.runs.batch import run_all
from scalestudy.runs.store import RunStore
from fake_training import spec_of
folder, train, workers, seeds, scheduler = map(json.loads, sys.argv[1:])
print("started", flush=True)
report = run_all([spec_of(seed) for seed in seeds], RunStore(folder), device="cpu", workers=workers,
                 scheduler=scheduler, train="fake_training:" + train,
                 on_record=lambda record: print(record.key, flush=True))
print(report.read, report.trained, len(report.failed), len(report.left_out), flush=True)
"""

COMMAND = """
import signal, sys, scalestudy.data, scalestudy.runs.batch
signal.signal(signal.SIGINT, signal.default_int_handler)
scalestudy.data.fetch_mnist = lambda *_: None
scalestudy.runs.batch.DEFAULT_TRAIN = "fake_training:endless"
from scalestudy.cli import main
main()
"""


def go(store, seeds, train="quick", **options):
    """`run_all` in this process, on fake training."""
    options = {"device": "cpu", "workers": 2, "progress": False, "train": f"fake_training:{train}"} | options
    return run_all(map(spec_of, seeds), store, **options)


@contextmanager
def started(*command, **options):
    """A process in a session of its own; in the end nothing that it has started is left."""
    with subprocess.Popen(list(map(str, command)), text=True, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def batch(folder, train, workers, seeds, scheduler=None, **environment):
    """`go` in a script without a main guard, in a process of its own.

    It prints "started", the key of each record, and at the end how many were read, trained, failed and left out.
    """
    arguments = [json.dumps(argument) for argument in (str(folder), train, workers, list(seeds), scheduler)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return started(sys.executable, "-c", SCRIPT, *arguments, env=ours(**environment), **pipes)


def process_of(*arguments, **environment):
    """A `scalestudy` command on endless training."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return started(sys.executable, "-c", COMMAND, *arguments, env=ours(**environment), **pipes)


def ours(**environment):
    """The environment, in which package and test helpers can be imported."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [HERE, ROOT])), **environment}


def ending(process, seconds=300):
    """How many runs a batch has read, trained, failed to make and left out; it must have ended well."""
    out, error = process.communicate(timeout=seconds)
    assert process.returncode == 0, error
    return tuple(map(int, out.splitlines()[-1].split()))


def logged(folder):
    """How often each line was logged by the training functions."""
    log = folder / "log"
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def contents(folder):
    """The records that can be seen at this moment: name and bytes."""
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def keys(store):
    return {path.stem for path in store.folder.glob("*.json")}


def litter(folder):
    """Everything in the store but records."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


def assert_whole(store):
    """Every file is a valid record: another one is moved aside, with a warning, which is an error here."""
    assert len(RunStore(store.folder).records()) == len(contents(store.folder))


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
