"""Starting and stopping the server: where it listens, and that nobody else gets in."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from nomoat.engine import torchserver, vllm
from nomoat.engine.llamaserver import LlamaServerEngine, footprint_bytes
from nomoat.engine.request import ServingEngine
from nomoat.engine.torchserver import TorchEngine
from nomoat.engine.vllm import VllmEngine
from nomoat.errors import ServeError
from nomoat.ledger.store import Ledger
from nomoat.model.load import set_threads
from nomoat.serve.app import create_app
from nomoat.serve.guard import LOOPBACK_NAMES, Rules
from nomoat.serve.limits import UNLIMITED, Limits
from nomoat.serve.metrics import Metrics
from nomoat.serve.models import Catalogue, ServedModel, weights_of
from nomoat.serve.pool import Pool
from nomoat.serve.web.arena import Votes

# Answers that are being written when the server is told to stop have so long to end.
_GRACE_S = 120
_MOST_BYTES = 16 * 2**20
_OF_CARD = (
    0.9  # a server's share of a GPU unless something else is said; the rest is for CUDA itself and the screen
)
LLAMACPP, TORCH, VLLM = "llama.cpp", "torch", "vllm"


@dataclass(frozen=True)
class Settings:
    """How a server is run.

    Attributes:
        most_context: tokens of a conversation at most; less where a model was made for less.
        n_parallel: answers that one model writes at once.
        budget_bytes: what all loaded models together may take.
        idle_s: a model that nobody used for so long is closed.
        most_waiting: requests that may wait; the next one is sent away.
        hosts: names besides localhost and numbers by which the server may be asked for.
        limits: what each key may ask for.
        chats: the ledger in which the web app keeps conversations; None serves no web app.
        votes: where votes of the web app's arena go; None serves no arena.
        engine: a key of `ENGINES`.
    """

    most_context: int
    n_parallel: int
    n_threads: int
    budget_bytes: int
    idle_s: float
    most_waiting: int
    hosts: frozenset[str] = frozenset()
    limits: Limits = UNLIMITED
    chats: Path | None = None
    votes: Votes | None = None
    engine: str = LLAMACPP


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections from now on; port 0 is any free one.

    Raises:
        ServeError: the address is not ours, or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host {host}: is no address ({error})", hint="Try 127.0.0.1 or 0.0.0.0") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except OSError as error:
        made.close()
        hints = {
            errno.EADDRINUSE: "Another program listens there: give another --port, or end that one.",
            errno.EACCES: "Ports below 1024 are the system's: give a larger --port.",
            errno.EADDRNOTAVAIL: "This machine has no such address: try 127.0.0.1 or 0.0.0.0.",
        }
        raise ServeError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint=hints.get(error.errno or 0)
        ) from None
    return made


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listening: socket.socket) -> str:
    """How to reach it from here."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(listening: socket.socket, catalogue: Catalogue, settings: Settings, keys: Ledger | None) -> None:
    """Answer until SIGINT or SIGTERM; then answers that are being written are finished, and a second signal
    ends them too. `keys` is the ledger that knows the keys; None demands no key, on loopback only."""
    assert keys is not None or is_loopback(listening)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(catalogue, settings, keys),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it once more when all is finished
        server.run(sockets=[listening])


def make_app(catalogue: Catalogue, settings: Settings, keys: Ledger | None) -> Any:
    """The ASGI application over the engine that the settings name."""
    metrics = Metrics()
    pool = Pool(
        catalogue,
        *ENGINES[settings.engine](settings),
        budget_bytes=settings.budget_bytes,
        idle_s=settings.idle_s,
        metrics=metrics,
    )
    rules = Rules(LOOPBACK_NAMES | settings.hosts, _MOST_BYTES, keys, settings.limits)
    return create_app(
        pool,
        metrics,
        rules,
        most_waiting=settings.most_waiting,
        chats=settings.chats,
        votes=settings.votes,
    )


Opener = tuple[Callable[[ServedModel], ServingEngine], Callable[[ServedModel], int]]


def _llamacpp(settings: Settings) -> Opener:
    def open_engine(model: ServedModel) -> ServingEngine:
        return LlamaServerEngine(
            model.gguf,
            tokenizer_dir=model.tokenizer_dir,
            n_ctx=_context(settings, model),
            n_parallel=settings.n_parallel,
            n_threads=settings.n_threads,
            adapters=dict(model.adapters),
        )

    def size_of(model: ServedModel) -> int:
        adapters = sum(file.stat().st_size for _, file in model.adapters)
        return adapters + footprint_bytes(
            model.gguf, n_tokens=_context(settings, model) * settings.n_parallel
        )

    return open_engine, size_of


def _torch(settings: Settings) -> Opener:
    set_threads(settings.n_threads)

    def open_engine(model: ServedModel) -> ServingEngine:
        return TorchEngine(weights_of(model), n_ctx=_context(settings, model), n_parallel=settings.n_parallel)

    def size_of(model: ServedModel) -> int:
        n_tokens = _context(settings, model) * settings.n_parallel
        return torchserver.footprint_bytes(weights_of(model), n_tokens=n_tokens)

    return open_engine, size_of


def _vllm(settings: Settings) -> Opener:
    """vLLM fills all memory it is given, so each model takes the whole budget and there is one at a time."""
    card = vllm.card_bytes()

    def open_engine(model: ServedModel) -> ServingEngine:
        return VllmEngine(
            weights_of(model),
            n_ctx=_context(settings, model),
            n_parallel=settings.n_parallel,
            memory_share=settings.budget_bytes / card,
        )

    def size_of(model: ServedModel) -> int:
        weights_of(model)  # before the one that is loaded gives way
        return settings.budget_bytes

    return open_engine, size_of


ENGINES: dict[str, Callable[[Settings], Opener]] = {LLAMACPP: _llamacpp, TORCH: _torch, VLLM: _vllm}
"""name -> what opens a model, and what tells the memory it will take."""


def _context(settings: Settings, model: ServedModel) -> int:
    return min(settings.most_context, model.context_length)


def budget_bytes(engine: str, gib: float | None) -> int:
    """What loaded models may take together: so many GiB, or else half of this machine's memory, where a GPU computes
    nine tenths of the GPU's.

    Raises:
        ServeError: the engine cannot run here, or the GPU has less.
    """
    card = None
    if engine != LLAMACPP:
        card = vllm.card_bytes() if engine == VLLM else torchserver.card_bytes()
    if card is None:
        return half_of_memory() if gib is None else int(gib * 2**30)
    asked = int(_OF_CARD * card) if gib is None else int(gib * 2**30)
    if asked > card:
        raise ServeError(f"--memory: got {gib:g}; expected at most the {card / 2**30:.1f} GiB of this GPU")
    return asked


def half_of_memory() -> int:
    """Half of this machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
