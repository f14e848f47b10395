"""How near a GGUF file answers to the transformers folder that it was made from."""
# T tokens · V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nomoat.chat.template import ChatTemplate
from nomoat.engine.base import Sampling
from nomoat.engine.cmodel import CModel
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.errors import ModelError
from nomoat.model.load import load_tokenizer


@dataclass(frozen=True)
class FirstDifference:
    """Where a greedy answer first differs: the `token`-th of the answer to prompt `prompt`, counted from 0.
    -1 for a side that had ended."""

    prompt: int
    token: int
    expected: int
    found: int


@dataclass(frozen=True)
class FidelityReport:
    """A file against its folder.

    Attributes:
        gguf: the file's name.
        prompts: how many greedy answers were compared.
        tokens: of how many tokens each at most.
        identical: share of the answers that are the same token for token.
        first_difference: of the first answer that is not; None where all are.
        mean_kl: mean over positions of KL(transformers || file), in nats.
        same_top_token: share of positions at which both find the same token likeliest.
        positions: how many positions the last two are over: prompts and transformers' answers.
    """

    gguf: str
    prompts: int
    tokens: int
    identical: float
    first_difference: FirstDifference | None
    mean_kl: float
    same_top_token: float
    positions: int


@dataclass(frozen=True)
class Reference:
    """The folder's model as transformers itself runs it, and its greedy answers: made once for all files."""

    model: Any
    answers: tuple[list[int], ...]

    @staticmethod
    def of(model_dir: Path, prompts: Sequence[list[int]], *, max_new_tokens: int) -> Reference:
        """Load the folder in float32 and answer `prompts`, token ids."""
        model = load_plain(model_dir)
        stops = ChatTemplate.of(load_tokenizer(model_dir)).stop_token_ids
        return Reference(model, tuple(_greedy(model, prompt, max_new_tokens, stops) for prompt in prompts))


def compare(
    gguf: Path,
    model_dir: Path,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int = 24,
    n_threads: int = 1,
    reference: Reference | None = None,
) -> FidelityReport:
    """Answer prompts greedily with both, and compare logits on transformers' own answers.

    Args:
        prompts: token ids, as the chat template renders them.
        reference: the folder's own answers to these prompts, where they are there already.

    Raises:
        EngineError: the file cannot be loaded, or a prompt leaves no room in its context.
    """
    if not prompts:
        raise ModelError("fidelity: no prompts to compare on")
    with LlamaCppEngine(gguf, tokenizer_dir=model_dir, n_threads=n_threads, exact=True) as engine:
        found = engine.complete(prompts, Sampling(max_new_tokens=max_new_tokens))
    reference = reference or Reference.of(model_dir, prompts, max_new_tokens=max_new_tokens)
    answers = [(want, list(got.tokens)) for want, got in zip(reference.answers, found, strict=True)]
    sequences = [prompt + want for prompt, want in zip(prompts, reference.answers, strict=True)]
    mean_kl, same_top_token, positions = _compare_logits(gguf, reference.model, sequences, n_threads)
    return FidelityReport(
        gguf=gguf.name,
        prompts=len(prompts),
        tokens=max_new_tokens,
        identical=sum(want == got for want, got in answers) / len(answers),
        first_difference=first_difference(answers),
        mean_kl=mean_kl,
        same_top_token=same_top_token,
        positions=positions,
    )


def first_difference(answers: Sequence[tuple[list[int], list[int]]]) -> FirstDifference | None:
    """The first pair (expected, found) that is not equal, and where in it."""
    for prompt, (expected, found) in enumerate(answers):
        for token in range(max(len(expected), len(found))):
            want = expected[token] if token < len(expected) else -1
            got = found[token] if token < len(found) else -1
            if want != got:
                return FirstDifference(prompt, token, want, got)
    return None


def mean_divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean KL(reference || other) in nats over positions, from logits [T, V]."""
    log_p, log_q = _log_softmax(reference), _log_softmax(other)
    return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _compare_logits(
    gguf: Path, model: Any, sequences: Sequence[list[int]], n_threads: int
) -> tuple[float, float, int]:
    divergence, same, positions = 0.0, 0, 0
    with CModel(gguf) as quantized:
        for tokens in sequences:
            with torch.no_grad():
                reference = model(torch.tensor([tokens])).logits[0].float().numpy()
            # Rows of the embedding beyond the tokenizer's tokens are in both, so V agrees.
            other = quantized.logits(tokens, n_threads=n_threads)
            divergence += mean_divergence(reference, other) * len(tokens)
            same += int(np.sum(reference.argmax(-1) == other.argmax(-1)))
            positions += len(tokens)
    return divergence / positions, same / positions, positions


def _greedy(model: Any, prompt: list[int], max_new_tokens: int, stops: Sequence[int]) -> list[int]:
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=list(stops),
            pad_token_id=stops[0],
        )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


def load_plain(model_dir: Path) -> Any:
    """The folder's model as transformers itself runs it: float32, in eval mode, with its eager attention, which
    every family has (SDPA knows no soft cap)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        model_dir,
        dtype=torch.float32,
        attn_implementation="eager",
        trust_remote_code=False,
        local_files_only=True,
    )
    return model.eval()
