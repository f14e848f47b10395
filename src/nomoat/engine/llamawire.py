"""What llama.cpp's server is told of a request, and what it tells of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from nomoat.engine.request import Ending, Likely, Piece, Request, Written
from nomoat.errors import EngineError

# transformers' order, which `nomoat.engine.choose` has too; llama.cpp's own begins with top_k.
_SAMPLERS = ["penalties", "temperature", "top_k", "top_p", "min_p"]
_GREEDY = ["penalties", "top_k"]  # one candidate is left: no softmax over a whole vocabulary for each token
_LARGEST_SEED = 2**32 - 2  # the next one means "a new seed each time" to llama.cpp


@final
class Listener:
    """What llama.cpp tells of one answer. Nothing may be raised through its C code."""

    def __init__(self, take: Callable[[Piece], bool]) -> None:
        self._take = take
        self.problem: BaseException | None = None
        self.ending: Ending | None = None

    def __call__(self, event: dict[str, Any]) -> bool:
        """One event; True ends the answer."""
        try:
            if "error" in event:
                self.problem = EngineError(event["error"]["message"])
                return True
            (choice,) = event["choices"]
            if choice["finish_reason"] is not None:
                self.ending = _ending(choice["finish_reason"], event["usage"])
            return not self._take(Piece(choice["text"], _written(choice["logprobs"])))
        except BaseException as error:
            self.problem = error
            return True


def body_of(request: Request, n_ctx: int) -> dict[str, Any]:
    """The request as llama.cpp's server reads it."""
    sampling = request.sampling
    is_greedy = sampling.temperature == 0
    body: dict[str, Any] = {
        "prompt": list(request.prompt),
        "stream": True,
        "return_progress": True,  # an event for each part of the prompt, so that it can be given up
        "n_predict": min(sampling.max_new_tokens, n_ctx - len(request.prompt)),
        "samplers": _GREEDY if is_greedy else _SAMPLERS,
        "temperature": sampling.temperature,
        "top_k": 1 if is_greedy else sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": request.min_p,
        "seed": sampling.seed % _LARGEST_SEED,
        "stop": list(sampling.stop),
        "repeat_penalty": 1.0,
        "repeat_last_n": n_ctx,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "logit_bias": [list(pair) for pair in request.logit_bias],
    }
    if request.grammar is not None:
        body["grammar"] = request.grammar
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)
    return body


def _ending(reason: str, usage: dict[str, Any]) -> Ending:
    return Ending(
        "stop" if reason == "stop" else "length",
        usage["prompt_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["completion_tokens"],
    )


def _written(logprobs: dict[str, Any] | None) -> tuple[Written, ...]:
    if logprobs is None:
        return ()
    return tuple(Written(_likely(t), tuple(map(_likely, t["top_logprobs"]))) for t in logprobs["content"])


def _likely(raw: dict[str, Any]) -> Likely:
    return Likely(raw["id"], raw["token"], bytes(raw["bytes"]), raw["logprob"])
