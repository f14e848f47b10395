"""Two nights in one workspace: the second is told who holds it, and a dead one holds nothing."""

import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nomoat.errors import ArtifactError
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.process import ProcessMark, is_running, this_process

Start = Callable[..., "subprocess.Popen[str]"]

HOLD = """
import sys, pathlib
from nomoat.ledger.artifacts import ArtifactStore
with ArtifactStore(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""

HOLD_AND_FORK = """
import os, sys, time, pathlib
from nomoat.ledger.artifacts import ArtifactStore
with ArtifactStore(pathlib.Path(sys.argv[1])).lock():
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.read()
"""


def test_the_second_night_is_told_who_runs(tmp_path: Path, store: ArtifactStore, python: Start) -> None:
    holder = python(HOLD, str(tmp_path))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ArtifactError) as caught, store.lock():
        pass
    assert str(caught.value) == (
        f"{tmp_path}: a night already runs in this workspace (process {holder.pid} on {platform.node()})\n"
        "  Wait until it has ended, or stop it: run again, it goes on from its last checkpoint."
    )
    holder.communicate()
    with store.lock():
        pass


def test_the_lock_dies_with_its_process(tmp_path: Path, store: ArtifactStore, python: Start) -> None:
    holder = python(HOLD, str(tmp_path))
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.lock():
        pass


def test_a_forked_worker_that_outlives_its_night_does_not_hold_the_lock(
    tmp_path: Path, store: ArtifactStore, python: Start
) -> None:
    holder = python(HOLD_AND_FORK, str(tmp_path))
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(worker, 0)  # it does live
        deadline = time.monotonic() + 5  # its fork hook may still be about to run
        while True:
            try:
                with store.lock():
                    break
            except ArtifactError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_forked_worker_leaves_its_parents_lock_alone(store: ArtifactStore) -> None:
    with store.lock():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(ArtifactError, match=rf"\(process {os.getpid()} on "), store.lock():
            pass


def test_a_lock_whose_holder_has_not_signed_yet_is_still_held(tmp_path: Path, store: ArtifactStore) -> None:
    with store.lock():
        (tmp_path / ".nomoat" / "lock").write_text("")
        with pytest.raises(ArtifactError, match=r"\(its process has not yet said its number\)"), store.lock():
            pass


def test_a_process_is_known_by_more_than_its_number() -> None:
    mine = this_process()
    assert is_running(mine) is True
    assert mine.started is not None
    reused = ProcessMark(mine.pid, mine.host, mine.started + "0")
    assert is_running(reused) is False
    assert is_running(ProcessMark(mine.pid, "another machine", mine.started)) is None


def test_a_process_that_ended_but_was_not_waited_for_does_not_run(python: Start) -> None:
    process = python("input()")
    started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mark = ProcessMark(process.pid, platform.node(), f"{boot}:{started}")
    assert is_running(mark) is True
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_running(mark) is False


def test_without_a_start_time_the_number_decides(python: Start) -> None:
    process = python("input()")
    mark = ProcessMark(process.pid, platform.node(), None)
    assert is_running(mark) is True
    process.kill()
    process.wait()
    assert is_running(mark) is False
