"""A stand-in for vLLM where there is no GPU: `python -m vllm.entrypoints.cli.main serve FOLDER ...` with transformers.

It takes the options and speaks the part of the HTTP that `nomoat.engine.vllm` uses, written from vLLM 0.20 and 0.33:
chunked server-sent events, one token each, a last one with the usage; or all at once; LoRA adapters that come and go.
Grammars, penalties and cuts it does not know.

STANDIN_DIR names a folder: it leaves its requests (requests.jsonl), who hung up (aborted) and a child's process id
(child) there. STANDIN_FAILS makes it 'die' or 'hang' at the start; the prompt 5, 5, 5 ends it."""

from __future__ import annotations

import argparse
import functools
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

PLACE = Path(os.environ["STANDIN_DIR"])
COMPUTING = threading.Lock()
LOADING = threading.Lock()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    for name in ("uds", "served-model-name", "generation-config", "structured-outputs-config"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("max-model-len", "max-num-seqs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--gpu-memory-utilization", type=float, required=True)
    for name in (
        "enable-prompt-tokens-details",
        "disable-log-stats",
        "disable-uvicorn-access-log",
        "enable-lora",
    ):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument(
        "--max-lora-rank", type=int, choices=[1, 8, 16, 32, 64, 128, 256, 320, 512], default=16
    )
    return parser.parse_args()


class Model:
    """Log-probabilities and text of a small model in float32; torch is loaded when the first request comes."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self.torch = torch
        self.net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def logits(self, ids: list[int]) -> Any:
        with COMPUTING, self.torch.no_grad():
            return self.net(self.torch.tensor([ids])).logits[0]

    def write(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any] | None, str | None]]:
        """(text, log-probabilities, why it ended) for each token."""
        ids, made, given = list(body["prompt"]), [], ""
        ends = {self.tokenizer.eos_token_id, *body["stop_token_ids"]}
        torch = self.torch
        dice = torch.Generator().manual_seed(body["seed"])
        for step in range(body["max_tokens"]):
            logits = self.logits(ids)[-1]
            logp = logits.log_softmax(-1)
            for token, bias in (body.get("logit_bias") or {}).items():
                logits[int(token)] += bias
            if body["temperature"] == 0:
                token = int(logits.argmax())
            else:
                token = int(torch.multinomial((logits / body["temperature"]).softmax(-1), 1, generator=dice))
            ids.append(token)
            made.append(token)
            text = self.tokenizer.decode(made, skip_special_tokens=True)
            stops = [text.index(stop) for stop in body.get("stop", ()) if stop in text]
            reason = (
                "stop" if token in ends or stops else "length" if step + 1 == body["max_tokens"] else None
            )
            held = max(
                (n for stop in body.get("stop", ()) for n in range(len(stop)) if text.endswith(stop[:n])),
                default=0,
            )
            if stops:
                text = text[: min(stops)]
            elif reason is None:
                text = text[: len(text) - held].rstrip("\ufffd")
            piece, given = text[len(given) :], max(given, text, key=len)
            yield piece, self.told(body, token, logp), reason
            if reason is not None:
                return

    def told(self, body: dict[str, Any], token: int, logp: Any) -> dict[str, Any] | None:
        if body.get("logprobs") is None:
            return None
        assert body["return_tokens_as_token_ids"]
        near = [token, *logp.topk(body["logprobs"]).indices.tolist()]
        return {
            "text_offset": [0],
            "tokens": [f"token_id:{token}"],
            "token_logprobs": [float(logp[token])],
            "top_logprobs": [{f"token_id:{one}": float(logp[one]) for one in near}],
        }

    def weighed(self, ids: list[int], top: int) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = [None]
        for token, logits in zip(ids[1:], self.logits(ids), strict=False):
            logp = logits.log_softmax(-1)
            near = [token, *logp.topk(top).indices.tolist()]
            found.append(
                {str(one): {"logprob": float(logp[one]), "rank": 0, "decoded_token": "?"} for one in near}
            )
        return found


class Adapted(Model):
    """The same with an adapter in PEFT's layout."""

    def __init__(self, folder: str, adapter: str) -> None:
        from peft import PeftModel

        super().__init__(folder)
        self.net = PeftModel.from_pretrained(self.net, adapter).eval()


load = functools.cache(Model)
ADAPTERS: dict[str, Adapted] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: str
    most: int
    known: str

    adapter = ""
    rank: int | None

    @property
    def model(self) -> Model:
        with LOADING:
            return ADAPTERS.get(self.adapter) or load(self.folder)

    def do_GET(self) -> None:
        self.reply(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with (PLACE / "requests.jsonl").open("a") as file:
            file.write(json.dumps(body) + "\n")
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.reply(401, {"error": "Unauthorized"})
            return
        if self.path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            self.change(self.path, body)
            return
        self.adapter = body["model"] if body["model"] in ADAPTERS else ""
        if body["model"] not in (self.known, *ADAPTERS) or self.path != "/v1/completions":
            self.refuse("The model does not exist.", 404)
        elif len(body["prompt"]) + body["max_tokens"] > self.most:
            self.refuse(f"maximum context length is {self.most} tokens")
        elif max(body["prompt"]) >= self.model.net.config.vocab_size:
            self.refuse(f"Token id {max(body['prompt'])} is out of vocabulary")
        elif body["prompt"] == [5, 5, 5]:
            print("ERROR EngineCore encountered a fatal error.", flush=True)
            os._exit(1)
        elif body.get("stream"):
            self.stream(body)
        elif "prompt_logprobs" not in body:
            self.whole(body)
        else:
            weighed = self.model.weighed(body["prompt"], body["prompt_logprobs"])
            self.reply(200, {"choices": [{"text": "?", "prompt_logprobs": weighed}]})

    def change(self, path: str, body: dict[str, Any]) -> None:
        if os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") != "True" or self.rank is None:
            self.refuse("Not Found", 404)
        elif path == "/v1/unload_lora_adapter":
            found = ADAPTERS.pop(body["lora_name"], None)
            self.reply(200, {}) if found else self.refuse("The lora adapter cannot be found.", 404)
        elif body["lora_name"] in ADAPTERS:
            self.refuse("The lora adapter has already been loaded.")
        elif json.loads((Path(body["lora_path"]) / "adapter_config.json").read_text())["r"] > self.rank:
            self.refuse(f"Call to add_lora method failed: LoRA rank is greater than {self.rank}.", 500)
        else:
            with LOADING:
                ADAPTERS[body["lora_name"]] = Adapted(self.folder, body["lora_path"])
            self.reply(200, {})

    def whole(self, body: dict[str, Any]) -> None:
        written = list(self.model.write(body))
        told = [logprobs for _, logprobs, _ in written if logprobs is not None]
        logprobs = {name: [one for each in told for one in each[name]] for name in told[0]} if told else None
        text, reason = "".join(text for text, _, _ in written), written[-1][2]
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        self.reply(200, {"choices": [choice]})

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count = 0
        try:
            for text, logprobs, reason in self.model.write(body):
                count += 1
                choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
                self.event({"choices": [choice]})
            usage = {
                "prompt_tokens": len(body["prompt"]),
                "completion_tokens": count,
                "prompt_tokens_details": {"cached_tokens": 3},
            }
            self.event({"choices": [], "usage": usage})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            with (PLACE / "aborted").open("a") as file:
                file.write(f"{count}\n")
            self.close_connection = True

    def event(self, event: dict[str, Any]) -> None:
        self.chunk(f"data: {json.dumps(event)}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def refuse(self, message: str, status: int = 400) -> None:
        self.reply(status, {"error": {"message": message, "type": "BadRequestError", "code": status}})

    def reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *words: Any) -> None:
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    args = arguments()
    print("INFO starting", flush=True)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as EngineCore is one
    (PLACE / "child").write_text(str(child.pid))
    if os.environ.get("STANDIN_FAILS") == "die":
        raise ValueError("No available memory for the cache blocks.")
    if os.environ.get("STANDIN_FAILS") == "hang":
        time.sleep(600)
    Handler.folder, Handler.most, Handler.known = args.model, args.max_model_len, args.served_model_name
    Handler.rank = args.max_lora_rank if args.enable_lora else None
    (PLACE / "options").write_text(json.dumps(vars(args)))
    Server(args.uds, Handler).serve_forever()


if __name__ == "__main__":
    main()
