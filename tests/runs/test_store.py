"""The run store: whole or absent, validated, and nothing ever silently used, lost or deleted."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from fake_training import record_of, spec_of

from scalestudy import files
from scalestudy.paper.table import SUMMARY_COLUMNS as COLUMNS
from scalestudy.runs.store import DamagedRecordWarning, RunStore, StoreError
from scalestudy.training.record import Record
from scalestudy.training.spec import MnistScaleSpec, RunSpec


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def test_asking_creates_nothing(store):
    assert store.get(spec_of(0)) is None
    assert (store.keys(), store.records(), store.damaged()) == ((), [], [])
    assert store.summary().empty
    assert not store.folder.exists()


def test_round_trip(store):
    record = record_of(spec_of(0))
    path = store.put(record)
    assert path == store.folder / f"{record.key}.json"
    assert store.get(spec_of(0)) == record == store.records()[0]
    assert store.keys() == (record.key,)
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert [file.name for file in store.folder.iterdir()] == [path.name]


def test_put_refuses_what_does_not_read_back(store):
    good = record_of(spec_of(0))
    bad = Record.model_construct(
        key=good.key, spec=good.spec, metrics=good.metrics, provenance=good.provenance, checksum="0"
    )
    with pytest.raises(
        ValueError, match=r"does not survive writing and reading \(record: .*checksum 0.*build it with Record.of"
    ):
        store.put(bad)
    assert not store.folder.exists()


def _edit(text):
    return text.replace('"test_error": 0.0', '"test_error": 0.1')


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], "truncated or not JSON"),
    "empty": (lambda text: "", "empty"),
    "not a record": (lambda text: "[1, 2]", "Input should be an object"),
    "edited metric": (_edit, "checksum .* does not match .* edited or damaged"),
    "edited provenance": (lambda text: text.replace('"torch": "2"', '"torch": "3"'), "checksum"),
    "unknown field": (lambda text: text.replace('"key"', '"extra": 1,\n "key"', 1), "extra: Extra inputs"),
    "other recipe": (lambda text: text.replace('"recipe": 1', '"recipe": 7'), "recipe 7, this version .* recipe 1"),
    "binary": (lambda text: "\x00\x01", "truncated or not JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_record_is_reported_and_moved_aside(store, damage):
    change, reason = DAMAGE[damage]
    path = store.put(record_of(spec_of(0)))
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.warns(DamagedRecordWarning, match=f"(?s){path.name}: .*{reason}"):
        assert store.get(spec_of(0)) is None
    moved = store.folder / "damaged" / path.name
    assert not path.exists()
    assert moved.read_text() == changed
    assert [(problem.name, problem.moved_to) for problem in store.problems] == [(path.name, moved)]
    assert store.damaged()[0].reason == store.problems[0].reason
    store.put(record_of(spec_of(0)))
    assert store.get(spec_of(0)) is not None


def test_second_damaged_file_of_a_name_does_not_replace_the_first(store):
    for text in ("first", "second"):
        store.put(record_of(spec_of(0))).write_text(text)
        with pytest.warns(DamagedRecordWarning):
            assert store.records() == []
    assert sorted(path.read_text() for path in (store.folder / "damaged").iterdir()) == ["first", "second"]


def test_foreign_file(store):
    path = store.put(record_of(spec_of(0)))
    path.rename(store.path(spec_of(1).key))
    (store.folder / "notes.json").write_text("{}")
    (store.folder / "readme.txt").write_text("not ours to judge")
    with pytest.warns(DamagedRecordWarning) as caught:
        assert store.records() == []
    assert any(f"foreign: it holds run {spec_of(0).key}" in str(warning.message) for warning in caught)
    assert {problem.name for problem in store.problems} == {"notes.json", f"{spec_of(1).key}.json"}
    assert (store.folder / "readme.txt").exists()


def test_folder_in_the_place_of_a_record(store):
    store.path(spec_of(0).key).mkdir(parents=True)
    with pytest.warns(DamagedRecordWarning, match=r"empty"):
        assert store.get(spec_of(0)) is None
    assert store.put(record_of(spec_of(0))).is_file()


def test_good_record_that_replaces_a_damaged_one_meanwhile_is_kept(store, monkeypatch):
    good = record_of(spec_of(0))
    path = store.put(good)
    content = path.read_bytes()
    path.write_text("damaged")
    rename = os.rename

    def replaced_just_before(source, target):
        path.write_bytes(content)
        rename(source, target)

    monkeypatch.setattr(os, "rename", replaced_just_before)
    assert store.get(spec_of(0)) == good
    assert path.read_bytes() == content


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    store = RunStore(tmp_path / "file" / "runs")
    for act in (store.require_writable, lambda: store.put(record_of(spec_of(0)))):
        with pytest.raises(StoreError, match=r"cannot write to the folder .*file/runs: .*SCALESTUDY_RUNS"):
            act()


def _full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_full_disk_leaves_no_half_file(store, monkeypatch, call):
    kept = store.put(record_of(spec_of(0)))
    monkeypatch.setattr(files.os, call, _full)
    with pytest.raises(StoreError, match=r"No space left on device; free some space .*Every run .*is whole"):
        store.put(record_of(spec_of(1)))
    monkeypatch.undo()
    assert list(store.folder.iterdir()) == [kept]
    assert store.get(spec_of(0)) is not None


def test_short_writes_are_continued(store, monkeypatch):
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda descriptor, content: write(descriptor, content[:100]))
    store.put(record_of(spec_of(0)))
    assert store.get(spec_of(0)) == record_of(spec_of(0))


def test_interrupt_while_writing_leaves_no_temporary(store, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put(record_of(spec_of(0)))
    assert list(store.folder.iterdir()) == []


def test_stale_temporaries(store, monkeypatch):
    store.require_writable()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, day = files._host(), 86400
    dead = store.folder / f"k.json.{host}.{ended.pid}.00000000.tmp"
    alive = store.folder / f"k.json.{host}.{os.getpid()}.00000000.tmp"
    elsewhere = store.folder / f"k.json.ffffffff.{ended.pid}.00000000.tmp"
    old = store.folder / "k.json.ffffffff.1.00000000.tmp"
    nameless, odd = store.folder / "k.tmp", store.folder / f"k.json.{host}.².00000000.tmp"
    for path in (dead, alive, elsewhere, old, nameless, odd):
        path.write_text("{")
    os.utime(old, (time.time() - 2 * day,) * 2)
    os.utime(alive, (time.time() - 2 * day,) * 2)
    assert set(files.remove_stale_temporaries(store.folder)) == {dead.name, old.name}
    assert {path.name for path in store.folder.iterdir()} == {alive.name, elsewhere.name, nameless.name, odd.name}
    assert store.keys() == ()

    # The clock goes back, then forward.
    now = time.time()
    monkeypatch.setattr(files.time, "time", lambda: now - 100 * day)
    assert files.remove_stale_temporaries(store.folder) == ()
    monkeypatch.setattr(files.time, "time", lambda: now + 2 * day)
    assert set(files.remove_stale_temporaries(store.folder)) == {elsewhere.name, nameless.name, odd.name}
    assert list(store.folder.iterdir()) == [alive]


def test_same_key_from_several_threads(store):
    """Readers and writers of one key never meet a torn file."""
    record = record_of(spec_of(0))
    store.put(record)
    seen = []

    def write():
        for _ in range(25):
            RunStore(store.folder).put(record)
            seen.append(RunStore(store.folder).get(record.spec))

    threads = [threading.Thread(target=write) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(seen) == 100
    assert all(found == record for found in seen)


def test_merge(store, tmp_path):
    other = RunStore(tmp_path / "other")
    store.put(record_of(spec_of(0)))
    store.put(record_of(spec_of(1), test_error=1.0))
    for record in (record_of(spec_of(0), seconds=9.0), record_of(spec_of(1), test_error=2.0), record_of(spec_of(2))):
        other.put(record)
    edited = other.put(record_of(spec_of(3), test_error=0.0))
    edited.write_text(_edit(edited.read_text()))
    before = {path.name: path.read_bytes() for path in other.folder.iterdir()}

    report = store.merge(other.folder)

    assert (report.copied, report.already, report.conflicts) == (
        (spec_of(2).key,),
        (spec_of(0).key,),
        (spec_of(1).key,),
    )
    assert [problem.name for problem in report.damaged] == [edited.name]
    assert "checksum" in report.damaged[0].reason
    assert store.get(spec_of(1)).metrics.test_error == 1.0
    assert store.get(spec_of(2)) == record_of(spec_of(2))
    assert store.get(spec_of(3)) is None
    assert {path.name: path.read_bytes() for path in other.folder.iterdir()} == before


def test_merge_refuses_nothing_and_itself(store, tmp_path):
    with pytest.raises(ValueError, match=r"folder must be another run store, got .*holds no <key>.json files"):
        store.merge(tmp_path)
    store.put(record_of(spec_of(0)))
    with pytest.raises(ValueError, match=r"is this store itself"):
        store.merge(store.folder)


def test_summary_is_sorted_and_repeatable(store, tmp_path):
    for seed in (2, 0, 1):
        store.put(record_of(spec_of(seed)))
    frame = store.summary()
    assert frame["seed"].tolist() == [0, 1, 2]
    assert frame["internal_scales"][0] == "2 3.4641 6"
    path = store.write_summary(tmp_path / "summary.csv")
    first = path.read_bytes()
    other = RunStore(tmp_path / "other")
    other.merge(store.folder)
    assert other.write_summary(path).read_bytes() == first
    assert first.startswith(b"distribution,scale_learning,init_sigma_basis,init_isr,")
    assert first.count(b"\n") == 4


def test_summary_of_both_data_sets(store):
    """What does not apply to a run is blank; numbers of the others stay as they are written without it."""
    store.put(record_of(spec_of(0)))
    alone = store.write_summary(store.folder / "summary.csv").read_text().splitlines()
    store.put(record_of(RunSpec.baseline("cnn", 3, MnistScaleSpec(augmented=True))))
    store.put(record_of(RunSpec.baseline("cnn", 3)))
    lines = store.write_summary(store.folder / "summary.csv").read_text().splitlines()
    assert lines[0] == alone[0] and alone[1] in lines and len(lines) == 4
    rows = store.summary()
    assert tuple(rows.columns) == COLUMNS
    rows = rows.set_index(["model", "seed"]).sort_index()
    assert rows.loc["table1", "augmented"].isna().all() and rows.loc["table1", "shrink"].tolist() == [1]
    of_cnn = rows.loc["cnn"].sort_values("augmented")
    assert of_cnn["augmented"].tolist() == [False, True]
    assert of_cnn["equivariance_images"].tolist() == [1_000, 1_000]
    for column in ("shrink", "num_scales", "init_isr", "init_sigma_basis", "scale_test_images"):
        assert of_cnn[column].isna().all()
    assert set(of_cnn["distribution"]) == set(of_cnn["order"]) == {""}
    assert of_cnn["internal_scales"].tolist() == ["2 3.4641 6"] * 2


def test_good_store_warns_of_nothing(store):
    store.put(record_of(spec_of(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.records()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells the state of a process")
def test_a_process_that_has_ended_but_was_not_waited_for_writes_no_more():
    assert files._alive(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        deadline = time.monotonic() + 20
        while files._alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, 0)  # the process table still has it
        assert not files._alive(process.pid)
    finally:
        process.wait()
