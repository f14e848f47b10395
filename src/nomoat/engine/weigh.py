"""How likely given tokens are: what `score` of the engines that tell it shares."""
# P tokens of a part · V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nomoat.engine.cmodel import Adapter, CModel
from nomoat.errors import EngineError


def score_answers(
    encode: Callable[[Sequence[str]], list[list[int]]],
    weigh: Callable[[Sequence[int]], Sequence[float | None]],
    rendered: str,
    answers: Sequence[str],
) -> list[float]:
    """log p of each answer's tokens after the rendered prompt.

    Prompt and answer are tokenized together, as training does, so a token that crosses the border belongs to
    the answer.

    Args:
        encode: token ids of texts.
        weigh: log p of each token of a sequence, given those before it; None for the first.
    """
    (prompt,) = encode([rendered])
    found = []
    for tokens in encode([rendered + answer for answer in answers]):
        shared = next(
            (i for i, (a, b) in enumerate(zip(prompt, tokens, strict=False)) if a != b), len(prompt)
        )
        found.append(sum(logprob or 0.0 for logprob in weigh(tokens)[shared:]))
    return found


@dataclass(frozen=True)
class Weighed:
    """log p of a token, None for the first, and (token, log p) of the likeliest at its place."""

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def weigh_tokens(
    model: CModel, tokens: Sequence[int], top: int, *, n_threads: int, adapter: Adapter | None = None
) -> list[Weighed]:
    """How likely each token of a sequence was, given those before it, to the model with the adapter.

    Raises:
        EngineError: there are more tokens than the model's context holds, or none.
    """
    if not 0 < len(tokens) <= model.context_length:
        raise EngineError(
            f"the text has {len(tokens)} tokens; this model weighs 1 to {model.context_length} at once"
        )
    found = [Weighed(None)]
    for logits_PV in model.logits_in_parts(tokens, n_threads=n_threads, adapter=adapter):
        for logits_V in logits_PV[: len(tokens) - len(found)]:
            found.append(weigh_token(logits_V, tokens[len(found)], top))
    return found


def weigh_token(logits_V: np.ndarray, token: int, top: int) -> Weighed:
    """How likely one token is by the logits of its place."""
    wide_V = logits_V.astype(np.float64)
    logp_V = wide_V - wide_V.max()
    logp_V -= np.log(np.exp(logp_V).sum())
    likeliest = np.argsort(-logp_V, kind="stable")[:top] if top > 1 else [logp_V.argmax()][:top]
    pairs = tuple((int(other), float(logp_V[other])) for other in likeliest)
    return Weighed(float(logp_V[token]), pairs)
