"""Runs on a real Dask cluster of this machine: the same records, each stored once, whatever dies."""

import os
import shutil
import signal
import sys
import threading

import pytest
from batches import ROOT, children, ending, keys, logged, wait_until
from batches import go as run
from fake_training import may_end, spec_of
from loopback import Cluster

from scalestudy.runs import batch as batch_module
from scalestudy.runs.batch import run_all
from scalestudy.runs.cluster import WorkersUnavailable, versions
from scalestudy.runs.store import RunStore

pytest.importorskip("distributed")


def go(store, cluster, seeds, train="quick", **options):
    return run(store, seeds, train, **{"scheduler": cluster.address, "workers": None} | options)


def keys_of(seeds):
    return {spec_of(seed).key for seed in seeds}


def test_each_record_comes_to_the_client_and_is_made_once(shared, store, tmp_path):
    """Without a shared folder the client stores what workers made; each of them has kept its own runs, too."""
    report = go(store, shared, range(100, 108), train="reports_process")
    assert (report.trained, report.failed) == (8, ())
    assert {record.metrics.test_error for record in report.done} == {1.0}  # one thread each
    stores = [RunStore(shared.folder / name) for name in ("a", "b")]
    theirs = [keys(one) & keys_of(range(100, 108)) for one in stores]
    assert theirs[0] | theirs[1] == keys_of(range(100, 108)) and not theirs[0] & theirs[1]
    assert [path.suffix for path in store.folder.iterdir()] == [".json"] * 8
    for one in stores:
        one.put(report.done[0])
    again = go(RunStore(tmp_path / "two"), shared, [100], train="troubled")
    assert (again.trained, again.read, again.done) == (0, 1, report.done[:1])


def test_progress_device_and_scheduler_file(shared, store, capsys, monkeypatch):
    """No worker declares a GPU; the file is named by the environment, in the user's folder."""
    monkeypatch.setenv("HOME", str(shared.folder))
    monkeypatch.setenv(batch_module.SCHEDULER_VARIABLE, "~/scheduler.json")
    report = go(store, shared, [190], device="auto", scheduler=None, progress=True)
    assert [record.provenance.device for record in report.done] == ["cpu"]
    assert "1/1 runs 100%" in capsys.readouterr().err
    assert any((shared.folder / name / f"{spec_of(190).key}.json").exists() for name in ("a", "b"))
    monkeypatch.setenv(batch_module.SCHEDULER_VARIABLE, "tcp://127.0.0.1:1")
    assert go(store, shared, [191], scheduler=None, workers=1).trained == 1  # said, so it counts more


def test_scheduler_without_workers(store, tmp_path, capsys):
    """Nothing is begun, the call says what it waits for and ends with the budget; the device is not guessed."""
    with Cluster(tmp_path) as cluster:
        report = go(store, cluster, range(3), time_budget=5.0, progress=True)
        assert (report.done, report.failed, len(report.left_out)) == ((), (), 3)
        assert f"waiting for workers at {cluster.address}" in capsys.readouterr().err
        with pytest.raises(ValueError, match=r"device must be cpu or cuda while the cluster has no w"):
            go(store, cluster, range(3), device="auto")


def test_paused_workers_and_one_that_never_comes_back(store, tmp_path, capsys):
    """Over its limit of memory a worker begins nothing; killed, it leaves a run that nobody would end in time."""
    with Cluster(tmp_path) as cluster:
        cluster.add("a", "--memory-limit", "30MB", "--no-nanny")
        cluster.wait_for(1)
        report = go(store, cluster, [0], time_budget=8.0, progress=True)
        assert (report.done, len(report.left_out)) == ((), 1)
        assert "waiting: workers are paused (memory)" in capsys.readouterr().err
        os.killpg(cluster.workers["a"].pid, signal.SIGKILL)
        cluster.add("b", MARKS=str(tmp_path))
        may_end(tmp_path, 1, 2, 3)
        assert go(store, cluster, [2], train="waits_each_epoch").trained == 1  # so its training process is there
        for end in tmp_path.glob("end-*"):
            end.unlink()
        killer = threading.Thread(target=_kill_once_begun, args=(cluster.workers["b"], tmp_path / "begun-1-1"))
        killer.start()
        report = go(store, cluster, [1], train="waits_each_epoch", time_budget=15.0)
        killer.join()
        assert (report.done, report.failed, len(report.left_out)) == ((), (), 1)


def _kill_once_begun(worker, mark):
    wait_until(mark.exists)
    os.killpg(worker.pid, signal.SIGKILL)


def test_the_run_of_a_killed_worker_goes_on_elsewhere(store, tmp_path, start):
    """Both workers have the client's folder, which they alone write; the one that makes the run is killed."""
    with Cluster(tmp_path / "cluster") as cluster:
        for name in ("a", "b"):
            cluster.add(name, runs=store.folder, MARKS=str(tmp_path))
        pids = {worker: cluster.workers[worker].pid for worker in cluster.wait_for(2)}
        may_end(tmp_path, 1)
        process = start(store.folder, "waits_each_epoch", None, [0], scheduler=cluster.address)
        wait_until((tmp_path / "begun-0-2").exists)
        (tmp_path / "begun-0-2").unlink()
        training = [name for name, pid in pids.items() if any(children(child) for child in children(pid))]
        assert len(training) == 1  # the Dask worker below this nanny has a child of its own
        os.killpg(pids[training[0]], signal.SIGKILL)
        wait_until((tmp_path / "begun-0-2").exists)
        may_end(tmp_path, 2, 3)
        assert ending(process) == (0, 1, 0, 0)
    assert logged(tmp_path) == {"epoch 1 of 0": 1, "epoch 2 of 0": 2, "epoch 3 of 0": 1}
    assert [path.name for path in store.folder.glob("*.json")] == [f"{spec_of(0).key}.json"]


def test_a_run_that_kills_its_worker_every_time_is_reported(store, tmp_path):
    with Cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as cluster:
        cluster.add("a")
        report = go(store, cluster, [0, 2, 1], train="seed_1_kills_the_dask_worker")
    assert [record.spec.seed for record in report.done] == [0, 2]
    ((spec, text),) = report.failed
    assert spec.seed == 1 and "all those workers died while running it" in text


def test_scheduler_that_dies(store, tmp_path):
    with Cluster(tmp_path) as cluster:
        cluster.add("a", MARKS=str(tmp_path))
        cluster.wait_for(1)

        def after_the_first(record):
            os.killpg(cluster.scheduler.pid, signal.SIGKILL)

        with pytest.raises(WorkersUnavailable, match=r"(?s)connection to the Dask scheduler tcp://.* was lost; ev"):
            go(store, cluster, range(200), on_record=after_the_first)
        assert keys(store) and keys(store) < keys_of(range(200))
        assert len(store.records()) == len(keys(store))
    with Cluster(tmp_path / "next") as cluster:
        cluster.add("a", runs=tmp_path / "a")
        report = go(store, cluster, range(20))
    assert (len(report.done), report.failed) == (20, ())


def test_client_that_is_killed(store, shared, start):
    """Its runs end in the workers after their epoch, which are free again; the next call makes the rest."""
    marks, seeds = shared.folder, (300, 301)
    process = start(store.folder, "waits_each_epoch", None, seeds, scheduler=shared.address)
    wait_until(lambda: all((marks / f"begun-{seed}-1").exists() for seed in seeds))
    process.kill()
    process.communicate()
    may_end(marks, 1, 2, 3)
    report = go(store, shared, (*seeds, 302), train="waits_each_epoch")
    assert (len(report.done), report.failed) == (3, ())
    assert {logged(marks)[f"epoch {epoch} of {seed}"] for seed in seeds for epoch in (1, 2, 3)} <= {1, 2}


def test_one_run_per_declared_gpu(store, tmp_path):
    """Two slots on one worker; the other worker has threads, but no GPU, and gets nothing."""
    with Cluster(tmp_path) as cluster:
        cluster.add("gpus", "--nthreads", 4, "--resources", "GPU=2", MARKS=str(tmp_path))
        cluster.add("none", "--nthreads", 4, MARKS=str(tmp_path))
        cluster.wait_for(2)
        report = go(store, cluster, range(6), device="auto", train="overlap")
    assert (report.trained, report.failed) == (6, ())
    assert keys(RunStore(tmp_path / "gpus")) == keys(store)
    log = logged(tmp_path)
    assert set(log) <= {"1 at a time on cuda", "2 at a time on cuda"} and log["2 at a time on cuda"] > 0


def test_other_versions_are_refused_before_the_start_and_by_late_workers(store, tmp_path):
    metadata = tmp_path / "torch" / "torch-1.99.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.99.0\n")
    shutil.copytree(ROOT / "scalestudy", tmp_path / "recipe" / "scalestudy")
    spec = tmp_path / "recipe" / "scalestudy" / "training" / "spec.py"
    spec.write_text(spec.read_text().replace("recipe: Literal[1] = 1", "recipe: Literal[99] = 99"))
    recipe, torch = versions().split(", ")
    with Cluster(tmp_path) as cluster:
        cluster.add("other torch", path=tmp_path / "torch")
        cluster.add("other recipe", path=tmp_path / "recipe")
        cluster.wait_for(2)
        refused = rf"(?s)2 of the cluster's 2 workers .* has, {versions()}; ins.*: {recipe}, torch 1.99"
        with pytest.raises(WorkersUnavailable, match=refused) as raised:
            go(store, cluster, range(2))
        assert f": recipe 99, {torch}" in str(raised.value)
    with Cluster(tmp_path / "late") as cluster:
        process = threading.Timer(3.0, lambda: cluster.add("other torch", path=tmp_path / "torch"))
        process.start()
        ((_, text),) = go(store, cluster, [0]).failed
        assert f"it has {recipe}, torch 1.99, the client has {versions()}; install the same on both" in text
    assert keys(store) == set()


def test_no_scheduler_there(store, tmp_path, monkeypatch):
    monkeypatch.setattr("scalestudy.runs.cluster._CONNECT_SECONDS", 0.5)
    empty, cut = tmp_path / "empty.json", tmp_path / "cut.json"
    empty.touch()
    cut.write_text('{"type": "Scheduler", "id"')
    for scheduler in ("tcp://127.0.0.1:1", str(empty), str(cut)):
        if scheduler == str(empty):  # a client without an address would complain again when Python ends
            monkeypatch.setattr("distributed.Client", lambda *arguments, **options: pytest.fail("asked nevertheless"))
        with pytest.raises(WorkersUnavailable, match=rf"cannot reach a Dask scheduler at {scheduler} within"):
            run_all([spec_of(0)], store, scheduler=scheduler)
    with pytest.raises(ValueError, match=r"scheduler must be an address such as .* got 'nowhere', which is no file"):
        run_all([spec_of(0)], store, scheduler="nowhere")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeError, match=r"needs distributed; pip install 'scalestudy\[cluster\]'"):
        run_all([spec_of(0)], store, scheduler="tcp://127.0.0.1:1")
