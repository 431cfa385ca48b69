"""What the scale convolution of the Table 1 network costs on a CPU: ours beside FFT and dense convolution.

"Dense" is the algorithm of the released code: K x K kernels, padded to the largest scale, convolved scale by scale.
"FFT" correlates with the same kernels by products of spectra: what a user in need of speed would write.
All cases of a sweep are timed in one process, in turn, forwards and backwards by rounds, on the same images: a training
step (forward pass, cross-entropy, backward pass) and a forward pass without gradients.  Ratios are taken within a
round.  The rates of matrix products and copies that the threads reach in the same process stand beside the times.

    python benchmarks/scale_convolution.py --help
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import peak_memory
import torch
from cases import MEMORY, SWEEPS, Case, Phase, moved_bytes, multiplications
from cost_tables import CASE_COLUMNS, TITLES, about, tables
from machine import evaluation_seconds, machine_rates, software_and_processor, step_seconds
from tqdm import tqdm

from scalestudy.paper.show import to_markdown
from scalestudy.training.device import keep_freed_memory

Times = dict[tuple[Case, Phase], list[float]]
"""Milliseconds per image, one per round."""


def measure(cases: Sequence[Case], progress: tqdm) -> Times:
    """Time all cases in turn, after a round that does not count; every second round runs in the opposite order."""
    work = [(case, case.network().train(), *case.images_and_labels()) for case in cases]
    times: Times = {(case, phase): [] for case in cases for phase in case.phases}
    for turn in range(max(case.rounds for case in cases) + 1):
        for case, net, images, labels in work if turn % 2 else work[::-1]:
            warming = turn == 0
            if turn > case.rounds or (warming and case.rounds == 1):
                continue
            for phase in case.phases:
                seconds = step_seconds(net, images, labels) if phase == "step" else evaluation_seconds(net, images)
                if not warming:
                    times[case, phase].append(1000 * seconds / case.batch)
            progress.update()
    return times


def described(case: Case) -> dict[str, Any]:
    """The case as columns."""
    return {name: value for name, value in asdict(case).items() if name in CASE_COLUMNS}


def rows(sweep: str, times: Times, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Medians and spread, with the operations that were needed and the time they would take at the measured rates."""
    for (case, phase), values in times.items():
        net = case.network()
        needed, moved = multiplications(case, net, phase), moved_bytes(case, net, phase)
        median = statistics.median(values)
        products_ms = 2 * needed / rates["gigaflops"] / 1e6
        traffic_ms = moved / (2 * rates["copied_gigabytes_per_second"]) / 1e6  # a copied byte is read and written
        yield {
            "sweep": sweep, **described(case), "phase": phase, "median_ms": _short(median),
            "least_ms": _short(min(values)), "most_ms": _short(max(values)), "rounds": len(values),
            "kernel_size": net.conv.kernel_size(), "multiplications": needed,
            "share_of_products": _short(products_ms / median), "floor_ms": _short(max(products_ms, traffic_ms)),
        }  # fmt: skip


def ratios(sweep: str, times: Times) -> Iterator[dict[str, Any]]:
    """Ratios within a round: learned over fixed scales, the others over ours, and the ends of the sweep."""
    for (case, phase), values in times.items():
        for name, other in _partners(sweep, case, [one for one, _ in times]):
            below = times.get((other, phase))
            if below:
                found = [a / b for a, b in zip(values, below, strict=False)]
                yield {
                    "sweep": sweep, "ratio": name, **described(case), "phase": phase,
                    "median": _short(statistics.median(found)), "least": _short(min(found)), "most": _short(max(found)),
                    "rounds": len(found),
                }  # fmt: skip


def _partners(sweep: str, case: Case, cases: Sequence[Case]) -> Iterator[tuple[str, Case]]:
    """What a case is compared with: names and denominators."""
    if case.parameterisation == "learned":
        yield "learned / fixed", replace(case, parameterisation="fixed")
    if case.algorithm != "ours":
        yield f"{case.algorithm} / ours", replace(case, algorithm="ours")
    if sweep in CASE_COLUMNS:
        values = {getattr(one, sweep) for one in cases if replace(one, **{sweep: getattr(case, sweep)}) == case}
        if len(values) > 1 and getattr(case, sweep) == max(values):
            yield f"{sweep} {max(values):g} / {min(values):g}", replace(case, **{sweep: min(values)})


def memory(cases: Sequence[Case], threads: int) -> Iterator[dict[str, Any]]:
    """Peak memory of a training step of each case, beside the size of the responses at all scales."""
    for case in cases:
        responses = 4 * case.batch * case.network().conv.out_channels * case.num_scales * case.image_size**2 / 2**20
        added = peak_memory.measure(case, threads)
        yield described(case) | {"mebibytes": _short(added), "response_mebibytes": _short(responses)}


def page(content: dict[str, Any]) -> str:
    """The measurements for people."""
    parts = [
        "# What the scale convolution costs",
        "Table 1 network on random images, sigma_basis 2 pixels, milliseconds per image: median (least to most). A "
        "step is forward pass, cross-entropy and backward pass; evaluation is a forward pass. \"dense\" is the "
        "algorithm of the released code, \"fft\" takes its kernels through products of spectra. Cases of one table ran "
        "in turn in one process; \"once\": so slow that one step was timed, without a warm-up. " + content["about"],
        "Multiplications are those that the algorithm needs in the scale convolution, per image; a step needs twice "
        "those of a forward pass. The floor is the time that they would take at the measured rate of matrix products, "
        "or that of the planes which the layers hand on at the measured rate of copies, whichever is longer. \"-\": "
        "not measured.",
    ]  # fmt: skip
    notes = {
        "ratios": "Of training steps, per image, within a round: what drifts in the machine cancels.",
        "memory": "What one training step adds to the resident memory of a fresh process at its peak.",
    }
    for name, table in tables(content).items():
        heading = f"## {TITLES.get(name, name.capitalize())}"
        parts += [part for part in (heading, notes.get(name), to_markdown(table).strip()) if part]
    return "\n\n".join(parts) + "\n"


def write(content: dict[str, Any], output: Path) -> None:
    """The measurements as ``output``, a page beside it, and a folder of the page's tables."""
    folder = output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1) + "\n")
    output.with_suffix(".md").write_text(page(content))
    for name, table in tables(content).items():
        table.to_csv(folder / f"{name}.csv", index=False)


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def _chosen(sweep: str, rounds: int | None, skip_slow: bool) -> tuple[Case, ...]:
    cases = [case for case in SWEEPS[sweep] if not (skip_slow and case.rounds == 1)]
    return tuple(replace(case, rounds=min(case.rounds, rounds or case.rounds)) for case in cases)


@click.command()
@click.option("--sweep", "sweeps", multiple=True, type=click.Choice(list(SWEEPS)), help="Default: all.")
@click.option("--rounds", type=click.IntRange(min=2), help="At most so many rounds of each case; default: 2 to 7.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--skip-slow", is_flag=True, help="Leave out dense convolution at large ISRs, about a minute.")
@click.option("--skip-memory", is_flag=True, help="Leave out the memory, which needs Linux.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results/benchmarks/scale_convolution.json"),
    show_default=True,
)
def main(
    sweeps: tuple[str, ...], rounds: int | None, threads: int, skip_slow: bool, skip_memory: bool, output: Path
) -> None:
    """Time the scale convolution of the Table 1 network, ours, by FFT and dense, and measure its memory."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    rates = machine_rates()
    chosen = {sweep: _chosen(sweep, rounds, skip_slow) for sweep in sweeps or SWEEPS}
    machine = software_and_processor() | rates
    content: dict[str, Any] = {"about": about(machine), "machine": machine, "rows": [], "ratios": [], "memory": []}
    total = sum(case.rounds + (case.rounds > 1) for cases in chosen.values() for case in cases)
    with tqdm(total=total, unit="case", disable=None) as progress:
        for sweep, cases in chosen.items():
            times = measure(cases, progress)
            content["rows"] += rows(sweep, times, rates)
            content["ratios"] += ratios(sweep, times)
    if not skip_memory and peak_memory.is_measurable():
        content["memory"] += memory(MEMORY, threads)
    write(content, output)
    click.echo(page(content))
    click.echo(f"Written to {output} and, as a page, {output.with_suffix('.md').name}")


if __name__ == "__main__":
    main()
