"""What a step frees is there for the next one. In processes of their own: the setting is a process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from nomoat.model.heap import give_back, keep_freed_memory
if sys.argv[1] != "given back" and not keep_freed_memory():
    print("none"); raise SystemExit
c = ctypes.CDLL(None)
c.prctl(41, 1, 0, 0, 0)  # no huge pages, which would be few
c.malloc.restype, c.free.argtypes, c.memset.argtypes = (
    ctypes.c_void_p, (ctypes.c_void_p,), (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t))
def step():
    pieces = [c.malloc(20 << 20) for _ in range(8)]
    for piece in pieces:
        c.memset(piece, 1, 20 << 20)
    for piece in pieces:
        c.free(piece)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
if sys.argv[1] == "between stages":
    give_back()
before = faults()
step()
print(faults() - before)
"""
PAGES = 8 * 20 * 256


def faults(way: str) -> str:
    made = subprocess.run([sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, check=True)
    return made.stdout.strip()


def test_pages_are_asked_for_once() -> None:
    kept = faults("kept")
    if kept == "none":
        pytest.skip("not glibc")
    assert int(kept) < PAGES / 20
    assert int(faults("between stages")) > PAGES / 2
    assert int(faults("given back")) > PAGES / 2, "else glibc keeps them by itself, and the setting can go"
