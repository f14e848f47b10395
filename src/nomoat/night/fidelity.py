"""Is what would be served what was trained? Every GGUF file against the folder it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nomoat.chat.template import ChatTemplate
from nomoat.data.pack import Head, Rows
from nomoat.data.store import TokenStore
from nomoat.errors import ModelError
from nomoat.evaluate.prompts import held_out_questions
from nomoat.model.load import load_tokenizer
from nomoat.quantize.fidelity import FidelityReport, Reference, compare

PROMPTS = 8
TOKENS = 24
LEAST_SAME_TOP = {
    "F32": 0.99,
    "F16": 0.98,
    "BF16": 0.9,
    "Q8_0": 0.9,
    "Q6_K": 0.85,
    "Q5_K_M": 0.8,
    "Q4_K_M": 0.5,
}
"""Below this share of equal likeliest tokens a file is not the model, unless its probabilities are near all
the same: where many tokens are about as likely, rounding decides which one is likeliest. The shares that good
files reach are in docs/benchmarks.md; the smaller the model, the lower they are."""
MOST_KL = {"F32": 0.001, "F16": 0.01, "BF16": 0.01, "Q8_0": 0.03, "Q6_K": 0.1, "Q5_K_M": 0.3, "Q4_K_M": 0.5}
"""Mean nats from the folder's probabilities that rounding may explain: three times and more what it took on
random weights, the worst case (tests/night/test_families.py); another model is several nats away."""


FAR = 10
"""At this many times `MOST_KL` no share of equal tokens helps: logits of another scale rank the tokens alike."""


def check_files(
    files: Path, model_dir: Path, prompts: Sequence[list[int]], *, n_ctx: int, threads: int
) -> list[dict[str, Any]]:
    """Compare every `*.gguf` in `files` with `model_dir` on `prompts`, token ids, as the report shows it. `n_ctx`:
    the files' context in tokens, of which at most half is answers.

    Raises ModelError for a file that answers so differently that it cannot be the same model.
    """
    tokens = _answer_tokens(n_ctx)
    reference = Reference.of(model_dir, prompts, max_new_tokens=tokens)
    rows = []
    for path in sorted(files.glob("*.gguf"), key=lambda path: -path.stat().st_size):
        type = path.stem.rsplit("-", 1)[-1]
        found = compare(
            path, model_dir, prompts, max_new_tokens=tokens, n_threads=threads, reference=reference
        )
        # a NaN compares false with everything, and so is never near
        near, in_sight = (found.mean_kl <= times * MOST_KL[type] for times in (1, FAR))
        if not in_sight or (found.same_top_token < LEAST_SAME_TOP[type] and not near):
            raise ModelError(
                f"{path.name} is not the trained model: only {found.same_top_token:.0%} of its likeliest tokens are "
                f"the same ({type} keeps at least {LEAST_SAME_TOP[type]:.0%}), and its probabilities are "
                f"{found.mean_kl:.2g} nats away (at most {MOST_KL[type]:g})",
                hint="Please report this with the base's name; the adapter and the merged folder are sound.",
            )
        rows.append(_row(path, type, found))
    return rows


def held_out_prompts(model_dir: Path, data: Path, *, n_ctx: int) -> list[list[int]]:
    """Held-out questions of the stage `data` on the served template; where there are none, `beginnings`.
    `n_ctx`: the files' context in tokens."""
    most_tokens = n_ctx - _answer_tokens(n_ctx)
    template = ChatTemplate.of(load_tokenizer(model_dir))
    questions = held_out_questions(
        data / "held_out.jsonl", PROMPTS, template=template, most_tokens=most_tokens
    )
    if questions:
        return [template.encode(q.conversation, add_generation_prompt=True) for q in questions]
    return beginnings(TokenStore.open(data / "held_out"), n_ctx=n_ctx)


def beginnings(held_out: Rows, *, n_ctx: int) -> list[list[int]]:
    """The first halves of the first rows, with room for an answer in a context of `n_ctx` tokens."""
    rows, most_tokens = Head(held_out, PROMPTS), n_ctx - _answer_tokens(n_ctx)
    lengths = [max(1, min(length // 2, most_tokens)) for length in rows.lengths.tolist()]
    return [rows[index][0][:length].tolist() for index, length in enumerate(lengths)]


def _answer_tokens(n_ctx: int) -> int:
    return min(TOKENS, n_ctx // 2)


def _row(path: Path, type: str, found: FidelityReport) -> dict[str, Any]:
    said = (
        f"{found.identical:.0%} of {found.prompts} greedy answers identical over {found.tokens} tokens; "
        f"the same likeliest token at {found.same_top_token:.1%} of {found.positions} positions"
    )
    return {
        "file": path.name,
        "type": type,
        "bytes": path.stat().st_size,
        "same_greedy_share": found.identical,
        "mean_kl": found.mean_kl,
        "same_top_share": found.same_top_token,
        "said": said,
    }
