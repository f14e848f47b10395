"""Who is in a workspace: locks that the kernel takes back when their process dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from nomoat.errors import ArtifactError
from nomoat.ledger.files import disk_errors, make_folder
from nomoat.ledger.process import this_process

_held: set[int] = set()


def _let_go_in_child() -> None:
    # flock belongs to the open file, which a forked child shares: an orphaned data worker would hold the
    # workspace locked after its night was killed. Closing the child's copy leaves the parent's lock alone.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; an ArtifactError that names the holder where another process has it."""
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"{path.parent.parent}: a night already runs in this workspace ({_holder(descriptor)})",
                hint="Wait until it has ended, or stop it: run again, it goes on from its last checkpoint.",
            ) from None
        with disk_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(this_process())).encode(), 0)
        yield


@contextmanager
def shared(path: Path, *, when_alone: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` beside others who hold it so. Where nobody does, `when_alone` runs first, and
    whoever comes meanwhile waits for its end."""
    with _opened(path) as descriptor:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            when_alone()
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    make_folder(path.parent)
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        yield descriptor
    finally:
        # A child forked under the lock has closed its copy; by now the number may be another file of its own.
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def _holder(descriptor: int) -> str:
    # Empty or half-written in the instant between the holder's lock and its note.
    with contextlib.suppress(ValueError, KeyError, TypeError):
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {note['pid']} on {note['host']}"
    return "its process has not yet said its number"
