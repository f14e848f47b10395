"""The report that ties a GGUF file to the folder it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import tiny_models
from nomoat.errors import EngineError, ModelError
from nomoat.quantize.convert import to_gguf
from nomoat.quantize.fidelity import FirstDifference, compare, first_difference, mean_divergence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")


PROMPTS = [[5 + i, 40 + 3 * i, 7, 90 + i] for i in range(12)]


def test_a_float32_file_is_the_model(folder: Path, tmp_path: Path) -> None:
    report = compare(to_gguf(folder, tmp_path / "exact.gguf", type="F32").path, folder, PROMPTS)
    assert (report.gguf, report.prompts, report.tokens) == ("exact.gguf", 12, 24)
    assert report.identical == 1.0
    assert report.first_difference is None
    assert report.same_top_token == 1.0
    assert 0 <= report.mean_kl < 1e-8
    assert len(PROMPTS) * 4 < report.positions <= len(PROMPTS) * 28


def test_four_bits_differ_and_the_report_says_where(folder: Path, tmp_path: Path) -> None:
    report = compare(
        to_gguf(folder, tmp_path / "four.gguf", type="Q4_K_M").path, folder, PROMPTS, max_new_tokens=16
    )
    assert report.identical < 1
    assert report.first_difference is not None
    assert report.first_difference.expected != report.first_difference.found
    assert 0.001 < report.mean_kl < 2
    assert 0.3 < report.same_top_token < 1


def test_another_models_file_is_far_away(folder: Path, tmp_path: Path) -> None:
    other = tiny_models.build(tmp_path / "other", "llama", seed=1)
    report = compare(to_gguf(other, tmp_path / "other.gguf", type="F32").path, folder, PROMPTS)
    assert report.identical == 0
    assert report.mean_kl > 2
    assert report.same_top_token < 0.1


def test_first_difference_counts_from_the_first_answer() -> None:
    assert first_difference([([1, 2], [1, 2]), ([3], [3])]) is None
    assert first_difference([([1, 2], [1, 2]), ([3, 4, 5], [3, 9, 5])]) == FirstDifference(1, 1, 4, 9)
    assert first_difference([([1, 2, 3], [1, 2])]) == FirstDifference(0, 2, 3, -1)
    assert first_difference([([1], [1, 2])]) == FirstDifference(0, 1, -1, 2)


def test_mean_divergence_is_torchs() -> None:
    rng = np.random.default_rng(0)
    reference, other = rng.normal(size=(2, 9, 50)).astype(np.float32) * 4
    expected = torch.nn.functional.kl_div(
        torch.tensor(other).double().log_softmax(-1),
        torch.tensor(reference).double().log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    assert mean_divergence(reference, other) == pytest.approx(float(expected), rel=1e-6)
    assert mean_divergence(reference, reference) == 0


def test_no_prompts_and_too_long_prompts_are_refused(folder: Path, tmp_path: Path) -> None:
    file = to_gguf(folder, tmp_path / "model.gguf", type="F16").path
    with pytest.raises(ModelError, match="fidelity: no prompts to compare on"):
        compare(file, folder, [])
    with pytest.raises(EngineError, match="the conversation has 256 tokens and the context 256"):
        compare(file, folder, [[5] * 256])
