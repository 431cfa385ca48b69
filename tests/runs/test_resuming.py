"""Runs that were interrupted go on where they were: after SIGTERM, after SIGKILL, here and in worker processes."""

import os
import signal
from collections import Counter
from contextlib import contextmanager

import pytest
from batches import batch, children, ending, hears, wait_until
from fake_training import record_of, spec_of
from marked_training import EPOCHS

from scalestudy.runs.execution import plan, run_all
from scalestudy.runs.progress import ProgressBar
from scalestudy.runs.store import RunStore
from scalestudy.training.state import Progress, source_digest


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@contextmanager
def marked(tmp_path, train, workers, seeds):
    process = batch(tmp_path / "runs", f"marked_training:{train}", workers, seeds, MARKS=str(tmp_path))
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def may_end(tmp_path, *epochs):
    for epoch in epochs:
        (tmp_path / f"end-{epoch}").touch()


def logged(tmp_path):
    return Counter((tmp_path / "log").read_text().splitlines())


def once_each(seeds, but_twice=()):
    lines = Counter(f"epoch {epoch} of {seed}" for seed in seeds for epoch in range(1, EPOCHS + 1))
    lines.update(f"epoch {epoch} of {seed}" for seed, epoch in but_twice)
    return lines


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def keep(store, seed, epochs_done, code=None):
    """As if a run of two epochs had been stopped after so many, by default with this code."""
    spec = spec_of(seed)
    store.checkpoint(spec).write(Progress(epochs_done, 2, {"code": code or source_digest()}), b"")
    return spec


def epochs_done(store):
    return {key: progress.epochs_done for key, progress in store.under_way().items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigkill_only_the_epoch_under_way_is_made_again(tmp_path, store, workers):
    """The whole group is killed in the second epoch; the next call makes that one and the third."""
    seeds = range(max(1, workers))
    may_end(tmp_path, 1)
    with marked(tmp_path, "kept_each_epoch", workers, seeds) as process:
        wait_until(lambda: all((tmp_path / f"begun-{seed}-2").exists() for seed in seeds))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert epochs_done(store) == {spec_of(seed).key: 1 for seed in seeds}
    assert store.keys() == ()
    may_end(tmp_path, 2, 3)
    with marked(tmp_path, "kept_each_epoch", workers, seeds) as process:
        assert ending(process) == (0, len(seeds), 0, 0)
    assert logged(tmp_path) == once_each(seeds, but_twice=[(seed, 2) for seed in seeds])
    assert names(store) == sorted(f"{spec_of(seed).key}.json" for seed in seeds)


def test_a_killed_worker_is_replaced_by_one_that_goes_on(tmp_path, store):
    may_end(tmp_path, 1)
    with marked(tmp_path, "kept_each_epoch", 2, range(2)) as process:
        wait_until(lambda: all((tmp_path / f"begun-{seed}-2").exists() for seed in range(2)))
        os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_until(lambda: len(logged(tmp_path)) == 4 and logged(tmp_path).total() == 5)
        may_end(tmp_path, 2, 3)
        assert ending(process) == (0, 2, 0, 0)
    again = logged(tmp_path) - once_each(range(2))
    assert again in (Counter(["epoch 2 of 0"]), Counter(["epoch 2 of 1"]))
    assert {path.suffix for path in store.folder.iterdir()} == {".json"}


@pytest.fixture(scope="module")
def undisturbed(mnist):
    """The record of a run of real training, two epochs of 100 digits at the paper's size."""
    from scalestudy.layers.precision import one_thread
    from scalestudy.training.train import train

    with one_thread():
        return train(spec_of(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigterm_no_epoch_is_made_again_and_the_result_is_the_same(tmp_path, store, workers, undisturbed):
    """Real training, stopped after the first of two epochs."""
    with marked(tmp_path, "trained", workers, [0]) as process:
        wait_until((tmp_path / "ended-0-1").exists, 120)
        process.send_signal(signal.SIGTERM)
        if workers:
            hears(process)
        (tmp_path / "go-1").touch()
        assert process.wait(60) == 143
    assert epochs_done(store) == {spec_of(0).key: 1}
    (tmp_path / "go-2").touch()
    with marked(tmp_path, "trained", workers, [0]) as process:
        assert ending(process) == (0, 1, 0, 0)
    assert logged(tmp_path) == Counter(["epoch 1 of 0", "epoch 2 of 0"])
    record = store.get(spec_of(0))
    assert record.metrics == undisturbed.metrics
    assert (record.provenance.resumed, undisturbed.provenance.resumed) == (1, None)
    assert names(store) == [f"{spec_of(0).key}.json"]


def test_the_record_replaces_the_checkpoint(store):
    spec = keep(store, 0, 1)
    assert epochs_done(store) == {spec.key: 1}
    store.put(record_of(spec))
    assert (store.under_way(), names(store)) == ({}, [f"{spec.key}.json"])


def test_a_checkpoint_beside_its_record_is_cleared(store):
    """Whoever stored the record was killed before removing it; those of other runs stay."""
    store.put(record_of(spec_of(0)))
    keep(store, 0, 1)
    keep(store, 1, 1)
    assert epochs_done(store) == {spec_of(1).key: 1}
    store.require_writable()
    assert names(store) == sorted([f"{spec_of(0).key}.json", f"{spec_of(1).key}.checkpoint"])


def test_what_is_no_checkpoint_is_not_under_way(store):
    store.folder.mkdir()
    (store.folder / "0123456789abcdef.checkpoint").write_bytes(b"no checkpoint")
    store.checkpoint(spec_of(0)).path.mkdir()
    assert (store.under_way(), store.shares_done()) == ({}, {})


def test_what_is_left_of_a_run_is_what_it_will_cost(store):
    """In the plan, and in what fits into a time budget: of a run of 1,000 s one of three parts is left, the test.

    What other code has kept does not count.
    """
    store.put(record_of(spec_of(0), seconds=1000.0))
    keep(store, 1, 2)
    keep(store, 2, 2, code="another")
    frame = plan([spec_of(seed) for seed in range(4)], store, device="cpu")
    assert frame["share_done"].tolist() == pytest.approx([1.0, 2 / 3, 0.0, 0.0])
    assert frame["stored"].tolist() == [True, False, False, False]
    assert frame["seconds"].tolist() == pytest.approx([0.0, 1100.0 / 3, 1100.0, 1100.0])
    report = run_all(
        [spec_of(seed) for seed in (3, 2, 1)], store, device="cpu", workers=0, time_budget=700.0, progress=False,
        train="fake_training:quick",
    )  # fmt: skip
    assert [record.spec.seed for record in report.done] == [1]
    assert [spec.seed for spec in report.left_out] == [3, 2]


def test_the_bar_shows_what_this_batch_has_to_do(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    begun, other, dropped = (spec_of(seed) for seed in range(3))
    with ProgressBar([begun, other, dropped], shown=True, begun={begun.key: 0.5, dropped.key: 0.25}) as bar:
        assert bar._bar.total == pytest.approx(2.25 * other.work)
        bar.advance(begun, 0.75)
        assert bar._bar.n == pytest.approx(0.25 * begun.work)
        bar.drop(dropped)
        assert bar._bar.total == pytest.approx(1.5 * other.work)
        bar.finish(begun, "done")
        bar.finish(other, "done")
        assert bar._bar.n == pytest.approx(bar._bar.total) == pytest.approx(1.5 * other.work)
