"""`nomoat serve` beside llama.cpp's own server: the same file, the same requests, the same client, in turn.

    python bench/serve.py [--model embedded|135M] [--streams 1,4,16] [--tokens N] [--words N] [--rounds N]
        [--threads N]

Both servers run the whole time, each in a process of its own, and answer one after the other, so that what
else the machine does falls on both. Every stream asks /v1/completions for N tokens after a prompt of its own.
Prints the median time to the first token and the tokens a second of all streams together, their ratio (ours
over llama.cpp's), and for one stream what share that is of memory bandwidth ÷ bytes read per token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

import nomoat
from nomoat.model.load import load_tokenizer
from nomoat.serve.models import ModelName, ServedModel

BASE = Path(nomoat.__file__).parent / "assets" / "base"
OURS, BARE = "nomoat serve", "llama.cpp"
EMBEDDED = "embedded"
CONTEXT = 256
TOKENIZER = load_tokenizer(BASE)
STOP = TOKENIZER.eos_token_id
WORDS = ("Lily", "the dog", "a red ball", "an old tree", "the rain", "a little boat", "Tom", "the moon")


@dataclass(frozen=True)
class Stream:
    """What one reader saw."""

    first_token_s: float
    tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=[EMBEDDED, "135M"], default=EMBEDDED)
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=0, help="fill prompts up to so many words")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--gguf", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    widths = [int(word) for word in args.streams.split(",")]
    if args.server:
        {OURS: run_ours, BARE: run_bare}[args.server](args.gguf, max(widths), args.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        gguf = make_file(args.model, Path(folder))
        servers = {name: start(name, gguf, max(widths), args.threads) for name in (OURS, BARE)}
        try:
            compare({name: url for name, (_, url) in servers.items()}, widths, args, gguf)
        finally:
            for process, _ in servers.values():
                process.terminate()
                process.wait()


def compare(urls: dict[str, str], widths: list[int], args: argparse.Namespace, gguf: Path) -> None:
    """Ask both, in turn, and print."""
    print(
        f"{gguf.stem}, {gguf.stat().st_size / 1e6:.1f} MB, {args.threads} threads, {args.tokens} tokens an answer, "
        f"prompts of {len(TOKENIZER(prompt_of(0, args.words)).input_ids)}"
    )
    limit = bytes_per_second() / gguf.stat().st_size
    for width in widths:
        first: dict[str, list[float]] = {name: [] for name in urls}
        rate: dict[str, list[float]] = {name: [] for name in urls}
        for turn in range(args.rounds + 1):
            for name in sorted(urls, reverse=bool(turn % 2)):
                started = time.perf_counter()
                streams = ask(urls[name], width, args, turn)
                seconds = time.perf_counter() - started
                if turn:  # the first only warms up
                    first[name] += [stream.first_token_s for stream in streams]
                    rate[name].append(sum(stream.tokens for stream in streams) / seconds)
        middle = {name: (statistics.median(first[name]), statistics.median(rate[name])) for name in urls}
        for name, (first_s, tokens_per_s) in middle.items():
            share = f", {tokens_per_s / limit:.0%} of memory bandwidth" if width == 1 else ""
            print(
                f"{width:3} streams  {name:12} first token {first_s * 1e3:8.1f} ms  {tokens_per_s:8.1f} tokens/s{share}"
            )
        ratios = (middle[OURS][i] / middle[BARE][i] for i in (0, 1))
        print("             ratio        first token {:8.3f}     {:8.3f}".format(*ratios))


def prompt_of(number: int, words: int) -> str:
    """A prompt like no other from its beginning on, so that no server has read it before."""
    text = f"Number {number}: once upon a time, {WORDS[number % len(WORDS)]} met somebody."
    while len(text.split()) < words:
        text += f" Then came {WORDS[len(text) % len(WORDS)]}."
    return text


def ask(url: str, width: int, args: argparse.Namespace, turn: int) -> list[Stream]:
    """`width` readers at once."""
    bias = {str(STOP): -100}  # every answer has its full length
    if (
        args.model != EMBEDDED
    ):  # random weights write bytes that are no text yet, and nomoat sends none of those
        bias[str(TOKENIZER("x", add_special_tokens=False).input_ids[0])] = 100
    together = threading.Barrier(width)
    with httpx.Client(base_url=url, timeout=600, limits=httpx.Limits(max_connections=width)) as client:

        def read(index: int) -> Stream:
            body = {
                "model": "model",
                "prompt": prompt_of(10_000 * width + turn * width + index, args.words),
                "max_tokens": args.tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                "logit_bias": bias,
            }
            together.wait()
            started = time.perf_counter()
            first, counted = None, 0
            with client.stream("POST", "/v1/completions", json=body) as response:
                assert response.status_code == 200, response.read()
                for line in response.iter_lines():
                    if not line.startswith("data: {"):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if first is None and event["choices"]:
                        first = time.perf_counter() - started
                    if event.get("usage"):
                        counted = event["usage"]["completion_tokens"]
            assert first is not None
            return Stream(first, counted)

        with ThreadPoolExecutor(width) as threads:
            return list(threads.map(read, range(width)))


# ---- the servers


def start(name: str, gguf: Path, width: int, threads: int) -> tuple[subprocess.Popen[str], str]:
    """A server in its own process, and its address, which it prints."""
    words = [sys.executable, __file__, "--server", name, "--gguf", str(gguf)]
    words += ["--streams", str(width), "--threads", str(threads)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


class OneModel:
    """A catalogue of one file."""

    def __init__(self, gguf: Path) -> None:
        self._model = ServedModel("model", gguf, BASE, CONTEXT)

    def names(self) -> list[ModelName]:
        return [ModelName("model")]

    def resolve(self, name: str) -> str | None:
        return name if name == "model" else None

    def weights_of(self, resolved: str) -> str:
        return resolved

    def find(self, resolved: str) -> ServedModel:
        return self._model


def run_ours(gguf: Path, width: int, threads: int) -> None:
    from nomoat.serve import run

    settings = run.Settings(
        most_context=CONTEXT,
        n_parallel=width,
        n_threads=threads,
        budget_bytes=run.half_of_memory(),
        idle_s=3600,
        most_waiting=64,
    )
    listening = run.listen("127.0.0.1", 0)
    print(run.url_of(listening), flush=True)
    run.serve(listening, OneModel(gguf), settings, None)


def run_bare(gguf: Path, width: int, threads: int) -> None:
    """llama.cpp's server as xllamacpp starts it, with the same room and threads."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel, params.n_ctx = width, CONTEXT * width
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib, params.verbosity, params.port = 0, -1, 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


# ---- what is served, and the machine's limit


def make_file(model: str, folder: Path) -> Path:
    """The embedded base at Q8_0, or random weights of a 135M Llama at Q4_K_M with the base's tokenizer."""
    from nomoat.quantize.convert import to_gguf

    if model == EMBEDDED:
        return to_gguf(BASE, folder / "embedded-Q8_0.gguf", type="Q8_0").path
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=STOP,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    TOKENIZER.save_pretrained(folder / "model")
    return to_gguf(folder / "model", folder / "random135M-Q4_K_M.gguf", type="Q4_K_M").path


def bytes_per_second() -> float:
    """How fast one thread here reads memory: the best of eight sums over 256 MiB."""
    memory = np.ones(2**25, dtype=np.float64)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        memory.sum()
        best = max(best, memory.nbytes / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    main()
