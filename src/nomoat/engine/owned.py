"""A program that serves HTTP for this process alone, and ends with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

import httpx

from nomoat.engine import keeper
from nomoat.errors import ServeError

_LOOK_S = 0.2
_LOG_LINES, _LOG_BYTES = 12, 4096
_SILENCE_S = 600.0  # of a program that is computing
# not to meet a program that closes a connection after 5 s without a request, as uvicorn does
_LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=2.0)


@final
class OwnedServer:
    """A started program whose /health has answered.

    It listens on a socket file in a folder that no other user may enter, so there is no port for anybody to
    find, and demands a key that nobody is told.

    Args:
        name: what messages call it.
        command: its words, given the socket file.
        environment: variables besides ours, given the key.
        start_s: it must be healthy after so many seconds.

    Raises:
        ServeError: it ended, or was not healthy in time; the message ends with the last lines it wrote.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[Path], Sequence[str]],
        environment: Callable[[str], Mapping[str, str]],
        *,
        start_s: float,
    ) -> None:
        self.name = name
        key = secrets.token_hex(32)
        self._temporary = tempfile.TemporaryDirectory(prefix="nomoat-")  # mode 0700
        socket = Path(self._temporary.name) / "http.sock"
        # It has no name, so that it can be quoted after `close` too, by another thread.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        # -I: nothing of the folder it lies in, or of the one we are in, is imported by the keeper
        self._process = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, *command(socket)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment(key)},
            start_new_session=True,
        )
        self.client = httpx.Client(
            base_url="http://localhost",
            transport=httpx.HTTPTransport(uds=str(socket), limits=_LIMITS),
            headers={"Authorization": f"Bearer {key}"},
            timeout=_SILENCE_S,
            trust_env=False,  # no proxy of the environment stands between
        )
        try:
            self._wait(start_s)
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it and all that it has started."""
        self.client.close()
        assert self._process.stdin is not None
        self._process.stdin.close()  # the keeper ends the group
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(keeper.GRACE_S + 5)
        with contextlib.suppress(ProcessLookupError):  # where the keeper was killed before
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._temporary.cleanup()

    def broken(self, error: Exception) -> ServeError:
        """Why an answer broke off."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)  # a connection ends a moment before its process
        if self.is_alive:
            return ServeError(f"{self.name}: the answer broke off ({error or type(error).__name__})")
        return self._problem("has ended")

    def _wait(self, start_s: float) -> None:
        end = time.monotonic() + start_s
        while self.is_alive:
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/health", timeout=5).status_code == httpx.codes.OK:
                    return
            if time.monotonic() > end:
                raise self._problem(f"was not ready after {start_s:g} s")
            time.sleep(_LOOK_S)
        raise self._problem("could not start")

    def _problem(self, what: str) -> ServeError:
        log = self._log.fileno()  # its place is the program's, so it is read without moving it
        end = os.pread(log, _LOG_BYTES, max(0, os.fstat(log).st_size - _LOG_BYTES))
        lines = end.decode(errors="replace").splitlines()[-_LOG_LINES:]
        said = "".join(f"\n    {line}" for line in lines) or " nothing"
        return ServeError(f"{self.name} {what}; the last it wrote:{said}")
