"""How much of the server one key may take, so that no key's holder keeps the others from it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from nomoat.ledger.keys import Holder
from nomoat.serve.errors import ApiError

_MINUTE_S = 60.0


@dataclass(frozen=True)
class Limits:
    """What one key may ask for; None: as much as it likes.

    Attributes:
        most_at_once: requests that run or wait.
        most_per_minute: requests that begin within any 60 seconds. Those that are refused do not count.
    """

    most_at_once: int | None = None
    most_per_minute: int | None = None


UNLIMITED = Limits()


@final
class Ration:
    """Counts the requests of each key. For the event loop's thread."""

    def __init__(self, limits: Limits, *, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._running: Counter[int] = Counter()
        self._begun: defaultdict[int, deque[float]] = defaultdict(deque)

    @contextmanager
    def request(self, holder: Holder | None) -> Generator[None]:
        """One request of this key, from its beginning to the end of its answer. None: no key is demanded, and nobody is
        counted.

        Raises:
            ApiError: 429, the key has all that it may have now.
        """
        if holder is None:
            yield
            return
        key = holder.key_id
        self._refuse_beyond(key)
        self._running[key] += 1
        self._begun[key].append(self._now())
        try:
            yield
        finally:
            self._running[key] -= 1

    def _refuse_beyond(self, key: int) -> None:
        at_once, per_minute = self._limits.most_at_once, self._limits.most_per_minute
        if at_once is not None and self._running[key] >= at_once:
            raise _refusal(f"This key has {at_once} requests running already, the most it may have", 1.0)
        begun, now = self._begun[key], self._now()
        while begun and begun[0] <= now - _MINUTE_S:
            begun.popleft()
        if per_minute is not None and len(begun) >= per_minute:
            wait_s = begun[0] + _MINUTE_S - now
            raise _refusal(f"This key made {per_minute} requests within a minute, the most it may", wait_s)


def _refusal(message: str, retry_after_s: float) -> ApiError:
    return ApiError(
        429,
        f"{message}; try again later",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_s=max(1.0, retry_after_s),
    )
