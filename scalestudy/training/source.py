"""Which code this package is, whatever commit it comes from."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

_SOURCE = (".py", ".csv", ".mplstyle")


@cache
def source_digest() -> str:
    """Hash of the code and the data in this package, as they were when it was first asked for in this process.

    Returns
    -------
    str
        16 hex digits; equal for two checkouts that differ in documentation, tests or notebooks only.
    """
    digest = hashlib.sha256()
    folder = Path(str(resources.files("scalestudy")))
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SOURCE and path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
