"""Training functions that take milliseconds, for tests of the store and of execution."""

import os
import random
import signal
import time
from pathlib import Path

from scalestudy.data.distributions import LogUniform
from scalestudy.training.record import Metrics, Provenance, Record
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec


def spec_of(seed: int, **scales: object) -> RunSpec:
    return RunSpec(
        scales=ScalesSpec(**scales),
        data=DataSpec(distribution=LogUniform(low=1, high=8), train_images=100, validation_images=50, test_images=50),
        training=TrainingSpec.paper_shaped(2),
        seed=seed,
    )


def record_of(spec: RunSpec, test_error: float | None = None, device: str = "cpu", seconds: float = 0.5) -> Record:
    metrics = Metrics(
        test_error=spec.seed % 100 / 10 if test_error is None else test_error,
        validation_error=1.5,
        selected_epoch=2,
        internal_scales=(2.0, 3.464102, 6.0),
        train_loss_history=(1.0, 0.5),
        validation_error_history=(2.0, 1.5),
        internal_scales_history=((2.0, 3.0, 4.0), (2.0, 3.1, 5.0), (2.0, 3.464102, 6.0)),
        test_error_by_scale={"0.5": 10.0, "2.0": 1.0} if getattr(spec.data, "scale_test_images", 0) else None,
    )
    made = Provenance(
        scalestudy="0",
        commit=None,
        python="3",
        torch="2",
        device=device,
        threads=1,
        seconds=seconds,
        finished="2024-01-01",
    )
    return Record.of(spec, metrics, made)


def quick(spec, *, device, progress, checkpoint):
    """Succeeds after two short epochs."""
    for epoch in (1, 2):
        time.sleep(0.005)
        progress(epoch, 2)
    return record_of(spec, device=str(device))


def slow(spec, *, device, progress, checkpoint):
    """Succeeds after 0.1 s."""
    time.sleep(0.1)
    return record_of(spec)


def endless(spec, *, device, progress, checkpoint):
    """Never ends."""
    time.sleep(600)


def odd_seeds_raise(spec, *, device, progress, checkpoint):
    if spec.seed % 2:
        raise ArithmeticError(f"the loss of seed {spec.seed} is not a number")
    return record_of(spec)


def seed_1_is_killed(spec, *, device, progress, checkpoint):
    if spec.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return record_of(spec)


def first_attempt_is_killed(spec, *, device, progress, checkpoint):
    """Kills its process unless the folder FAKE_TRAINING has a mark of this seed."""
    mark = Path(os.environ["FAKE_TRAINING"]) / str(spec.seed)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return record_of(spec)


def counts_threads(spec, *, device, progress, checkpoint):
    """Reports the number of torch threads as the test error."""
    import torch

    return record_of(spec, test_error=float(torch.get_num_threads()))


def reports_process(spec, *, device, progress, checkpoint):
    """Reports, as the seconds, the process that trained."""
    print("a library that prints must not break the protocol")
    return record_of(spec, seconds=float(os.getpid()))


def reports_device(spec, *, device, progress, checkpoint):
    """Reports the device, and as the seconds the process; waits, so that one worker cannot make all runs."""
    time.sleep(0.2)
    return record_of(spec, device=str(device), seconds=float(os.getpid()))


def wrong_record(spec, *, device, progress, checkpoint):
    return record_of(spec_of(spec.seed + 1))


def noted(spec, *, device, progress, checkpoint):
    """Succeeds after FAKE_SECONDS (0.01); tells the file FAKE_NOTES what it does and the time that it believes it is.

    No two of its records are equal.
    """
    note(f"begun {spec.seed} {time.time()}")
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0.01")))
    note(f"trained {spec.seed} {time.time()}")
    return record_of(spec, seconds=random.random())


def note(text):
    """Append a line whole, whichever other processes do the same."""
    descriptor = os.open(os.environ["FAKE_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)
