"""Batches of fake training, here or in a process of their own that a test can kill."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from fake_training import spec_of

from scalestudy.runs.execution import run_all

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

SCRIPT = """
import json
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell hands it down as ignored
from scalestudy.runs.execution import run_all
from scalestudy.runs.store import RunStore
from fake_training import spec_of
folder, train, workers, seeds, time_budget, scheduler = map(json.loads, sys.argv[1:])
print("started", flush=True)
report = run_all([spec_of(seed) for seed in seeds], RunStore(folder), device="cpu", workers=workers,
                 scheduler=scheduler, time_budget=time_budget,
                 train=train if ":" in train else "fake_training:" + train,
                 on_record=lambda record: print(record.key, flush=True))
print(report.read, report.trained, len(report.failed), len(report.left_out), flush=True)
"""


def go(store, seeds, train="quick", workers=0, **options):
    """`run_all` in this process, on fake training."""
    specs = [spec_of(seed) for seed in seeds]
    return run_all(
        specs, store, device="cpu", workers=workers, progress=False, train=f"fake_training:{train}", **options
    )


def batch(folder, train, workers, seeds, time_budget=None, scheduler=None, modules=(), **environment):
    """The same in a script without a main guard, in a process group of its own.

    It prints "started", the key of each record, and at the end how many were read, trained, failed and left out.
    `train` is a function of `fake_training`, or a dotted path.  `modules` are folders to be searched for modules before
    all others.
    """
    path = os.pathsep.join(map(str, [*modules, HERE, ROOT]))
    arguments = [
        json.dumps(argument) for argument in (str(folder), train, workers, list(seeds), time_budget, scheduler)
    ]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
        start_new_session=True,
    )


def ending(process, seconds=120):
    """How many runs a batch has read, trained, failed to make and left out; it must have ended well."""
    out, error = process.communicate(timeout=seconds)
    assert process.returncode == 0, error
    return tuple(map(int, out.splitlines()[-1].split()))


def hears(process):
    """Wait until the batch has told its progress bar that it heard the signal."""
    text = ""
    while "stopping after the current epochs" not in text:
        read = os.read(process.stderr.fileno(), 1000).decode()
        assert read, text
        text += read


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
