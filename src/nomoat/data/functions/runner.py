"""An owner's Python function that judges answers, in a process of its own and with a time limit."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from nomoat.data.functions import Asked, Failed, Question, finite
from nomoat.data.functions.child import START_LIMIT_S
from nomoat.errors import DataError


@final
class PythonFunction:
    """`function(messages, answer, row) -> number` of a file: the turns before the answer as {"role", "content"}, its
    text, and the prompt's row. A function that raises, gives no finite number, or needs longer than `limit_s` for one
    answer has no number for it; one that hangs is ended and started anew.

    Raises DataError at once, with `where` it was named, where file or function cannot be loaded.
    """

    def __init__(self, file: Path, function: str, *, limit_s: float, where: str) -> None:
        self.name = f"{file.name}:{function}"
        child = "nomoat.data.functions.child"
        self._command = [sys.executable, "-m", child, str(file.resolve()), function, str(limit_s)]
        self._limit_s = limit_s
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str] = queue.Queue()
        failed = self._start()
        if failed is not None:
            raise DataError(
                f"{where}: {self.name} cannot be loaded: {failed.detail}",
                hint="Expected a file with a function of messages, answer and row that gives a number.",
            )

    def score(self, asked: Asked) -> list[float | Failed]:
        """A number for every answer, one after the other."""
        return [self._judge(question, text) for question, text in asked]

    def close(self) -> None:
        """End the process, and what it has started."""
        if self._process is not None:
            _kill(self._process)
            self._process = None

    def _judge(self, question: Question, text: str) -> float | Failed:
        if self._process is None:
            failed = self._start()
            if failed is not None:
                return failed
        assert self._process is not None
        assert self._process.stdin is not None
        asked = {"messages": [*map(dict, question.messages)], "answer": text, "row": dict(question.row)}
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except OSError:
            self.close()
            return Failed("ended", "its process was gone")
        reply = self._reply(self._limit_s)
        if isinstance(reply, Failed):
            self.close()
            return reply
        if "raised" in reply:
            return Failed("raised", reply["raised"])
        if "type" in reply:
            return Failed("no number", f"got {reply['type']}; expected a number")
        return finite(reply["value"])

    def _start(self) -> Failed | None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C lets the night finish its step, answers that are judged included
        )
        self._replies = queue.Queue()
        threading.Thread(target=_pass_on, args=(self._process, self._replies), daemon=True).start()
        reply = self._reply(START_LIMIT_S)
        if isinstance(reply, dict) and "ready" in reply:
            return None
        self.close()
        return reply if isinstance(reply, Failed) else Failed("raised", reply["raised"])

    def _reply(self, limit_s: float) -> dict[str, Any] | Failed:
        try:
            line = self._replies.get(timeout=limit_s)
        except queue.Empty:
            return Failed("timed out", f"no number within {limit_s:g} s")
        if not line:
            return Failed("ended", "its process ended")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process and all of its session, where the system has such; not waited for is what has left it, though
    that may hold the pipes."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of what has ended
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with suppress(OSError):  # of what was never read
        process.stdin.close()


def _pass_on(process: subprocess.Popen[str], replies: queue.Queue[str]) -> None:
    """Lines of the process as they come, and an empty one at their end; a thread, so that waiting has a limit on every
    system. It alone closes the pipe: nobody else could while it reads."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            replies.put(line)
    replies.put("")
