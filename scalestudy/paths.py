"""Where everything lies, so that a notebook works from any working folder.

Nothing is computed at import, and asking for a path creates nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT_VARIABLE = "SCALESTUDY_ROOT"
"""Environment variable that names the project root."""

RUNS_VARIABLE = "SCALESTUDY_RUNS"
"""Environment variable that names the folder of the run store."""

RESULTS_VARIABLE = "SCALESTUDY_RESULTS"
"""Environment variable that names the folder of the profiles' figures, tables, executed notebooks and reports."""

_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def project() -> Path:
    """Return the project root: the folder that holds ``notebooks/``, ``params/`` and ``results/``.

    Returns
    -------
    Path
        Absolute.  ``SCALESTUDY_ROOT`` where it is set, else the checkout that holds the package, else
        (a package installed without its checkout) the current folder.

    Raises
    ------
    ValueError
        If ``SCALESTUDY_ROOT`` names no folder.
    """
    named = os.environ.get(ROOT_VARIABLE)
    if named:
        root = Path(named).expanduser().resolve()
        if not root.is_dir():
            raise ValueError(
                f"{ROOT_VARIABLE} must name the project's folder, got {named!r}, which is no folder; "
                "create it, or unset the variable"
            )
        return root
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file() or (checkout / "notebooks").is_dir():
        return checkout
    return Path.cwd()


def notebooks() -> Path:
    """Return the folder of the source notebooks (executed copies lie under `results`)."""
    return project() / "notebooks"


def params_folder() -> Path:
    """Return the folder of the profiles."""
    return project() / "params"


def params(profile: str) -> Path:
    """Return the file of a profile's parameters, such as ``params/quick.yaml``.

    Raises
    ------
    ValueError
        If the profile is not a plain name.
    """
    return params_folder() / f"{_plain(profile)}.yaml"


def results(profile: str) -> Path:
    """Return the folder of a profile's executed notebooks, figures and report; errors as in `params`.

    It lies in ``SCALESTUDY_RESULTS`` where that is set, else in ``results/``.
    """
    named = os.environ.get(RESULTS_VARIABLE)
    folder = Path(named).expanduser().resolve() if named else project() / "results"
    return folder / _plain(profile)


def runs() -> Path:
    """Return the folder of the run store, shared by all profiles: ``SCALESTUDY_RUNS``, else ``results/runs``."""
    named = os.environ.get(RUNS_VARIABLE)
    return Path(named).expanduser().resolve() if named else project() / "results" / "runs"


def benchmarks() -> Path:
    """Return the folder of the committed measurements of cost, which `make bench` renews; the same for all profiles."""
    return project() / "results" / "benchmarks"


def summary() -> Path:
    """Return the table of all stored runs that people read: beside `runs`, or in it where that is set by name."""
    return (runs() if os.environ.get(RUNS_VARIABLE) else project() / "results") / "summary.csv"


def _plain(profile: str) -> str:
    if not _PROFILE.fullmatch(profile):
        raise ValueError(
            f"profile must be a plain name of letters, digits, '.', '_' and '-', got {profile!r}; "
            "give the name of a file in params/ without its .yaml"
        )
    return profile
