"""A file that is not the trained model does not pass for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.families import save_tiny
from nomoat.errors import ModelError
from nomoat.night import fidelity
from nomoat.night.fidelity import check_files, held_out_prompts
from nomoat.quantize.convert import to_gguf
from nomoat.quantize.fidelity import FidelityReport


def prompts(model: Path, folder: Path) -> list[list[int]]:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about {n}."},
                {"role": "assistant", "content": "Yes."},
            ]
        }
        for n in range(6)
    ]
    (folder / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return held_out_prompts(model, folder, n_ctx=512)


def test_a_file_made_from_the_folder_passes(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    (tmp_path / "files").mkdir()
    to_gguf(model, tmp_path / "files" / "it-F16.gguf", type="F16")
    (row,) = check_files(tmp_path / "files", model, prompts(model, tmp_path), n_ctx=512, threads=1)
    assert (row["file"], row["type"]) == ("it-F16.gguf", "F16")
    assert row["same_top_share"] > 0.98
    assert row["mean_kl"] < 1e-3


def test_a_file_made_from_another_model_is_refused(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    other = save_tiny("llama", tmp_path / "other", seed=3)
    (tmp_path / "files").mkdir()
    to_gguf(other, tmp_path / "files" / "it-Q4_K_M.gguf", type="Q4_K_M")
    with pytest.raises(
        ModelError,
        match=r"it-Q4_K_M.gguf is not the trained model: only \d+% of its likeliest tokens are the same \(Q4_K_M "
        r"keeps at least 50%\), and its probabilities are [\d.]+ nats away \(at most 0.5\)",
    ):
        check_files(tmp_path / "files", model, prompts(model, tmp_path), n_ctx=512, threads=1)


@pytest.mark.parametrize(("mean_kl", "refused"), [(float("nan"), True), (float("inf"), True), (1e-4, False)])
def test_a_low_share_is_excused_only_by_probabilities_that_are_known_to_be_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean_kl: float, refused: bool
) -> None:
    model = save_tiny("llama", tmp_path / "model")
    (tmp_path / "files").mkdir()
    to_gguf(model, tmp_path / "files" / "it-F16.gguf", type="F16")
    real = fidelity.compare

    def damaged(*args: Any, **keys: Any) -> FidelityReport:
        return replace(real(*args, **keys), same_top_token=0.0, mean_kl=mean_kl)

    monkeypatch.setattr(fidelity, "compare", damaged)
    if refused:
        with pytest.raises(ModelError, match="it-F16.gguf is not the trained model"):
            check_files(tmp_path / "files", model, prompts(model, tmp_path), n_ctx=512, threads=1)
    else:
        assert check_files(tmp_path / "files", model, prompts(model, tmp_path), n_ctx=512, threads=1)


def test_logits_of_another_scale_are_refused_although_they_rank_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny("llama", tmp_path / "model")
    (tmp_path / "files").mkdir()
    to_gguf(model, tmp_path / "files" / "it-F16.gguf", type="F16")
    real = fidelity.compare
    for far in (0.2, float("nan")):
        monkeypatch.setattr(
            fidelity,
            "compare",
            lambda *a, far=far, **k: replace(real(*a, **k), same_top_token=1.0, mean_kl=far),
        )
        with pytest.raises(ModelError, match="it-F16.gguf is not the trained model"):
            check_files(tmp_path / "files", model, prompts(model, tmp_path), n_ctx=512, threads=1)
