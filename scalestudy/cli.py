"""The command line: ``scalestudy reproduce | run | status | merge | data | report``.  Only glue."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from functools import reduce
from pathlib import Path
from typing import Any

import click

from scalestudy import data as digits
from scalestudy import files
from scalestudy.models.systems import IMPORT_VARIABLE
from scalestudy.paper import notebooks
from scalestudy.paper.parameters import parse_changes, parse_seconds
from scalestudy.paper.study import Study
from scalestudy.paper.table import write_summary
from scalestudy.runs.batch import BatchReport, plan, run_all, scheduler_for
from scalestudy.runs.store import RunStore
from scalestudy.training.device import usable_cores
from scalestudy.training.spec import RunSpec


class _Group(click.Group):
    """Turns errors into one message: exit code 2 for bad input, 1 for what failed, 130 and 143 for signals."""

    def invoke(self, ctx: click.Context) -> Any:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("scalestudy.data").setLevel(logging.INFO)  # where MNIST came from
        signal.signal(signal.SIGTERM, _terminate)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *place: click.echo(f"Warning: {message}", err=True)
                return super().invoke(ctx)
        except (ValueError, RuntimeError, OSError) as error:
            if isinstance(error, (click.exceptions.Exit, click.Abort, BrokenPipeError)):
                raise  # click's own business
            if ctx.params.get("show_traceback"):
                click.echo(traceback.format_exc(), err=True)
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2 if isinstance(error, ValueError) else 1)
        except KeyboardInterrupt as interrupt:
            click.echo("Interrupted; finished runs are stored, the same command goes on from there.", err=True)
            ctx.exit(128 + (*interrupt.args, signal.SIGINT)[0])


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="scalestudy", message="%(package)s %(version)s")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show where an error comes from.")
def main(show_traceback: bool) -> None:
    """Reproduce "Scale Learning in Scale-Equivariant Convolutional Networks".

    Every finished training run is kept in results/runs (or SCALESTUDY_RUNS), and those under way about once a minute,
    so each command can be interrupted and called again.
    """


def _options(*options: Any) -> Any:
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


_STUDY = _options(
    click.option("--profile", default="quick", help="Sizes of the study: a file in params/."),
    click.option(
        "--import", metavar="MODULE", multiple=True, expose_value=False, is_eager=True,
        # kernels and processes that train inherit it
        callback=lambda context, option, given: given and os.environ.update({IMPORT_VARIABLE: " ".join(given)}),
        help="A module that registers systems of your own; repeatable.  [default: SCALESTUDY_IMPORT]",
    ),
    click.option(
        "-p", "--param", "changes", metavar="NAME=VALUE", multiple=True,
        callback=lambda context, option, given: parse_changes(given),
        help="Replace a parameter of the profile; repeatable.  Results then go to results/PROFILE-custom, or to "
        "results/OTHER with -p profile=OTHER.",
    ),
)  # fmt: skip
_EXECUTION = _options(
    click.option("--workers", type=click.IntRange(min=1), help="Training processes.  [default: one per core; GPU: 1]"),
    click.option(
        "--scheduler", metavar="ADDRESS",
        help="Train on a Dask cluster: tcp://host:port, or a scheduler file.  [default: SCALESTUDY_SCHEDULER, if set]",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to train."),
)  # fmt: skip


@main.command()
@_STUDY
@_EXECUTION
@click.option("--notebook", "names", multiple=True, metavar="NAME", help="Only this one, such as 04; repeatable.")
@click.option("--jobs", type=click.IntRange(min=1), help="Notebooks at a time.  [default: one per core]")
@click.option("--rerun", is_flag=True, help="Execute notebooks even where nothing that they follow from has changed.")
def reproduce(
    profile: str, changes: dict[str, Any], names: tuple[str, ...], jobs: int | None, rerun: bool, **execution: Any
) -> None:
    """Run the whole study: MNIST, the missing runs, every notebook, the report.

    Parameters and notebooks are checked before anything runs.  The executed notebooks go to
    results/PROFILE/notebooks.
    """
    study, chosen = Study.open(profile, changes), {"profile": profile, "changes": changes}
    selected, folder = notebooks.check(names, chosen), files.results(study.profile)
    files.probe(folder)
    digits.fetch_mnist()
    trained = _train(study.for_notebooks(path.stem for path in selected), **execution)
    runs, beyond = RunStore.open(), {spec.key for specs in study.with_beyond().beyond().values() for spec in specs}
    read = [runs.path(key) for key in [*(record.key for record in trained.done), *beyond]]
    inputs = None if rerun else [path for path in read if path.exists()]
    results = notebooks.execute(
        selected, chosen, folder / "notebooks", jobs=jobs or usable_cores(), inputs=inputs, on_result=_tell
    )
    report.callback(profile, changes)
    sys.exit(bool(trained.failed) or any(result.error for result in results))


@main.command()
@_STUDY
@_EXECUTION
@click.option("--filter", "text", help="Only runs whose table (table3) or label contains or matches this.")
@click.option(
    "--time-budget", metavar="TIME",
    callback=lambda context, option, given: None if given is None else parse_seconds(given),
    help="Such as 25m or 1h30m: start no run that would end later.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be run.")
def run(profile: str, changes: dict[str, Any], text: str | None, dry_run: bool, **execution: Any) -> None:
    """Train the runs that are missing, most wanted first."""
    study = Study.open(profile, changes)
    specs = study.select(text) if text else study.all_specs()
    if dry_run:
        frame = plan(specs, RunStore.open(), device=execution["device"])
        for row in frame.itertuples(index=False):
            begun = f" ({row.share_done:.0%} done)" if 0 < row.share_done < 1 else ""
            click.echo(f"{row.key}  {'stored' if row.stored else f'{row.seconds:5.0f} s':>7}  {row.label}{begun}")
        missing, minutes = (~frame["stored"]).sum(), frame["seconds"].sum() / 60
        click.echo(f"{missing} of {len(frame)} to train, about {minutes:.1f} minutes of one process")
        return
    if scheduler_for(execution["scheduler"], execution["workers"]) is None:  # a cluster's see to their own machines
        for images in {getattr(spec.data, "images", "mnist") for spec in specs}:
            digits.fetch_mnist(images)
    sys.exit(bool(_train(specs, **execution).failed))


@main.command()
@_STUDY
def status(profile: str, changes: dict[str, Any]) -> None:
    """Show which runs are stored or under way, what the others will cost, and damaged files."""
    study, runs = Study.open(profile, changes), RunStore.open()
    specs, beyond = study.all_specs(), study.beyond()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged records: told below
        click.echo(f"{len(runs.records())} records in {' and '.join(map(str, (runs.folder, *runs.also)))}")
        for name, group in {**study.groups(), "all": specs, **beyond}.items():
            frame = plan(group, runs)
            stored, minutes = frame["stored"].sum(), frame["seconds"].sum() / 60
            click.echo(f"{name:20} {stored:4d} of {len(frame):4d} stored, {minutes:8.1f} minutes of training left")
    labels = {spec.key: spec.label for group in [specs, *beyond.values()] for spec in group}
    for key, progress in runs.under_way().items():
        remark = "" if progress.is_of_this_code else " (kept by other code: it will start again)"
        label = labels.get(key, "not of this profile")
        click.echo(f"under way: {key}: {progress.epochs_done} of {progress.epochs} epochs, {label}{remark}")
    for name, reason in runs.damaged():
        click.echo(f"damaged: {name}: {reason}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def merge(folder: Path) -> None:
    """Copy the records in FOLDER, made elsewhere, into the run store."""
    runs = RunStore.open()
    merged = runs.merge(folder)
    write_summary(runs.records(), runs.folder / "summary.csv")
    click.echo(f"{len(merged['copied'])} copied to {runs.folder}, {len(merged['already'])} already there")
    for key in merged["conflict"]:
        click.echo(f"{key}: has other metrics there; ours is kept")
    for told in merged["damaged"]:
        click.echo(f"{told}; not used, left where it is", err=True)
    sys.exit(bool(merged["damaged"]))


@main.group()
def data() -> None:
    """Fetch or verify MNIST."""


_IMAGES = click.option("--images", type=click.Choice(["mnist", "fashion_mnist"]), default="mnist", show_default=True)


@data.command()
@_IMAGES
def fetch(images: str) -> None:
    """Make sure that MNIST is here, whole; or other images."""
    click.echo(f"{images} is complete in {digits.fetch_mnist(images)}")


@data.command()
@_IMAGES
def verify(images: str) -> None:
    """Check each file against its published hash; changes nothing."""
    found = digits.verify_mnist(images)
    for file in found:
        click.echo(f"{file.status:8} {file.name}  {file.path or ''}")
    sys.exit(any(file.status != "ok" for file in found))


@main.command()
@_STUDY
def report(profile: str, changes: dict[str, Any]) -> None:
    """Build the report of a profile from the executed notebooks and the run store."""
    from scalestudy.paper.report import build  # takes seconds

    index, comparison = build(profile, changes)
    click.echo(f"\n{comparison.text()}\n\nreport: {index}")


def _train(specs: list[RunSpec], **options: Any) -> BatchReport:
    runs = RunStore.open()
    trained = run_all(specs, runs, **options)
    if trained.done:
        write_summary(runs.records(), runs.folder / "summary.csv")
    for spec, text in trained.failed:
        click.echo(f"run {spec.key} failed ({spec.label}):\n{text.strip()}", err=True)
    click.echo(trained.text)
    return trained


def _tell(result: notebooks.NotebookResult) -> None:
    done = f"done ({result.seconds:.0f} s)" if result.executed else "unchanged"
    click.echo(f"{result.name}: {done if result.error is None else result.error}")


if __name__ == "__main__":
    main()
