"""Runs a program and ends it with whoever asked for it: `python keeper.py PROGRAM ARGUMENT ...`

Its standard input is a pipe that only the asker holds. However the asker ends, by kill -9 too, the pipe closes,
and the whole process group is ended: the program and what it has started. It reads nothing but that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10
"""A program that is told to end may take so long to put its things away."""


def main() -> None:
    assert os.getpid() == os.getpgid(0), "it must lead a process group, for it ends all of it"
    signal.signal(
        signal.SIGTERM, lambda *_: None
    )  # which it sends to the group; not ignored: that is inherited
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_asker, args=(program,), daemon=True).start()
    status = program.wait()
    print(f"(it ended with status {status})", flush=True)
    os.killpg(0, signal.SIGKILL)


def _end_with_asker(program: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    try:
        program.wait(GRACE_S)
    finally:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
