"""Training functions that leave marks in the folder that MARKS names, and wait for marks there."""

import os
import signal
import time
from pathlib import Path

from fake_training import record_of, spec_of

from scalestudy.training.state import CheckpointFile, Progress

EPOCHS = 3
_PATIENCE = 120


def folder():
    return Path(os.environ["MARKS"])


def wait_for(mark):
    deadline = time.monotonic() + _PATIENCE
    while not (folder() / mark).exists():
        assert time.monotonic() < deadline, f"waited in vain for {mark}"
        time.sleep(0.02)


def log(text):
    with (folder() / "log").open("a") as file:
        file.write(f"{text}\n")


def logs(spec, *, device, progress, checkpoint):
    """Logs what it makes."""
    log(f"made {spec.seed}")
    return record_of(spec, device=device)


def logs_and_is_killed(spec, *, device, progress, checkpoint):
    log(f"begun {spec.seed}")
    os.kill(os.getpid(), signal.SIGKILL)


def waits(spec, *, device, progress, checkpoint):
    """Says that it has begun and waits until it may go on."""
    log(f"begun {spec.seed}")
    (folder() / f"begun-{spec.seed}").touch()
    wait_for("go")
    log(f"made {spec.seed}")
    return record_of(spec)


def waits_each_epoch(spec, *, device, progress, checkpoint):
    """Begins each of three epochs with a mark and ends it when it may."""
    for epoch in range(1, EPOCHS + 1):
        (folder() / f"begun-{spec.seed}-{epoch}").touch()
        wait_for(f"end-{epoch}")
        progress(epoch, EPOCHS)
    log(f"made {spec.seed}")
    return record_of(spec)


def kept_each_epoch(spec, *, device, progress, checkpoint):
    """Logs and keeps each of three epochs, which ends when it may; goes on from what was kept."""
    kept = checkpoint.progress()
    for epoch in range(kept.epochs_done + 1 if kept else 1, EPOCHS + 1):
        log(f"epoch {epoch} of {spec.seed}")
        (folder() / f"begun-{spec.seed}-{epoch}").touch()
        wait_for(f"end-{epoch}")
        checkpoint.write(Progress(epoch, EPOCHS, {"code": "marked training"}), b"")
        progress(epoch, EPOCHS)
    return record_of(spec)


def trained(spec, *, device, progress, checkpoint):
    """Real training; each epoch is marked when it has ended, and then told when it may be."""
    from scalestudy.training.train import train

    def told(done, epochs):
        log(f"epoch {done} of {spec.seed}")
        (folder() / f"ended-{spec.seed}-{done}").touch()
        wait_for(f"go-{done}")
        progress(done, epochs)

    return train(spec, device=device, progress=told, checkpoint=CheckpointFile(checkpoint.path))


def seed_1_kills_the_dask_worker(spec, *, device, progress, checkpoint):
    if spec.seed == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(_PATIENCE)
    return record_of(spec)


def overlap(spec, *, device, progress, checkpoint):
    """Logs how many runs are under way with it, itself included, after a while."""
    mark = folder() / f"now-{os.getpid()}"
    mark.touch()
    time.sleep(0.5)
    log(f"{len(list(folder().glob('now-*')))} at a time on {device}")
    mark.unlink()
    return record_of(spec, device=device)


def another_run(spec):
    return record_of(spec_of(spec.seed + 1000))
