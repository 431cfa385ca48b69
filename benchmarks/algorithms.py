"""Which algorithm a scale convolution should take: all three on layers of many shapes, beside what "auto" takes.

A step is the forward and the backward pass of one layer to its weights, scales and, but for lifting layers, its input,
as in the first and the later layers of a network.  The algorithms of a layer run in turn in one process.

    python benchmarks/algorithms.py --help
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from machine import machine_rates, software_and_processor
from torch import nn
from tqdm import tqdm

from scalestudy.layers.basis import HermiteBasis, VaryingOrderBasis, VaryingSigmaBasis
from scalestudy.layers.conv import GroupConv, LiftingConv
from scalestudy.layers.scales import StepRatioScales
from scalestudy.paper.show import to_markdown
from scalestudy.training.device import keep_freed_memory

ALGORITHMS = ("separable", "fourier", "dense")
SLOW_SECONDS = 4.0
"""An algorithm whose first step takes longer is not timed again."""

LARGEST_DENSE = 51
"""Pixels of the largest kernels that "dense" is timed with: beyond, a step may take a minute."""


@dataclass(frozen=True)
class Layer:
    """One layer with three learned scales.

    Attributes
    ----------
    kind : {"lifting", "group"}
    in_channels, out_channels : int
    size : int
        Height and width of the planes in pixels.
    sigma_basis, isr : float
    basis : {"A", "B"}
        Orders 0 .. 4 at one sigma (Table 1), or the one of Section 4.3 with 49 functions.
    batch : int
    """

    kind: str
    in_channels: int
    out_channels: int
    size: int
    sigma_basis: float
    isr: float
    basis: str = "A"
    batch: int = 4

    def build(self) -> LiftingConv | GroupConv:
        """The layer, with the same weights at each call."""
        torch.manual_seed(0)
        functions: HermiteBasis = VaryingOrderBasis(5) if self.basis == "A" else VaryingSigmaBasis(7)
        kind = LiftingConv if self.kind == "lifting" else GroupConv
        scales = StepRatioScales(self.sigma_basis, self.isr, 3)
        return kind(self.in_channels, self.out_channels, scales, basis=functions)

    def images(self) -> torch.Tensor:
        """A random input."""
        planes = () if self.kind == "lifting" else (3,)
        return torch.randn(self.batch, self.in_channels, *planes, self.size, self.size)


LAYERS = (
    Layer("lifting", 1, 16, 28, 0.5, 2.0, batch=16),
    Layer("lifting", 1, 16, 56, 0.7, 3.0, batch=16),
    Layer("lifting", 1, 16, 112, 0.75, 2.0),
    Layer("lifting", 1, 16, 112, 4.0, 3.8),
    Layer("lifting", 1, 16, 168, 2.0, 1.5),
    Layer("lifting", 1, 16, 168, 2.0, 3.0),
    Layer("lifting", 1, 16, 256, 0.5, 2.0, batch=2),
    Layer("lifting", 1, 16, 256, 4.0, 3.8, batch=2),
    Layer("lifting", 1, 16, 512, 0.5, 2.0, batch=1),
    Layer("lifting", 1, 16, 512, 1.5, 2.0, batch=1),
    Layer("lifting", 3, 32, 32, 0.5, 2.0, batch=16),
    Layer("lifting", 3, 32, 96, 1.5, 3.0),
    Layer("lifting", 1, 32, 56, 1.0, 3.0, "B", batch=16),
    Layer("group", 4, 4, 84, 1.5, 3.0),
    Layer("group", 16, 16, 32, 0.5, 2.0, batch=16),
    Layer("group", 16, 16, 84, 1.5, 3.0),
    Layer("group", 16, 16, 128, 0.3, 2.0, batch=1),
    Layer("group", 32, 63, 28, 1.0, 3.0, "B", batch=16),
    Layer("group", 63, 95, 14, 1.0, 3.0, "B", batch=16),
    Layer("group", 64, 64, 28, 0.5, 2.0, batch=8),
    Layer("group", 64, 64, 28, 4.0, 3.8, batch=8),
)
"""Those of the study's networks, and some between and beyond: planes of 14 to 512 pixels, kernels of 7 to 123."""


def step_seconds(layer: nn.Module, images: torch.Tensor) -> float:
    """Wall-clock time of one forward and backward pass."""
    layer.zero_grad(set_to_none=True)
    began = time.perf_counter()
    layer(images).sum().backward()
    return time.perf_counter() - began


def measure(case: Layer, rounds: int) -> dict[str, Any]:
    """Milliseconds per image of a step by algorithm: medians of rounds in turn, after one that does not count."""
    layer = case.build()
    images = case.images().requires_grad_(case.kind == "group")
    chosen = layer.chosen_algorithm(case.size, case.size)
    names = [name for name in ALGORITHMS if name != "dense" or layer.kernel_size() <= LARGEST_DENSE]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, values in times.items():
            if turn > 1 and values[0] * case.batch > 1000 * SLOW_SECONDS:
                continue
            layer.algorithm = name
            milliseconds = 1000 * step_seconds(layer, images) / case.batch
            if turn > 0:
                values.append(milliseconds)
    medians = {f"{name}_ms": float(f"{statistics.median(values):.4g}") for name, values in times.items()}
    fastest = min(names, key=lambda name: medians[f"{name}_ms"])
    regret = float(f"{medians[f'{chosen}_ms'] / medians[f'{fastest}_ms']:.4g}")
    return (
        asdict(case)
        | medians
        | {"kernel": layer.kernel_size(), "auto": chosen, "fastest": fastest, "auto_over_fastest": regret}
    )


def page(machine: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    frame = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "layer": [f"{kind} {i} -> {o}" for kind, i, o in frame[["kind", "in_channels", "out_channels"]].values],
            "planes": frame["size"].map("{0} x {0}".format),
            "smallest sigma (pixels)": frame["sigma_basis"].map("{:g}".format),
            "kernel (pixels)": frame["kernel"],
            "ISR": frame["isr"].map("{:g}".format),
            "basis": frame["basis"],
            **{name: frame[f"{name}_ms"].map("{:.3g}".format).replace("nan", "-") for name in ALGORITHMS},
            "auto takes": frame["auto"],
            "over the fastest": frame["auto_over_fastest"].map("{:.2f}".format),
        }
    )
    about = (
        "Milliseconds per image of a forward and backward pass of one layer with three learned scales, medians, "
        f"{machine['threads']} threads, torch {machine['torch']}, {machine['gigaflops']:.0f} Gflop/s in matrix "
        'products. Basis A: 25 functions at one sigma; B: 49 at several. "auto" counts multiplications '
        '(`scalestudy.layers.algorithms`); the last column is its time over that of the fastest. "-": not timed, as '
        "dense kernels of this size may take a minute."
    )
    return "\n".join(["# Choice of the algorithm", "", about, "", to_markdown(shown)])


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmarks/algorithms.json"))
def main(rounds: int, threads: int, output: Path) -> None:
    """Time the algorithms of the scale convolution on layers of many shapes."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    machine = software_and_processor() | machine_rates()
    rows = [measure(case, rounds) for case in tqdm(LAYERS, unit="layer", disable=None)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    text = page(machine, rows)
    output.with_suffix(".md").write_text(text)
    click.echo(text)
    click.echo(f"Written to {output} and, as a page, {output.with_suffix('.md').name}")


if __name__ == "__main__":
    main()
