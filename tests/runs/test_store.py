"""The run store: whole or absent, validated, and nothing ever silently used, lost or deleted."""

import json
import random
import re
import subprocess
import sys

import pytest
from batches import contents, go, keys, litter, ours
from fake_training import keep, record_of, spec_of
from filelock import Timeout

from scalestudy import files
from scalestudy.runs import store as store_module
from scalestudy.runs.batch import plan
from scalestudy.runs.store import DamagedRecordWarning, RunStore, StoreError
from scalestudy.training.spec import RunSpec


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_asking_creates_nothing(store):
    assert (store.get(spec_of(0)), store.records(), store.damaged(), store.under_way()) == (None, [], [], {})
    assert not store.folder.exists()


def test_round_trip(store):
    record = record_of(spec_of(0))
    path = store.put(record)
    assert store.get(spec_of(0)) == record == store.records()[0]
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert names(store) == [path.name] == [f"{record.key}.json"]


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], "record: Invalid JSON: EOF while parsing"),
    "empty": (lambda text: "", "record: Invalid JSON: EOF while parsing a value at line 1 column 0"),
    "not a record": (lambda text: "[1, 2]", "Input should be an object"),
    "edited metric": (lambda text: text.replace(": 0.0", ": 0.1", 1), "checksum .* does not match .* or damaged"),
    "unknown field": (lambda text: text.replace('"key"', '"extra": 1,\n "key"', 1), "extra: Extra inputs"),
    "other recipe": (lambda text: text.replace('"recipe": 1', '"recipe": 7'), "spec.recipe: Input should be 1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_record_is_named_and_moved_aside(store, damage):
    change, reason = DAMAGE[damage]
    path = store.put(record_of(spec_of(0)))
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.warns(DamagedRecordWarning, match=f"(?s){path.name}: .*{reason}.*moved to .*damaged.{path.stem}"):
        assert store.get(spec_of(0)) is None
    assert not path.exists()
    ((name, told),) = store.damaged()
    assert name.startswith(path.stem) and re.search(reason, told)
    store.put(record_of(spec_of(0))).write_text("second")
    with pytest.warns(DamagedRecordWarning):
        assert store.records() == []
    assert {path.read_text() for path in (store.folder / "damaged").iterdir()} == {changed, "second"}
    store.put(record_of(spec_of(0)))
    assert store.get(spec_of(0)) is not None


def test_what_is_no_record(store):
    """A record under another name, another file; what does not end in .json is not ours to judge."""
    store.put(record_of(spec_of(0))).rename(store.path(spec_of(1).key))
    (store.folder / "notes.json").write_text("{}")
    (store.folder / "readme.txt").touch()
    with pytest.warns(DamagedRecordWarning) as caught:
        assert store.records() == []
    assert any(f"foreign: it holds run {spec_of(0).key}" in str(warning.message) for warning in caught)
    assert {name.split(".")[0] for name, _ in store.damaged()} == {"notes", spec_of(1).key}
    assert names(store) == ["damaged", "readme.txt"]
    store.path(spec_of(2).key).mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*\.json: Is a directory; make it readable, or move it away"):
        store.get(spec_of(2))


def test_merge(store, tmp_path):
    other = RunStore(tmp_path / "other")
    store.put(record_of(spec_of(0)))
    store.put(record_of(spec_of(1), test_error=1.0))
    for record in (record_of(spec_of(0), seconds=9.0), record_of(spec_of(1), test_error=2.0), record_of(spec_of(2))):
        other.put(record)
    edited = other.put(record_of(spec_of(3), test_error=0.0))
    edited.write_text(edited.read_text().replace(": 0.0", ": 0.1", 1))
    before = contents(other.folder)
    report = store.merge(other.folder)
    both, only_ours_is_kept, copied = ([spec_of(seed).key] for seed in range(3))
    (damaged,) = report.pop("damaged")
    assert report == {"copied": copied, "already": both, "conflict": only_ours_is_kept}
    assert damaged.startswith(f"{edited.name}: ") and "checksum" in damaged
    assert store.get(spec_of(1)).metrics.test_error == 1.0
    assert store.get(spec_of(2)) == record_of(spec_of(2))
    assert store.get(spec_of(3)) is None
    assert contents(other.folder) == before
    with pytest.raises(ValueError, match=f"folder must be another run store, got {tmp_path}, which holds no <key>.js"):
        store.merge(tmp_path)


# Committed records


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The store of a project whose runs 0 and 1 are committed; their folder and what it holds."""
    monkeypatch.setenv(files.ROOT_VARIABLE, str(tmp_path))
    monkeypatch.delenv(files.RUNS_VARIABLE, raising=False)
    for seed in (0, 1):
        RunStore(files.records()).put(record_of(spec_of(seed)))
    store = RunStore.open()
    yield store
    assert litter(files.records()) == []


def test_what_is_committed_counts_as_stored_and_is_not_trained(project):
    committed = contents(files.records())
    project.put(record_of(spec_of(1), test_error=7.0))
    project.put(record_of(spec_of(2)))
    report = go(project, range(3), train="not_there")
    assert (report.read, [record.metrics.test_error for record in report.done]) == (3, [0.0, 7.0, 0.2]), "ours first"
    assert {record.key for record in project.records()} == {spec_of(seed).key for seed in range(3)}
    assert [record.key for record in project.records()] == sorted(record.key for record in report.done)
    assert plan(map(spec_of, range(4)), project)["stored"].tolist() == [True, True, True, False]
    assert project.path(spec_of(0).key).parent == files.records()
    assert {path.parent for path in map(project.path, [spec_of(n).key for n in (1, 2, 3)])} == {files.runs()}
    assert go(project, range(4)).trained == 1
    assert len(keys(project)) == 3 and contents(files.records()) == committed


def test_a_damaged_committed_record_is_named_left_there_and_made_again(project):
    path = project.path(spec_of(0).key)
    path.write_text("{")
    with pytest.warns(
        DamagedRecordWarning, match=rf"{path.name}: record: Invalid.* left where it is \(store {files.records()}"
    ):
        assert go(project, [0, 1]).trained == 1
    assert (path.read_text(), project.get(spec_of(0)).metrics) == ("{", record_of(spec_of(0)).metrics)


def test_committed_records_stand_behind_a_store_that_is_named_too(project, tmp_path, monkeypatch):
    monkeypatch.setenv(files.RUNS_VARIABLE, str(tmp_path / "mine"))
    named = RunStore.open()
    assert (named.folder, keys(named), len(named.records())) == (tmp_path / "mine", set(), 2)


# Runs under way


def test_what_killed_processes_leave_is_cleared(store):
    """A checkpoint or a lock beside its record, which else go with it or its holder; those of other runs stay."""
    keep(store, spec_of(0), 1)
    store.put(record_of(spec_of(0)))
    assert names(store) == [f"{spec_of(0).key}.json"]
    for seed in (0, 1):
        keep(store, spec_of(seed), 1)
        (store.folder / f"{spec_of(seed).key}.lock").touch()
    assert {key: progress.epochs_done for key, progress in store.under_way().items()} == {spec_of(1).key: 1}
    store.require_writable()
    assert litter(store.folder) == [f"{spec_of(1).key}.{kind}" for kind in ("checkpoint", "lock")]
    with store.lock(spec_of(1).key):
        pass
    assert litter(store.folder) == [f"{spec_of(1).key}.checkpoint"]


def test_what_is_no_checkpoint_is_not_under_way(store):
    store.folder.mkdir()
    (store.folder / "0123456789abcdef.checkpoint").write_bytes(b"no checkpoint")
    assert (store.under_way(), store.shares_done()) == ({}, {})


def test_one_holder_of_a_lock_and_no_file_left(store):
    store.folder.mkdir()
    with store.lock("a"), store.lock("b"):
        with pytest.raises(Timeout), RunStore(store.folder).lock("a"):
            pytest.fail("two holders")
        assert names(store) == ["a.lock", "b.lock"]
    assert names(store) == []


def test_where_files_cannot_be_locked_the_way_out_is_named(store):
    store.folder.write_text("a file where the folder should be")
    named = f"cannot lock {store.folder}/a.lock: File exists; free some space.*file locks in SCALESTUDY_RUNS"
    with pytest.raises(StoreError, match=named), store.lock("a"):
        pytest.fail("locked")


CONTEND = """
import os, sys
from scalestudy.runs.store import RunStore
store, held = RunStore(sys.argv[1]), 0
for turn in range(int(sys.argv[2])):
    if turn % 20 == 0:
        store.require_writable()
    with store.lock(key := "ab"[turn % 2]):  # FileExistsError: somebody else has the same lock
        mark = store.folder / f"{key}.mark"
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        mark.unlink()
        held += 1
print(held)
"""


def test_never_two_holders(store):
    command = [sys.executable, "-c", CONTEND, str(store.folder), "500"]
    started = [subprocess.Popen(command, env=ours(), stdout=subprocess.PIPE) for _ in range(3)]
    assert all(int(process.communicate()[0]) > 0 for process in started)
    assert names(store) == []


@pytest.mark.parametrize("spec", [spec_of(3), RunSpec.baseline("ours_isr", 3)], ids=lambda spec: spec.model)
def test_every_truncation_and_flipped_bit_is_found_out(store, spec):
    """One of the bits of each byte, so of each value; as damaged disks leave them."""
    content, chance = store.put(record_of(spec)).read_bytes(), random.Random(0)
    judge = store_module._parse
    assert judge(content, spec.key) == (record_of(spec), "")
    for place in range(len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        assert judge(bytes(flipped), spec.key)[0] is None, f"byte {place}"
        assert judge(content[:place], spec.key)[0] is None, f"{place} bytes"
