"""/v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
import struct

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nomoat.serve.errors import ApiError
from nomoat.serve.http import json_response, until_gone
from nomoat.serve.schemas import EmbeddingRequest
from nomoat.serve.turns import Desk


async def embeddings(desk: Desk, body: EmbeddingRequest, http: HttpRequest) -> Response:
    """A vector for each text."""
    return await until_gone(http, _embed(desk, body))


async def _embed(desk: Desk, body: EmbeddingRequest) -> Response:
    texts = [body.input] if isinstance(body.input, str) else body.input
    async with desk.model(body.model) as loaded:
        engine = loaded.engine
        counts = [len(await asyncio.to_thread(engine.tokenize, text)) for text in texts]
        for i, count in enumerate(counts):
            if not 0 < count <= engine.n_ctx:
                raise ApiError(
                    400,
                    f"input[{i}] has {count} tokens; this model embeds 1 to {engine.n_ctx} at once",
                    param="input",
                    code="context_length_exceeded" if count else None,
                )
        vectors = await asyncio.to_thread(engine.embed, texts)
    return json_response(
        {
            "object": "list",
            "model": body.model,
            "data": [
                {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
                for i, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": sum(counts), "total_tokens": sum(counts)},
        }
    )


def _encoded(vector: list[float], form: str) -> list[float] | str:
    """As numbers, or as OpenAI's client asks for it: little-endian float32 in base64."""
    if form == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
