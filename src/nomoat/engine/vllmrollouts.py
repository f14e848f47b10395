"""Rollouts from a vLLM of ours: the base is loaded once, and the adapter that is being trained is told to it as it
changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, final

import httpx
import numpy as np

from nomoat.data.pack import Tokens
from nomoat.engine.base import Sampling
from nomoat.engine.owned import OwnedServer
from nomoat.engine.rollouts import Rollout
from nomoat.engine.vllm import refusal, serving_environment, serving_words, token_of
from nomoat.errors import ServeError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Of the adapters that vLLM can be told to make room for, those that are not smaller still."""
_AT_ONCE = 64
_UNTIL_IT_ENDS = httpx.Timeout(60.0, read=None)  # a long answer comes at once, after a long silence


@final
class VllmRollouts:
    """Samples answers on a GPU, many at once.

    vLLM computes in 16 bits and in batches of its own, so that a run that is resumed does not sample the same bytes,
    and what it says of a token's probability is not quite what training computes: the importance ratio mends that.

    Args:
        base: the transformers folder that the adapter is for.
        folder: where adapters may lie while vLLM reads them; it is emptied first.
        lora_r: rank of the adapter, at most the largest of `RANKS`.
        n_ctx: tokens of the longest prompt with its answer.
        memory_share: of the GPU's memory, which vLLM takes whole; training has the rest.
        stop_tokens: end an answer, and belong to it.
        start_s: it must be ready after so many seconds.

    Raises:
        ServeError: vLLM does not start; the message ends with the last lines it wrote.
    """

    def __init__(
        self,
        base: Path,
        folder: Path,
        *,
        lora_r: int,
        n_ctx: int,
        memory_share: float,
        stop_tokens: AbstractSet[int],
        start_s: float = 1200.0,
    ) -> None:
        self._folder, self._n_ctx, self._stop_tokens = folder, n_ctx, sorted(stop_tokens)
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
        folder.mkdir(parents=True)
        self._count = 0
        words = serving_words(base, n_ctx=n_ctx, n_parallel=_AT_ONCE, memory_share=memory_share)
        rank = next(rank for rank in RANKS if rank >= lora_r)
        self._server = OwnedServer(
            "vLLM",
            lambda socket: [*words, "--enable-lora", "--max-lora-rank", str(rank), "--uds", str(socket)],
            lambda key: {**serving_environment(key), "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
            start_s=start_s,
        )

    def __enter__(self) -> VllmRollouts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def roll_out(
        self,
        save: Callable[[Path], None],
        prompts: Sequence[Tokens],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]] | None,
    ) -> list[Rollout]:
        """An answer to every prompt, in order, by the adapter that `save` writes into a folder in PEFT's layout.

        `seeds` names each answer's random numbers (default: `sampling.seed` and its index). The temperature is 0 or 1
        and nothing is cut off: the probabilities that vLLM tells are those before either.

        Raises:
            EngineError, ServeError: vLLM refuses a request, fails or has ended.
        """
        assert sampling.temperature in (0, 1), sampling
        assert not (sampling.top_k or sampling.stop or sampling.top_p < 1), sampling
        self._take(save)
        if seeds is None:
            seeds = [(sampling.seed, index) for index in range(len(prompts))]
        bodies = [self._body(*asked, sampling) for asked in zip(prompts, seeds, strict=True)]
        threads = ThreadPoolExecutor(_AT_ONCE)
        try:
            return list(threads.map(self._rolled, bodies))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # after an error nobody waits for the others

    def _take(self, save: Callable[[Path], None]) -> None:
        """An adapter has a name that none had before: what vLLM keeps of one it keeps by its name."""
        before, self._count = self._count, self._count + 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        save(folder)
        if before:
            self._post("/v1/unload_lora_adapter", {"lora_name": _name(before)})
            shutil.rmtree(self._folder / str(before))
        loaded = {"lora_name": _name(self._count), "lora_path": str(folder.resolve())}
        self._post("/v1/load_lora_adapter", loaded)

    def _body(self, prompt: Tokens, seed: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        return {
            "model": _name(self._count),
            "prompt": prompt.tolist(),
            "max_tokens": min(sampling.max_new_tokens, self._n_ctx - len(prompt)),
            "temperature": sampling.temperature,
            "seed": int(np.random.SeedSequence(list(seed)).generate_state(1)[0]),
            "stop_token_ids": self._stop_tokens,
            "logprobs": 0,  # of the token that came alone
            "return_tokens_as_token_ids": True,
        }

    def _rolled(self, body: dict[str, Any]) -> Rollout:
        (choice,) = self._post("/v1/completions", body).json()["choices"]
        told, reason = choice["logprobs"], choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise ServeError(f"vLLM: the answer broke off ({reason or 'it has no end'})")
        return Rollout(
            np.array([token_of(name) for name in told["tokens"]], dtype=np.uint32),
            np.array(told["token_logprobs"], dtype=np.float32),
            reason,
        )

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            response = self._server.client.post(path, json=body, timeout=_UNTIL_IT_ENDS)
        except httpx.HTTPError as error:
            raise self._server.broken(error) from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, response.content)
        return response


def _name(count: int) -> str:
    return f"adapter-{count}"
