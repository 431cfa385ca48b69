"""What a second worker process brings: runs per minute of one and of several, in turn.

Equal runs of the profile `quick`, trained for real, one thread each, into an empty store each time.  Told are the rate
once every worker has ended its first run, and that of the whole batch, in which processes are started and load torch
and MNIST.

    python benchmarks/throughput.py --help
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd
from machine import machine_rates, software_and_processor
from tqdm import tqdm

from scalestudy.paper.show import to_markdown
from scalestudy.paper.study import Study
from scalestudy.runs.batch import run_all
from scalestudy.runs.store import RunStore
from scalestudy.training.spec import RunSpec


def equal_runs(count: int) -> list[RunSpec]:
    """Runs of Table 2 on its last distribution that differ in their seed only."""
    fields = Study.open("quick").table2()[-1].model_dump()
    return [RunSpec.model_validate(fields | {"seed": seed}) for seed in range(count)]


def runs_per_minute(specs: Sequence[RunSpec], workers: int) -> dict[str, float]:
    """Throughput of a batch, "started" and "whole"; there must be more runs than workers."""
    ended: list[float] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_all(
            specs,
            RunStore(folder),
            device="cpu",
            workers=workers,
            progress=False,
            on_record=lambda record: ended.append(time.perf_counter()),
        ).require_complete()
    started = (len(specs) - workers) / (ended[-1] - ended[workers - 1])
    return {"started": 60 * started, "whole": 60 * len(specs) / (ended[-1] - began)}


def measure(specs: Sequence[RunSpec], workers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Medians by number of workers; ratios to the first number are of the same round."""
    rates: dict[int, list[dict[str, float]]] = {count: [] for count in workers}
    with tqdm(total=rounds * len(workers), unit="batch", disable=None) as bar:
        for turn in range(rounds):
            for count in workers[:: 1 if turn % 2 == 0 else -1]:
                rates[count].append(runs_per_minute(specs, count))
                bar.update()
    return [{"workers": count} | _row(values, rates[workers[0]]) for count, values in rates.items()]


def _row(values: list[dict[str, float]], first: list[dict[str, float]]) -> dict[str, float]:
    row = {}
    for kind in ("started", "whole"):
        ratios = [value[kind] / other[kind] for value, other in zip(values, first, strict=True)]
        row[f"{kind}_runs_per_minute"] = round(statistics.median(value[kind] for value in values), 3)
        row |= {f"{kind}_ratio": round(statistics.median(ratios), 3)}
        row |= {f"{kind}_least": round(min(ratios), 3), f"{kind}_most": round(max(ratios), 3)}
    return row


def page(machine: dict[str, Any], runs: int, rounds: int, rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    shown = pd.DataFrame({"worker processes": [str(row["workers"]) for row in rows]})
    for kind, title in (("started", "once started"), ("whole", "whole batch")):
        shown[f"runs per minute, {title}"] = [f"{row[f'{kind}_runs_per_minute']:.2f}" for row in rows]
        shown[f"over {rows[0]['workers']}, {title}"] = [
            f"{row[f'{kind}_ratio']:.2f} ({row[f'{kind}_least']:.2f} to {row[f'{kind}_most']:.2f})" for row in rows
        ]
    about = (
        f"Batches of {runs} equal runs of `quick`, one thread each, into an empty store; medians of {rounds} rounds, "
        "ratios within a round (least to most). 1 is this process itself. Once started: from the moment when every "
        "worker has ended one run. Whole batch: with starting the processes and loading torch and MNIST. torch "
        f"{machine['torch']}, {machine['gigaflops']:.0f} Gflop/s in matrix products on one thread."
    )
    return "\n".join(["# Throughput of worker processes", "", about, "", to_markdown(shown)])


@click.command()
@click.option("--runs", default=8, show_default=True, type=click.IntRange(min=2), help="Runs per batch.")
@click.option("--rounds", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", multiple=True, default=[1, 2], show_default=True, type=click.IntRange(min=1))
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmarks/throughput.json"))
def main(runs: int, rounds: int, workers: tuple[int, ...], output: Path) -> None:
    """Measure how throughput grows with the number of worker processes."""
    import torch

    torch.set_num_threads(1)
    machine = software_and_processor() | machine_rates()
    rows = measure(equal_runs(runs), workers, rounds)
    output.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine, "runs": runs, "rounds": rounds, "rows": rows}
    output.write_text(json.dumps(written, indent=1) + "\n")
    text = page(machine, runs, rounds, rows)
    output.with_suffix(".md").write_text(text)
    click.echo(text)
    click.echo(f"Written to {output} and, as a page, {output.with_suffix('.md').name}")


if __name__ == "__main__":
    main()
