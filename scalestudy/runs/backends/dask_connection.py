"""The connection to a Dask scheduler, whose loss is one clear error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scalestudy.runs.backends.base import WorkersUnavailable
from scalestudy.runs.store import StoreError

if TYPE_CHECKING:
    from distributed import Client

_CLIENT_LOG = logging.getLogger("distributed.client")
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class Connection:
    """A client of a scheduler.

    Parameters
    ----------
    scheduler : str
        Address, or the path of a scheduler file.

    Attributes
    ----------
    scheduler : str
    client : distributed.Client

    Raises
    ------
    RuntimeError
        If ``distributed`` is not installed.
    ValueError
        If `scheduler` is neither an address nor a file.
    WorkersUnavailable
        If the scheduler cannot be reached.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self.client = _connect(scheduler)
        self._log_level = _CLIENT_LOG.level
        _CLIENT_LOG.setLevel(logging.CRITICAL)  # it tells a lost connection by tracebacks; we do in one sentence

    @property
    def is_open(self) -> bool:
        """Whether the scheduler is there, as far as is known."""
        return self.client.status == "running"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the many kinds of OSError that Dask raises on a broken connection one `WorkersUnavailable`."""
        if not self.is_open:
            raise self.lost()
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise self.lost() from error

    def lost(self) -> WorkersUnavailable:
        """The error to raise where the scheduler is gone."""
        return WorkersUnavailable(
            f"the connection to the Dask scheduler {self.scheduler} was lost; every run that came back is stored. "
            "Start the scheduler and its workers again, then call again to go on. What workers finished meanwhile lies "
            "in their own run stores: `scalestudy merge` them unless they share the folder"
        )

    def close(self) -> None:
        """Leave the cluster; what this client alone wanted is forgotten there."""
        self.client.close(timeout=_CLOSE_SECONDS)
        _CLIENT_LOG.setLevel(self._log_level)


def _connect(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError("a Dask cluster needs distributed; pip install 'scalestudy[cluster]'") from error
    is_file = Path(scheduler).is_file()
    if not is_file and ":" not in scheduler:
        raise ValueError(
            f"scheduler must be an address such as tcp://host:8786 or a scheduler file, got {scheduler!r}, which is no "
            "file; start one with `dask scheduler --scheduler-file FILE`"
        )
    place = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
    try:
        return Client(**place, timeout=_CONNECT_SECONDS, set_as_default=False, name="scalestudy")
    except OSError as error:
        raise WorkersUnavailable(
            f"cannot reach a Dask scheduler at {scheduler} within {_CONNECT_SECONDS:.0f} s; start one with "
            "`dask scheduler`, or name its address"
        ) from error
