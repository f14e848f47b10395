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
HUNG_UP = 499  # nginx's word for it; nobody reads it
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests_begun = Counter("nomoat_requests_begun", "Requests that came in.", registry=registry)
        self.requests = Counter(
            "nomoat_requests",
            "Requests answered; 499: the client went away before. Those begun are these and those at work.",
            ("path", "status"),
            registry=registry,
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
        self.answers_begun = Counter(
            "nomoat_answers_begun", "Answers that a model began to write.", registry=registry
        )
        self.answers_ended = Counter(
            "nomoat_answers_ended",
            "How they ended: at their own end (stop), their limit (length), because the reader went away "
            "(cancelled), or because the model failed. Those begun are these and those being written.",
            ("outcome",),
            registry=registry,
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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_answered = False

        def count(status: int) -> None:
            nonlocal is_answered
            is_answered = True
            path = getattr(scope.get("route"), "path", OTHER)
            self._metrics.requests.labels(path, status).inc()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        self._metrics.requests_begun.inc()
        try:
            await self._app(scope, receive, counted)
        finally:
            if not is_answered:
                count(HUNG_UP)
