"""Real faults through the whole path: nothing lost, nothing silently wrong.

Environment variables: SCALESTUDY_TEST_KILLS is the number of SIGKILLs; SCALESTUDY_TEST_FIGURES names a file to which
the figures are appended that ``pytest -s`` shows.  Tests that need a file system of their own run where the process
may mount one, and are skipped elsewhere.
"""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from batches import batch, children, ending, go, gone, wait_until
from click.testing import CliRunner
from fake_training import record_of, spec_of
from pydantic import ValidationError

from scalestudy import cli, files
from scalestudy.runs.execution import plan, run_all
from scalestudy.runs.store import DamagedRecordWarning, RunStore, StoreError
from scalestudy.training.record import Record
from scalestudy.training.spec import MnistScaleSpec, RunSpec

KILLS = int(os.environ.get("SCALESTUDY_TEST_KILLS", "5"))
KIB = 1024


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The file in which `fake_training.noted` leaves its notes, here and in all worker processes."""
    monkeypatch.setenv("FAKE_NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


@pytest.fixture
def start():
    """`batches.batch`; what a failed test leaves running is killed."""
    started = []

    def begin(*arguments, **options):
        started.append(batch(*arguments, **options))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def figures():
    lines = []
    yield lines.append
    text = "\n".join(lines)
    print(f"\n{text}")
    if name := os.environ.get("SCALESTUDY_TEST_FIGURES"):
        with open(name, "a") as file:
            file.write(f"{text}\n")


@pytest.fixture
def command(store, monkeypatch):
    """The command line on the store of this test, with fake training."""
    monkeypatch.setenv(files.RUNS_VARIABLE, str(store.folder))
    monkeypatch.setattr("scalestudy.runs.execution.DEFAULT_TRAIN", "fake_training:quick")
    monkeypatch.setattr("scalestudy.data.fetch_mnist", lambda folder=None: None)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return lambda *arguments: CliRunner().invoke(cli.main, arguments)


def contents(folder):
    """The records that can be seen at this moment: name and bytes."""
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def leftovers(folder):
    """Everything in the store but records."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


def assert_whole(store):
    """Every file is a valid record."""
    fresh = RunStore(store.folder)
    assert len(fresh.records()) == len(fresh.keys()) == len(contents(store.folder))
    assert fresh.problems == []


def noted(notes, word):
    """Seeds of the runs that were "begun" or "trained", one for each time."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


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


@contextmanager
def read_only(folder):
    """Nobody can write into the folder; permissions alone would not keep root from it."""
    if os.geteuid() == 0:
        with mounted(folder, "--bind", str(folder)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True, capture_output=True)
            yield
    else:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)


@pytest.fixture
def disk(store):
    """The store on a disk of its own, of 1 MiB."""
    disk = store.folder.parent / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m,nr_inodes=150", "scalestudy-test"):
        store.folder = disk / "runs"
        yield disk


def fill(disk, *, kib=None, entries=None):
    """Leave that much on the disk; removing the folder that is returned frees the rest."""
    ballast = disk / "ballast"
    ballast.mkdir()
    if kib is not None:
        left = os.statvfs(disk)
        (ballast / "file").write_bytes(bytes(left.f_bavail * left.f_frsize - kib * KIB))
    while entries is not None and os.statvfs(disk).f_favail > entries:
        (ballast / str(os.statvfs(disk).f_favail)).touch()
    return ballast


# Kills


def kill(kind, process):
    """Kill at a random moment, end the batch, and wait until nobody writes any more."""
    workers = children(process.pid)
    if kind == "a worker":
        wait_until(lambda: children(process.pid))
        killed = random.choice(children(process.pid))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: gone(killed) and len(set(children(process.pid)) - {killed}) == 2)  # it was replaced
        workers = children(process.pid)
        process.terminate()
    elif kind == "the group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    out, error = process.communicate(timeout=60)
    wait_until(lambda: all(gone(pid) for pid in workers))
    assert process.returncode == (143 if kind == "a worker" else -signal.SIGKILL), error
    return {f"{line}.json" for line in out.split() if len(line) == 16}


def test_sigkill_at_random_moments_loses_nothing_finished(store, notes, start, figures):
    """Also in the middle of starting and of writing; the last call completes the batch."""
    folder, chance, told, lost, seeds = store.folder, random.Random(0), set(), Counter(), []
    for turn in range(KILLS):
        kind = ("the batch", "the group", "a worker", "the group", "a batch without workers")[turn % 5]
        before, begun, trained = contents(folder), len(noted(notes, "begun")), len(noted(notes, "trained"))
        workers = 0 if kind == "a batch without workers" else 2
        process = start(folder, "noted", workers, range(len(before) + 1000))
        process.stdout.readline()
        if turn % 5 != 3:  # else already while it starts
            wait_until(lambda begun=begun: len(noted(notes, "begun")) > begun, 60)
        time.sleep(chance.uniform(0, 0.4))
        seen = contents(folder)
        told |= kill(kind, process)
        after = contents(folder)
        assert before.items() <= seen.items() <= after.items()
        assert told <= set(after)
        assert_whole(store)
        begun, trained = len(noted(notes, "begun")) - begun, len(noted(notes, "trained")) - trained
        lost["in training"] += begun - trained
        lost["being stored"] += trained - (len(after) - len(before))
        lost["temporaries"] += sum(name.endswith(files.TEMPORARY_SUFFIX) for name in leftovers(folder))
        lost["kills before a run had begun"] += begun == 0
        lost["kills in training or while storing"] += begun != 0
        assert 0 <= begun - (len(after) - len(before)) <= 4  # two at a time, and two more where one was tried again
        seeds = range(max([*noted(notes, "begun"), 0]) + 20)
    before, begun = contents(folder), Counter(noted(notes, "begun"))
    report = go(store, seeds, "noted")
    assert (report.read, report.trained) == (len(before), len(seeds) - len(before))
    made = Counter(noted(notes, "begun")) - begun
    assert {spec_of(seed).key for seed in made} == {spec_of(seed).key for seed in seeds} - {
        Path(name).stem for name in before
    }
    assert set(made.values()) == {1}
    assert before.items() <= contents(folder).items()
    assert_whole(store)
    assert leftovers(folder) == []
    figures(
        f"{KILLS} SIGKILLs over {len(before)} stored runs: {lost['kills before a run had begun']} before a run had "
        f"begun, {lost['kills in training or while storing']} later; finished runs lost 0; runs under way lost "
        f"{lost['in training']} in training and {lost['being stored']} being stored; temporaries found "
        f"{lost['temporaries']}, left at the end 0"
    )


# Two batches


@pytest.mark.parametrize(
    ("case", "workers"), [("at once", (0, 2)), ("later, in reverse", (0, 0)), ("the first is killed", (2, 0))]
)
def test_two_batches_on_one_store(store, notes, start, figures, case, workers):
    count, seeds = 16, list(range(16))
    batches = [start(store.folder, "noted", workers[0], seeds, FAKE_SECONDS="0.1")]
    if case == "later, in reverse":
        wait_until(lambda: len(store.keys()) >= 2, 60)
        seeds.reverse()
    batches.append(start(store.folder, "noted", workers[1], seeds, FAKE_SECONDS="0.1"))
    if case == "the first is killed":
        wait_until(lambda: len(store.keys()) >= 3, 60)
        seen = contents(store.folder)
        os.killpg(batches[0].pid, signal.SIGKILL)
        out, _ = batches.pop(0).communicate()
        assert set(seen) | {f"{line}.json" for line in out.split() if len(line) == 16} <= set(contents(store.folder))
    for process in batches:
        read, trained, failed, left_out = ending(process)
        assert (read + trained, failed, left_out) == (count, 0, 0)
    assert len(store.keys()) == count
    assert_whole(store)
    trainings = Counter(noted(notes, "trained"))
    assert set(trainings) == set(seeds)
    twice = trainings.total() - count
    assert twice <= (2 if case == "the first is killed" else 0)  # what it had trained and not stored
    figures(f"two batches, {case}: {count} runs, {twice} of them trained twice")


# Disks and folders


@pytest.mark.parametrize(("workers", "room"), [(0, {"kib": 100}), (2, {"kib": 100}), (0, {"entries": 20})])
def test_disk_that_fills_up(store, disk, notes, workers, room, figures):
    ballast, told = fill(disk, **room), []
    with pytest.raises(
        StoreError,
        match=rf"cannot write to the folder {store.folder}: No space left on device; free some space .*"
        r"SCALESTUDY_RUNS.* Every run that was stored before is whole",
    ):
        go(store, range(60), "noted", workers, on_record=told.append)
    kept = contents(store.folder)
    assert 10 <= len(kept) < 60
    assert {record.key for record in told} <= set(store.keys())
    assert_whole(store)
    assert workers or leftovers(store.folder) == []
    figures(f"disk full of {next(iter(room))}, {workers} workers: {len(kept)} of 60 runs stored, all whole")
    shutil.rmtree(ballast)
    report = go(store, range(60), "noted", workers)
    assert (report.read, report.trained, report.failed) == (len(kept), 60 - len(kept), ())
    assert kept.items() <= contents(store.folder).items()
    assert_whole(store)
    assert leftovers(store.folder) == []


def test_full_disk_is_found_before_training(store, disk, notes):
    ballast = fill(disk, kib=32)
    with pytest.raises(StoreError, match=rf"cannot write to the folder {store.folder}: No space left on device"):
        go(store, range(3), "noted", workers=2)
    assert not notes.exists()
    assert list(store.folder.iterdir()) == []
    shutil.rmtree(ballast)
    assert go(store, range(3), "noted").trained == 3


def test_disk_filled_by_killed_writers_is_cleared(store, disk):
    """What they left is removed before the store is found to be full."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    store.put(record_of(spec_of(0)))
    left = fill(disk, kib=32) / "file"
    left.rename(store.folder / f"k.json.{files._host()}.{ended.pid}.00000000.tmp")
    assert go(store, range(3)).trained == 2
    assert leftovers(store.folder) == []


def test_disk_that_fills_up_under_the_command(store, disk, command, monkeypatch):
    monkeypatch.setenv(files.RUNS_VARIABLE, str(store.folder))
    ballast = fill(disk, kib=100)
    result = command("run", "--workers", "2", "--device", "cpu")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: cannot write to the folder {store.folder}: No space left on device; free")
    assert "SCALESTUDY_RUNS" in result.output
    assert "Traceback" not in result.output
    kept = contents(store.folder)
    assert 10 <= len(kept) < 60
    assert_whole(store)
    shutil.rmtree(ballast)
    result = command("run", "--workers", "0", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert f"{len(kept)} read, {len(contents(store.folder)) - len(kept)} trained; 0 failed, 0 left out" in result.output
    assert kept.items() <= contents(store.folder).items()
    assert_whole(store)
    assert leftovers(store.folder) == ["summary.csv"]
    assert_summary(store)


def assert_summary(store):
    """The table that people read has what the store has, one line per record."""
    text = files.summary().read_text()
    assert text == store.summary().to_csv(index=False, lineterminator="\n")
    assert len(text.splitlines()) == 1 + len(store.keys())


@pytest.mark.parametrize("workers", [0, 2])
def test_read_only_store(store, notes, workers):
    """Stored runs can be read; what cannot be stored is not trained, and what is damaged is not used."""
    go(store, range(6), "noted")
    notes.unlink()
    text = store.path(spec_of(0).key).read_text()
    with read_only(store.folder):
        assert go(store, range(6), "noted", workers).read == 6
        with pytest.raises(StoreError, match=rf"cannot write to the folder {store.folder}: (Read-only|Permission)"):
            go(store, range(7), "noted", workers)
    store.path(spec_of(0).key).write_text(text[:-100])
    with read_only(store.folder):
        with pytest.warns(DamagedRecordWarning, match=rf"{spec_of(0).key}.json: truncated .* left where it is"):
            assert go(store, range(1, 6), "noted", workers).read == 5 and store.records()
        with (
            pytest.warns(DamagedRecordWarning, match=r"not used, left where it is"),
            pytest.raises(StoreError, match=r"cannot write to the folder"),
        ):
            go(store, range(6), "noted", workers)
    assert not notes.exists()
    assert leftovers(store.folder) == []
    assert store.path(spec_of(0).key).read_text() == text[:-100]


def test_damaged_run_in_a_read_only_store_counts_as_missing(store):
    go(store, range(3))
    store.path(spec_of(1).key).write_text("{")
    with read_only(store.folder), pytest.warns(DamagedRecordWarning, match="left where it is"):
        assert plan([spec_of(seed) for seed in range(4)], store)["stored"].tolist() == [True, False, True, False]


def test_commands_on_a_read_only_store(store, command):
    assert command("run", "--filter", "table2", "--workers", "0").exit_code == 0
    path = sorted(store.folder.glob("*.json"))[0]
    count = len(store.keys())
    with read_only(store.folder):
        again = command("run", "--filter", "table2", "--workers", "0")
        assert again.exit_code == 0, again.output
        assert f"{count} runs: {count} read, 0 trained" in again.output
        more = command("run", "--filter", "table3", "--workers", "0")
        assert more.exit_code == 1
        assert f"Error: cannot write to the folder {store.folder}: " in more.output
    path.write_bytes(path.read_bytes()[:-100])
    with read_only(store.folder):
        status = command("status")
        assert status.exit_code == 0
        assert f"{count - 1} records in {store.folder}" in status.output
        assert status.output.count(f"damaged: {path.name}: truncated") == 1
    assert path.exists()


def sabotage_removed(folder):
    folder.rename(folder.with_name("aside"))  # at once: removing file by file meets those that are being made
    shutil.rmtree(folder.with_name("aside"))


def sabotage_replaced(folder):
    folder.rename(folder.with_name("aside"))
    folder.write_text("not a folder")


@pytest.mark.parametrize("workers", [0, 2])
def test_store_removed_under_a_batch(store, notes, workers):
    """It is made again, or the batch stops with a message; what went is made again by the next call."""
    told = []

    def on_record(record):
        told.append(record)
        if len(told) == 3:
            sabotage_removed(store.folder)

    message = None
    try:
        report = go(store, range(10), "noted", workers, on_record=on_record)
    except StoreError as error:
        message = str(error)
    if message:
        assert workers and str(store.folder) in message
    else:
        assert len(report.done) + len(report.failed) == 10
        assert all("was stored, and has vanished" in text for _, text in report.failed)
        assert workers or report.trained == 10
    assert len(told) >= 3
    kept = contents(store.folder) if store.folder.exists() else {}
    assert {f"{record.key}.json" for record in told[:3]}.isdisjoint(kept)
    report = go(store, range(10), "noted")
    assert (report.read, report.trained, report.failed) == (len(kept), 10 - len(kept), ())
    assert kept.items() <= contents(store.folder).items()
    assert_whole(store)
    assert leftovers(store.folder) == []


@pytest.mark.parametrize(
    ("workers", "fault"), [(0, "replaced by a file"), (2, "replaced by a file"), (0, "made read-only")]
)
def test_store_that_cannot_be_written_any_more(store, notes, workers, fault):
    told = []
    with ExitStack() as undo:

        def on_record(record):
            told.append(record)
            if len(told) == 3 and fault == "made read-only":
                undo.enter_context(read_only(store.folder))
            elif len(told) == 3:
                sabotage_replaced(store.folder)

        with pytest.raises(StoreError, match=rf"cannot write to the folder {store.folder}: "):
            go(store, range(20), "noted", workers, on_record=on_record)
    if fault == "replaced by a file":
        assert store.folder.read_text() == "not a folder"
        store.folder.unlink()
        store.folder.with_name("aside").rename(store.folder)
    kept = contents(store.folder)
    assert {f"{record.key}.json" for record in told} <= set(kept)
    assert_whole(store)
    report = go(store, range(20), "noted")
    assert (report.read, report.trained) == (len(kept), 20 - len(kept))
    assert kept.items() <= contents(store.folder).items()
    assert leftovers(store.folder) == []


# Damaged records


def _edited(*path, value):
    def edit(text):
        data = json.loads(text)
        place = data
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        return json.dumps(data, indent=1, sort_keys=True) + "\n"

    return edit


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], "truncated or not JSON"),
    "emptied": (lambda text: "", "empty"),
    "metric": (_edited("metrics", "test_error", value=0.01), "checksum .* does not match .* edited or damaged"),
    "spec": (_edited("spec", "seed", value=99), "record says key .*, but its spec has key"),
    "provenance": (_edited("provenance", "threads", value=64), "checksum .* does not match .* edited or damaged"),
}


def damage(store, paths_of_records):
    """Damage one record in each way; returns what is there now, and the reason that is to be given."""
    damaged = {}
    for (change, reason), path in zip(DAMAGE.values(), paths_of_records, strict=False):
        path.write_text(change(path.read_text()))
        damaged[path.name] = (path.read_text(), reason)
    assert len(damaged) == len(DAMAGE)
    return damaged


def assert_moved_aside(store, damaged):
    assert {path.name: path.read_text() for path in (store.folder / "damaged").iterdir()} == {
        name: text for name, (text, _) in damaged.items()
    }


def test_damaged_records_amid_a_batch_are_named_and_made_again(store, tmp_path, notes):
    go(store, range(8), "noted")
    good = contents(store.folder)
    damaged = damage(store, [store.path(spec_of(seed).key) for seed in range(1, 6)])
    notes.unlink()
    with pytest.warns(DamagedRecordWarning) as caught:
        report = go(store, range(10), "noted", workers=2)
    messages = [str(warning.message) for warning in caught]
    for name, (_, reason) in damaged.items():
        (message,) = [message for message in messages if message.startswith(name)]
        assert re.match(f"(?s){name}: .*{reason}.*moved to .*damaged", message)
    assert (report.read, report.trained, report.failed) == (3, 7, ())
    assert sorted(noted(notes, "trained")) == [1, 2, 3, 4, 5, 8, 9]
    assert_moved_aside(store, damaged)
    now = contents(store.folder)
    assert {name: now[name] for name in good if name not in damaged} == {
        name: content for name, content in good.items() if name not in damaged
    }
    assert_whole(store)
    lines = store.write_summary(tmp_path / "summary.csv").read_text().splitlines()
    assert len(lines) == 11
    assert sorted(store.summary()["test_error"]) == pytest.approx([seed / 10 for seed in range(10)])


def test_records_damaged_while_a_batch_runs(store, notes):
    """A record already told of is found by the next call, one still to come before its run is begun."""
    told, foreign = [], store.path(spec_of(11).key)

    def on_record(record):
        told.append(record)
        if len(told) == 3:
            edited = store.path(told[0].key)
            edited.write_text(DAMAGE["metric"][0](edited.read_text()))
            foreign.write_text("{")

    with pytest.warns(DamagedRecordWarning, match=f"{foreign.name}: truncated or not JSON"):
        report = go(store, range(12), "noted", on_record=on_record)
    assert (report.read, report.trained, report.failed) == (0, 12, ())
    with pytest.warns(DamagedRecordWarning, match=f"{told[0].key}.json: .*checksum"):
        report = go(store, range(12), "noted")
    assert (report.read, report.trained) == (11, 1)
    assert_whole(store)


def test_status_and_run_after_damage(store, command):
    assert command("run", "--filter", "table2", "--workers", "0").exit_code == 0
    summary, good = files.summary().read_bytes(), contents(store.folder)
    damaged = damage(store, sorted(store.folder.glob("*.json")))
    status = command("status")
    assert f"{len(good) - len(damaged)} records in" in status.output
    assert f"{len(good) - len(damaged)} of" in status.output
    assert status.output.count("damaged: ") == len(damaged)
    assert all(f"damaged: {name}: " in status.output for name in damaged)
    assert_moved_aside(store, damaged)
    again = command("run", "--filter", "table2", "--workers", "0")
    assert f"{len(good) - len(damaged)} read, {len(damaged)} trained; 0 failed" in again.output
    assert contents(store.folder) == good  # the fake training is deterministic
    assert files.summary().read_bytes() == summary
    assert_summary(store)


def test_table_of_runs_after_a_kill(store, command):
    """A batch that is killed after its last record and before the table: the next call writes the table."""
    assert command("run", "--filter", "table2", "--workers", "0").exit_code == 0
    files.summary().unlink()
    assert command("run", "--filter", "table2", "--workers", "0").exit_code == 0
    assert_summary(store)


def full_record(spec):
    """A record in which every optional field is filled in."""
    record = record_of(spec)
    factors = {"0.5": 10.0, "2.0": 1.0}
    metrics = record.metrics.model_copy(
        update={"test_error_by_scale": factors, "equivariance_error": factors, "prediction_change": factors}
    )
    timings = {"train_ms_per_image": 1.5, "inference_ms_per_image": 0.5, "commit": "0123456789ab"}
    return Record.of(spec, metrics, record.provenance.model_copy(update=timings))


def leaves(data, path=()):
    """Where every value of nested dicts and lists lies, that of an empty one, too."""
    if not isinstance(data, dict | list) or not data:
        yield path
        return
    for name, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield from leaves(value, (*path, name))


def others(value):
    """Values close to and far from this one, all different from it."""
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, int | float):
        return [value + 1, -value - 1, math.nextafter(value, math.inf), math.nextafter(value, -math.inf), None]
    if isinstance(value, str):
        return [f"{value}x", value[:-1], "another", None]
    return [0, 1.5, "x", False, [0.5], {"2.0": 1.0}]


SPECS = [
    spec_of(3),
    spec_of(3, parameterisation="spacing"),
    RunSpec.baseline("cnn", 3),
    RunSpec.baseline("ours_isr", 3, MnistScaleSpec(augmented=True)),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_checksum_covers_every_value(spec):
    """Each value of a record is changed in turn; a changed spec gets the key that belongs to it, too."""
    record = full_record(spec)
    text = record.model_dump_json()
    places = list(leaves(json.loads(text)))
    assert len(places) > 40
    for path in places:
        value = json.loads(text)
        for name in path:
            value = value[name]
        for other in others(value):
            changed = json.loads(_edited(*path, value=other)(text))
            if path[0] == "spec":
                try:
                    changed["key"] = RunSpec.model_validate(changed["spec"]).key
                except ValidationError:
                    continue
            assert other != value
            with pytest.raises(ValidationError):
                Record.model_validate_json(json.dumps(changed))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_values_that_are_gone_or_new_are_found_out(spec):
    """A value that is left out reads as its default, or not at all; lists and dicts cannot lose or gain entries."""
    record = full_record(spec)
    text = record.model_dump_json()
    for path in leaves(json.loads(text)):
        data = json.loads(text)
        place = data
        for name in path[:-1]:
            place = place[name]
        taken = place.pop(path[-1])
        try:
            assert Record.model_validate_json(json.dumps(data)) == record
            assert path[0] == "spec"
        except ValidationError:
            pass
        if isinstance(place, list):
            place[path[-1] : path[-1]] = [taken, taken]
        else:
            place |= {path[-1]: taken, "7": taken}
        with pytest.raises(ValidationError):
            Record.model_validate_json(json.dumps(data))


def test_every_truncation_and_flipped_bit_is_found_out(store):
    """As damaged disks leave them, one at a time; `RunStore.damaged` judges all of them in one call."""
    path = store.put(full_record(spec_of(3)))
    content, chance = path.read_bytes(), random.Random(0)
    aside = store.folder / "damaged"
    aside.mkdir()
    for place in range(len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        (aside / f"{path.stem}.{place}.json").write_bytes(flipped)
        (aside / f"{path.stem}.{place}-truncated.json").write_bytes(content[:place])
    problems = store.damaged()
    assert len(problems) == 2 * (len(content) - 1)
    assert [problem.name for problem in problems if problem.reason.startswith("valid now")] == []


# Clocks

SHIFTED_CLOCK = """
import datetime, os, time
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime
def _shift():
    with open(os.environ["FAKE_CLOCK"]) as file:
        return int(file.read())
time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + _shift() * 10**9
class datetime_(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.fromtimestamp(time.time(), tz)
datetime.datetime = datetime_
"""


@pytest.fixture
def set_clock(tmp_path, monkeypatch):
    """Shift, by seconds, the clock of processes that find the folder ``clock`` on their module path."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    monkeypatch.setenv("FAKE_CLOCK", str(tmp_path / "shift"))

    def shift(seconds):
        (tmp_path / "shift.new").write_text(str(int(seconds)))
        (tmp_path / "shift.new").replace(tmp_path / "shift")

    shift(0)
    return shift


DAY = 86400


def test_clock_that_jumps_during_a_batch(store, tmp_path, notes, start, set_clock):
    """Two days ahead at the start, back by more, forth and back again: all runs are made in a budget of minutes."""
    store.require_writable()
    mine = store.folder / f"k.json.{files._host()}.{os.getpid()}.00000000.tmp"  # of a living writer
    mine.write_text("{")
    shifts = [2 * DAY, -1.25 * DAY, DAY, -3600]
    set_clock(shifts[0])
    options = dict(time_budget=600, modules=[tmp_path / "clock"], FAKE_SECONDS="0.05")
    process = start(store.folder, "noted", 2, range(40), **options)
    for number, seconds in enumerate(shifts[1:], start=1):
        wait_until(lambda number=number: len(store.keys()) >= 4 * number, 60)
        set_clock(seconds)
    assert ending(process) == (0, 40, 0, 0)
    times = [float(line.split()[2]) - time.time() for line in notes.read_text().splitlines()]
    for seconds in shifts:
        assert any(abs(seen - seconds) < 1800 for seen in times)
    assert_whole(store)
    assert leftovers(store.folder) == [mine.name]


def test_time_budget_does_not_follow_a_clock_that_goes_back(store, tmp_path, notes, start, set_clock):
    store.put(record_of(spec_of(0), seconds=0.1))  # from which the others are foreseen
    options = dict(time_budget=2, modules=[tmp_path / "clock"], FAKE_SECONDS="0.1")
    process = start(store.folder, "noted", 0, range(600), **options)
    wait_until(lambda: len(store.keys()) > 2 or process.poll() is not None, 60)
    set_clock(-DAY)
    read, trained, failed, left_out = ending(process)
    assert (read, failed, trained + left_out) == (1, 0, 599)
    assert left_out > 0
    assert_whole(store)


def test_training_under_a_clock_that_goes_back(store, mnist, monkeypatch):
    """The seconds of a record come from a clock that cannot be set."""
    spec = spec_of(0).model_dump()
    spec["data"] |= {"train_images": 16, "validation_images": 8, "test_images": 8, "shrink": 3}
    began, monotonic = time.time(), time.monotonic
    start = monotonic()
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: began - 1000 * (monotonic() - start))
        report = run_all([RunSpec.model_validate(spec)], store, device="cpu", workers=0, progress=False)
    (record,) = report.require_complete().done
    spent = monotonic() - start
    assert 0 <= record.provenance.seconds <= spent
    assert record.provenance.train_ms_per_image > 0 and record.provenance.inference_ms_per_image > 0
    assert 0 <= report.seconds <= spent
