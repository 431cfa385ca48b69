"""SIGTERM: runs under way end after their current epoch, one in its last epoch is finished, and the store is whole."""

import signal
import time
from contextlib import contextmanager

import pytest
from batches import batch, hears, wait_until
from fake_training import spec_of
from marked_training import EPOCHS

from scalestudy.runs.store import RunStore


@contextmanager
def batch_of_three(tmp_path, workers):
    train = "marked_training:waits_each_epoch"
    with batch(tmp_path / "runs", train, workers, range(3), MARKS=str(tmp_path)) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [1, EPOCHS])
def test_sigterm_ends_the_batch_after_the_epoch(tmp_path, workers, epoch):
    under_way = range(max(1, workers))
    for passed in range(1, epoch):
        (tmp_path / f"end-{passed}").touch()
    with batch_of_three(tmp_path, workers) as process:
        for seed in under_way:
            wait_until((tmp_path / f"begun-{seed}-{epoch}").exists)
        process.send_signal(signal.SIGTERM)
        if workers:
            hears(process)
        assert process.poll() is None
        (tmp_path / f"end-{epoch}").touch()
        assert process.wait(60) == 143
    stored = {spec_of(seed).key for seed in under_way} if epoch == EPOCHS else set()
    assert set(RunStore(tmp_path / "runs").keys()) == stored
    assert {path.suffix for path in (tmp_path / "runs").iterdir()} <= {".json"}
    assert not (tmp_path / "begun-2-1").exists()
    assert epoch == EPOCHS or not (tmp_path / f"begun-0-{epoch + 1}").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_second_sigterm_ends_at_once(tmp_path, workers):
    with batch_of_three(tmp_path, workers) as process:
        wait_until((tmp_path / "begun-0-1").exists)
        process.send_signal(signal.SIGTERM)
        if workers:
            hears(process)
        else:
            time.sleep(0.5)  # nothing tells that the signal was noted while the run goes on
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert RunStore(tmp_path / "runs").keys() == ()
