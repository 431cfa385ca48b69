"""Processes that need a data set at the same moment: one fetches or generates it, the others wait and read it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from scalestudy.data import mnist, realisations

SCRIPT = Path(__file__).with_name("one_of_several.py")
KINDS = {
    "mnist": ("fetching MNIST into", ".", "small-idx1-ubyte"),
    "realisation": ("generating realisation 2 of MNIST-Scale for", "mnist_scale", "realisation-2-recipe-1.npz"),
}

Start = Callable[[str, int], subprocess.Popen]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def start(tmp_path: Path, notes: Path) -> Iterator[Start]:
    """Starts a process that needs a kind of data, and fetches it when so many others wait."""
    started = []

    def one(kind: str, waiters: int) -> subprocess.Popen:
        command = [sys.executable, str(SCRIPT), kind, str(tmp_path / "data"), str(notes), str(waiters)]
        started.append(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.wait()


def wait_for(text: str, notes: Path) -> None:
    deadline = time.monotonic() + 120
    while text not in notes.read_text():
        assert time.monotonic() < deadline, f"no {text!r} in {notes.read_text()!r}"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_several_processes_does_it(kind: str, start: Start, notes: Path, tmp_path: Path) -> None:
    doing, folder, file = KINDS[kind]
    processes = [start(kind, 2) for _ in range(3)]
    assert [process.wait(240) for process in processes] == [0, 0, 0]
    lines = notes.read_text().splitlines()
    assert sum("works" in line for line in lines) == 1
    place = (tmp_path / "data" / folder).resolve()
    assert lines.count(f"another process is {doing} {place}; waiting until it has ended") == 2, "each waiter, once"
    assert lines.count("has ok") == 3
    assert [path.name for path in place.iterdir()] == [file]


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_blocks_nobody(kind: str, start: Start, notes: Path, tmp_path: Path) -> None:
    _, folder, file = KINDS[kind]
    first = start(kind, 99)
    wait_for(f"{first.pid} works", notes)
    second = start(kind, 0)
    wait_for("waiting", notes)
    assert f"{second.pid} works" not in notes.read_text()
    first.kill()
    assert second.wait(240) == 0
    assert f"{second.pid} works" in notes.read_text()
    assert "has ok" in notes.read_text()
    assert [path.name for path in (tmp_path / "data" / folder).iterdir()] == [file]


def test_nothing_is_locked_where_everything_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"images": np.zeros(1)}
    monkeypatch.setattr(realisations, "_read", lambda path, seed: made)
    monkeypatch.setattr(mnist, "FILES", ())
    for module in (mnist, realisations):
        monkeypatch.setattr(module, "first_alone", lambda path, doing: pytest.fail(f"locked for {doing}"))
    assert realisations.load_realisation(0, tmp_path) is made
    mnist.fetch_mnist(tmp_path)
    assert list(tmp_path.iterdir()) == []
