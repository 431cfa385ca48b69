"""Locks on files: one holder, waiting, and what happens where no file can be locked."""

import errno
import fcntl
import logging
import os
import threading

import pytest

from scalestudy.runs import locks
from scalestudy.runs.locks import first_alone, free_lock, take_lock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / ".lock"


def test_one_holder_and_no_file_left(path):
    lock = take_lock(path)
    assert take_lock(path) is None
    assert take_lock(path, 0.01) is None
    free_lock(lock)
    free_lock(lock)
    assert list(path.parent.iterdir()) == []
    free_lock(take_lock(path))


def test_freed_by_another_thread(path):
    lock = take_lock(path)
    thread = threading.Thread(target=free_lock, args=(lock,))
    thread.start()
    thread.join()
    assert not path.exists()
    again = take_lock(path)
    assert again is not None
    free_lock(again)
    assert not lock.is_locked


def test_a_lock_on_a_removed_file_does_not_count(path, monkeypatch):
    """The holder lets go between the moments when another has opened the file and locks it."""
    holder = take_lock(path)
    flock = fcntl.flock

    def late(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        free_lock(holder)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = take_lock(path, 60)
    assert lock is not None
    assert path.exists()
    assert take_lock(path) is None
    free_lock(lock)


def test_those_who_waited_enter_together(path, monkeypatch):
    """Where the first one failed, nobody queues for the next failure."""
    monkeypatch.setattr(locks, "_MOMENT_SECONDS", 0.0)
    said = threading.Semaphore(0)
    monkeypatch.setattr(locks._LOG, "warning", lambda *words: said.release())
    together = threading.Barrier(2, timeout=60)
    order = []

    def late():
        with first_alone(path, "trying"):
            order.append("late")
            together.wait()

    threads = [threading.Thread(target=late) for _ in range(2)]

    def fail():
        with first_alone(path, "trying"):
            for thread in threads:
                thread.start()
            for _ in threads:
                assert said.acquire(timeout=60)
            order.append("first")
            raise ArithmeticError("the first one fails")

    with pytest.raises(ArithmeticError, match="the first one fails"):
        fail()
    for thread in threads:
        thread.join()
    assert order == ["first", "late", "late"]
    assert not together.broken
    assert list(path.parent.iterdir()) == []


def test_a_short_wait_says_nothing(path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "_MOMENT_SECONDS", 1e3)
    lock = take_lock(path)
    entered = threading.Event()

    def late():
        with first_alone(path, "trying"):
            entered.set()

    thread = threading.Thread(target=late)
    with caplog.at_level(logging.DEBUG, "scalestudy"):
        thread.start()
        assert not entered.wait(0.1)
        free_lock(lock)
        thread.join()
    assert entered.is_set()
    assert caplog.records == []


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "folder" / ".lock"
    with pytest.raises(OSError, match="file"):
        take_lock(path)
    with first_alone(path, "trying"), first_alone(path, "trying too"):
        pass
    assert caplog.records == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(code, path, monkeypatch):
    def missing(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match=os.strerror(code)):
        take_lock(path)
    with first_alone(path, "trying"), first_alone(path, "trying too"):
        assert list(path.parent.iterdir()) == []
