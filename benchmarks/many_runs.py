"""What a batch of 10,000 runs costs beside the training: a real scheduler, eight workers, runs of a few milliseconds.

The client is this process, so that its memory can be told; scheduler and workers are processes of their own on
loopback, each worker with a run store of its own.  Records are as large as those of the paper's size.

    python benchmarks/many_runs.py --help
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd
import psutil
from machine import software_and_processor

from scalestudy.data.distributions import LogUniform
from scalestudy.paper.show import to_markdown
from scalestudy.runs.execution import run_all
from scalestudy.runs.store import RunStore
from scalestudy.training.record import Metrics, Provenance, Record
from scalestudy.training.spec import DataSpec, RunSpec
from scalestudy.training.state import CheckpointFile

EPOCHS = 60
PRETENDED_SECONDS = 0.002
_MEBIBYTE = 2**20


def pretend(
    spec: RunSpec, *, device: str, progress: Callable[[int, int], None], checkpoint: CheckpointFile | None = None
) -> Record:
    """Sleep for two milliseconds, then return a record of sixty epochs; nothing is trained, its numbers say nothing."""
    time.sleep(PRETENDED_SECONDS)
    progress(EPOCHS, EPOCHS)
    noise = (spec.seed * 2654435761 % 2**32) / 2**32
    curve = [round(2.3 * 0.93**epoch + noise / 10, 6) for epoch in range(EPOCHS)]
    scales = [(round(2 + noise, 6), round(3.5 + epoch * noise / 50, 6), round(6.1 + noise, 6)) for epoch in range(61)]
    metrics = Metrics(
        test_error=round(2 + noise, 3),
        validation_error=round(2.1 + noise, 3),
        selected_epoch=EPOCHS,
        internal_scales=scales[-1],
        train_loss_history=tuple(curve),
        validation_error_history=tuple(round(10 * value, 3) for value in curve),
        internal_scales_history=tuple(scales),
    )
    made = Provenance(
        scalestudy="0",
        commit=None,
        python="3",
        torch="0",
        device="cpu (pretended)",
        threads=1,
        seconds=PRETENDED_SECONDS,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Record.of(spec, metrics, made)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a scheduler with that many workers of one thread."""
    from distributed import Client

    processes: list[subprocess.Popen] = []
    places = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])

    def start(*arguments: str, runs: Path | None = None) -> psutil.Process:
        variables = {"PYTHONPATH": places, "DASK_TEMPORARY_DIRECTORY": str(folder)}
        with (folder / "dask.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--no-dashboard", "--host", "127.0.0.1"],
                env=os.environ | variables | ({} if runs is None else {"SCALESTUDY_RUNS": str(runs)}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        processes.append(process)
        return psutil.Process(process.pid)

    file = folder / "scheduler.json"
    try:
        scheduler = start("scheduler", "--port", "0", "--scheduler-file", str(file))
        for number in range(workers):
            start("worker", "--scheduler-file", str(file), "--nthreads", "1", runs=folder / f"worker-{number}")
        while not file.exists():
            time.sleep(0.1)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
            address = client.scheduler.address
        yield address, scheduler
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def peak_mebibytes(process: psutil.Process) -> float:
    """The most memory that a process has had resident; Linux only."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(count: int, workers: int, folder: Path) -> dict[str, float]:
    """All figures of one batch; see `page`."""
    data = DataSpec(distribution=LogUniform(low=1, high=8))
    specs = [RunSpec(data=data, seed=seed) for seed in range(count)]
    store, me = RunStore(folder / "runs"), psutil.Process()
    with cluster(folder, workers) as (address, scheduler):

        def make(wanted: list[RunSpec], place: RunStore) -> None:
            run_all(wanted, place, scheduler=address, device="cpu", train="many_runs:pretend").require_complete()

        warm = [RunSpec(data=data, seed=seed) for seed in range(count, count + 4 * workers)]
        make(warm, RunStore(folder / "warm"))  # starts the training processes
        client_before, client_cpu = me.memory_info().rss / _MEBIBYTE, sum(me.cpu_times()[:2])
        scheduler_before, scheduler_cpu = scheduler.memory_info().rss / _MEBIBYTE, sum(scheduler.cpu_times()[:2])
        seconds = timed(lambda: make(specs, store))
        figures = {
            "seconds": seconds,
            "milliseconds_per_run": 1000 * seconds / count,
            "client_milliseconds_per_run": 1000 * (sum(me.cpu_times()[:2]) - client_cpu) / count,
            "client_mebibytes_before": client_before,
            "client_mebibytes_peak": peak_mebibytes(me),
            "scheduler_milliseconds_per_run": 1000 * (sum(scheduler.cpu_times()[:2]) - scheduler_cpu) / count,
            "scheduler_mebibytes_before": scheduler_before,
            "scheduler_mebibytes_peak": peak_mebibytes(scheduler),
        }
    paths = list(store.folder.glob("*.json"))
    assert len(paths) == count, f"{len(paths)} of {count} records are in the store"
    return figures | {
        "again_seconds": timed(lambda: run_all(specs, store, device="cpu", progress=False).require_complete()),
        "merge_seconds": timed(lambda: RunStore(folder / "merged").merge(store.folder)),
        "merge_again_seconds": timed(lambda: RunStore(folder / "merged").merge(store.folder)),
        "summary_seconds": timed(lambda: store.write_summary(folder / "summary.csv")),
        "store_megabytes": sum(path.stat().st_size for path in paths) / 1e6,
        "store_megabytes_on_disk": sum(512 * path.stat().st_blocks for path in paths) / 1e6,
    }


def page(machine: dict[str, Any], count: int, workers: int, cores: int, figures: dict[str, float]) -> str:
    """The table for people."""
    ours = figures
    rows = {
        "whole batch": f"{ours['seconds']:.0f} s, {ours['milliseconds_per_run']:.1f} ms per run",
        "shortest runs that could keep 100 GPUs busy": f"{ours['milliseconds_per_run'] / 10:.1f} s",
        "processor time of the command, per run": f"{ours['client_milliseconds_per_run']:.1f} ms",
        "memory of the command": f"{ours['client_mebibytes_before']:.0f} MiB before, "
        f"{ours['client_mebibytes_peak']:.0f} MiB at its peak",
        "processor time of the scheduler, per run": f"{ours['scheduler_milliseconds_per_run']:.1f} ms",
        "memory of the scheduler": f"{ours['scheduler_mebibytes_before']:.0f} MiB before, "
        f"{ours['scheduler_mebibytes_peak']:.0f} MiB at its peak",
        "run store": f"{ours['store_megabytes']:.0f} MB, {ours['store_megabytes_on_disk']:.0f} MB on the disk",
        "the same command again (all runs stored)": f"{ours['again_seconds']:.1f} s",
        "merging the store into an empty one; again": f"{ours['merge_seconds']:.1f} s; "
        f"{ours['merge_again_seconds']:.1f} s",
        "summary.csv": f"{ours['summary_seconds']:.1f} s",
    }
    about = (
        f"{count:,} runs that pretend ({1000 * PRETENDED_SECONDS:.0f} ms each, records of {EPOCHS} epochs) through a "
        f"real Dask scheduler and {workers} workers, all on {cores} cores of one machine; each worker has a training "
        f"process and a run store of its own. torch {machine['torch']}. 100 GPUs end 100 runs in the time of one, so "
        "they are kept busy where a run takes longer than a hundred times what a batch spends on each."
    )
    shown = pd.DataFrame({"what": rows.keys(), "measured": rows.values()})
    return "\n".join(["# Many runs on a Dask cluster", "", about, "", to_markdown(shown)])


@click.command()
@click.option("--runs", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmarks/many_runs.json"))
def main(runs: int, workers: int, output: Path) -> None:
    """Send thousands of runs of milliseconds through a real scheduler (Linux only)."""
    from scalestudy.training.device import usable_cores

    with tempfile.TemporaryDirectory() as folder:
        figures = {name: round(value, 3) for name, value in measure(runs, workers, Path(folder)).items()}
    machine = software_and_processor()
    written = {"machine": machine, "runs": runs, "workers": workers, "cores": usable_cores(), "figures": figures}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(written, indent=1) + "\n")
    text = page(machine, runs, workers, usable_cores(), figures)
    output.with_suffix(".md").write_text(text)
    click.echo(text)
    click.echo(f"Written to {output} and, as a page, {output.with_suffix('.md').name}")


if __name__ == "__main__":
    main()
