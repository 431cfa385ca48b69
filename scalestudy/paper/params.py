"""Profiles: ``params/<profile>.yaml``, read and checked against `scalestudy.paper.size.StudySize`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from scalestudy import files
from scalestudy.paper.size import StudySize

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def profiles() -> tuple[str, ...]:
    """Names of the profiles that there are, sorted."""
    return tuple(sorted(path.stem for path in files.params_folder().glob("*.yaml")))


def load(profile: str, overrides: Mapping[str, Any] | None = None) -> StudySize:
    """Read a profile.

    Parameters
    ----------
    profile : str
        Name of a file in ``params/``.
    overrides : mapping, optional
        Values that replace the file's, by parameter name.

    Returns
    -------
    StudySize
        Where the overrides change anything, its profile is ``<profile>-custom``, so that the results of the profile
        itself are not overwritten; an override of ``profile`` names it otherwise.

    Raises
    ------
    ValueError
        On a project without profiles, an unknown profile (listing those that there are), a file that is not YAML, and
        a parameter that is unknown, missing or out of its range.
    """
    path = files.params(profile)
    if not path.parent.is_dir():
        raise ValueError(
            f"there is no folder params in {path.parent.parent}; name the project's folder in the environment variable "
            f"{files.ROOT_VARIABLE}"
        )
    if profile not in profiles():
        raise ValueError(
            f"profile must be one of {', '.join(profiles()) or 'none'}, got {profile!r}; add {path} for another"
        )
    values = _read(path)
    check_names(values, StudySize.model_fields, f"in {path.name}")
    overrides = dict(overrides or {})
    check_names(overrides, StudySize.model_fields, "on the command line")
    if values.get("profile") != profile:
        raise ValueError(f"profile must be {profile!r} in {path}, got {values.get('profile')!r}; correct that line")
    try:
        size = StudySize.model_validate({**values, **overrides})
    except ValidationError as error:
        raise ValueError(f"profile {profile}: {_explain(error)}") from error
    files.results(size.profile)  # a plain name
    if "profile" not in overrides and any(size.parameters()[name] != values.get(name) for name in overrides):
        size = size.model_copy(update={"profile": f"{profile}-custom"})
    return size


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` texts, values in YAML.

    Examples
    --------
    >>> parse_overrides(["epochs=3", "seeds=[0, 1]"])
    {'epochs': 3, 'seeds': [0, 1]}
    """
    overrides = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"a parameter must be written name=value, got {assignment!r}; for example epochs=3")
        try:
            overrides[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{name.strip()} must be a number, a text or a list like [0, 1], got {value!r}") from error
    return overrides


def parse_seconds(text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``25m`` or ``1h30m`` as seconds, more than 0.

    Examples
    --------
    >>> parse_seconds("25m"), parse_seconds("1h30m"), parse_seconds("90")
    (1500.0, 5400.0, 90.0)
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if not seconds > 0:
        raise ValueError(f"a duration must be more than 0, such as 90s, 25m or 1h30m, got {text!r}")
    return seconds


def check_names(names: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Raise `ValueError` for the first name that is not allowed, with the closest ones that are."""
    allowed = sorted(allowed)
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(f"unknown parameter {name!r} {where}: {hint}allowed are {', '.join(allowed)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}; write one 'name: value' per line") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold one 'name: value' per line, got {type(values).__name__}")
    return values


def _explain(error: ValidationError) -> str:
    """All complaints in one line: field, what is wrong, the value."""
    complaints = []
    for item in error.errors():
        field = ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        complaints.append(f"{field}: {message}, got {item['input']!r}" if field else message)
    return "; ".join(complaints)
