"""The command line: ``scalestudy reproduce | run | status | merge | data | report``.

Only glue: what a command does lies in the module that it imports, which keeps ``scalestudy --help`` quick.
"""

from __future__ import annotations

import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scalestudy.paper.size import StudySize
    from scalestudy.runs.batch import BatchReport
    from scalestudy.runs.store import RunStore
    from scalestudy.training.spec import RunSpec

_INTERRUPTED = "Interrupted; finished runs are stored, the same command goes on from there."
_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Let SIGTERM (batch queues, ``kill``) unwind as an exit with code 143, so that children are stopped."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Group(click.Group):
    """Turns errors into one message: exit code 2 for bad input, 1 for what failed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _terminated_as_exit():
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


def _show_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"scalestudy {version('scalestudy')}")
        except PackageNotFoundError:
            click.echo("scalestudy (not installed)")
        ctx.exit()


@click.group(cls=_Group, context_settings=_CONTEXT)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.option("--traceback", "show_traceback", is_flag=True, help="Show where an error comes from.")
def main(show_traceback: bool) -> None:
    """Reproduce "Scale Learning in Scale-Equivariant Convolutional Networks".

    Every finished training run is kept in results/runs (or SCALESTUDY_RUNS), and those under way about once a minute,
    so each command can be interrupted and called again.
    """


def _options(*options: Callable) -> Callable:
    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_PROFILE = click.option("--profile", default="quick", help="Sizes of the study: a file in params/.")
_PARAM = click.option(
    "-p",
    "--param",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Replace a parameter of the profile; repeatable.  Results then go to results/PROFILE-custom, "
    "or to results/OTHER with -p profile=OTHER.",
)
_EXECUTION = _options(
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Training processes; spread over the GPUs if there are any.  [default: one per core; GPU: 1]",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Train on a Dask cluster instead: tcp://host:port, or a scheduler file.  "
        "[default: SCALESTUDY_SCHEDULER, if set]",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to train."),
)


@main.command()
@_PROFILE
@_PARAM
@_EXECUTION
@click.option("--notebook", "names", multiple=True, metavar="NAME", help="Only this one, such as 04; repeatable.")
@click.option("--jobs", type=click.IntRange(min=1), help="Notebooks at a time.  [default: one per core]")
@click.option("--rerun", is_flag=True, help="Execute notebooks even where nothing that they follow from has changed.")
def reproduce(
    profile: str,
    assignments: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    device: str,
    names: tuple[str, ...],
    jobs: int | None,
    rerun: bool,
) -> None:
    """Run the whole study: MNIST, the missing runs, every notebook, the report.

    Parameters and notebooks are checked before anything runs.  The executed notebooks go to
    results/PROFILE/notebooks.
    """
    from scalestudy import files
    from scalestudy.paper import params

    size = params.load(profile, params.parse_overrides(assignments))
    from scalestudy.files import probe
    from scalestudy.paper import notebooks
    from scalestudy.paper.grids import Study
    from scalestudy.training.device import usable_cores

    selected = notebooks.check(names, size.parameters())
    probe(files.results(size.profile))
    _fetch()
    study = Study(size)
    report = _train(study.for_notebooks(path.stem for path in selected), workers, scheduler, device, None)
    results = notebooks.execute(
        selected,
        size.parameters(),
        files.results(size.profile) / "notebooks",
        jobs=jobs or usable_cores(),
        records=None if rerun else {path: study.records_for(path.stem, report.done) for path in selected},
        on_result=_tell,
    )
    _report(size)
    if report.failed or any(result.error for result in results):
        raise click.exceptions.Exit(1)


@main.command()
@_PROFILE
@_PARAM
@_EXECUTION
@click.option(
    "--filter", "text", metavar="TEXT", help="Only runs whose table (table3) or label contains or matches this."
)
@click.option("--time-budget", metavar="TIME", help="Such as 25m or 1h30m: start no run that would end later.")
@click.option("--dry-run", is_flag=True, help="Show what would be run.")
def run(
    profile: str,
    assignments: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    device: str,
    text: str | None,
    time_budget: str | None,
    dry_run: bool,
) -> None:
    """Train the runs that are missing, most wanted first."""
    from scalestudy.paper import params

    size = params.load(profile, params.parse_overrides(assignments))
    budget = None if time_budget is None else params.parse_seconds(time_budget)
    from scalestudy.paper.grids import Study
    from scalestudy.runs.batch import scheduler_for

    specs = Study(size).select(text) if text else Study(size).all_specs()
    if dry_run:
        _show_plan(specs, device)
        return
    if scheduler_for(scheduler, workers) is None:  # the workers of a cluster see to their own machines
        _fetch()
    if _train(specs, workers, scheduler, device, budget).failed:
        raise click.exceptions.Exit(1)


@main.command()
@_PROFILE
@_PARAM
def status(profile: str, assignments: tuple[str, ...]) -> None:
    """Show which runs are stored or under way, what the others will cost, and damaged files."""
    from scalestudy.paper import params

    size = params.load(profile, params.parse_overrides(assignments))
    from scalestudy.paper.grids import Study
    from scalestudy.runs.batch import plan
    from scalestudy.runs.store import DamagedRecordWarning

    store, study = _store(), Study(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedRecordWarning)  # told below
        click.echo(f"{len(store.records())} records in {store.folder}")
        for name, specs in {**study.groups(), "all": study.all_specs()}.items():
            frame = plan(specs, store)
            left = frame.loc[~frame["stored"], "seconds"].sum() / 60
            click.echo(
                f"{name:15} {frame['stored'].sum():4d} of {len(frame):4d} stored, {left:8.1f} minutes of training left"
            )
        labels = {spec.key: spec.label for spec in study.all_specs()}
    for key, run in store.under_way().items():
        label = labels.get(key, "not of this profile")
        remark = "" if run.is_of_this_code else " (kept by other code: it will start again)"
        click.echo(f"under way: {key}: {run.epochs_done} of {run.epochs} epochs, {label}{remark}")
    unmoved = {problem.name: problem for problem in store.problems if problem.moved_to is None}
    for problem in [*store.damaged(), *unmoved.values()]:
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
    """Fetch or verify MNIST; look at what was made from it."""


@data.command()
def fetch() -> None:
    """Make sure that MNIST is here, whole."""
    from scalestudy.data import fetch_mnist

    click.echo(f"MNIST is complete in {fetch_mnist()}")


@data.command()
def verify() -> None:
    """Check each file of MNIST against its published hash; changes nothing."""
    from scalestudy.data import verify_mnist

    reports = verify_mnist()
    for report in reports:
        click.echo(f"{report.status:8} {report.name}  {report.path or ''}")
    if any(report.status != "ok" for report in reports):
        raise click.exceptions.Exit(1)


@data.command()
def realisations() -> None:
    """Check the realisations of MNIST-Scale that are kept beside MNIST; changes nothing.

    They are generated where a run needs them; a damaged one is generated again.
    """
    from scalestudy.data import cached_realisations

    reports = cached_realisations()
    for report in reports:
        click.echo(f"{report.status:8} realisation {report.seed}  {report.path}")
    if any(report.status != "ok" for report in reports):
        raise click.exceptions.Exit(1)


@main.command()
@_PROFILE
@_PARAM
def report(profile: str, assignments: tuple[str, ...]) -> None:
    """Build the report of a profile from the executed notebooks and the run store."""
    from scalestudy.paper import params

    _report(params.load(profile, params.parse_overrides(assignments)))


def _store() -> RunStore:
    from scalestudy import files
    from scalestudy.runs.store import RunStore

    return RunStore(files.runs())


def _fetch() -> None:
    from scalestudy.data import fetch_mnist

    fetch_mnist()


def _train(
    specs: list[RunSpec], workers: int | None, scheduler: str | None, device: str, budget: float | None
) -> BatchReport:
    from scalestudy.runs.batch import run_all

    store = _store()
    report = run_all(specs, store, device=device, workers=workers, scheduler=scheduler, time_budget=budget)
    if report.done:
        _write_summary(store)
    for spec, text in report.failed:
        click.echo(f"run {spec.key} failed ({spec.label}):\n{text.strip()}", err=True)
    click.echo(report.text)
    return report


def _write_summary(store: RunStore) -> None:
    from scalestudy import files
    from scalestudy.paper.summary import write_summary

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


def _report(size: StudySize) -> None:
    from scalestudy.paper.report import build

    index, card = build(size)
    click.echo(f"\n{card.text()}\n\nreport: {index}")


if __name__ == "__main__":
    main()
