"""Programs in processes of their own that have nothing left to import.

A fresh interpreter spends several seconds of processor time on importing torch, transformers and peft, many times
what a tiny night takes. These processes are forked from one that has imported them and done nothing else
(multiprocessing's fork server). Signals, exit codes, working directory, environment and output are their own as
with `subprocess`, whose interface this has; what a fresh interpreter does is for the tests that start one."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import IO, Any

from pytest import MonkeyPatch

ROOT = Path(__file__).parents[2]
IMPORTED = ("torch", "peft", "nomoat.night.night", "nomoat.night.check", "nomoat.cli.main")
"""They start no thread and compute nothing, so that a fork of them is whole."""
AT_IMPORT = {
    "OMP_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # otherwise a look for a GPU keeps the forks from using it
    "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests", "bench")),
}
"""The environment while they are imported: some read it then only."""


class Popen:
    """`subprocess.Popen` of ``[sys.executable, "-m", module, …]`` or ``[sys.executable, script, …]``, with text in
    its pipes. Standard input is empty and both outputs are pipes unless told otherwise."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        text: bool = True,
    ) -> None:
        interpreter, *words = map(str, command)
        assert interpreter == sys.executable and text
        self.args = command
        self.returncode: int | None = None
        theirs: list[int] = []
        self.stdin = self._pipe(stdin, theirs, "w")
        self.stdout = self._pipe(stdout, theirs, "r")
        self.stderr = self._pipe(stderr, theirs, "r")
        folder = str(Path(cwd or ".").absolute())
        self._process = _server().Process(
            target=_run, args=(words, folder, dict(os.environ if env is None else env), _Streams(theirs))
        )
        self._process.start()
        for end in theirs:
            os.close(end)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @staticmethod
    def _pipe(wanted: int | IO[Any] | None, theirs: list[int], mode: str) -> IO[str] | None:
        """Our end of a stream, where it is a pipe; theirs is appended."""
        if wanted == subprocess.PIPE:
            read, write = os.pipe()
            theirs.append(write if mode == "r" else read)
            return os.fdopen(read if mode == "r" else write, mode, encoding="utf-8")
        if wanted == subprocess.DEVNULL:
            theirs.append(os.open(os.devnull, os.O_RDWR))
        else:
            assert wanted is not None and not isinstance(wanted, int)
            theirs.append(os.dup(wanted.fileno()))
        return None

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired([*map(str, self.args)], timeout or 0.0)
        return code

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """What it has said on both outputs once it has ended. TimeoutExpired where it has not by then."""
        said = {"stdout": "", "stderr": ""}

        def read(name: str, pipe: IO[str]) -> None:
            said[name] = pipe.read()

        streams = {name: pipe for name in said if (pipe := getattr(self, name)) and not pipe.closed}
        readers = [threading.Thread(target=read, args=item, daemon=True) for item in streams.items()]
        for reader in readers:
            reader.start()
        if self.stdin is not None:
            self.stdin.write(input or "")
            self.stdin.close()
        self.wait(timeout)
        for reader, pipe in zip(readers, streams.values(), strict=True):
            reader.join()
            pipe.close()
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with both outputs captured; it is killed where it is not done within `timeout` seconds."""
    process = Popen(command, cwd=cwd, env=env, stdin=subprocess.PIPE)
    try:
        out, err = process.communicate(input, timeout=timeout)
    finally:
        process.kill()
    assert process.returncode is not None
    return subprocess.CompletedProcess([*map(str, command)], process.returncode, out, err)


@cache
def _server() -> Any:
    """The fork server, with everything imported. One for each process of the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    with MonkeyPatch.context() as patch:
        for name, value in AT_IMPORT.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    return context


class _Streams:
    """File descriptors for standard input, output and error, on their way to another process."""

    def __init__(self, descriptors: list[int]) -> None:
        self.descriptors = descriptors

    def __reduce__(self) -> Any:
        return _received, ([reduction.DupFd(one) for one in self.descriptors],)


def _received(ends: list[Any]) -> list[int]:
    return [end.detach() for end in ends]


def _run(words: list[str], cwd: str, environment: dict[str, str], streams: list[int]) -> None:
    """In the forked process: become the program."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode, closefd=False) for n, mode in enumerate("rww"))  # noqa: SIM115
    sys.stdout.reconfigure(line_buffering="PYTHONUNBUFFERED" in environment)
    sys.stderr.reconfigure(line_buffering=True)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it may be another one here
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.modules.pop(words[1], None)  # a program is run once
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
