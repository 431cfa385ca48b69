"""Whether an executed notebook still says what executing it again would say.

Not in the paper: our choice, so that a second `reproduce` costs seconds.  An executed copy carries a fingerprint of
everything that its outputs follow from: the source notebook, the parameters, the records that it reads, the
measurements of cost and the code of this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scalestudy import files
from scalestudy.paper import costs
from scalestudy.training.record import Record
from scalestudy.training.state import source_digest

_METADATA = "scalestudy"


def fingerprint(source: Path, parameters: Mapping[str, Any], records: Iterable[Record]) -> str:
    """Hash of what the outputs of a notebook follow from.

    Parameters
    ----------
    source : Path
        The source notebook.
    parameters : mapping
        Plain values by name.
    records : iterable of Record
        Those that the notebook reads, in any order.

    Returns
    -------
    str
        16 hex digits.
    """
    digest = hashlib.sha256(source.read_bytes())
    digest.update(json.dumps(dict(parameters), sort_keys=True).encode())
    for checksum in sorted(record.checksum for record in records):
        digest.update(checksum.encode())
    measured = files.benchmarks() / costs.FILE_NAME
    digest.update(measured.read_bytes() if measured.exists() else b"")
    digest.update(source_digest().encode())
    return digest.hexdigest()[:16]


def is_fresh(executed: Path, mark: str) -> bool:
    """Whether an executed copy carries this fingerprint; a missing or unreadable one does not."""
    try:
        metadata = json.loads(executed.read_text(encoding="utf-8"))["metadata"]
        return metadata[_METADATA]["fingerprint"] == mark
    except (OSError, ValueError, LookupError, TypeError):
        return False


def stamp(executed: Path, mark: str) -> None:
    """Write the fingerprint into an executed copy."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"][_METADATA] = {"fingerprint": mark}
    executed.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
