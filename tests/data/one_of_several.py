"""One of several processes that need a data set: ``python one_of_several.py mnist|realisation FOLDER NOTES WAITERS``.

It appends to the file NOTES that it fetches (generates), that it waits for another process, that it has the data.  What
it fetches comes when WAITERS processes have noted that they wait.
"""

import logging
import os
import sys
import time
from pathlib import Path

import numpy as np

from scalestudy.data import mnist, realisations
from scalestudy.data.mnist_files import IdxFile, sha256
from scalestudy.runs import locks

BODY = bytes(range(5))
SMALL = IdxFile("small-idx1-ubyte", (5,), sha256(b"\0\0\x08\x01\0\0\0\x05" + BODY))
ARRAYS = {
    "images": np.ones((4, 28, 28), np.uint8),
    "labels": np.arange(4, dtype=np.uint8),
    "data_scales": np.ones(4),
    "indices": np.arange(4, dtype=np.uint32),
}
PATIENCE_SECONDS = 120


def main(what: str, folder: Path, notes: Path, waiters: int) -> None:
    def note(text: str) -> None:
        with notes.open("a") as stream:
            stream.write(f"{text}\n")

    def work() -> None:
        note(f"{os.getpid()} works")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while notes.read_text().count("waiting") < waiters and time.monotonic() < deadline:
            time.sleep(0.02)

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    logging.getLogger("scalestudy.runs.locks").addHandler(Noting())
    locks._MOMENT_SECONDS = 0.0
    if what == "mnist":
        mnist.FILES = (SMALL,)
        mnist.fetch_files = lambda wanted: work() or {SMALL.name: SMALL.header + BODY}
        mnist.fetch_mnist(folder)
        (report,) = mnist.verify_mnist(folder)
        note(f"has {report.status}")
    else:
        realisations._COUNT = 4
        realisations.PUBLISHED = {2: realisations.digest(ARRAYS)}
        realisations.generate = lambda seed, folder: work() or ARRAYS
        arrays = realisations.load_realisation(2, folder)
        (report,) = realisations.cached_realisations(folder)
        note(f"has {report.status if realisations.digest(arrays) == realisations.PUBLISHED[2] else 'other data'}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
