"""Where everything lies (asking creates nothing), and files that are there whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

ROOT_VARIABLE, RUNS_VARIABLE = "SCALESTUDY_ROOT", "SCALESTUDY_RUNS"
RESULTS_VARIABLE, DATA_VARIABLE = "SCALESTUDY_RESULTS", "SCALESTUDY_DATA"
TEMPORARY_SUFFIX = ".tmp"

_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StoreError(OSError):
    """A folder that cannot be read or written.  The message names it and the way out."""


def named(variable: str) -> Path | None:
    """The absolute folder that an environment variable names, or None."""
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else None


def project() -> Path:
    """The folder that holds ``notebooks/``, ``params/`` and ``results/``.

    ``SCALESTUDY_ROOT``, else the checkout that holds the package, else (installed without one) the current folder.
    """
    root, checkout = named(ROOT_VARIABLE), Path(__file__).resolve().parent.parent
    if root is None:
        return checkout if (checkout / "params" / "quick.yaml").is_file() else Path.cwd()
    if not root.is_dir():
        got = f"{os.environ[ROOT_VARIABLE]!r}, which is no folder"
        raise ValueError(f"{ROOT_VARIABLE} must name the project's folder, got {got}; create it, or unset the variable")
    return root


def notebooks() -> Path:
    """Source notebooks; executed copies lie under `results`."""
    return project() / "notebooks"


def params_folder() -> Path:
    """The folder of the profiles."""
    return project() / "params"


def params(profile: str) -> Path:
    """The file of a profile; ValueError where it is not a plain name."""
    return params_folder() / f"{_plain(profile)}.yaml"


def results(profile: str) -> Path:
    """A profile's executed notebooks, figures and report, in ``SCALESTUDY_RESULTS`` or ``results/``."""
    return (named(RESULTS_VARIABLE) or project() / "results") / _plain(profile)


def runs() -> Path:
    """The run store, shared by all profiles: ``SCALESTUDY_RUNS``, else ``results/runs``."""
    return named(RUNS_VARIABLE) or project() / "results" / "runs"


def records() -> Path:
    """The committed records of all profiles but `quick`: read behind those of `runs`, and never written."""
    return project() / "results" / "records"


def benchmarks() -> Path:
    """The committed measurements of cost."""
    return project() / "results" / "benchmarks"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all, and that survives a power cut; `StoreError` if it cannot be."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(
            f"cannot write to the folder {path.parent}: {error.strerror or error}; free some space or make it "
            f"writable, or name another folder in the environment variable {RUNS_VARIABLE} (records), "
            f"{RESULTS_VARIABLE} (reports) or {DATA_VARIABLE} (MNIST). Every run that was stored before is whole"
        ) from error


def probe(folder: Path) -> None:
    """Clear up after killed writers, then find out whether 64 KiB can be written; `StoreError` if not."""
    for path in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):  # gone meanwhile, or not ours to remove: it does no harm
            if time.time() - path.stat().st_mtime > 3600:  # of a writer that does not live any more
                path.unlink()
    test = folder / f"probe{TEMPORARY_SUFFIX}"  # cleared later where we are killed now
    write_whole(test, bytes(64 * 1024))
    test.unlink(missing_ok=True)


def _plain(profile: str) -> str:
    if not _PROFILE.fullmatch(profile):
        raise ValueError(
            f"profile must be a plain name of letters, digits, '.', '_' and '-', got {profile!r}; "
            "give the name of a file in params/ without its .yaml"
        )
    return profile
