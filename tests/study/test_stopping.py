"""SIGTERM: runs under way end after their current epoch, one in its last epoch is finished, and the store is whole."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_training import spec_of
from marked_training import EPOCHS

from scalestudy.study.store import RunStore

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

BATCH = """
import sys
from scalestudy.study.execution import run_all
from scalestudy.study.store import RunStore
from fake_training import spec_of
folder, workers, scheduler = sys.argv[1:]
run_all([spec_of(seed) for seed in range(3)], RunStore(folder), device="cpu", train="marked_training:waits_each_epoch",
        **({"scheduler": scheduler} if scheduler else {"workers": int(workers)}))
"""


@contextmanager
def batch(tmp_path, workers, scheduler=""):
    with subprocess.Popen(
        [sys.executable, "-c", BATCH, str(tmp_path / "runs"), str(workers), scheduler],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]), "MARKS": str(tmp_path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.02)


def hears(process):
    """Wait until the batch has told its progress bar that it heard the signal."""
    text = ""
    while "stopping after the current epochs" not in text:
        read = os.read(process.stderr.fileno(), 1000).decode()
        assert read, text
        text += read


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [1, EPOCHS])
def test_sigterm_ends_the_batch_after_the_epoch(tmp_path, workers, epoch):
    under_way = range(max(1, workers))
    for passed in range(1, epoch):
        (tmp_path / f"end-{passed}").touch()
    with batch(tmp_path, workers) as process:
        for seed in under_way:
            wait_for(tmp_path / f"begun-{seed}-{epoch}", process)
        process.send_signal(signal.SIGTERM)
        if workers:
            hears(process)
        assert process.poll() is None
        (tmp_path / f"end-{epoch}").touch()
        assert process.wait(60) == 143
    stored = {spec_of(seed).key for seed in under_way} if epoch == EPOCHS else set()
    assert set(RunStore(tmp_path / "runs").keys()) == stored
    assert {path.suffix for path in (tmp_path / "runs").iterdir()} <= {".json"}
    assert not (tmp_path / "begun-2-1").exists()
    assert epoch == EPOCHS or not (tmp_path / f"begun-0-{epoch + 1}").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_second_sigterm_ends_at_once(tmp_path, workers):
    with batch(tmp_path, workers) as process:
        wait_for(tmp_path / "begun-0-1", process)
        process.send_signal(signal.SIGTERM)
        if workers:
            hears(process)
        else:
            time.sleep(0.5)  # nothing tells that the signal was noted while the run goes on
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert RunStore(tmp_path / "runs").keys() == ()
