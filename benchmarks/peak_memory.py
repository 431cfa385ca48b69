"""Peak memory of one training step, in a process of its own so that nothing else counts.

    python benchmarks/peak_memory.py '{"algorithm": "ours", "parameterisation": "fixed"}' 2

prints the MiB that the step adds to the resident memory at its peak.  Linux only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from cases import Case
from machine import step_seconds

_STATUS = Path("/proc/self/status")


def is_measurable() -> bool:
    """Whether the system tells a process its own peak: Linux."""
    return _STATUS.exists()


def measure(case: Case, threads: int) -> float:
    """MiB that one training step adds at its peak, measured in a fresh process."""
    command = [sys.executable, __file__, json.dumps(asdict(case)), str(threads)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def added_by_a_step(case: Case) -> float:
    """MiB between this process's memory before a step and its highest one during it.

    Not the peak that `getrusage` knows: a process inherits that one from the process that started it.
    """
    net, (images, labels) = case.network(), case.images_and_labels()
    before = _mebibytes("VmRSS")
    step_seconds(net, images, labels)
    return _mebibytes("VmHWM") - before


def _mebibytes(name: str) -> float:
    return int(re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)[1]) / 1024


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(added_by_a_step(Case(**json.loads(sys.argv[1]))))
