"""Whatever is killed at whatever moment: nothing finished is lost, nothing is made twice, nobody is left behind.

Environment variable: SCALESTUDY_TEST_KILLS is the number of SIGKILLs at random moments.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from batches import assert_whole, children, contents, ending, go, gone, keys, litter, logged, process_of, wait_until
from fake_training import EPOCHS, may_end, spec_of

KILLS = int(os.environ.get("SCALESTUDY_TEST_KILLS", "5"))


def seeds_of(marks, word):
    """Seeds of the runs that were "begun" or "trained", one for each time."""
    return Counter({int(line.split()[1]): n for line, n in logged(marks).items() if line.startswith(word)})


def kill(kind, process):
    """Kill at a random moment, end the batch, and wait until nobody writes any more; the records that it told of."""
    workers = children(process.pid)
    if kind == "a worker":
        wait_until(lambda: children(process.pid))
        killed = random.choice(children(process.pid))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: gone(killed) and len(set(children(process.pid)) - {killed}) == 2)  # it was replaced
        workers = children(process.pid)
        process.kill()
    elif kind == "the group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    out, _ = process.communicate(timeout=300)
    wait_until(lambda: all(gone(pid) for pid in workers))
    return {f"{line}.json" for line in out.split() if len(line) == 16}


def test_sigkill_at_random_moments_loses_nothing_finished(store, marks, start):
    """Also in the middle of starting and of writing; the last call completes the batch."""
    chance, told, seeds = random.Random(0), set(), []
    for turn in range(KILLS):
        before, begun = contents(store.folder), seeds_of(marks, "begun").total()
        process = start(store.folder, "quick", 2, range(len(before) + 1000))
        process.stdout.readline()
        if turn % 5 != 3:  # else already while it starts
            wait_until(lambda begun=begun: seeds_of(marks, "begun").total() > begun)
        time.sleep(chance.uniform(0, 0.4))
        seen = contents(store.folder)
        told |= kill(("the batch", "the group", "a worker", "the group")[turn % 4], process)
        after = contents(store.folder)
        assert before.items() <= seen.items() <= after.items()
        assert told <= set(after)
        assert_whole(store)
        begun = seeds_of(marks, "begun").total() - begun
        assert 0 <= begun - (len(after) - len(before)) <= 4  # two at a time, and two more where one was tried again
        seeds = range(max([*seeds_of(marks, "begun"), 0]) + 20)
    before, begun = contents(store.folder), seeds_of(marks, "begun")
    report = go(store, seeds)
    assert (report.read, report.trained) == (len(before), len(seeds) - len(before))
    made = seeds_of(marks, "begun") - begun
    missing = {spec_of(seed).key for seed in seeds} - {Path(name).stem for name in before}
    assert {spec_of(seed).key for seed in made} == missing
    assert set(made.values()) == {1}
    assert before.items() <= contents(store.folder).items()
    assert_whole(store)
    assert [name for name in litter(store.folder) if not name.endswith(".tmp")] == []


@pytest.mark.parametrize("how", ["killed", "in reverse", "on a cluster"])
def test_two_batches_on_one_store_make_no_run_twice(store, marks, start, how, request):
    """The second one in reverse; or the first is killed amid its runs; or they share a scheduler, too."""
    seeds, order, options = range(150, 162), 1 if how == "killed" else -1, {"FAKE_SECONDS": "0.1"}
    if how == "on a cluster":
        cluster = request.getfixturevalue("shared")
        marks, options = cluster.folder, options | {"scheduler": cluster.address}
    workers = None if "scheduler" in options else 2
    batches = [start(store.folder, "quick", workers, seeds, **options)]
    wait_until(lambda: len(keys(store)) >= 2)
    batches.append(start(store.folder, "quick", workers, seeds[::order], **options))
    if how == "killed":
        wait_until(lambda: len(keys(store)) >= 4)
        os.killpg(batches[0].pid, signal.SIGKILL)
        batches.pop(0).communicate()
    for process in batches:
        read, trained, failed, left_out = ending(process)
        assert (read + trained, failed, left_out) == (12, 0, 0)
    assert keys(store) == {spec_of(seed).key for seed in seeds}
    assert_whole(store)
    trainings = seeds_of(marks, "trained")
    assert set(seeds) <= set(trainings)
    assert sum(trainings[seed] for seed in seeds) - 12 <= 2 * (how == "killed")  # trained, and not yet stored


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_signals_end_the_command_and_its_workers_at_once(tmp_path, store, number, code):
    """Ctrl-C goes to the workers, too."""
    environment = {"SCALESTUDY_RUNS": str(store.folder), "TQDM_DISABLE": "1"}
    with process_of("run", "--workers", "2", "--device", "cpu", **environment) as process:
        wait_until(lambda: logged(tmp_path).total() > 4)
        workers = children(process.pid)
        assert len(workers) == 2
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, error = process.communicate(timeout=300)
        wait_until(lambda: all(gone(pid) for pid in workers))
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert error == "Interrupted; finished runs are stored, the same command goes on from there.\n"
    assert keys(store) == set()


@pytest.mark.parametrize("killed", ["the group", "a worker"])
def test_only_the_epoch_under_way_is_made_again(tmp_path, store, start, killed):
    """Killed in the second of three epochs, each of which is kept; a killed worker is replaced by one that goes on."""
    may_end(tmp_path, 1)
    process = start(store.folder, "waits_each_epoch", 2, range(2))
    wait_until(lambda: all((tmp_path / f"begun-{seed}-2").exists() for seed in range(2)))
    if killed == "a worker":
        os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_until(lambda: logged(tmp_path).total() == 5)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert keys(store) == set()
        process = start(store.folder, "waits_each_epoch", 2, range(2))
    may_end(tmp_path, 2, 3)
    assert ending(process) == (0, 2, 0, 0)
    once = Counter(f"epoch {epoch} of {seed}" for seed in range(2) for epoch in range(1, EPOCHS + 1))
    again = logged(tmp_path) - once
    assert set(again) <= {"epoch 2 of 0", "epoch 2 of 1"}
    assert again.total() == (1 if killed == "a worker" else 2)
    assert_whole(store)


def test_after_a_kill_the_result_is_the_same(mnist, tmp_path, store, start):
    """Real training: two epochs of 100 digits at the paper's size, killed after the first one."""
    from scalestudy.layers.precision import one_thread
    from scalestudy.training.train import train

    process = start(store.folder, "trained", 2, [0])
    wait_until(lambda: logged(tmp_path)["epoch 1 of 0"] == 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(store.under_way()) == [spec_of(0).key]
    (tmp_path / "end").touch()
    assert ending(start(store.folder, "trained", 2, [0])) == (0, 1, 0, 0)
    assert logged(tmp_path) == Counter({"epoch 1 of 0": 1, "epoch 2 of 0": 1})
    record = store.get(spec_of(0))
    with one_thread():
        undisturbed = train(spec_of(0))
    assert record.metrics == undisturbed.metrics
    assert (record.provenance.resumed, undisturbed.provenance.resumed) == (1, None)
    assert litter(store.folder) == []
