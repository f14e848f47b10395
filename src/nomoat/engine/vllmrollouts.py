"""Rollouts from a vLLM of ours: the base is loaded once, and the adapter that is being trained is told to it as it
changes."""

from __future__ import annotations

import tempfile
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

RANKS = (8, 16, 32, 64, 128, 256)
"""What vLLM can be told to make room for."""
_AT_ONCE = 64


@final
class VllmRollouts:
    """Samples answers on a GPU, many at once.

    vLLM computes in 16 bits and in batches of its own, so that a run that is resumed does not sample the same bytes,
    and what it says of a token's probability is not quite what training computes: the importance ratio mends that.

    Args:
        base: the transformers folder that the adapter is for.
        lora_r: rank of the adapter.
        n_ctx: tokens of the longest prompt with its answer.
        memory_share: of the GPU's memory, which vLLM takes whole; training has the rest.
        start_s: it must be ready after so many seconds.

    Raises:
        ServeError: vLLM does not start; the message ends with the last lines it wrote.
    """

    def __init__(
        self, base: Path, *, lora_r: int, n_ctx: int, memory_share: float, start_s: float = 1200.0
    ) -> None:
        self._n_ctx = n_ctx
        words = serving_words(base, n_ctx=n_ctx, n_parallel=_AT_ONCE, memory_share=memory_share)
        rank = next(rank for rank in RANKS if rank >= lora_r)
        self._server = OwnedServer(
            "vLLM",
            lambda socket: [*words, "--enable-lora", "--max-lora-rank", str(rank), "--uds", str(socket)],
            lambda key: {**serving_environment(key), "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
            start_s=start_s,
        )
        self._temporary = tempfile.TemporaryDirectory(prefix="nomoat-")  # mode 0700
        self._count = 0

    def __enter__(self) -> VllmRollouts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._temporary.cleanup()

    def take(self, save: Callable[[Path], None]) -> None:
        """From now on answers come from the adapter that `save` writes into a folder, in PEFT's layout."""
        folder = Path(self._temporary.name) / f"{self._count + 1}"
        folder.mkdir()
        save(folder)
        if self._count:
            self._post("/v1/unload_lora_adapter", {"lora_name": self._adapter})
        self._count += 1  # a name it has not had: what it keeps of an adapter it keeps by name
        self._post("/v1/load_lora_adapter", {"lora_name": self._adapter, "lora_path": str(folder)})

    def roll_out(
        self,
        prompts: Sequence[Tokens],
        *,
        sampling: Sampling,
        stop_tokens: AbstractSet[int],
        seeds: Sequence[Sequence[int]] | None = None,
    ) -> list[Rollout]:
        """As `nomoat.engine.rollouts.roll_out`, by the adapter that was taken last."""
        if seeds is None:
            seeds = [(sampling.seed, index) for index in range(len(prompts))]
        bodies = [
            self._body(prompt, sampling, stop_tokens, seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(self._rolled, bodies))

    @property
    def _adapter(self) -> str:
        return f"adapter-{self._count}"

    def _body(
        self, prompt: Tokens, sampling: Sampling, stop_tokens: AbstractSet[int], seed: Sequence[int]
    ) -> dict[str, Any]:
        return {
            "model": self._adapter,
            "prompt": prompt.tolist(),
            "max_tokens": min(sampling.max_new_tokens, self._n_ctx - len(prompt)),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": int(np.random.SeedSequence(list(seed)).generate_state(1)[0]),
            "stop_token_ids": sorted(stop_tokens),
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
            response = self._server.client.post(path, json=body)
        except httpx.HTTPError as error:
            raise self._server.broken(error) from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, response.content)
        return response
