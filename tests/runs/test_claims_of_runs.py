"""Claims on runs: one holder among processes, threads and objects, and nothing left of those that were killed."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from claimant import contend

from scalestudy.runs.claims import Claims, remove_stale_claims
from scalestudy.runs.store import RunStore

SCRIPT = Path(__file__).with_name("claimant.py")


@pytest.fixture
def claimant(tmp_path):
    """Starts another process that claims runs; it is killed at the end."""
    started = []

    def start(what, *arguments):
        command = [sys.executable, str(SCRIPT), what, str(tmp_path), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=0
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_object_has_a_claim(tmp_path):
    ours, theirs = Claims(tmp_path / "runs"), Claims(tmp_path / "runs")
    assert not ours.folder.exists()
    assert ours.take("a") and ours.take("b")
    assert ours.take("a"), "it is ours already"
    assert names(ours.folder) == ["a.claim", "b.claim"]
    assert not theirs.take("a")
    theirs.release("a")
    theirs.release_all()
    assert not theirs.take("a"), "not theirs to release"
    ours.release("a")
    ours.release("a")
    assert names(ours.folder) == ["b.claim"]
    assert theirs.take("a") and not theirs.take("b")
    ours.release_all()
    assert theirs.take("b")
    theirs.release_all()
    assert names(ours.folder) == []


def test_a_killed_process_frees_its_claims(tmp_path, claimant):
    other = claimant("hold", "a", "b")
    assert other.stdout.readline().split() == ["True", "True"]
    claims = Claims(tmp_path)
    assert not claims.take("a")
    assert remove_stale_claims(tmp_path) == ()
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert names(tmp_path) == ["a.claim", "b.claim"]
    assert claims.take("a")
    (tmp_path / "notes.txt").touch()
    assert remove_stale_claims(tmp_path) == ("b.claim",)
    assert names(tmp_path) == ["a.claim", "notes.txt"]
    assert not Claims(tmp_path).take("a")
    claims.release_all()


def test_children_have_no_part_in_a_claim(tmp_path, claimant):
    other = claimant("hold-with-children", "a")
    taken, *children = other.stdout.readline().split()
    assert taken == "True"
    assert not Claims(tmp_path).take("a")
    other.kill()
    other.wait()
    claims = Claims(tmp_path)
    assert claims.take("a")
    for child in children:
        os.kill(int(child), 0)  # still there
    claims.release_all()


def test_opening_a_store_clears_up(tmp_path, claimant):
    other = claimant("hold", "a")
    other.stdout.readline()
    other.kill()
    other.wait()
    claims = Claims(tmp_path)
    claims.take("b")
    RunStore(tmp_path).require_writable()
    assert names(tmp_path) == ["b.claim"]
    claims.release_all()


def test_hundreds_at_once(tmp_path):
    keys = [f"{number:016x}" for number in range(200)]
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    assert all(ours.take(key) for key in keys)
    assert not any(theirs.take(key) for key in keys)
    ours.release_all()
    assert names(tmp_path) == []


@pytest.mark.parametrize("case", ["no folder", errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_files_cannot_be_locked_everybody_has_the_claim(case, tmp_path, monkeypatch, caplog):
    def missing(descriptor, operation):
        raise OSError(case, os.strerror(case))

    folder = tmp_path / "runs"
    if case == "no folder":
        folder.write_text("a file where the folder should be")
    else:
        monkeypatch.setattr(fcntl, "flock", missing)
    ours, theirs = Claims(folder), Claims(folder)
    for claims in (ours, theirs):
        assert claims.take("a") and claims.take("b")
        claims.release("a")
        claims.release_all()
    assert remove_stale_claims(folder) == ()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [f"cannot claim runs in {folder}"] * 2
    if case in (errno.ENOSYS, errno.EOPNOTSUPP):
        assert names(folder) == []


def test_never_two_holders(tmp_path, claimant):
    rounds = 1000
    others = [claimant("contend", str(rounds)) for _ in range(2)]
    with ThreadPoolExecutor(3) as threads:
        here = list(threads.map(lambda _: contend(tmp_path, rounds), range(3)))
    there = [other.communicate()[0] for other in others]
    assert [other.returncode for other in others] == [0, 0]
    assert all(here) and all(map(int, there))
    assert names(tmp_path) == []
