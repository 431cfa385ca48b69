"""Training functions that take milliseconds, or as long as the marks in the folder that MARKS names let them."""

import os
import random
import signal
import time
from pathlib import Path

from scalestudy.data.distributions import LogUniform
from scalestudy.files import write_whole
from scalestudy.training.record import Metrics, Provenance, Record
from scalestudy.training.spec import DataSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.state import CheckpointFile, Progress, source_digest

EPOCHS = 3
_PATIENCE = 300


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
    made = dict(scalestudy="0", commit=None, python="3", torch="2", threads=1, finished="2024-01-01")
    return Record.of(spec, metrics, Provenance(device=device, seconds=seconds, **made))


def keep(store, spec: RunSpec, epochs_done: int, epochs: int = 2, code: str | None = None) -> RunSpec:
    """As if the run had been stopped after so many epochs, by default with this code."""
    store.checkpoint(spec.key).write(Progress(epochs_done, epochs, {"code": code or source_digest()}), {})
    return spec


def folder() -> Path:
    return Path(os.environ["MARKS"])


def wait_for(mark, count=1):
    deadline = time.monotonic() + _PATIENCE
    while len(list(folder().glob(mark))) < count:
        assert time.monotonic() < deadline, f"waited in vain for {mark}"
        time.sleep(0.02)


def may_end(marks, *epochs):
    """Let `waits_each_epoch` end these epochs."""
    for epoch in epochs:
        (marks / f"end-{epoch}").touch()


def log(text):
    """Append a line whole, whichever other processes do the same."""
    with (folder() / "log").open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def quick(spec, *, device, progress, checkpoint):
    """Two epochs in FAKE_SECONDS (0.01), logged where there are marks.  No two of its records are equal."""
    if "MARKS" in os.environ:
        log(f"begun {spec.seed}")
    for epoch in (1, 2):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0.01")) / 2)
        progress(epoch, 2)
    if "MARKS" in os.environ:
        log(f"trained {spec.seed}")
    return record_of(spec, device=str(device), seconds=random.random())


def endless(spec, *, device, progress, checkpoint):
    """Never ends; each epoch takes 0.2 s."""
    for epoch in range(1, 1000):
        time.sleep(0.2)
        log(f"epoch {epoch} of {spec.seed}")
        progress(epoch, 1000)


def troubled(spec, *, device, progress, checkpoint):
    """Every other seed is killed or raises."""
    if spec.seed % 4 == 3:
        log(f"killed {spec.seed}")
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.seed % 2:
        raise ArithmeticError(f"the loss of seed {spec.seed} is not a number")
    return record_of(spec)


def reports_process(spec, *, device, progress, checkpoint):
    """Reports the threads as the test error and the process as the seconds; what it prints must not be in the way."""
    import torch

    print("a library that prints")
    return record_of(spec, test_error=float(torch.get_num_threads()), device=str(device), seconds=float(os.getpid()))


def reports_gpu(spec, *, device, progress, checkpoint):
    """Reports the device and the GPUs that it sees; the first seeds wait until two GPUs have been seen."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    (folder() / f"gpu-{visible}").touch()
    wait_for("gpu-*", count=2 if spec.seed < 8 else 1)
    return record_of(spec, device=f"{device} {visible}")


def seed_3_moves_the_store(spec, *, device, progress, checkpoint):
    """Aside; a file is there instead."""
    if spec.seed == 3:
        (folder() / "runs").rename(folder() / "aside").with_name("runs").write_text("not a folder")
    return record_of(spec)


def waits_each_epoch(spec, *, device, progress, checkpoint):
    """Begins each of three epochs with a mark, ends it when it may, and has it kept; goes on from what was kept."""
    kept = folder() / f"kept-{spec.seed}"
    for epoch in range(int(kept.read_text()) + 1 if kept.exists() else 1, EPOCHS + 1):
        log(f"epoch {epoch} of {spec.seed}")
        (folder() / f"begun-{spec.seed}-{epoch}").touch()
        wait_for(f"end-{epoch}")
        write_whole(kept, str(epoch).encode())
        progress(epoch, EPOCHS)
    return record_of(spec)


def trained(spec, *, device, progress, checkpoint):
    """Real training, kept after each epoch, and then it waits to be allowed to go on."""
    from scalestudy.training.train import train

    class EachEpoch(CheckpointFile):
        due = True

    def told(done, epochs):
        log(f"epoch {done} of {spec.seed}")
        wait_for("end")
        progress(done, epochs)

    return train(spec, device=device, progress=told, checkpoint=EachEpoch(checkpoint.path))


def seed_1_kills_the_dask_worker(spec, *, device, progress, checkpoint):
    if spec.seed == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(_PATIENCE)
    return record_of(spec)


def overlap(spec, *, device, progress, checkpoint):
    """Logs how many runs are under way with it, itself included, after a while; the first one waits for company."""
    mark = folder() / f"now-{os.getpid()}"
    mark.touch()
    if not (folder() / "met").exists():
        wait_for("now-*", count=2)
        (folder() / "met").touch()
    time.sleep(0.5)
    log(f"{len(list(folder().glob('now-*')))} at a time on {device}")
    mark.unlink()
    return record_of(spec, device=device)
