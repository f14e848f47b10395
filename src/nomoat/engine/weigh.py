"""How likely given tokens are: what `score` of the llama.cpp engines shares."""
# P tokens of a part · V vocabulary

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nomoat.chat.template import ChatTemplate
from nomoat.engine.cmodel import CModel
from nomoat.errors import EngineError


def score_answers(
    model: CModel, template: ChatTemplate, rendered: str, answers: Sequence[str], *, n_threads: int
) -> list[float]:
    """log p of each answer's tokens after the rendered prompt, in float32 attention.

    Prompt and answer are tokenized together, as training does, so a token that crosses the border belongs to
    the answer."""
    (prompt,) = template.encode_texts([rendered])
    found = []
    for tokens in template.encode_texts([rendered + answer for answer in answers]):
        shared = next(
            (i for i, (a, b) in enumerate(zip(prompt, tokens, strict=False)) if a != b), len(prompt)
        )
        logprobs = token_logprobs(model, tokens, n_threads=n_threads)
        found.append(float(sum(logprob or 0.0 for logprob in logprobs[shared:])))
    return found


def token_logprobs(model: CModel, tokens: Sequence[int], *, n_threads: int) -> list[float | None]:
    """log p of each token of a sequence given those before it; None for the first.

    Raises:
        EngineError: there are more tokens than the model's context holds, or none.
    """
    if not 0 < len(tokens) <= model.context_length:
        raise EngineError(
            f"the text has {len(tokens)} tokens; this model weighs 1 to {model.context_length} at once"
        )
    found: list[float | None] = [None]
    for logits_PV in model.logits_in_parts(tokens, n_threads=n_threads):
        following = tokens[len(found) : len(found) + len(logits_PV)]
        wide_PV = logits_PV[: len(following)].astype(np.float64)
        peak_P = wide_PV.max(axis=1, initial=-np.inf)
        log_sum_P = peak_P + np.log(np.exp(wide_PV - peak_P[:, None]).sum(axis=1))
        found += (wide_PV[np.arange(len(following)), following] - log_sum_P).tolist()
    return found
