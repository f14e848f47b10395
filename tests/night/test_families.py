"""Every family of the first night, from a random-weight model to files that were compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.families import FAMILIES, save_tiny
from helpers.nights import last_night, run, verify_artifacts, write_rows
from nomoat.night.fidelity import MOST_KL

pytestmark = pytest.mark.slow
TYPES = "F16", "Q8_0", "Q5_K_M", "Q4_K_M"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_night(family: str, tmp_path: Path) -> None:
    # llama.cpp has no window for Mistral: its file claims no more context than the window is wide
    special: dict[str, Any] = {"sliding_window": 256} if family == "mistral" else {}
    base = save_tiny(family, tmp_path / "base", **special)
    rows = write_rows(tmp_path / "rows.jsonl", 40)
    summary = run(tmp_path, f"base={base}", f"data.train={rows}", f"quantize.types=[{','.join(TYPES)}]")
    night, stages = last_night(tmp_path)
    assert (night.status, [stage.status for stage in stages]) == ("done", ["done"] * 7)
    (training,) = summary.trainings
    assert training.facts["best_loss"] < training.facts["first_loss"]
    kl = {row["type"]: row["mean_kl"] for row in summary.fidelity}
    assert list(kl) == list(TYPES)
    assert kl["F16"] < 1e-4
    assert kl["F16"] < min(kl["Q8_0"], kl["Q5_K_M"]) < kl["Q4_K_M"]
    assert all(3 * kl[type] < MOST_KL[type] for type in TYPES), kl  # far from refusing what is sound
    assert len(verify_artifacts(tmp_path)) == 7
