"""The file of a run under way: read back whole, refused where it is not what the run can go on from."""

import logging
import random
import re

import pytest

from scalestudy.training import checkpoint as module
from scalestudy.training.checkpoint import Checkpoint, CheckpointFile, Progress
from scalestudy.training.source import source_digest

KEY, MADE_BY = "0123456789abcdef", {"code": "1", "torch": "2", "threads": 1}


def checkpoint(**changes):
    return Checkpoint(**{"key": KEY, "epochs_done": 3, "epochs": 60, "made_by": MADE_BY, "state": b"a\nb\0"} | changes)


@pytest.fixture
def file(tmp_path):
    return CheckpointFile(tmp_path / "runs" / f"{KEY}.checkpoint")


def test_reads_what_was_written_last(file):
    assert (file.read(KEY, MADE_BY), file.progress()) == (None, None)
    file.write(checkpoint())
    file.write(checkpoint(epochs_done=4, state=b""))
    assert file.read(KEY, MADE_BY) == checkpoint(epochs_done=4, state=b"")
    assert file.progress() == Progress(4, 60, MADE_BY)
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]
    file.remove()
    file.remove()
    assert not file.path.exists()


@pytest.mark.parametrize(
    ("key", "made_by", "reason"),
    [
        ("fedcba9876543210", MADE_BY, f"is of run {KEY}, not of fedcba9876543210"),
        (KEY, MADE_BY | {"torch": "3", "threads": 2}, r"by something else \(threads 1, here 2; torch 2, here 3\)"),
        (KEY, {"code": "1", "torch": "2"}, r"by something else \(threads 1, here None\)"),
        (KEY, MADE_BY | {"device": "cpu"}, r"by something else \(device None, here cpu\)"),
    ],
)
def test_what_the_run_cannot_go_on_from_is_refused(file, key, made_by, reason, caplog):
    file.write(checkpoint())
    assert file.read(key, made_by) is None
    assert f"the checkpoint {file.path}" in caplog.text
    assert re.search(rf"{reason}.*; it is not used, and the run starts again", caplog.text)


def test_truncated_at_every_length_is_refused(file, caplog):
    file.write(checkpoint())
    whole = file.path.read_bytes()
    for length in range(len(whole)):
        file.path.write_bytes(whole[:length])
        caplog.clear()
        assert file.read(KEY, MADE_BY) is None, length
        assert "is damaged" in caplog.text
        file.progress()  # raises nothing
    file.path.write_bytes(whole)
    assert file.read(KEY, MADE_BY) == checkpoint()


def test_a_flipped_bit_in_any_byte_is_refused(file):
    file.write(checkpoint())
    whole, chance = file.path.read_bytes(), random.Random(0)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << chance.randrange(8)
        file.path.write_bytes(bytes(changed))
        assert file.read(KEY, MADE_BY) is None, position


@pytest.mark.parametrize(
    "content", [b"", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"epochs_done": 3, "epochs": 2}\n', b"[" * 4096]
)
def test_other_files_are_no_progress(file, content):
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    assert file.progress() is None
    assert file.read(KEY, MADE_BY) is None


@pytest.mark.parametrize("counts", [(0, 60), (61, 60), (1.5, 60), ("3", 60)])
def test_counts_that_make_no_sense_are_no_progress(file, counts):
    file.write(checkpoint(epochs_done=counts[0], epochs=counts[1]))
    assert file.progress() is None


def test_a_folder_of_that_name_is_not_used(file, caplog):
    file.path.mkdir(parents=True)
    assert (file.read(KEY, MADE_BY), file.progress()) == (None, None)
    assert "cannot be read" in caplog.text
    with caplog.at_level(logging.DEBUG):
        file.remove()
    assert "cannot remove" in caplog.text


def test_a_run_goes_on_where_it_cannot_be_kept(file, caplog):
    file.path.parent.write_text("no folder")
    for _ in range(3):
        file.write(checkpoint())
    assert f"run {KEY} goes on, but cannot be kept in {file.path} (" in caplog.text
    assert caplog.text.count("if it is stopped, what it does from now on is lost") == 1


def test_whether_this_code_made_it_is_told_without_reading_it_whole(file):
    for code in (source_digest(), "another"):
        file.write(checkpoint(made_by={"code": code}))
        file.path.write_bytes(file.path.read_bytes().partition(b"\n")[0])
        assert file.progress().is_of_this_code == (code != "another")


def test_due_once_per_interval(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    file = CheckpointFile(tmp_path / "k.checkpoint", interval=60.0)
    assert not file.due
    now[0] = 160.0
    assert file.due
    file.write(checkpoint())
    assert not file.due
    now[0] = 219.9
    assert not file.due
    now[0] = 220.0
    assert file.due
