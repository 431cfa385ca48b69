"""What a training step of each system of Table 5 costs on one CPU thread: ours beside its authors' algorithm.

Both are timed in one process, in turn, on the same images: forward pass, cross-entropy, backward pass.  "Authors'
algorithm" is our own implementation of the steps of the released code (see `released`), which `tests` hold equal to
ours; CNN and DSS take those steps themselves.  Times of the authors' own programs, taken on another machine, stand
beside them.

    python benchmarks/training_cost.py --help
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import click
import torch
from machine import machine_rates, software_and_processor, step_seconds
from released import as_released
from tqdm import tqdm

from scalestudy.models import SYSTEMS, build
from scalestudy.training.device import keep_freed_memory

AUTHORS_MS = {
    "cnn": (5, 5), "sicnn": (915, 915), "si_convnet": (49, 49), "sevf": (90, 90), "sevf_scalar": (71, 71),
    "dss": (11, 11), "ss_cnn": (132, 132), "sesn": (189, 189), "disco": (185, 185), "ours_isr": (575, 715),
    "ours_spacings": (575, 715), "ours_direct": (575, 715),
}  # fmt: skip
"""Milliseconds per image of a training step of the released programs, one thread of another CPU: (least, most)."""


def measure(name: str, batch: int, repeats: int, released: bool) -> dict[str, float | str | int]:
    """Medians and spread of interleaved steps, in milliseconds per image."""
    torch.manual_seed(0)
    nets = {"ours": build(name)}
    if released:
        torch.manual_seed(0)
        nets["released"] = as_released(build(name))
    images, labels = torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))
    times: dict[str, list[float]] = {kind: [] for kind in nets}
    for repeat in range(repeats + 1):
        for kind, net in nets.items():
            seconds = step_seconds(net, images, labels)
            if repeat > 0:  # the first step makes plans and fills caches
                times[kind].append(1000 * seconds / batch)
    row: dict[str, float | str | int] = {"system": name, "batch": batch}
    for kind, values in times.items():
        row |= {f"{kind}_ms": statistics.median(values), f"{kind}_least": min(values), f"{kind}_most": max(values)}
    return row


HEADINGS = ("system", "batch", "ours", "authors' algorithm", "ratio", "authors' program, elsewhere")
WIDTHS = (62, 5, 8, 18, 6, 27)


def cells(row: dict) -> tuple[str, ...]:
    """One row for people, in the columns of `HEADINGS`."""
    low, high = AUTHORS_MS.get(row["system"], (None, None))
    authors = "-" if low is None else f"{low}" if low == high else f"{low} to {high}"
    released = row.get("released_ms")
    texts = ("-", "-") if released is None else (f"{released:.1f}", f"{released / row['ours_ms']:.1f}")
    return (SYSTEMS[row["system"]].title, str(row["batch"]), f"{row['ours_ms']:.1f}", *texts, authors)


def aligned(texts: tuple[str, ...]) -> str:
    """A line for a terminal."""
    return texts[0].ljust(WIDTHS[0]) + "".join(
        text.rjust(width + 1) for text, width in zip(texts[1:], WIDTHS[1:], strict=True)
    )


def markdown(rows: list[dict], rates: dict[str, float]) -> str:
    """The table as a page."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *(cells(row) for row in rows)]
    about = (
        "Milliseconds per image of a training step (forward and backward) on one CPU thread, medians; one process, in "
        f"turn. This thread multiplies matrices at {rates['gigaflops']:.0f} Gflop/s and copies "
        f"{rates['copied_gigabytes_per_second']:.1f} GB/s."
    )
    return "\n".join([about, "", *("| " + " | ".join(line) + " |" for line in lines), ""])


@click.command()
@click.option("--system", "systems", multiple=True, type=click.Choice(list(SYSTEMS)), help="Default: all.")
@click.option("--batch", "batches", multiple=True, type=int, default=(16, 128), show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Steps of each algorithm, after one that does not count.")
@click.option(
    "--released-up-to", default=16, show_default=True, help="Largest batch at which the authors' algorithm runs, too."
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmarks/training_cost.json"))
def main(systems: tuple[str, ...], batches: tuple[int, ...], repeats: int, released_up_to: int, output: Path) -> None:
    """Time a training step of the systems of Table 5 on one CPU thread."""
    keep_freed_memory()
    torch.set_num_threads(1)
    rates = machine_rates()
    click.echo(f"One thread: {rates['gigaflops']:.0f} Gflop/s, {rates['copied_gigabytes_per_second']:.1f} GB/s copied")
    click.echo(aligned(HEADINGS))
    rows = []
    wanted = [(name, batch) for name in systems or SYSTEMS for batch in batches]
    for name, batch in tqdm(wanted, unit="case", disable=None):
        rows.append(measure(name, batch, repeats, released=batch <= released_up_to))
        tqdm.write(aligned(cells(rows[-1])))
    output.parent.mkdir(parents=True, exist_ok=True)
    made = software_and_processor() | {"repeats": repeats}
    output.write_text(json.dumps({"machine": made | rates, "rows": rows}, indent=1) + "\n")
    output.with_suffix(".md").write_text(markdown(rows, rates))
    click.echo(f"Milliseconds per image; written to {output} and, as a page, {output.with_suffix('.md').name}")


if __name__ == "__main__":
    main()
