from __future__ import annotations

from pathlib import Path

import pytest

from helpers.families import save_tiny
from nomoat.engine.pace import measure_pace
from nomoat.errors import EngineError
from nomoat.quantize.convert import to_gguf


def test_a_prompt_is_read_at_once_and_an_answer_written_one_by_one(tmp_path: Path) -> None:
    file = to_gguf(save_tiny("llama", tmp_path / "model"), tmp_path / "it.gguf", type="F16").path
    pace = measure_pace(file, n_threads=1)
    assert pace.read_tokens_per_s > pace.write_tokens_per_s > 0


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError):
        measure_pace(tmp_path / "it.gguf", n_threads=1)
