"""Answers of the model that is being trained, many at once: the rollouts of reinforcement and of best-of-n.

Every answer has its own random numbers and log-probabilities; it takes a row of the cache while it grows and gives
it up when it ends, so that no step computes what is finished.

R rows that grow · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nomoat.data.pack import Tokens, pack
from nomoat.engine.base import FinishReason, Sampling
from nomoat.model.cache import Cache, Reading, Writing
from nomoat.model.fused.decode import Step, read_step
from nomoat.model.fused.native import drawn
from nomoat.model.modes import evaluating

MAX_ROWS = 64
"""Answers that grow at once: more of them fill a small machine no better, and each takes room in the cache."""
_PIECE = 128


@dataclass(frozen=True)
class Rollout:
    """One answer: its tokens, the stop token included, and the logarithm of the probability with which each was
    drawn (at temperature 0: the model's own), float32."""

    tokens: Tokens
    logps: NDArray[np.float32]
    finish_reason: FinishReason


def roll_out(
    model: Any,
    prompts: Sequence[Tokens],
    *,
    sampling: Sampling,
    stop_tokens: AbstractSet[int],
    seeds: Sequence[Sequence[int]] | None = None,
    max_rows: int = MAX_ROWS,
) -> list[Rollout]:
    """An answer to every prompt, in order, by the model with the weights and the adapter it has now.

    `seeds` names each answer's random numbers, which are its own (default: `sampling.seed` and its index). Other
    answers of the batch change a sample only where rounding decides. Prompts that are equal are read once.
    Prompts must leave room for a token in the model's context; texts (`sampling.stop`) are not looked for.
    """
    assert not sampling.stop, sampling.stop
    context = model.config.get_text_config().max_position_embeddings
    limits = [min(sampling.max_new_tokens, context - len(prompt)) for prompt in prompts]
    assert all(limit > 0 for limit in limits), "a prompt fills the context"
    if seeds is None:
        seeds = [(sampling.seed, index) for index in range(len(prompts))]
    answers = [
        _Growing(prompt, limit, np.random.default_rng(seed).random(limit))
        for prompt, limit, seed in zip(prompts, limits, seeds, strict=True)
    ]
    with evaluating(model), torch.no_grad():
        _grow(model, answers, sampling, stop_tokens, max_rows)
    return [answer.finished() for answer in answers]


@dataclass
class _Growing:
    """An answer on its way; `uniform` is what its tokens are drawn with."""

    prompt: Tokens
    limit: int
    uniform: NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    stopped: bool = False

    def add(self, token: int, logp: float, stop_tokens: AbstractSet[int]) -> bool:
        """Take the next token; True where it was the last."""
        self.tokens.append(token)
        self.logps.append(logp)
        self.stopped = token in stop_tokens
        return self.stopped or len(self.tokens) == self.limit

    def finished(self) -> Rollout:
        return Rollout(
            np.array(self.tokens, dtype=np.uint32),
            np.array(self.logps, dtype=np.float32),
            "stop" if self.stopped else "length",
        )


def _grow(
    model: Any,
    answers: Sequence[_Growing],
    sampling: Sampling,
    stop_tokens: AbstractSet[int],
    max_rows: int,
) -> None:
    """Let all answers grow to their ends, `max_rows` at a time; half-empty rows are filled from those waiting."""
    cache = Cache(min(max_rows, len(answers)), max(len(a.prompt) + a.limit for a in answers))
    step = step_of(model)
    waiting, growing = list(reversed(answers)), list[_Growing]()
    while waiting or growing:
        if waiting and len(growing) <= cache.rows // 2:
            first = len(growing)
            growing += [waiting.pop() for _ in range(min(len(waiting), cache.rows - first))]
            logits_RV = read_prompts(model, cache, [answer.prompt for answer in growing[first:]], first)
            _draw(logits_RV, growing, first, cache, sampling, stop_tokens)
            continue
        positions = [len(answer.prompt) + len(answer.tokens) - 1 for answer in growing]
        writing = Writing(cache, torch.tensor(positions, device=model.device), max(positions) + 1)
        last_R = torch.tensor([answer.tokens[-1] for answer in growing], device=model.device)
        _draw(step(last_R, writing), growing, 0, cache, sampling, stop_tokens)


def read_prompts(model: Any, cache: Cache, prompts: Sequence[Tokens], first_row: int) -> torch.Tensor:
    """Read prompts into rows from `first_row` on, equal ones once: float32 logits [R, V] of what comes after each.
    Without gradient: call it under `torch.no_grad`."""
    rows_of: dict[bytes, list[int]] = {}
    for row, prompt in enumerate(prompts, first_row):
        rows_of.setdefault(prompt.tobytes(), []).append(row)
    different = [prompts[rows[0] - first_row] for rows in rows_of.values()]
    packed = pack([(prompt, np.zeros(len(prompt), dtype=np.bool_)) for prompt in different], model.device)
    ends = torch.tensor([end - 1 for _, end in packed.segments.spans], device=model.device)
    logits_PV = model(
        input_ids=packed.tokens_T[None],
        position_ids=packed.positions_T[None],
        segments=Reading(cache, packed.segments, list(rows_of.values())),
        use_cache=False,
        logits_to_keep=ends,
    ).logits[0]
    prompt_of_row = {row: index for index, rows in enumerate(rows_of.values()) for row in rows}
    order = [prompt_of_row[row] for row in range(first_row, first_row + len(prompts))]
    return logits_PV[order].float()


def step_of(model: Any) -> Step:
    """One token more in each row, with the weights that the model has now; under `torch.no_grad` too."""
    return read_step(model) or _own_step(model)


def _own_step(model: Any) -> Step:
    """One token more through the model's own forward."""

    def step(tokens_R: torch.Tensor, writing: Writing) -> torch.Tensor:
        output = model(
            input_ids=tokens_R[None],
            position_ids=writing.positions_R[None],
            segments=writing,
            use_cache=False,
        )
        logits: torch.Tensor = output.logits[0].float()
        return logits

    return step


def _draw(
    logits_RV: torch.Tensor,
    growing: list[_Growing],
    first: int,
    cache: Cache,
    sampling: Sampling,
    stop_tokens: AbstractSet[int],
) -> None:
    """Give the answers from `first` on their next token; those that end make room for the last ones."""
    uniform_R = torch.tensor([answer.uniform[len(answer.tokens)] for answer in growing[first:]])
    tokens_R, logp_R = draw(logits_RV, uniform_R.to(logits_RV), sampling)
    pairs = zip(growing[first:], tokens_R.tolist(), logp_R.tolist(), strict=True)
    ended = [row for row, (a, token, logp) in enumerate(pairs, first) if a.add(token, logp, stop_tokens)]
    for row in reversed(ended):
        last = growing.pop()
        if row < len(growing):
            growing[row] = last
            cache.move(len(growing), row, len(last.prompt) + len(last.tokens) - 1)


def draw(
    logits_RV: torch.Tensor, uniform_R: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [R] and the logarithm of what each was drawn with, from float32 logits and numbers in [0, 1).

    In the order transformers has: temperature, top_k, top_p. The token is where the distribution's running sum
    first exceeds the uniform number, so that a token of probability 0 is never drawn.
    """
    if sampling.temperature == 0:
        logp_RV = logits_RV.log_softmax(-1)
        logp_R, tokens_R = logp_RV.max(-1)
        return tokens_R, logp_R
    kept_RV, ids_RV = logits_RV, None
    if sampling.temperature != 1:
        kept_RV = kept_RV / sampling.temperature
    if 0 < sampling.top_k < kept_RV.shape[1]:
        kept_RV, ids_RV = kept_RV.topk(sampling.top_k)
    elif sampling.top_p < 1:
        kept_RV, ids_RV = kept_RV.sort(descending=True)
    if sampling.top_p < 1:
        shares = kept_RV.softmax(-1)
        before = shares.cumsum(-1) - shares
        kept_RV = kept_RV.masked_fill(before >= sampling.top_p, float("-inf"))
    chosen_R, logp_R = drawn(kept_RV, uniform_R) or _drawn(kept_RV, uniform_R)
    return (chosen_R if ids_RV is None else ids_RV.gather(1, chosen_R[:, None])[:, 0]), logp_R


def _drawn(logits_RV: torch.Tensor, uniform_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the running sum of softmax(logits) first exceeds the uniform numbers, and the logarithms of the
    probabilities there, both [R]. The sum runs over pieces first and then within one: adding up numbers one by
    one takes longer than all else."""
    rows, vocabulary = logits_RV.shape
    uniform_R1 = uniform_R[:, None]
    highest_R1 = logits_RV.amax(-1, keepdim=True)
    weights = logits_RV.new_zeros(rows, -(-vocabulary // _PIECE), _PIECE)
    torch.exp(logits_RV - highest_R1, out=weights.view(rows, -1)[:, :vocabulary])
    sums = weights.sum(-1)
    running = sums.cumsum(-1)
    total_R1 = running[:, -1:]
    wanted_R1 = _below(uniform_R1 * total_R1, total_R1)
    piece_R1 = torch.searchsorted(running, wanted_R1, right=True)
    before_R1 = running.gather(1, piece_R1) - sums.gather(1, piece_R1)
    within = weights[torch.arange(rows, device=weights.device), piece_R1[:, 0]].cumsum(-1)
    wanted_R1 = _below((wanted_R1 - before_R1).clamp_(min=0), within[:, -1:])
    chosen_R1 = piece_R1 * _PIECE + torch.searchsorted(within, wanted_R1, right=True)
    return chosen_R1[:, 0], (logits_RV.gather(1, chosen_R1) - highest_R1 - total_R1.log())[:, 0]


def _below(wanted_R1: torch.Tensor, total_R1: torch.Tensor) -> torch.Tensor:
    """Less than the total: rounding must not let what is behind the last probable token be drawn."""
    return torch.minimum(wanted_R1, total_R1.nextafter(torch.zeros_like(total_R1)))
