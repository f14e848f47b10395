"""Which process wrote a row, and whether it still runs: a process id alone is used again after a while."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMark:
    """One process of one machine. `started` tells two processes with one id apart; None where the system
    does not tell it (anything but Linux)."""

    pid: int
    host: str
    started: str | None


def this_process() -> ProcessMark:
    """The mark of the calling process."""
    return ProcessMark(os.getpid(), platform.node(), _started(os.getpid()))


def is_running(mark: ProcessMark) -> bool | None:
    """Whether the process still runs; None where it belongs to another machine, which cannot be asked."""
    if mark.host != platform.node():
        return None
    if mark.started is not None:
        return _started(mark.pid) == mark.started
    try:
        os.kill(mark.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str | None:
    """'<boot id>:<clock ticks since boot>' of a live process, from Linux's /proc (proc(5), field 22)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The second field is the program's name in brackets and may itself hold blanks and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0], fields[19]
    return None if state == "Z" else f"{boot}:{ticks}"  # Z: ended, its parent has not yet taken note
