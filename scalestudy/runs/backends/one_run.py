"""One run, made in this process: training, or going on with it, and storing."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable

from scalestudy.runs.store import RunStore, StoreError
from scalestudy.training.record import Record
from scalestudy.training.spec import RunSpec

Progress = Callable[[int, int], None]


def train_and_store(spec: RunSpec, store: RunStore, device: str, train: str, progress: Progress) -> dict[str, str]:
    """Make one run and store its record; one that was begun before goes on from its checkpoint.

    Parameters
    ----------
    spec : RunSpec
    store : RunStore
    device : str
        Given on to the training function.
    train : str
        Dotted path ``package.module:function`` of the training function.
    progress : callable
        Called with the epochs done and the epochs of the run.  What it raises that is no `Exception` is passed on.

    Returns
    -------
    dict
        ``{"event": "done"}``; ``"failed"`` with the traceback as ``"text"`` where the run raised; ``"unwritable"``
        with the message where the store cannot take the record, which will not get better for other runs.
    """
    try:
        record = resolve(train)(spec, device=device, progress=progress, checkpoint=store.checkpoint(spec))
        if not isinstance(record, Record) or record.key != spec.key:
            raise TypeError(f"{train} must return the Record of {spec.key}, got {record!r:.200}")
        store.put(record)
    except StoreError as error:
        return {"event": "unwritable", "text": str(error)}
    except Exception:
        return {"event": "failed", "text": traceback.format_exc()}
    return {"event": "done"}


def resolve(path: str) -> Callable[..., Record]:
    """Return the function that a dotted path ``package.module:function`` names."""
    module, colon, name = path.partition(":")
    if not colon:
        raise ValueError(f"train must be a dotted path 'package.module:function', got {path!r}; put a colon between")
    return getattr(importlib.import_module(module), name)
