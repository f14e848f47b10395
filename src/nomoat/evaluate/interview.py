"""Questions to a model that answers slowly or for money: many at once, each answer kept on the disk under the hash of
who was asked what, so that none is asked for, or paid for, twice. A question that is not answered is a counted value
and not the end, unless most are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, final

from nomoat.chat.conversation import Conversation
from nomoat.errors import EngineError
from nomoat.ledger.canonical import canonical_key

Progress = Callable[[int, int], None]
"""Told how many questions of how many have been answered."""

ENOUGH = 20
"""Replies after which one who fails most of the time is given up."""

Found = TypeVar("Found", float, str)


@dataclass(frozen=True)
class Failed:
    """A reply that is none, by kind, such as `no answer`."""

    kind: str
    detail: str


@final
class Interview(Generic[Found]):
    """One who is asked, with what was answered before.

    Args:
        reply: gives the reply to a conversation, or why there is none; called from `n_parallel` threads.
        role: what it is called where it fails, such as `judge`.
        identity: names it among kept answers, with all else that an answer depends on.
        file: JSONL, made where it is not there.
    """

    def __init__(
        self,
        reply: Callable[[Conversation], Found | Failed],
        *,
        role: str,
        identity: str,
        file: Path,
        n_parallel: int = 1,
    ) -> None:
        self._reply: Callable[[Conversation], Found | Failed] = reply
        self._role, self._identity = role, identity
        self._n_parallel, self._file = n_parallel, file
        self._known: dict[str, Found] = _kept(file)
        self.failures: Counter[str] = Counter()
        self.asked = self.remembered = 0

    def replies(
        self, questions: Sequence[Conversation], progress: Progress = lambda done, total: None
    ) -> list[Found | Failed]:
        """What each question is answered with, now or before, in order.

        Raises EngineError where most replies fail.
        """
        keys = [canonical_key({self._role: self._identity, "asked": asked.to_dict()}) for asked in questions]
        new = {key: asked for key, asked in zip(keys, questions, strict=True) if key not in self._known}
        self.remembered += len(set(keys)) - len(new)
        failed: dict[str, Failed] = {}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._file.open("a", encoding="utf-8", newline="\n") as file,
            ThreadPoolExecutor(self._n_parallel) as pool,
        ):
            try:
                for done, (key, found) in enumerate(
                    zip(new, pool.map(self._reply, new.values()), strict=True), 1
                ):
                    self.asked += 1
                    progress(done, len(new))
                    if isinstance(found, Failed):
                        failed[key] = found
                        self.failures[found.kind] += 1
                        self._give_up_where_most_fail(found, is_last=done == len(new))
                    else:
                        self._known[key] = found
                        # the line break first: a killed run may have left half a line
                        file.write("\n" + json.dumps({"key": key, "found": found}))
                        file.flush()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [failed[key] if key in failed else self._known[key] for key in keys]

    def failures_said(self) -> str:
        """'3 of 80 replies failed: nonsense (3)', '' where none did."""
        if not self.failures:
            return ""
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(self.failures.items()))
        return f"{self.failures.total():,} of {self.asked:,} replies failed: {kinds}"

    def _give_up_where_most_fail(self, last: Failed, *, is_last: bool) -> None:
        failed = self.failures.total()
        most_now = self.asked >= ENOUGH and failed > self.asked / 2
        if most_now or (is_last and failed > (self.asked + self.remembered) / 2):
            raise EngineError(
                f"the {self._role} fails: {self.failures_said()}; the last: {last.detail}",
                hint=f"Replies that could be read are kept. Choose another {self._role}.",
            )


def _kept(file: Path) -> dict[str, Found]:
    """Answers on the disk. A line that a killed run left unfinished is none."""
    known: dict[str, Found] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").split("\n"):  # splitlines would cut at U+2028 too
            try:
                row = json.loads(line)
                known[row["key"]] = row["found"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    return known
