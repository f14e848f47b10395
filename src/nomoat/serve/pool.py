"""Loaded models: opened when asked for, within a memory budget, and closed when idle. No answer is dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast, final

from nomoat.engine.request import Adaptable, ServingEngine
from nomoat.serve.errors import SERVER, ApiError, told
from nomoat.serve.metrics import Metrics
from nomoat.serve.models import Catalogue, ServedModel


@dataclass
class Weights:
    """An open file. `slots` are the answers its engine writes at once; `leases` the requests that need it."""

    name: str
    engine: ServingEngine
    bytes: int
    slots: asyncio.Semaphore
    threads: ThreadPoolExecutor
    leases: int = 0
    last_used: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Loaded:
    """A model of weights that are open: themselves, or one of the adapters on them, which share all they have."""

    name: str
    engine: ServingEngine
    weights: Weights

    @property
    def slots(self) -> asyncio.Semaphore:
        return self.weights.slots

    @property
    def threads(self) -> ThreadPoolExecutor:
        return self.weights.threads


@final
class Pool:
    """Opens engines and keeps count of who uses them. All methods are for the event loop's thread.

    Args:
        catalogue: where names and files come from.
        open_engine: loads a model; called in a thread.
        size_of: the memory it will take, in bytes; called in a thread.
        budget_bytes: what all loaded models together may take.
        idle_s: a model that nobody used for so long is closed.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        open_engine: Callable[[ServedModel], ServingEngine],
        size_of: Callable[[ServedModel], int],
        *,
        budget_bytes: int,
        idle_s: float,
        metrics: Metrics,
    ) -> None:
        self.catalogue = catalogue
        self._open_engine = open_engine
        self._size_of = size_of
        self._budget_bytes = budget_bytes
        self._idle_s = idle_s
        self._metrics = metrics
        self._loaded: dict[str, Weights] = {}
        self._loading = asyncio.Lock()
        self._released = asyncio.Event()
        self._waits_for_room = False

    async def lease(self, name: str) -> Loaded:
        """The model of this name, loaded. It stays so until `release`.

        Raises:
            ApiError: there is no such model, it cannot be opened, or it is larger than the budget.
        """
        resolved = await asyncio.to_thread(self.catalogue.resolve, name)
        if resolved is None:
            known = ", ".join(model.name for model in await asyncio.to_thread(self.catalogue.names))
            raise ApiError(
                404,
                f"The model '{name}' does not exist. This server has: {known or 'none'}",
                param="model",
                code="model_not_found",
            )
        weights = self.catalogue.weights_of(resolved)
        # While somebody waits for room nobody passes: the models in use would never be free.
        if self._waits_for_room or weights not in self._loaded:
            async with self._loading:
                if weights not in self._loaded:
                    await self._load(weights)
                return self._leased(self._loaded[weights], resolved)
        return self._leased(self._loaded[weights], resolved)

    def hold(self, loaded: Loaded) -> None:
        """It is needed once more, until another `release`."""
        loaded.weights.leases += 1

    def release(self, loaded: Loaded) -> None:
        """It is needed once less."""
        loaded.weights.leases -= 1
        loaded.weights.last_used = time.monotonic()
        self._released.set()

    async def close_idle(self) -> None:
        """Close what nobody has used for a while; called now and then."""
        before = time.monotonic() - self._idle_s
        for weights in [one for one in self._loaded.values() if one.leases == 0 and one.last_used < before]:
            await self._close(weights)

    async def close(self) -> None:
        """Close everything, when no request is left."""
        for weights in list(self._loaded.values()):
            await self._close(weights)

    def names(self) -> list[str]:
        """What is loaded now."""
        return list(self._loaded)

    def _leased(self, weights: Weights, resolved: str) -> Loaded:
        is_adapter = resolved != weights.name
        engine = cast(Adaptable, weights.engine).adapted(resolved) if is_adapter else weights.engine
        loaded = Loaded(resolved, engine, weights)
        self.hold(loaded)
        return loaded

    async def _load(self, name: str) -> None:
        try:
            model = await asyncio.to_thread(self.catalogue.find, name)
            size = await asyncio.to_thread(self._size_of, model)
            await self._make_room(name, size)
            engine = await asyncio.to_thread(self._open_engine, model)
        except ApiError:
            raise
        except Exception as error:
            problem = told(error)
            raise ApiError(503, problem.message, kind=SERVER, code="model_not_available") from error
        threads = ThreadPoolExecutor(engine.n_parallel, thread_name_prefix=name)
        self._loaded[name] = Weights(name, engine, size, asyncio.Semaphore(engine.n_parallel), threads)
        self._metrics.loaded_bytes.labels(name).set(size)
        self._metrics.loads.labels(name).inc()

    async def _make_room(self, name: str, size: int) -> None:
        """Close the longest unused models until this one fits; wait for those in use."""
        if size > self._budget_bytes:
            raise ApiError(
                503,
                f"The model '{name}' takes about {size / 2**30:.1f} GiB; this server may use "
                f"{self._budget_bytes / 2**30:.1f} (nomoat serve --memory GIB)",
                kind=SERVER,
                code="model_too_large",
            )
        self._waits_for_room = True
        try:
            while sum(one.bytes for one in self._loaded.values()) + size > self._budget_bytes:
                free = [one for one in self._loaded.values() if one.leases == 0]
                if free:
                    await self._close(min(free, key=lambda one: one.last_used))
                else:
                    self._released.clear()
                    await self._released.wait()
        finally:
            self._waits_for_room = False

    async def _close(self, weights: Weights) -> None:
        del self._loaded[weights.name]
        self._metrics.loaded_bytes.remove(weights.name)
        await asyncio.to_thread(weights.threads.shutdown)
        await asyncio.to_thread(weights.engine.close)
