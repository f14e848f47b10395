"""Every family of the first night, from a random-weight model to files that were compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.families import FAMILIES, save_tiny
from helpers.nights import last_night, run, verify_artifacts, write_rows

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_night(family: str, tmp_path: Path) -> None:
    # llama.cpp has no window for Mistral: its file claims no more context than the window is wide
    special: dict[str, Any] = {"sliding_window": 256} if family == "mistral" else {}
    base = save_tiny(family, tmp_path / "base", **special)
    rows = write_rows(tmp_path / "rows.jsonl", 40)
    summary = run(tmp_path, f"base={base}", f"data.train={rows}", "quantize.types=[F16,Q8_0,Q4_K_M]")
    night, stages = last_night(tmp_path)
    assert (night.status, [stage.status for stage in stages]) == ("done", ["done"] * 6)
    assert summary.training["best_loss"] < summary.training["first_loss"]
    assert [row["type"] for row in summary.fidelity] == ["F16", "Q8_0", "Q4_K_M"]
    whole, eight_bits, four_bits = summary.fidelity
    assert whole["same_top_share"] >= 0.98
    assert whole["mean_kl"] < 1e-3
    assert whole["mean_kl"] < eight_bits["mean_kl"] < four_bits["mean_kl"]
    assert len(verify_artifacts(tmp_path)) == 6
