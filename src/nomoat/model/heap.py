"""What becomes of memory that is freed: by itself glibc gives much of it back, and has it zeroed again a step later."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_BYTES = 1 << 30, 1 << 25
"""The largest piece that is kept, and the most that glibc before 2.35 takes."""


def keep_freed_memory() -> bool:
    """Have this process keep what a step frees for the next one, until `give_back`; whether it does, which is so with
    glibc alone. For a process that trains on a processor, before its first step."""
    if (mallopt := _of_glibc("mallopt")) is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and any(mallopt(_MMAP_THRESHOLD, most) for most in _MOST_BYTES)


def give_back() -> None:
    """Give what is free now back to the machine: for where a stage has ended, and others want it."""
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where that is another."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
