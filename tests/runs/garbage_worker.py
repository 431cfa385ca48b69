"""`--preload` for a Dask worker whose answers are not to be trusted: what MISBEHAVIOUR names."""

import builtins
import os

from fake_training import record_of
from marked_training import another_run

from scalestudy.runs.backends import dask_worker
from scalestudy.training.spec import RunSpec


def answer(spec, device, train, wanted_versions):
    run = RunSpec.model_validate_json(spec)
    match os.environ["MISBEHAVIOUR"]:
        case "nonsense":
            return 42
        case "no record":
            return {"event": "done", "record": "{"}
        case "another run":
            return {"event": "done", "record": another_run(run).model_dump_json()}
        case "edited":
            text = record_of(run).model_dump_json()
            edited = text.replace('"validation_error":1.5', '"validation_error":0.5')
            assert edited != text
            return {"event": "done", "record": edited}
        case "no text":
            return {"event": "rejected"}
        case "MemoryError" | "TimeoutError" as error:
            raise getattr(builtins, error)("the worker itself is broken")


def dask_setup(worker):
    """Called by Dask in the worker; not done at import, since pytest imports this file to look for doctests."""
    dask_worker.make_run = answer
