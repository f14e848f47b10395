"""What /metrics tells Prometheus. Times are seconds, sizes bytes."""

from __future__ import annotations

from typing import final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER = "other"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "nomoat_requests", "Requests answered.", ("path", "status"), registry=registry
        )
        self.first_token_s = Histogram(
            "nomoat_time_to_first_token_seconds",
            "From a request's arrival to its first token, waiting included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.rate = Histogram(
            "nomoat_answer_tokens_per_second",
            "Pace of one answer after its first token.",
            buckets=_RATES,
            registry=registry,
        )
        self.prompt_tokens = Counter("nomoat_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.completion_tokens = Counter("nomoat_completion_tokens", "Tokens of answers.", registry=registry)
        self.cancelled = Counter(
            "nomoat_cancelled_answers", "Answers whose reader went away.", registry=registry
        )
        self.waiting = Gauge(
            "nomoat_waiting_requests", "Requests that wait for their turn.", registry=registry
        )
        self.running = Gauge("nomoat_running_answers", "Answers being written.", registry=registry)
        self.loaded_bytes = Gauge(
            "nomoat_model_bytes", "Estimated memory of each loaded model.", ("model",), registry=registry
        )
        self.loads = Counter("nomoat_model_loads", "Models opened.", ("model",), registry=registry)
        ProcessCollector(registry=registry)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


@final
class Counted:
    """ASGI middleware that counts requests by endpoint and status; those to no endpoint are one kind."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", OTHER)
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)
