"""Freed memory is kept."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from scalestudy.training.device import keep_freed_memory

PROGRAM = """
import resource, sys
from scalestudy.training.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 << 20)
    block[::4096] = bytes(len(block) // 4096)
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults()
print(faults())
"""


def faults_of_the_second_block(argument: str) -> int:
    """Pages that the system had to hand out for 64 MiB, of which as much had been freed just before."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", PROGRAM, argument]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_freed_memory_is_used_again() -> None:
    assert faults_of_the_second_block("keep") < 100
    assert faults_of_the_second_block("give back") > 1000  # negative control: 64 MiB are 16,384 small pages


def test_other_libraries_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
