"""One small model for all tests of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import tiny_models
from helpers.serving import Running, serving
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.quantize.convert import to_gguf


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model that has our own ChatML template, and `model.gguf` of it."""
    folder = tiny_models.build(tmp_path_factory.mktemp("tiny"), "smollm", max_position_embeddings=512)
    (folder / "chat_template.jinja").unlink()  # so that ours is taken, which writes tool calls
    to_gguf(folder, folder / "model.gguf", type="F32")
    return folder


@pytest.fixture(scope="session")
def running(tiny: Path) -> Iterator[Running]:
    """A server of that model, under the names `champion` and `gen-0001`."""

    def open_engine() -> LlamaServerEngine:
        return LlamaServerEngine(tiny / "model.gguf", tokenizer_dir=tiny, exact=True, n_parallel=2)

    with serving({"gen-0001": open_engine}, aliases={"champion": "gen-0001"}) as found:
        yield found
