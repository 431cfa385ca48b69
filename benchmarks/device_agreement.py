"""Does a GPU train what the CPU trains?  The same steps on both, and the CPU's in float64 as the measure.

Training enlarges rounding errors: after some tens of steps two correct programs have different losses.  So the steps
of one run in float64 are followed, and now and then the network as it is there computes one step in float32, on the
CPU and on the device: logits, loss and gradients.  What the CPU is away from float64 tells how far rounding alone
leads; the median of the device may be at most `ALLOWED` times as far.  (The median, because where two responses are
nearly equal, rounding decides which is the maximum, and a whole gradient moves.)

Networks, images and learning rates are those of the paper.  Dropout is off: every device draws its own.

    python benchmarks/device_agreement.py --help
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from machine import software_and_processor
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from scalestudy.data.distributions import LogUniform
from scalestudy.models import SYSTEMS
from scalestudy.paper.show import to_markdown
from scalestudy.training.device import device_name, keep_freed_memory, repeatable_products
from scalestudy.training.spec import DataSpec, MnistScaleSpec, RunSpec, ScalesSpec, TrainingSpec
from scalestudy.training.tasks import build_model, internal_scales, task_of
from scalestudy.training.train import learning_rates, make_optimiser, set_learning_rates, train_step

QUANTITIES = ("logits", "loss", "gradients", "scale gradients")

ALLOWED = 5.0
"""Our choice: rounding errors of correct programs are of one size; TF32 or a wrong kernel is far beyond."""

FLOOR = 1e-6
"""Relative difference that is always allowed: a few roundings of float32."""

ALLOWED_PIXELS = 1e-3
"""Share of pixels that may differ by a grey level: resampling in float32 falls on the other side of a whole number."""

CPU = torch.device("cpu")
PAPER_STEPS_PER_EPOCH = 79


def spec_of(case: str, steps: int, batch: int, precision: str) -> RunSpec:
    """A run whose first epoch has this many steps; the images are of the paper's size."""
    counts = {"train_images": steps * batch, "validation_images": 1, "test_images": 1}
    if case == "table1":
        dataset, scales = "dynamic_scale_mnist", ScalesSpec(parameterisation="step_ratio")
        data: DataSpec | MnistScaleSpec = DataSpec(distribution=LogUniform(low=1, high=8), **counts)
    else:
        dataset, scales = "mnist_scale", None
        data = MnistScaleSpec(equivariance_images=0, **counts)
    training = TrainingSpec.paper_shaped(batch_size=batch, dataset=dataset)
    return RunSpec(model=case, scales=scales, precision=precision, data=data, training=training)


def network(spec: RunSpec, device: torch.device) -> nn.Module:
    """The network of a run at its beginning, without dropout."""
    net = build_model(spec).to(device)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def one_step(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Logits in evaluation mode, and loss and gradients in training mode, as float64 vectors on the CPU."""
    with torch.no_grad():
        logits = net.eval()(images)
    net.train().zero_grad()
    loss = functional.cross_entropy(net(images), labels)
    loss.backward()
    scales = internal_scales(net)
    of_scales = set() if scales is None else {id(parameter) for parameter in scales.parameters()}
    found: dict[str, list[Tensor]] = {
        "logits": [logits],
        "loss": [loss.detach()],
        "gradients": [],
        "scale gradients": [],
    }
    for parameter in net.parameters():
        if parameter.grad is not None:
            found["scale gradients" if id(parameter) in of_scales else "gradients"].append(parameter.grad)
    return {
        name: torch.cat([part.flatten().double().cpu() for part in parts]) for name, parts in found.items() if parts
    }


def compare(case: str, device: torch.device, steps: int, batch: int, probes: int) -> dict[str, Any]:
    """Follow a run in float64 and look at `probes` of its steps in float32; the row of the table.

    Differences are relative: the largest one over the largest logit, and the norm of the others over their norm.
    """
    exact_spec, spec = (spec_of(case, steps, batch, precision) for precision in ("float64", "float32"))
    places = {"cpu": CPU, "device": device}
    far: dict[str, dict[str, list[float]]] = {name: {} for name in places}
    with repeatable_products("float32"):
        exact, task = network(exact_spec, CPU), task_of(exact_spec, CPU)
        nets = {name: network(spec, place) for name, place in places.items()}
        made_there = task_of(spec, device).training_batches(batch)
        optimiser, pixels = make_optimiser(exact), []
        looked_at = {round(index * (steps - 1) / (probes - 1)) for index in range(probes)}
        for step, (images, labels) in enumerate(task.training_batches(batch)):
            pixels.append(_changed_pixels(images, next(made_there)[0]))
            if step in looked_at:
                for net in nets.values():
                    net.load_state_dict(exact.state_dict())
                true = one_step(exact, images, labels)
                for name, net in nets.items():
                    found = one_step(net, images.to(places[name], torch.float32), labels.to(places[name]))
                    for quantity, value in found.items():
                        far[name].setdefault(quantity, []).append(_relative(value, true[quantity], quantity))
            exact.train()
            set_learning_rates(optimiser, learning_rates(spec.training, step, PAPER_STEPS_PER_EPOCH), task.shrink)
            train_step(exact, optimiser, images, labels)
    row: dict[str, Any] = {"case": case, "steps": steps, "batch": batch, "probes": probes}
    row["pixels"] = max(pixels)
    for name in places:
        row[name] = {quantity: statistics.median(values) for quantity, values in far[name].items()}
    row["ratio"] = {
        quantity: row["device"][quantity] / max(row["cpu"][quantity], FLOOR / ALLOWED) for quantity in row["cpu"]
    }
    # NaN agrees with nothing
    row["free_run"] = {name: free_run(case, place, steps, batch) for name, place in places.items()}
    row["agrees"] = row["pixels"] <= ALLOWED_PIXELS and all(ratio <= ALLOWED for ratio in row["ratio"].values())
    return row


def free_run(case: str, device: torch.device, steps: int, batch: int) -> dict[str, float]:
    """Train on a device as a run does: mean loss of the second half of the steps, and milliseconds per step of it."""
    spec, losses = spec_of(case, steps, batch, "float32"), []
    with repeatable_products("float32"):
        task, net = task_of(spec, device), network(spec, device).train()
        optimiser = make_optimiser(net)
        for step, (images, labels) in enumerate(task.training_batches(batch)):
            if step == steps // 2:
                losses[-1].item()  # waits for a GPU
                began = time.perf_counter()
            set_learning_rates(optimiser, learning_rates(spec.training, step, PAPER_STEPS_PER_EPOCH), task.shrink)
            losses.append(train_step(net, optimiser, images, labels))
        second_half = losses[steps // 2 :]
        loss = torch.stack(second_half).mean().item()
    return {"loss": loss, "ms_per_step": 1000 * (time.perf_counter() - began) / len(second_half)}


def _changed_pixels(images: Tensor, there: Tensor) -> float:
    """Share of pixels that differ by more than rounding; a grey level is 1/255 over a standard deviation below 1."""
    return ((images - there.double().cpu()).abs() > 0.5 / 255).double().mean().item()


def _relative(value: Tensor, true: Tensor, quantity: str) -> float:
    order = float("inf") if quantity == "logits" else 2
    norm = torch.linalg.vector_norm
    return (norm(value - true, order) / norm(true, order)).item()


def page(machine: dict[str, Any], device: str, rows: list[dict[str, Any]]) -> str:
    """The table for people; "-" where a network learns no scales."""
    titles = {"table1": "Table 1"} | {name: system.title for name, system in SYSTEMS.items()}
    shown = pd.DataFrame({"network": [titles[row["case"]] for row in rows]})
    for quantity in QUANTITIES:
        shown[quantity] = [
            f"{row['cpu'][quantity]:.1e}; {row['device'][quantity]:.1e}" if quantity in row["cpu"] else "-"
            for row in rows
        ]
    shown["worst ratio"] = [f"{max(row['ratio'].values()):.1f}" for row in rows]
    shown["pixels"] = [f"{row['pixels']:.1e}" for row in rows]
    for name, title, form in (("loss", "loss by itself", ".3f"), ("ms_per_step", "ms per step", ".1f")):
        pairs = [[row["free_run"][place][name] for place in ("cpu", "device")] for row in rows]
        shown[title] = ["; ".join(f"{value:{form}}" for value in pair) for pair in pairs]
    shown["agrees"] = ["yes" if row["agrees"] else "**no**" for row in rows]
    first = rows[0]
    about = (
        f"One step in float32 on the CPU and on the device ({device}), each pair as CPU; device: how far logits, loss "
        f"and gradients are from float64, relatively, medians of {first['probes']} steps among the first "
        f"{first['steps']} of a run in float64. The device agrees where it is at most {ALLOWED:.0f} times as far as "
        f"the CPU, or {FLOOR:.0e}, and at most {ALLOWED_PIXELS:.0e} of the pixels of its own batches differ by a grey "
        "level. Loss by itself: mean of the second half of the steps where each trains alone; that need not be equal. "
        f"Batches of {first['batch']}, dropout off, the paper's images. torch {machine['torch']}, "
        f"{machine['threads']} CPU threads."
    )
    return "\n".join(["# Agreement of devices", "", about, "", to_markdown(shown)])


@click.command()
@click.option("--device", default="cuda", show_default=True, help="What to compare with the CPU.")
@click.option(
    "--case",
    "cases",
    multiple=True,
    default=["table1", "cnn", "sesn", "ours_isr"],
    show_default=True,
    type=click.Choice(["table1", *SYSTEMS]),
)
@click.option("--steps", default=100, show_default=True, type=click.IntRange(min=2))
@click.option("--batch", default=16, show_default=True, type=click.IntRange(min=2), help="Images per step.")
@click.option("--probes", default=10, show_default=True, type=click.IntRange(min=2), help="Steps that are compared.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmarks/device_agreement.json"))
def main(device: str, cases: tuple[str, ...], steps: int, batch: int, probes: int, output: Path) -> None:
    """Compare training steps on a device with the CPU's; exit code 1 where they do not agree."""
    if steps * batch > 10_000 or probes > steps:
        raise click.UsageError(
            "steps x batch must be at most 10,000 (the training images) and probes at most steps, "
            f"got {steps} x {batch} and {probes}"
        )
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            "device 'cuda' needs a GPU, and torch finds none; --device cpu tries the comparison itself"
        )
    keep_freed_memory()
    rows = [compare(case, place, steps, batch, probes) for case in tqdm(cases, unit="network", disable=None)]
    machine = software_and_processor()
    output.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine, "device": device_name(place), "allowed": ALLOWED, "rows": rows}
    output.write_text(json.dumps(written, indent=1) + "\n")
    text = page(machine, device_name(place), rows)
    output.with_suffix(".md").write_text(text)
    click.echo(text)
    click.echo(f"Written to {output} and, as a page, {output.with_suffix('.md').name}")
    if not all(row["agrees"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
