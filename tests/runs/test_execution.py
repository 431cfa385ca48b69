"""Execution: nothing finished is lost, a bad run harms no other, and stored runs are not made again."""

import json
import os
import shutil
import signal
import sys
import time
import warnings
from contextlib import closing

import pytest
import torch
from batches import HERE, ROOT, batch, children, go, gone, wait_until
from fake_training import record_of, spec_of

from scalestudy.runs.backends import LocalProcesses
from scalestudy.runs.backends.worker import own_gpu
from scalestudy.runs.estimate import RESERVE, SECONDS_PER_WORK, Clock
from scalestudy.runs.execution import IncompleteBatch, WorkersUnavailable, plan, run_all
from scalestudy.runs.progress import ProgressBar
from scalestudy.runs.store import DamagedRecordWarning, RunStore, StoreError
from scalestudy.training.spec import RunSpec


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def test_trains_what_is_missing_and_reads_the_rest(store):
    store.put(record_of(spec_of(1)))
    told = []
    report = go(store, [2, 1, 0, 2], on_record=told.append)
    assert [record.spec.seed for record in report.done] == [2, 1, 0]
    assert (report.read, report.trained, report.failed, report.left_out) == (1, 2, (), ())
    assert [record.spec.seed for record in told] == [2, 0]
    again = go(store, [2, 1, 0], train="endless")
    assert (again.read, again.trained) == (3, 0)
    assert again.done == report.done
    assert again.require_complete() is again
    assert again.text.startswith("3 runs: 3 read, 0 trained; 0 failed, 0 left out")


def test_stored_runs_cost_a_file_read(store):
    for seed in range(50):
        store.put(record_of(spec_of(seed)))
    assert go(store, range(50)).seconds < 0.5


def test_workers_make_the_same_records(store, tmp_path):
    alone = go(store, range(4), train="counts_threads")
    other = RunStore(tmp_path / "other")
    together = go(other, range(4), train="counts_threads", workers=2)
    assert alone.done == together.done
    assert {record.metrics.test_error for record in alone.done} == {1.0}


def test_threads_are_restored(store):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        go(store, [0], train="counts_threads")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_runs_are_shared_out_among_worker_processes(store):
    report = go(store, range(12), train="reports_process", workers=2)
    pids = {record.provenance.seconds for record in report.done}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    assert report.trained == 12
    wait_until(lambda: all(gone(int(pid)) for pid in pids), 5)


def test_workers_share_one_gpu(store, monkeypatch):
    """Several runs per GPU: each worker process is told to train on it (here it only believes that there is one)."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    specs = [spec_of(seed) for seed in range(4)]
    report = run_all(specs, store, device="cuda", workers=2, progress=False, train="fake_training:reports_device")
    assert (report.trained, report.failed) == (4, ())
    assert {record.provenance.device for record in report.done} == {"cuda"}
    processes = {record.provenance.seconds for record in report.done}
    assert len(processes) == 2 and os.getpid() not in processes
    alone = run_all(
        [spec_of(4)], store, device="cuda", progress=False, train="fake_training:reports_device"
    )  # the default is one run at a time, in this process
    assert alone.done[0].provenance.seconds == os.getpid()


def test_processes_are_spread_over_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [own_gpu("cuda", slot) for slot in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]
    assert own_gpu("cpu", 1) == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert own_gpu("cuda", 3) == "cuda"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_raises_harms_no_other(store, workers):
    report = go(store, range(4), train="odd_seeds_raise", workers=workers)
    assert [record.spec.seed for record in report.done] == [0, 2]
    assert sorted(spec.seed for spec, _ in report.failed) == [1, 3]
    assert all("Traceback" in text and f"the loss of seed {spec.seed}" in text for spec, text in report.failed)
    with pytest.raises(IncompleteBatch, match=r"2 runs failed; the first is .*ArithmeticError: the loss of seed"):
        report.require_complete()


def test_a_killed_worker_costs_its_own_run(store):
    report = go(store, range(6), train="seed_1_is_killed", workers=2)
    assert [record.spec.seed for record in report.done] == [0, 2, 3, 4, 5]
    ((spec, text),) = report.failed
    assert spec.seed == 1
    assert "ended with signal SIGKILL, 2 times; if memory is short, use fewer workers" in text


def test_a_killed_worker_is_replaced_once(store, tmp_path, monkeypatch):
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv("FAKE_TRAINING", str(tmp_path / "marks"))
    report = go(store, [0], train="first_attempt_is_killed", workers=2)
    assert (report.trained, report.failed) == (1, ())


def test_a_run_that_is_asked_for_again_has_all_its_attempts_again(store, tmp_path, monkeypatch):
    """As in a Dask worker, whose processes outlive the batch."""
    monkeypatch.setenv("MARKS", str(tmp_path))
    with closing(LocalProcesses(store, "cpu", "marked_training:logs_and_is_killed", workers=1)) as backend:
        for asked in (1, 2):
            backend.start(spec_of(0))
            while (outcome := backend.wait(1.0)) is None:
                pass
            assert outcome.event == "failed"
            assert (tmp_path / "log").read_text().count("begun 0") == 2 * asked


def test_a_record_of_another_run_is_refused(store):
    ((_, text),) = go(store, [0], train="wrong_record").failed
    assert "must return the Record of" in text
    assert store.keys() == ()


def test_damaged_record_is_made_again(store):
    store.put(record_of(spec_of(0))).write_text("{")
    with pytest.warns(DamagedRecordWarning):
        report = go(store, [0])
    assert (report.read, report.trained) == (0, 1)


def test_ctrl_c_stops_the_batch_and_its_workers(tmp_path):
    process = batch(tmp_path / "runs", "endless", 2, range(4))
    process.stdout.readline()
    wait_until(lambda: len(children(process.pid)) == 2)
    time.sleep(0.3)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode in (-signal.SIGINT, 130)
    assert all(gone(pid) for pid in workers)
    assert list((tmp_path / "runs").iterdir()) == []


def test_unwritable_store_is_found_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to the folder"):
        go(RunStore(tmp_path / "file" / "runs"), [0], train="endless")


def test_store_that_fills_up_stops_the_batch(store, monkeypatch):
    def full(record):
        raise StoreError("cannot write to the folder: full")

    monkeypatch.setattr(store, "put", full)
    with pytest.raises(StoreError, match=r"full"):
        go(store, range(3))


def test_time_budget_starts_only_what_fits(store):
    """Stored runs of 10 s each foretell those that are missing; a shorter one is found behind them."""
    store.put(record_of(spec_of(0), seconds=10.0))
    short = spec_of(5).model_dump()
    short["data"] |= {"train_images": 10, "validation_images": 5, "test_images": 5}
    short = type(spec_of(5)).model_validate(short)
    specs = [spec_of(0), spec_of(1), short]
    report = run_all(
        specs, store, device="cpu", workers=0, time_budget=5.0, progress=False, train="fake_training:quick"
    )
    assert [record.spec for record in report.done] == [specs[0], short]
    assert report.left_out == (specs[1],)
    with pytest.raises(IncompleteBatch, match=r"1 runs were left out by the time budget, the first is log-uniform"):
        report.require_complete()


def test_clock_uses_records_of_the_same_type_of_device():
    work = spec_of(0).work
    assert Clock("cpu").seconds(spec_of(0)) == pytest.approx(RESERVE * SECONDS_PER_WORK["cpu"] * work)
    records = [
        record_of(spec_of(0), device=name, seconds=s)
        for name, s in (("cpu", 3.0), ("cuda:0", 0.1), ("cpu", 5.0), ("cpu", 4.0))
    ]
    assert Clock("cpu", records).seconds(spec_of(1)) == pytest.approx(RESERVE * 4.0)
    assert Clock("cuda", records).seconds(spec_of(1)) == pytest.approx(RESERVE * 0.1)


def test_clock_does_not_mix_networks():
    """A run is foreseen from runs of the same model, a system without any from the other systems."""
    cnn, dss, sesn = (RunSpec.baseline(name) for name in ("cnn", "dss", "sesn"))
    first = Clock("cpu", [record_of(spec_of(0), seconds=4.0)])
    assert first.seconds(cnn) == pytest.approx(RESERVE * SECONDS_PER_WORK["cpu"] * cnn.work)
    records = [record_of(cnn, seconds=1e-3 * cnn.work), record_of(dss, seconds=3e-3 * dss.work)]
    clock = Clock("cpu", [record_of(spec_of(0), seconds=4.0), *records])
    assert clock.seconds(spec_of(1)) == pytest.approx(RESERVE * 4.0)
    assert clock.seconds(cnn) == pytest.approx(RESERVE * 1e-3 * cnn.work)
    assert clock.seconds(dss) == pytest.approx(RESERVE * 3e-3 * dss.work)
    assert clock.seconds(sesn) == pytest.approx(RESERVE * 2e-3 * sesn.work)


def test_plan(store):
    store.put(record_of(spec_of(1), seconds=10.0))
    frame = plan([spec_of(0), spec_of(1), spec_of(0)], store, device="cpu")
    assert frame["key"].tolist() == [spec_of(0).key, spec_of(1).key]
    assert frame["stored"].tolist() == [False, True]
    assert frame["seconds"].tolist() == pytest.approx([10.0 * RESERVE, 0.0])
    assert frame["label"][0] == spec_of(0).label
    assert store.keys() == (spec_of(1).key,)


def test_plan_for_a_gpu_that_is_elsewhere(store, monkeypatch):
    """Estimates for a GPU can be had without one: from its records where there are some, merged from its machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    store.put(record_of(spec_of(1), device="cpu (x86_64)", seconds=50.0))
    (guess,) = plan([spec_of(0)], store, device="cuda")["seconds"]
    assert guess == pytest.approx(RESERVE * SECONDS_PER_WORK["cuda"] * spec_of(0).work)
    store.put(record_of(spec_of(2), device="cuda (NVIDIA H100 80GB HBM3)", seconds=0.5))
    (known,) = plan([spec_of(0)], store, device="cuda")["seconds"]
    assert known == pytest.approx(RESERVE * 0.5)
    for device in ("cpu", "auto"):
        assert plan([spec_of(0)], store, device=device)["seconds"].tolist() == pytest.approx([RESERVE * 50.0])


def test_progress_bar(store, capsys, monkeypatch):
    options = dict(device="cpu", workers=0, train="fake_training:quick")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    run_all([spec_of(0)], store, **options)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TQDM_DISABLE", "0")
    run_all([spec_of(13)], store, **options)
    error = capsys.readouterr().err
    assert "1/1 runs 100%" in error
    assert f"{spec_of(13).label}: test error 1.30 %" in error
    assert " left" in error


def test_what_is_waited_for_is_told_once(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with ProgressBar([spec_of(0)], shown=True) as bar:
        for _ in range(20):
            bar.note("waiting for workers")
    assert capsys.readouterr().err.count("waiting for workers") <= 2  # told, and once more at the end


def test_progress_bar_never_goes_beyond_its_total(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    specs = [spec_of(seed) for seed in range(7)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ProgressBar(specs, shown=True) as bar:
            bar._bar.mininterval = 0  # draw each step
            bar._bar.total *= 1 - 1e-12  # as if the shares added up to more
            for spec in specs[:-1]:
                for share in range(1, 60):
                    bar.advance(spec, share / 59)
                bar.finish(spec, "fine")
            bar.drop(specs[-1])
            bar._bar.refresh()
    error = capsys.readouterr().err
    assert "100%" in error
    assert "-00:00" not in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, got 'tpu'"),
        ({"workers": -1}, "workers must be an integer of at least 0, got -1"),
        ({"time_budget": 0.0}, "time_budget must be more than 0 seconds, got 0.0"),
        ({"train": "fake_training"}, "train must be a dotted path 'package.module:function', got 'fake_training'"),
    ],
)
def test_bad_arguments(store, options, message):
    with pytest.raises(ValueError, match=message):
        run_all([spec_of(0)], store, progress=False, **options)
    assert store.keys() == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu(store):
    with pytest.raises(ValueError, match=r"torch finds no GPU; use 'cpu' or 'auto'"):
        run_all([spec_of(0)], store, device="cuda", progress=False)


def test_workers_that_cannot_start(store, monkeypatch):
    import fake_training

    monkeypatch.setattr(fake_training, "only_here", fake_training.quick, raising=False)
    with pytest.raises(WorkersUnavailable, match=r"(?s)a worker process could not start:.*only_here"):
        go(store, [0], train="only_here", workers=2)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(WorkersUnavailable, match=r"ended with exit code 1 before it was ready"):
        go(store, [0], workers=2)


def test_inside_a_jupyter_kernel(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cell = f"""
import sys; sys.path[:0] = [{str(HERE)!r}, {str(ROOT)!r}]
from scalestudy.runs.execution import run_all
from scalestudy.runs.store import RunStore
from fake_training import spec_of
report = run_all([spec_of(0)], RunStore({str(tmp_path / "runs")!r}), device="cpu", workers=2,
                 progress=False, train="fake_training:quick")
print(report.trained)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert json.loads(notebook.cells[0].outputs[-1]["text"]) == 1
