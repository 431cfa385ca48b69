"""A process that claims runs.

``python claimant.py hold FOLDER KEY ...`` tells what it could take, then holds it until its input ends;
``python claimant.py hold-with-children FOLDER KEY ...`` has two children while it does, and tells their ids;
``python claimant.py contend FOLDER ROUNDS`` tells how often it had a claim.
"""

import os
import subprocess
import sys
from pathlib import Path

from scalestudy.runs.claims import Claims, remove_stale_claims

KEYS = ("a", "b")


def contend(folder: Path, rounds: int) -> int:
    """Take and release claims; return how often that worked.  `FileExistsError`: somebody else had the same claim."""
    claims, taken = Claims(folder), 0
    for turn in range(rounds):
        key = KEYS[turn % len(KEYS)]
        if turn % 20 == 0:
            remove_stale_claims(folder)
        if claims.take(key):
            mark = folder / f"{key}.mark"
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            mark.unlink()
            claims.release(key)
            taken += 1
    return taken


def hold(folder: Path, keys: list[str], children: bool) -> None:
    claims = Claims(folder)
    said = [claims.take(key) for key in keys]
    if children:
        ready, tell = os.pipe()
        started = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], close_fds=False)
        forked = os.fork()
        if forked == 0:
            claims.release_all()  # not the child's to release
            os.write(tell, b".")
            os.read(0, 1)
            os._exit(0)
        os.read(ready, 1)
        said += [started.pid, forked]
    print(*said, flush=True)
    os.read(0, 1)


if __name__ == "__main__":
    what, folder, *rest = sys.argv[1:]
    if what == "contend":
        print(contend(Path(folder), int(rest[0])))
    else:
        hold(Path(folder), rest, what == "hold-with-children")
