"""The command line: ``scalestudy reproduce | run | status | merge | data | report``.

Only glue: what a command does is imported when it is called, which keeps ``scalestudy --help`` quick.
"""

from __future__ import annotations

import logging
import signal
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scalestudy.paper.study import Study
    from scalestudy.runs.batch import BatchReport
    from scalestudy.runs.store import RunStore
    from scalestudy.training.spec import RunSpec

_INTERRUPTED = "Interrupted; finished runs are stored, the same command goes on from there."
_TERMINATED = 128 + signal.SIGTERM


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


_ECHO = _Echo()


class _Group(click.Group):
    """Turns errors into one message: exit code 2 for bad input, 1 for what failed; SIGTERM into an end with 143."""

    def invoke(self, ctx: click.Context) -> Any:
        logging.getLogger("scalestudy").addHandler(_ECHO)
        logging.getLogger("scalestudy.data").setLevel(logging.INFO)  # where MNIST came from
        before = signal.signal(signal.SIGTERM, _leave)
        try:
            return super().invoke(ctx)
        except (ValueError, RuntimeError, OSError) as error:
            if isinstance(error, (click.exceptions.Exit, click.Abort, BrokenPipeError)):
                raise  # click's own business
            if ctx.params.get("show_traceback"):
                click.echo(traceback.format_exc(), err=True)
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2 if isinstance(error, ValueError) else 1)
        except KeyboardInterrupt:
            click.echo(_INTERRUPTED, err=True)
            ctx.exit(130)
        except SystemExit as leaving:
            if leaving.code == _TERMINATED:
                click.echo(_INTERRUPTED, err=True)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(_TERMINATED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="scalestudy", message="%(package)s %(version)s")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show where an error comes from.")
def main(show_traceback: bool) -> None:
    """Reproduce "Scale Learning in Scale-Equivariant Convolutional Networks".

    Every finished training run is kept in results/runs (or SCALESTUDY_RUNS), and those under way about once a minute,
    so each command can be interrupted and called again.
    """


def _options(*options: Any) -> Any:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_STUDY = _options(
    click.option("--profile", default="quick", help="Sizes of the study: a file in params/."),
    click.option(
        "-p", "--param", "changes", multiple=True, metavar="NAME=VALUE",
        help="Replace a parameter of the profile; repeatable.  Results then go to results/PROFILE-custom, "
        "or to results/OTHER with -p profile=OTHER.",
    ),
)  # fmt: skip
_EXECUTION = _options(
    click.option(
        "--workers", type=click.IntRange(min=0),
        help="Training processes; spread over the GPUs if there are any.  [default: one per core; GPU: 1]",
    ),
    click.option(
        "--scheduler", metavar="ADDRESS",
        help="Train on a Dask cluster instead: tcp://host:port, or a scheduler file.  "
        "[default: SCALESTUDY_SCHEDULER, if set]",
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
    profile: str, changes: tuple[str, ...], names: tuple[str, ...], jobs: int | None, rerun: bool, **execution: Any
) -> None:
    """Run the whole study: MNIST, the missing runs, every notebook, the report.

    Parameters and notebooks are checked before anything runs.  The executed notebooks go to
    results/PROFILE/notebooks.
    """
    study = _study(profile, changes)
    from scalestudy import files
    from scalestudy.paper import notebooks
    from scalestudy.paper.study import parse_changes
    from scalestudy.training.device import usable_cores

    parameters = {"profile": profile, "changes": parse_changes(changes)}
    selected = notebooks.check(names, parameters)
    files.probe(files.results(study.profile))
    _fetch()
    report = _train(study.for_notebooks(path.stem for path in selected), **execution)
    store = _store()
    results = notebooks.execute(
        selected,
        parameters,
        files.results(study.profile) / "notebooks",
        jobs=jobs or usable_cores(),
        inputs=None if rerun else [store.path(record.key) for record in report.done],
        on_result=_tell,
    )
    _report(parameters)
    if report.failed or any(result.error for result in results):
        raise click.exceptions.Exit(1)


@main.command()
@_STUDY
@_EXECUTION
@click.option(
    "--filter", "text", metavar="TEXT", help="Only runs whose table (table3) or label contains or matches this."
)
@click.option("--time-budget", metavar="TIME", help="Such as 25m or 1h30m: start no run that would end later.")
@click.option("--dry-run", is_flag=True, help="Show what would be run.")
def run(
    profile: str,
    changes: tuple[str, ...],
    text: str | None,
    time_budget: str | None,
    dry_run: bool,
    **execution: Any,
) -> None:
    """Train the runs that are missing, most wanted first."""
    study = _study(profile, changes)
    from scalestudy.paper.study import parse_seconds
    from scalestudy.runs.batch import scheduler_for

    budget = None if time_budget is None else parse_seconds(time_budget)
    specs = study.select(text) if text else study.all_specs()
    if dry_run:
        _show_plan(specs, execution["device"])
        return
    if scheduler_for(execution["scheduler"], execution["workers"]) is None:  # a cluster's see to their own machines
        _fetch()
    if _train(specs, time_budget=budget, **execution).failed:
        raise click.exceptions.Exit(1)


@main.command()
@_STUDY
def status(profile: str, changes: tuple[str, ...]) -> None:
    """Show which runs are stored or under way, what the others will cost, and damaged files."""
    study = _study(profile, changes)
    from scalestudy.runs.batch import plan

    store, specs = _store(), study.all_specs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged records: told below
        click.echo(f"{len(store.records())} records in {store.folder}")
        for name, group in {**study.groups(), "all": specs}.items():
            frame = plan(group, store)
            left = frame.loc[~frame["stored"], "seconds"].sum() / 60
            click.echo(
                f"{name:15} {frame['stored'].sum():4d} of {len(frame):4d} stored, {left:8.1f} minutes of training left"
            )
    labels = {spec.key: spec.label for spec in specs}
    for key, run in store.under_way().items():
        remark = "" if run.is_of_this_code else " (kept by other code: it will start again)"
        label = labels.get(key, "not of this profile")
        click.echo(f"under way: {key}: {run.epochs_done} of {run.epochs} epochs, {label}{remark}")
    for problem in store.damaged():
        click.echo(f"damaged: {problem.name}: {problem.reason}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def merge(folder: Path) -> None:
    """Copy the records in FOLDER, made elsewhere, into the run store."""
    store = _store()
    report = store.merge(folder)
    _write_summary(store)
    click.echo(f"{len(report.copied)} copied to {store.folder}, {len(report.already)} already there")
    for key in report.conflicts:
        click.echo(f"{key}: has other metrics there; ours is kept")
    for problem in report.damaged:
        click.echo(str(problem), err=True)
    if report.damaged:
        raise click.exceptions.Exit(1)


@main.group()
def data() -> None:
    """Fetch or verify MNIST."""


@data.command()
def fetch() -> None:
    """Make sure that MNIST is here, whole."""
    click.echo(f"MNIST is complete in {_fetch()}")


@data.command()
def verify() -> None:
    """Check each file of MNIST against its published hash; changes nothing."""
    from scalestudy.data import verify_mnist

    reports = verify_mnist()
    for report in reports:
        click.echo(f"{report.status:8} {report.name}  {report.path or ''}")
    if any(report.status != "ok" for report in reports):
        raise click.exceptions.Exit(1)


@main.command()
@_STUDY
def report(profile: str, changes: tuple[str, ...]) -> None:
    """Build the report of a profile from the executed notebooks and the run store."""
    from scalestudy.paper.study import parse_changes

    _report({"profile": profile, "changes": parse_changes(changes)})


def _study(profile: str, changes: tuple[str, ...]) -> Study:
    from scalestudy.paper.study import Study

    return Study.open(profile, changes)


def _store() -> RunStore:
    from scalestudy import files
    from scalestudy.runs.store import RunStore

    return RunStore(files.runs())


def _fetch() -> Path:
    from scalestudy.data import fetch_mnist

    return fetch_mnist()


def _train(specs: list[RunSpec], **execution: Any) -> BatchReport:
    from scalestudy.runs.batch import run_all

    store = _store()
    report = run_all(specs, store, **execution)
    if report.done:
        _write_summary(store)
    for spec, text in report.failed:
        click.echo(f"run {spec.key} failed ({spec.label}):\n{text.strip()}", err=True)
    click.echo(report.text)
    return report


def _write_summary(store: RunStore) -> None:
    from scalestudy import files
    from scalestudy.paper.table import write_summary

    write_summary(store.records(), files.summary())


def _show_plan(specs: list[RunSpec], device: str) -> None:
    from scalestudy.runs.batch import plan

    frame = plan(specs, _store(), device=device)
    for row in frame.itertuples(index=False):
        begun = f" ({row.share_done:.0%} done)" if 0 < row.share_done < 1 else ""
        click.echo(f"{row.key}  {'stored' if row.stored else f'{row.seconds:5.0f} s':>7}  {row.label}{begun}")
    missing = frame[~frame["stored"]]
    click.echo(
        f"{len(missing)} of {len(frame)} to train, about {missing['seconds'].sum() / 60:.1f} minutes of one process"
    )


def _tell(result: Any) -> None:
    done = f"done ({result.seconds:.0f} s)" if result.executed else "unchanged"
    click.echo(f"{result.name}: {done if result.error is None else result.error}")


def _report(parameters: dict[str, Any]) -> None:
    from scalestudy.paper.report import build

    index, card = build(**parameters)
    click.echo(f"\n{card.text()}\n\nreport: {index}")


if __name__ == "__main__":
    main()
