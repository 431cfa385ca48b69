"""Parameters of a study as people write them: files in ``params/``, changes to them, and what is wrong in them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from scalestudy import files


def profiles() -> tuple[str, ...]:
    """Names of the profiles that there are, sorted."""
    return tuple(sorted(path.stem for path in files.params_folder().glob("*.yaml")))


def parse_changes(changes: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """Read texts ``name=value``, where a value is a text or a list of them; a mapping is taken as it is.

    >>> parse_changes(["epochs=3", "seeds=[0, 1]"])
    {'epochs': '3', 'seeds': ['0', '1']}
    """
    if isinstance(changes, Mapping):
        return dict(changes)
    values = {}
    for text in changes:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise ValueError(f"a parameter must be written name=value, got {text!r}; for example epochs=3")
        try:
            values[name] = yaml.load(value, yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"{name} must be a number, a text or a list like [0, 1], got {value!r}") from error
    return values


def parse_seconds(text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``25m`` or ``1h30m`` as seconds, more than 0."""
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip())
    parts = match.groups(default=0) if match else (0, 0, 0)
    seconds = sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    if not seconds > 0:
        raise ValueError(f"a duration must be more than 0, such as 90s, 25m or 1h30m, got {text!r}")
    return seconds


def read_profile(profile: str) -> dict[str, Any]:
    """What the file of a profile says, as texts, and its name."""
    path = files.params(profile)
    if not path.is_file():
        there = ", ".join(profiles()) or f"those of the project that {files.ROOT_VARIABLE} names"
        raise ValueError(f"profile must be one of {there}, got {profile!r}; add {path} for another")
    try:  # pydantic reads the numbers
        return {"profile": profile, **yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)}
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path} must hold one 'name: value' per line: {error}") from error


def check_names(names: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse an unknown name with those that are near it."""
    allowed = sorted(allowed)
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(f"unknown parameter {name!r}: {hint}allowed are {', '.join(allowed)}")


def complaints(error: ValidationError, given: Mapping[str, Any], prefix: str) -> str:
    """All complaints in one line: parameter, what is wrong, the value."""
    told = []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        if item["loc"]:
            field, *place = map(str, item["loc"])
            name = ".".join([_parameter(field, item["input"], given, prefix), *place])
            message = f"{name}: {message}, got {item['input']!r}"
        told.append(message)
    return "; ".join(told)


def _parameter(field: str, value: object, given: Mapping[str, Any], prefix: str) -> str:
    """The parameter of a study that the field of a run's spec follows, such as initial_isrs, which has this isr."""
    lists = [name for name in given if name.endswith(f"{prefix}{field.split('_')[0]}s") and value in given[name]]
    return next((name for name in (prefix + field, field, *lists) if name in given), field)
