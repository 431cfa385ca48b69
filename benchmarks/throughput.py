"""What a second worker process brings: runs per minute of one and of several, in turn.

Equal runs of the profile `quick`, trained for real, one thread each, into an empty store each time.  Starting the
processes, loading torch and MNIST are part of the time.

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

from scalestudy import params
from scalestudy.output import to_markdown
from scalestudy.spec import RunSpec
from scalestudy.study.execution import run_all
from scalestudy.study.grids import Study
from scalestudy.study.store import RunStore


def equal_runs(count: int) -> list[RunSpec]:
    """Runs of Table 2 on its last distribution that differ in their seed only."""
    fields = Study(params.load("quick")).table2()[-1].model_dump()
    return [RunSpec.model_validate(fields | {"seed": seed}) for seed in range(count)]


def runs_per_minute(specs: Sequence[RunSpec], workers: int) -> float:
    """Throughput of a batch from nothing to the last record."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_all(specs, RunStore(folder), device="cpu", workers=workers, progress=False).require_complete()
        return 60 * len(specs) / (time.perf_counter() - began)


def measure(specs: Sequence[RunSpec], workers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Medians by number of workers; ratios to the first number are of the same round."""
    rates: dict[int, list[float]] = {count: [] for count in workers}
    with tqdm(total=rounds * len(workers), unit="batch", disable=None) as bar:
        for turn in range(rounds):
            for count in workers[:: 1 if turn % 2 == 0 else -1]:
                rates[count].append(runs_per_minute(specs, count))
                bar.update()
    rows = []
    for count, values in rates.items():
        ratios = [value / first for value, first in zip(values, rates[workers[0]], strict=True)]
        rows.append(
            {
                "workers": count,
                "runs_per_minute": round(statistics.median(values), 3),
                "ratio": round(statistics.median(ratios), 3),
                "least_ratio": round(min(ratios), 3),
                "most_ratio": round(max(ratios), 3),
            }
        )
    return rows


def page(machine: dict[str, Any], runs: int, rounds: int, rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    frame = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "worker processes": frame["workers"].map("{}".format),
            "runs per minute": frame["runs_per_minute"].map("{:.2f}".format),
            f"over {rows[0]['workers']}": [
                f"{row['ratio']:.2f} ({row['least_ratio']:.2f} to {row['most_ratio']:.2f})" for row in rows
            ],
        }
    )
    about = (
        f"Batches of {runs} equal runs of `quick`, one thread each, from an empty store and no process to the last "
        f"record; medians of {rounds} rounds, ratios within a round (least to most). 1 is this process itself. torch "
        f"{machine['torch']}, {machine['gigaflops']:.0f} Gflop/s in matrix products on one thread."
    )
    return "\n".join(["# Throughput of worker processes", "", about, "", to_markdown(shown)])


@click.command()
@click.option("--runs", default=8, show_default=True, type=click.IntRange(min=1), help="Runs per batch.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
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
