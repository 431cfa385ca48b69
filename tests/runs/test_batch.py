"""Batches: what is stored is read, a bad run harms no other, budgets and times left that can be believed."""

import itertools
import os
import time

import pytest
import torch
from batches import go, gone, keys, logged
from fake_training import keep, record_of, spec_of

from scalestudy.runs import estimate
from scalestudy.runs.batch import plan, run_all
from scalestudy.runs.estimate import COMPARABLE, RESERVE, SECONDS_PER_WORK, Clock, ProgressBar, Run
from scalestudy.training.spec import RunSpec


def test_trains_what_is_missing_and_reads_the_rest(store):
    store.put(record_of(spec_of(1)))
    told = []
    report = go(store, [2, 1, 0, 2], workers=1, on_record=told.append)
    assert [record.spec.seed for record in report.done] == [2, 1, 0]
    assert (report.read, report.trained, report.failed, report.left_out) == (1, 2, (), ())
    assert [record.spec.seed for record in told] == [2, 0]
    again = go(store, [2, 1, 0], train="not_there")  # no worker is started
    assert (again.read, again.trained, again.done) == (3, 0, report.done)
    assert again.require_complete() is again
    assert again.text.startswith("3 runs: 3 read, 0 trained; 0 failed, 0 left out")


def test_runs_compute_on_one_thread_in_processes_that_are_gone_afterwards(store):
    report = go(store, range(4), train="reports_process", workers=2)
    assert {record.metrics.test_error for record in report.done} == {1.0}
    processes = {int(record.provenance.seconds) for record in report.done}
    assert os.getpid() not in processes and len(processes) <= 2
    assert all(gone(pid) for pid in processes)


def test_processes_are_spread_over_the_gpus(store, monkeypatch):
    """Here there only seem to be two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen = go(store, range(8), "reports_gpu", workers=3, device="cuda").done
    assert {record.provenance.device for record in seen} == {"cuda 0", "cuda 1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    (alone,) = go(store, [8], "reports_gpu", workers=None, device="auto").done
    assert alone.provenance.device == "cuda 5"


def test_a_run_that_raises_or_whose_process_dies_again_harms_no_other(store, place):
    """On a cluster the Dask worker lives on: only the process that it trains in has died."""
    options, marks = place
    report = go(store, range(128, 132), train="troubled", **options)
    assert [record.spec.seed for record in report.done] == [128, 130]
    failed = {spec.seed: text for spec, text in report.failed}
    assert "Traceback" in failed[129] and "the loss of seed 129" in failed[129]
    assert "ended with signal SIGKILL, 2 times, perhaps" in failed[131] and "use fewer workers" in failed[131]
    assert logged(marks)["killed 131"] == 2
    with pytest.raises(RuntimeError, match=r"1 runs failed; the first is .*ArithmeticError: the loss of seed"):
        go(store, [129], train="troubled", **options).require_complete()


def test_workers_that_cannot_start(store, capfd):
    ((_, text),) = go(store, [0], train="not_there").failed
    assert "ended with exit code 1, 2 times, perhaps with a message on the standard error" in text
    assert "not_there" in capfd.readouterr().err


def test_bad_arguments(store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no GPU; use 'cpu' or 'auto'"):
        go(store, [0], device="cuda")
    with pytest.raises(ValueError, match="workers must be left out with a scheduler, got 2 and 'tcp://h:1'"):
        go(store, [0], scheduler="tcp://h:1")
    assert keys(store) == set()


# Budgets


def sized(seed, **images):
    return RunSpec.model_validate(spec_of(seed).model_dump() | {"data": spec_of(seed).data.model_dump() | images})


def shorter(seed):
    return sized(seed, train_images=10, validation_images=5, test_images=5)


def test_time_budget_starts_only_what_fits(store, monkeypatch):
    """A stored run of 100 s foretells the others; a shorter one is found behind them.  The wall clock goes back."""
    began, ticks = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: began - 1000 * next(ticks))
    store.put(record_of(spec_of(0), seconds=100.0))
    specs = [spec_of(0), spec_of(1), shorter(5)]
    report = run_all(specs, store, device="cpu", workers=1, time_budget=60.0, train="fake_training:quick")
    assert [record.spec for record in report.done] == [specs[0], specs[2]]
    assert report.left_out == (specs[1],)


def test_without_an_estimate_the_first_two_epochs_decide(store, marks):
    """Runs of 1,000 epochs of 0.2 s: the first is given up after two, the others are not begun any more."""
    report = go(store, range(5), train="endless", workers=1, time_budget=60.0)
    assert (report.done, report.failed, len(report.left_out)) == ((), (), 5)
    assert report.seconds < 50
    assert {line.split()[-1] for line in logged(marks)} == {"0"}


def test_what_would_begin_after_the_end_is_left_out(store, monkeypatch):
    """Workers take longer to start than this budget."""
    monkeypatch.setenv("FAKE_SECONDS", "5")
    report = go(store, range(3), time_budget=0.05)
    assert (report.done, len(report.left_out)) == ((), 3)


def test_what_is_left_of_a_run_is_what_it_will_cost(store):
    """In plan and budget: of a run of 1,000 s a third is left, the test; what other code has kept does not count."""
    store.put(record_of(spec_of(0), seconds=1000.0))
    keep(store, spec_of(1), 2)
    keep(store, spec_of(2), 2, code="another")
    frame = plan([spec_of(seed) for seed in (0, 1, 2, 3, 1)], store, device="cpu")
    assert frame["key"].tolist() == [spec_of(seed).key for seed in range(4)]
    assert frame["label"][0] == spec_of(0).label
    assert frame["share_done"].tolist() == pytest.approx([1.0, 2 / 3, 0.0, 0.0])
    assert frame["stored"].tolist() == [True, False, False, False]
    assert frame["seconds"].tolist() == pytest.approx([0.0, 1100.0 / 3, 1100.0, 1100.0])
    report = go(store, (3, 2, 1), time_budget=700.0)
    assert [record.spec.seed for record in report.done] == [1]
    assert [spec.seed for spec in report.left_out] == [3, 2]


# Estimates


def test_clock_does_not_mix_networks():
    cnn, dss, sesn = (RunSpec.baseline(name) for name in ("cnn", "dss", "sesn"))
    assert Clock("cpu", [record_of(spec_of(0), seconds=4.0)]).rate(cnn) is None
    clock = Clock("cpu", [record_of(cnn, seconds=1e-3 * cnn.work), record_of(dss, seconds=3e-3 * dss.work)])
    assert [clock.rate(spec) for spec in (cnn, dss, sesn)] == pytest.approx([1e-3, 3e-3, 2e-3])
    clock.foresee(sesn, 7e-3 * sesn.work, "sesn")
    assert [clock.rate(spec) for spec in (sesn, cnn)] == pytest.approx([7e-3, 1e-3])
    for _ in range(2):  # the median is theirs
        clock.learn(record_of(sesn, seconds=5e-3 * sesn.work))
    assert clock.rate(sesn) == pytest.approx(5e-3)


def test_tiny_runs_say_nothing_about_the_pace_of_large_ones():
    """Starting is nearly all that they cost; a larger one, or the first epochs, tell."""
    large, tiny = sized(0, train_images=10_000, test_images=10_000), shorter(1)
    assert large.work > COMPARABLE * tiny.work
    clock = Clock("cpu", [record_of(tiny, seconds=5.0)])
    assert clock.rate(large) is None and clock.rate(spec_of(0)) == clock.rate(tiny) == 5.0 / tiny.work
    clock.learn(record_of(large, seconds=1000.0))
    assert clock.seconds(large) == pytest.approx(RESERVE * 1000.0)


def test_plan_for_a_gpu_that_is_elsewhere(store, monkeypatch):
    """Estimates for a GPU can be had without one: from its records where there are some, merged from its machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    seconds = lambda device: plan([spec_of(0)], store, device=device)["seconds"].tolist()  # noqa: E731
    store.put(record_of(spec_of(1), device="cpu (x86_64)", seconds=50.0))
    assert seconds("cuda") == pytest.approx([RESERVE * SECONDS_PER_WORK["cuda"] * spec_of(0).work])
    for seed, known in ((2, 0.5), (3, 0.25), (4, 8.0)):
        store.put(record_of(spec_of(seed), device="cuda (NVIDIA H100 80GB HBM3)", seconds=known))
    assert seconds("cuda") == pytest.approx([RESERVE * 0.5]), "the median"
    assert seconds("cpu") == seconds("auto") == pytest.approx([RESERVE * 50.0])


def simulated(monkeypatch, runs, epochs, before=()):
    """A batch on two workers under a clock that is moved here: the time left after each event, and the true one.

    An epoch of a run takes its share of the run's seconds, in which the test is one epoch more.
    """
    now, told, events, free = [0.0], [], [], [0.0, 0.0]
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    runs, clock = [(Run(spec), seconds) for spec, seconds in runs], Clock("cpu", before)
    bar = ProgressBar([run for run, _ in runs], clock, shown=False)
    bar.slots = 2
    for run, seconds in runs:
        start = free.pop(0)
        events += [(start + seconds * done / (epochs + 1), run, done) for done in range(epochs + 1)]
        events.append((start + seconds, run, seconds))
        free = sorted([*free, start + seconds])
    for now[0], run, done in sorted(events, key=lambda event: event[0]):
        if isinstance(done, float):
            clock.learn(record_of(run.spec, seconds=done))
            bar.finish(run, "fine", trained=True)
        else:
            run.advance(done, epochs)
        told.append((bar.left(), free[-1] - now[0]))
    return told


@pytest.mark.parametrize("before", [None, 1.0, 30.0])
@pytest.mark.parametrize("kind", ["equal", "of two sizes"])
def test_time_left_can_be_believed(monkeypatch, kind, before):
    """Whatever earlier runs foretell, and although short and long runs come in turn."""
    specs = [shorter(seed) if kind == "of two sizes" and seed % 2 else spec_of(seed) for seed in range(20)]
    runs = [(spec, 100.0 * spec.work / spec_of(0).work) for spec in specs]
    known = [] if before is None else [record_of(spec_of(99), seconds=100.0 * before)]
    told = simulated(monkeypatch, runs, epochs=9, before=known)
    shown = [(left, truth) for left, truth in told if left is not None and truth > 0]
    assert len(shown) > 150
    for left, truth in shown:
        assert left == pytest.approx(truth, rel=0.1, abs=51)  # at the end one of two workers has nothing to do


def test_no_time_left_is_told_too_early(monkeypatch):
    """Not before two epochs of each run under way, or three ended runs."""
    runs = [(spec_of(seed), 100.0) for seed in range(8)]
    # both end their second epoch; five events after the first two: a third ends
    for epochs, first in ((9, 5), (1, 10)):
        told = [left for left, _ in simulated(monkeypatch, runs, epochs)]
        assert next(number for number, left in enumerate(told) if left is not None) == first
        assert epochs == 1 or None not in told[first : first + 14]


def test_failed_runs_and_those_of_others_say_nothing_about_the_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    runs = [Run(spec_of(seed)) for seed in range(10)]
    bar = ProgressBar(runs, Clock("cpu"), shown=False)
    for run in runs[:4]:
        bar.finish(run, "failed", trained=False)
    assert bar.left() is None
    for done in range(3):
        now[0] = 10.0 * done
        runs[4].advance(done, 9)
    assert bar.left() == pytest.approx(80.0 + 5 * 100.0)  # one at a time until now


def test_progress_bar(store, capsys):
    go(store, [0], workers=1)
    assert capsys.readouterr().err == ""
    go(store, [13], workers=1, progress=True)
    error = capsys.readouterr().err
    assert "1/1 runs 100%" in error
    assert f"{spec_of(13).label}: test error 1.30 %" in error
    assert " left" not in error


def test_the_bar_is_about_what_this_batch_has_to_do(capsys):
    begun, other, dropped = (Run(spec_of(seed), share) for seed, share in enumerate((0.5, 0.0, 0.25)))
    bar = ProgressBar([begun, other, dropped], Clock("cpu"))
    begun.advance(6, 7)
    bar.finish(dropped, "left out", trained=False)
    for _ in range(20):
        bar.draw("waiting for workers")
    bar.close()
    error = capsys.readouterr().err
    assert "1/3 runs  17%" in error  # a quarter of a run of one and a half
    assert error.count("waiting for workers") <= 3  # told, and once more at the end
