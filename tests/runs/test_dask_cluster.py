"""Runs on a real Dask cluster of this machine: the same records, each stored once, whatever dies or misbehaves."""

import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter

import pytest
from batches import ROOT, batch, children, ending, wait_until
from fake_training import spec_of
from loopback import Cluster

from scalestudy.data import LogUniform
from scalestudy.runs import execution
from scalestudy.runs.backends.dask_cluster import DaskCluster
from scalestudy.runs.backends.dask_roster import RejectedWorkerWarning
from scalestudy.runs.backends.dask_worker import make_run, mismatch, versions
from scalestudy.runs.execution import WorkersUnavailable, run_all
from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two workers for all tests that harm nobody; each has a run store of its own, the folder of marks is shared."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as cluster:
        for name in ("a", "b"):
            cluster.add(name, MARKS=str(folder))
        cluster.wait_for(2)
        yield cluster


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def go(store, cluster, seeds, train="fake_training:quick", **options):
    options = {"device": "cpu", "progress": False} | options
    return run_all([spec_of(seed) for seed in seeds], store, scheduler=cluster.address, train=train, **options)


def logged(folder):
    """How often each line was logged by the training functions."""
    log = folder / "log"
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def keys(seeds):
    return {spec_of(seed).key for seed in seeds}


def cancelled(cluster, seed):
    """Whether a worker has said that it ends the run."""
    return f"run {spec_of(seed).key} was cancelled; it ends after" in (cluster.folder / "dask.log").read_text()


def test_same_records_as_in_process(shared, store, tmp_path):
    """Real training, of little: metrics are equal, and so are the keys, which name the Dask tasks."""
    specs = [
        RunSpec(
            scales=ScalesSpec(parameterisation="step_ratio"),
            data=DataSpec(
                distribution=LogUniform(low=1, high=8), train_images=20, validation_images=10, test_images=20, shrink=3
            ),
            training=TrainingSpec.paper_shaped(2, batch_size=10),
            seed=seed,
        )
        for seed in range(3)
    ]
    there = run_all(specs, store, device="cpu", scheduler=shared.address, progress=False).require_complete()
    here = run_all(specs, RunStore(tmp_path / "here"), device="cpu", workers=0, progress=False)
    assert [record.metrics for record in there.done] == [record.metrics for record in here.done]
    assert [record.key for record in there.done] == [spec.key for spec in specs]
    assert there.trained == 3
    assert {record.provenance.threads for record in there.done} == {1}


def test_each_record_comes_to_the_client_once(shared, store, monkeypatch):
    """Without a shared folder the client stores what workers made; each of them has kept its own runs, too."""
    puts, put = [], RunStore.put
    monkeypatch.setattr(RunStore, "put", lambda self, record: puts.append(record.key) or put(self, record))
    report = go(store, shared, range(100, 110))
    assert (report.trained, report.failed) == (10, ())
    assert sorted(puts) == sorted(keys(range(100, 110))) == list(store.keys())
    theirs = [set(RunStore(shared.folder / name).keys()) & keys(range(100, 110)) for name in ("a", "b")]
    assert theirs[0] | theirs[1] == keys(range(100, 110)) and not theirs[0] & theirs[1]
    assert [path.suffix for path in store.folder.iterdir()] == [".json"] * 10


def test_a_folder_that_workers_share_is_written_by_them_only(tmp_path, monkeypatch):
    store = RunStore(tmp_path / "runs")
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add("a", runs=store.folder)
        monkeypatch.setattr(RunStore, "put", lambda self, record: pytest.fail("the client wrote a record again"))
        report = go(store, cluster, range(3))
    assert (report.trained, report.failed) == (3, ())
    assert set(store.keys()) == keys(range(3))


def test_what_a_worker_has_in_its_store_is_not_trained_again(shared, tmp_path):
    first = go(RunStore(tmp_path / "one"), shared, [120], train="marked_training:logs")
    workers = [RunStore(shared.folder / name) for name in ("a", "b")]
    record = first.done[0]
    for worker in workers:
        worker.put(record)
    again = go(RunStore(tmp_path / "two"), shared, [120], train="marked_training:logs")
    assert (first.trained, again.trained, again.read) == (1, 0, 1)
    assert first.done == again.done
    assert logged(shared.folder)["made 120"] == 1


def test_a_run_that_raises_stops_no_other(shared, store):
    report = go(store, shared, range(130, 136), train="fake_training:odd_seeds_raise")
    assert [record.spec.seed for record in report.done] == [130, 132, 134]
    assert sorted(spec.seed for spec, _ in report.failed) == [131, 133, 135]
    for spec, text in report.failed:
        assert "on worker tcp://127.0.0.1:" in text
        assert "Traceback" in text and f"the loss of seed {spec.seed}" in text


def test_a_training_function_that_returns_another_record_harms_its_run_only(shared, store):
    report = go(store, shared, [140], train="fake_training:wrong_record")
    ((_, text),) = report.failed
    assert "must return the Record of" in text
    assert store.keys() == ()


def test_a_killed_training_process_is_replaced_by_its_worker(shared, store):
    """The Dask worker lives on: only the process that it trains in has died."""
    report = go(store, shared, range(3), train="fake_training:seed_1_is_killed")
    assert [record.spec.seed for record in report.done] == [0, 2]
    ((spec, text),) = report.failed
    assert spec.seed == 1 and "ended with signal SIGKILL, 2 times" in text
    assert len(shared.wait_for(2)) == 2


def test_two_clients_share_the_runs_out(shared, tmp_path):
    """On one store and one scheduler; each run is made once."""
    others = batch(tmp_path / "runs", "marked_training:logs", None, range(150, 170), scheduler=shared.address)
    report = go(RunStore(tmp_path / "runs"), shared, range(169, 149, -1), train="marked_training:logs")
    read, trained, failed, left_out = ending(others)
    assert (read + trained, failed, left_out) == (20, 0, 0)
    assert len(report.done) == 20
    assert {logged(shared.folder)[f"made {seed}"] for seed in range(150, 170)} == {1}


def test_auto_is_the_cpu_where_no_worker_declares_a_gpu(shared, store):
    report = go(store, shared, [180], device="auto", train="fake_training:reports_device")
    assert [record.provenance.device for record in report.done] == ["cpu"]


def test_progress_is_shown(shared, store, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setenv(execution.SCHEDULER_VARIABLE, str(shared.file))  # a scheduler file, named by the environment
    run_all([spec_of(190)], store, train="fake_training:quick")
    error = capsys.readouterr().err
    assert "1/1 runs 100%" in error
    assert spec_of(190).key in {*RunStore(shared.folder / "a").keys(), *RunStore(shared.folder / "b").keys()}


def test_scheduler_without_workers(tmp_path, capsys, monkeypatch):
    """Nothing is begun, the call says what it waits for and ends with the budget; the device is not guessed."""
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with Cluster(tmp_path) as cluster:
        report = go(RunStore(tmp_path / "runs"), cluster, range(3), time_budget=6.0, progress=True)
        assert (report.done, report.failed, len(report.left_out)) == ((), (), 3)
        assert f"waiting for workers at {cluster.address}" in capsys.readouterr().err
        with pytest.raises(ValueError, match=r"device must be cpu or cuda while the cluster has no w"):
            go(RunStore(tmp_path / "runs"), cluster, range(3), device="auto")


def test_time_budget_takes_back_a_run_whose_worker_left(tmp_path):
    """It was begun, and waits again: nobody will finish it in time."""
    with Cluster(tmp_path) as cluster:
        cluster.add("a", MARKS=str(tmp_path))
        cluster.wait_for(1)
        killer = threading.Thread(target=_kill_once_begun, args=(cluster, tmp_path / "begun-0"))
        killer.start()
        report = go(RunStore(tmp_path / "runs"), cluster, [0], train="marked_training:waits", time_budget=20.0)
        killer.join()
    assert (report.done, report.failed, len(report.left_out)) == ((), (), 1)


def _kill_once_begun(cluster, mark):
    wait_until(mark.exists)
    os.killpg(cluster.workers["a"].pid, signal.SIGKILL)


def test_killed_worker_is_replaced_or_its_run_is_made_elsewhere(tmp_path):
    """Worker a is killed with its nanny, worker b without: the one is missed, the other comes back."""
    with Cluster(tmp_path) as cluster:
        for name in ("a", "b"):
            cluster.add(name, MARKS=str(tmp_path))
        cluster.wait_for(2)
        process = batch(tmp_path / "runs", "marked_training:waits", None, range(4), scheduler=cluster.address)
        wait_until(lambda: all((tmp_path / f"begun-{seed}").exists() for seed in (0, 1)))
        os.killpg(cluster.workers["a"].pid, signal.SIGKILL)
        for pid in children(cluster.workers["b"].pid):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: logged(tmp_path)["begun 0"] + logged(tmp_path)["begun 1"] >= 3)
        (tmp_path / "go").touch()
        assert ending(process) == (0, 4, 0, 0)
        assert list(cluster.wait_for(1)) == ["b"]
    store = RunStore(tmp_path / "runs")
    assert set(store.keys()) == keys(range(4)) and len(store.records()) == 4
    log = logged(tmp_path)
    assert [log[f"made {seed}"] for seed in range(4)] == [1] * 4


def test_the_run_of_a_killed_worker_goes_on_elsewhere(tmp_path):
    """Both workers have the client's folder; the one that makes the run is killed in its second epoch."""
    store = RunStore(tmp_path / "runs")
    with Cluster(tmp_path) as cluster:
        for name in ("a", "b"):
            cluster.add(name, runs=store.folder, MARKS=str(tmp_path))
        pids = {worker: cluster.workers[worker].pid for worker in cluster.wait_for(2)}
        (tmp_path / "end-1").touch()
        process = batch(store.folder, "marked_training:kept_each_epoch", None, [0], scheduler=cluster.address)
        wait_until((tmp_path / "begun-0-2").exists)
        (tmp_path / "begun-0-2").unlink()
        training = [name for name, pid in pids.items() if any(children(child) for child in children(pid))]
        assert len(training) == 1  # the Dask worker below this nanny has a child of its own
        os.killpg(pids[training[0]], signal.SIGKILL)
        wait_until((tmp_path / "begun-0-2").exists)
        for epoch in (2, 3):
            (tmp_path / f"end-{epoch}").touch()
        assert ending(process) == (0, 1, 0, 0)
    assert logged(tmp_path) == Counter({"epoch 1 of 0": 1, "epoch 2 of 0": 2, "epoch 3 of 0": 1})
    assert [path.name for path in store.folder.iterdir()] == [f"{spec_of(0).key}.json"]


def test_a_silent_worker_does_not_hold_up_the_others(tmp_path, monkeypatch):
    """Frozen before it can say its versions; it wakes up once three runs are made."""
    monkeypatch.setattr("scalestudy.runs.backends.dask_roster._ASK_SECONDS", 1.0)
    with Cluster(tmp_path) as cluster:
        for name in ("awake", "frozen"):
            cluster.add(name)
        cluster.wait_for(2)
        frozen, made = cluster.workers["frozen"].pid, []
        os.killpg(frozen, signal.SIGSTOP)

        def wake_it_up_after_three(record):
            made.append(record.key)
            if len(made) == 3:
                assert RunStore(tmp_path / "frozen").keys() == ()
                os.killpg(frozen, signal.SIGCONT)

        report = go(RunStore(tmp_path / "runs"), cluster, range(6), on_record=wake_it_up_after_three)
    assert (report.trained, report.failed) == (6, ())


def test_a_run_that_kills_its_worker_every_time_is_reported(tmp_path):
    with Cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as cluster:
        cluster.add("a")
        report = go(
            RunStore(tmp_path / "runs"), cluster, range(3), train="marked_training:seed_1_kills_the_dask_worker"
        )
    assert [record.spec.seed for record in report.done] == [0, 2]
    ((spec, text),) = report.failed
    assert spec.seed == 1 and "all those workers died while running it" in text


def test_scheduler_that_dies(tmp_path):
    with Cluster(tmp_path) as cluster:
        cluster.add("a", MARKS=str(tmp_path))
        cluster.wait_for(1)
        store = RunStore(tmp_path / "runs")
        go(store, cluster, [7])

        def after_the_first(record):
            os.killpg(cluster.scheduler.pid, signal.SIGKILL)

        with pytest.raises(WorkersUnavailable, match=r"connection to the Dask scheduler tcp://.* was lost"):
            go(store, cluster, range(200), on_record=after_the_first)
        stored = set(store.keys())
        assert {spec_of(7).key} < stored < keys(range(200))
        assert len(store.records()) == len(stored)
    with Cluster(tmp_path / "next") as cluster:
        cluster.add("a", runs=tmp_path / "a")
        report = go(store, cluster, range(200))
    assert (len(report.done), report.failed) == (200, ())


def test_client_that_is_killed(tmp_path):
    """Its runs are stopped, also in the workers; what was finished is there, and the next call makes the rest once."""
    with Cluster(tmp_path) as cluster:
        for name in ("a", "b"):
            cluster.add(name, MARKS=str(tmp_path))
        cluster.wait_for(2)
        process = batch(
            tmp_path / "runs", "marked_training:waits_each_epoch", None, range(4), scheduler=cluster.address
        )
        wait_until(lambda: all((tmp_path / f"begun-{seed}-1").exists() for seed in (0, 1)))
        process.kill()
        process.communicate()
        wait_until(lambda: all(cancelled(cluster, seed) for seed in (0, 1)))
        for epoch in (1, 2, 3):
            (tmp_path / f"end-{epoch}").touch()
        report = go(RunStore(tmp_path / "runs"), cluster, range(4), train="marked_training:waits_each_epoch")
        assert (report.trained, report.failed) == (4, ())
        assert [logged(tmp_path)[f"made {seed}"] for seed in range(4)] == [1] * 4


def test_sigterm_cancels_the_runs_of_a_cluster(tmp_path, shared):
    marks = shared.folder
    process = batch(tmp_path / "runs", "marked_training:waits_each_epoch", None, [300, 301], scheduler=shared.address)
    wait_until(lambda: (marks / "begun-300-1").exists() and (marks / "begun-301-1").exists())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    wait_until(lambda: cancelled(shared, 300) and cancelled(shared, 301))
    (marks / "end-1").touch()
    assert go(RunStore(tmp_path / "runs"), shared, range(302, 304)).trained == 2  # the workers are free again
    assert not (marks / "begun-300-2").exists()


def test_an_answer_that_waits_to_be_heard_is_stored_on_sigterm(shared, store):
    backend = DaskCluster(store, "cpu", "fake_training:quick", shared.address, note=lambda text: None)
    try:
        backend.start(spec_of(320))
        wait_until(lambda: backend._runs[spec_of(320).key].future.status == "finished")
        backend.stop()
        while (outcome := backend.wait(1.0)) is None or outcome.event == "progress":
            pass
    finally:
        backend.close()
    assert outcome.event == "done"
    assert store.get(spec_of(320)) is not None


def test_one_run_per_declared_gpu(tmp_path):
    """Two slots on one worker; the other worker has threads, but no GPU, and gets nothing."""
    with Cluster(tmp_path) as cluster:
        cluster.add("gpus", "--nthreads", 4, "--resources", "GPU=2", MARKS=str(tmp_path))
        cluster.add("none", "--nthreads", 4, MARKS=str(tmp_path))
        cluster.wait_for(2)
        store = RunStore(tmp_path / "runs")
        report = go(store, cluster, range(6), device="auto", train="marked_training:overlap")
    assert (report.trained, report.failed) == (6, ())
    assert set(RunStore(tmp_path / "gpus").keys()) == set(store.keys())
    log = logged(tmp_path)
    assert set(log) <= {"1 at a time on cuda", "2 at a time on cuda"} and log["2 at a time on cuda"] > 0


def test_workers_with_other_versions_are_rejected(tmp_path):
    metadata = tmp_path / "torch" / "torch-1.99.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.99.0\n")
    shutil.copytree(ROOT / "scalestudy", tmp_path / "recipe" / "scalestudy")
    spec = tmp_path / "recipe" / "scalestudy" / "spec.py"
    spec.write_text(spec.read_text().replace("recipe: Literal[1] = 1", "recipe: Literal[99] = 99"))
    ours = versions()
    messages = [
        f"it has torch 1.99, this client has torch {ours['torch']}; install the same on both",
        f"it has scalestudy recipe 99, this client has scalestudy recipe {ours['scalestudy recipe']}; install the same",
    ]
    with Cluster(tmp_path) as cluster:
        cluster.add("other torch", path=tmp_path / "torch")
        cluster.add("other recipe", path=tmp_path / "recipe")
        cluster.wait_for(2)
        with pytest.warns(RejectedWorkerWarning) as warned, pytest.raises(WorkersUnavailable) as raised:
            go(RunStore(tmp_path / "runs"), cluster, range(2))
        assert "none of the cluster's 2 workers can be used" in str(raised.value)
        for message in messages:
            assert message in str(raised.value)
            assert sum(message in str(warning.message) for warning in warned) == 1
        cluster.add("good")
        cluster.wait_for(3)
        with pytest.warns(RejectedWorkerWarning) as warned:
            report = go(RunStore(tmp_path / "runs"), cluster, range(6))
        assert len(warned) == 2
    assert (report.trained, report.failed) == (6, ())
    assert set(RunStore(tmp_path / "good").keys()) == keys(range(6))
    assert RunStore(tmp_path / "other torch").keys() == RunStore(tmp_path / "other recipe").keys() == ()


def test_late_worker_with_another_version_refuses():
    """A task that reaches it before it was asked is not made: what `make_run` answers there."""
    reply = make_run(spec_of(0).model_dump_json(), "cpu", "fake_training:quick", versions() | {"torch": "1.99"})
    assert reply == {"event": "rejected", "text": f"it has torch {versions()['torch']}, this client has torch 1.99"}


MISBEHAVIOURS = {
    "nonsense": "it answered 42, which holds no record",
    "no record": "it answered .*, which holds no record",
    "no text": "None",
    "another run": "asked for run [0-9a-f]{16} it answered 'done' with [0-9a-f]{16}",
    "edited": "(?s)it answered .*, which holds no record: .*checksum",
}


def test_workers_that_return_garbage_are_used_no_more(tmp_path):
    with Cluster(tmp_path) as cluster:
        for name in MISBEHAVIOURS:
            cluster.add(name, "--preload", "garbage_worker", MISBEHAVIOUR=name)
        cluster.add("good", MARKS=str(tmp_path))
        cluster.wait_for(1 + len(MISBEHAVIOURS))
        store = RunStore(tmp_path / "runs")
        with pytest.warns(RejectedWorkerWarning) as caught:
            report = go(store, cluster, range(20), train="marked_training:logs")
    assert len(caught) == len(MISBEHAVIOURS)
    for message in MISBEHAVIOURS.values():
        assert any(re.search(message, str(warning.message)) for warning in caught)
    assert (report.trained, report.failed) == (20, ())
    assert set(RunStore(tmp_path / "good").keys()) == set(store.keys()) == keys(range(20))
    assert [logged(tmp_path)[f"made {seed}"] for seed in range(20)] == [1] * 20


@pytest.mark.parametrize("error", ["MemoryError", "TimeoutError"])
def test_worker_whose_tasks_break(tmp_path, error):
    """Not the training, but the task itself raises: it is tried a few times, then reported."""
    with Cluster(tmp_path) as cluster:
        cluster.add("bad", "--preload", "garbage_worker", MISBEHAVIOUR=error)
        cluster.wait_for(1)
        report = go(RunStore(tmp_path / "runs"), cluster, [0])
        ((_, text),) = report.failed
        assert "the worker itself is broken" in text and "it was given to workers 5 times" in text


def test_full_store_of_the_client_ends_the_batch(shared, store, monkeypatch):
    def full(self, record):
        raise StoreError("cannot write to the folder: full")

    monkeypatch.setattr(RunStore, "put", full)
    with pytest.raises(StoreError, match=r"full"):
        go(store, shared, range(310, 313))
    assert store.keys() == ()


def test_no_scheduler_there(store, tmp_path, monkeypatch):
    monkeypatch.setattr("scalestudy.runs.backends.dask_connection._CONNECT_SECONDS", 0.5)
    with pytest.raises(WorkersUnavailable, match=r"cannot reach a Dask scheduler at tcp://127.0.0.1:1 within"):
        run_all([spec_of(0)], store, scheduler="tcp://127.0.0.1:1", progress=False)
    with pytest.raises(ValueError, match=r"scheduler must be an address such as .* got 'nowhere', which is no file"):
        run_all([spec_of(0)], store, scheduler="nowhere", progress=False)
    with pytest.raises(ValueError, match=r"workers must be left out with a scheduler, got 2 and 'tcp://h:1'"):
        run_all([spec_of(0)], store, scheduler="tcp://h:1", workers=2, progress=False)


def test_without_distributed(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeError, match=r"needs distributed; pip install 'scalestudy\[cluster\]'"):
        run_all([spec_of(0)], store, scheduler="tcp://127.0.0.1:1", progress=False)


def test_explicit_workers_win_over_the_environment(store, monkeypatch):
    monkeypatch.setenv(execution.SCHEDULER_VARIABLE, "tcp://127.0.0.1:1")
    report = run_all([spec_of(0)], store, device="cpu", workers=0, progress=False, train="fake_training:quick")
    assert report.trained == 1


def test_mismatch():
    assert mismatch(versions(), versions()) == ""
    assert mismatch({}, {"torch": "2.13"}) == "it has torch None, this client has torch 2.13"
