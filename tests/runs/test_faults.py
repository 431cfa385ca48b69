"""Disks and folders that fail under a batch: nothing lost, nothing silently wrong.

Tests that need a file system of their own run where the process may mount one, and are skipped elsewhere.
"""

import os
import subprocess
from contextlib import contextmanager

import pytest
from batches import assert_whole, contents, go, keys, litter, logged
from fake_training import spec_of

from scalestudy import files
from scalestudy.runs.batch import plan
from scalestudy.runs.store import DamagedRecordWarning, StoreError


@contextmanager
def mounted(folder, *options):
    try:
        subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process cannot mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(folder):
    """Nobody can write into the folder; permissions alone would not keep root from it."""
    return mounted(folder, "-o", "bind,ro", str(folder))


@pytest.fixture
def disk(store):
    """The store on a disk of its own, of 1 MiB."""
    disk = store.folder.parent / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "scalestudy-test"):
        store.folder = disk / "runs"
        yield disk


def assert_completes(store, seeds, kept):
    """The same batch again makes what is missing, and nothing that was kept is touched."""
    report = go(store, seeds)
    assert (report.read, report.trained, report.failed) == (len(kept), len(seeds) - len(kept), ())
    assert kept.items() <= contents(store.folder).items()
    assert_whole(store)
    assert [name for name in litter(store.folder) if not name.endswith(files.TEMPORARY_SUFFIX)] == []


def test_disk_that_fills_up(store, disk):
    ballast, told = disk / "ballast", []
    left = os.statvfs(disk)
    ballast.write_bytes(bytes(left.f_bavail * left.f_frsize - 100 * 1024))
    with pytest.raises(
        StoreError,
        match=rf"cannot write to the folder {store.folder}: No space left on device; free some space .*"
        r"SCALESTUDY_RUNS.* Every run that was stored before is whole",
    ):
        go(store, range(60), on_record=told.append)
    kept = contents(store.folder)
    assert 10 <= len(kept) < 60
    assert {record.key for record in told} <= keys(store)
    assert_whole(store)
    ballast.unlink()
    assert_completes(store, range(60), kept)


def test_read_only_store(store, marks):
    """Stored runs can be read; what cannot be stored is not trained, and what is damaged is not used."""
    go(store, range(6))
    (marks / "log").unlink()
    path = store.path(spec_of(0).key)
    text = path.read_text()
    with read_only(store.folder):
        assert go(store, range(6)).read == 6
        with pytest.raises(StoreError, match=rf"cannot write to the folder {store.folder}: (Read-only|Permission)"):
            go(store, range(7))
    path.write_text(text[:-100])
    with read_only(store.folder):
        with pytest.warns(DamagedRecordWarning, match=rf"{path.name}: record: Invalid JSON.* left where it is"):
            frame = plan([spec_of(seed) for seed in range(7)], store)
        assert frame["stored"].tolist() == [False, *[True] * 5, False]
        with (
            pytest.warns(DamagedRecordWarning, match=r"not used, left where it is"),
            pytest.raises(StoreError, match=r"cannot write to the folder"),
        ):
            go(store, range(6))
    assert not logged(marks)
    assert path.read_text() == text[:-100]


def test_store_that_a_file_replaces_under_a_batch(store):
    told = []
    with pytest.raises(StoreError, match=rf"cannot write to the folder {store.folder}: "):
        go(store, range(20), "seed_3_moves_the_store", workers=1, on_record=told.append)
    store.folder.unlink()
    store.folder.with_name("aside").rename(store.folder)
    kept = contents(store.folder)
    assert {f"{record.key}.json" for record in told} <= set(kept)
    assert_completes(store, range(20), kept)


def test_a_damaged_record_amid_a_batch_is_named_and_made_again(store, marks):
    go(store, range(6))
    (marks / "log").unlink()
    good, name = contents(store.folder), f"{spec_of(1).key}.json"
    (store.folder / name).write_bytes(good[name][:-100])
    with pytest.warns(DamagedRecordWarning, match=f"{name}: record: Invalid JSON.*moved to .*damaged") as caught:
        report = go(store, range(8))
    assert len(caught) == 1 and (report.read, report.trained, report.failed) == (5, 3, ())
    assert {line for line in logged(marks) if "trained" in line} == {f"trained {seed}" for seed in (1, 6, 7)}
    assert [*contents(store.folder / "damaged").values()] == [good.pop(name)[:-100]]
    assert good.items() <= contents(store.folder).items()
    assert_whole(store)
