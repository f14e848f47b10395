"""A night that is killed, stopped, or run twice at once."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import forked
from helpers.families import save_tiny
from helpers.nights import QUICK, last_night, ledger_of, run, verify_artifacts, write_rows
from nomoat.ledger.artifacts import HOUSE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 40
KEYS = (
    f"sft.max_steps={STEPS}",
    "sft.num_train_epochs=100",
    "sft.tokens_per_step=1024",
    "sft.lora_dropout=0.1",  # so that the random generator is part of what a resumed run must find again
    "sft.save_steps=2",
    "sft.eval_steps=5",
)
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides for a night on a tiny model."""
    folder = tmp_path_factory.mktemp("base")
    base, rows = save_tiny("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    return f"base={base}", f"data.train={rows}", *KEYS


def start(workspace: Path, *words: str, verb: str = "run") -> forked.Popen:
    """`nomoat run`, or another verb that reads a recipe, in a process of its own."""
    return forked.Popen(
        [sys.executable, "-m", "nomoat.cli.main", verb, *QUICK, *words],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )


@contextmanager
def running(workspace: Path, *words: str, verb: str = "run") -> Iterator[forked.Popen]:
    """As `start`; whatever happens, the process does not outlive the test."""
    process = start(workspace, *words, verb=verb)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_step(process: forked.Popen, workspace: Path, step: int, stage: str = "sft") -> None:
    """Until a checkpoint of this step of the stage or a later one is on the disk."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        states = workspace.glob(f"{HOUSE}/work/{stage}-*.scratch/step-*/state.json")
        if any(int(state.parent.name.removeprefix("step-")) >= step for state in states):
            return
        time.sleep(0.002)
    raise AssertionError(f"no checkpoint of step {step} within {LIMIT_S:g} s")


def check_folders(workspace: Path) -> list[Path]:
    return list((workspace / HOUSE).glob("check-*"))


def test_what_a_killed_check_leaves_goes_when_none_runs(tmp_path: Path) -> None:
    many, few = write_rows(tmp_path / "many.jsonl", 20_000), write_rows(tmp_path / "few.jsonl")

    def left_after_another() -> list[Path]:
        with running(tmp_path, f"data.train={few}", verb="check") as other:
            _, err = other.communicate(timeout=LIMIT_S)
            assert other.returncode == 0, err
        return check_folders(tmp_path)

    with running(tmp_path, f"data.train={many}", verb="check") as first:
        end = time.monotonic() + LIMIT_S
        while not check_folders(tmp_path):
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < end
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        in_use = check_folders(tmp_path)
        assert len(in_use) == 1
        assert left_after_another() == in_use
    assert check_folders(tmp_path) == in_use
    assert left_after_another() == []


def sft_folder(workspace: Path) -> Path:
    (folder,) = workspace.glob(f"{HOUSE}/artifacts/sft-*")
    return folder


def test_a_night_killed_three_times_ends_in_the_same_bytes(words: tuple[str, ...], tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    run(alone, *words)
    killed.mkdir()
    chance = random.Random(20261124)
    for first, last in ((2, 12), (14, 24), (26, 34)):
        with running(killed, *words) as process:
            wait_for_step(process, killed, chance.randint(first, last))
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert not list(killed.glob(f"{HOUSE}/artifacts/sft-*"))
        assert sorted(verify_artifacts(killed)) == ["data", "quantize"]

    with running(killed, *words) as process:
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
    assert "night 3 had been cut off; what it had finished is used again" in err
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        one, other = (sft_folder(workspace) / "adapter" / name for workspace in (alone, killed))
        assert one.read_bytes() == other.read_bytes(), name
    curves = [json.loads((sft_folder(w) / "training.json").read_text())["curve"] for w in (alone, killed)]
    assert len(curves[0]["train"]) == STEPS
    assert curves[0] == curves[1]
    assert sorted(verify_artifacts(killed)) == sorted(verify_artifacts(alone))
    assert list((killed / HOUSE / "work").iterdir()) == []
    with ledger_of(killed) as ledger:
        assert [night.status for night in ledger.nights()] == ["done", *["interrupted"] * 3]
        assert len(ledger.generations()) == 1


def test_killed_while_learning_from_judgements_ends_in_the_same_bytes(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    pairs = tmp_path / "rated.jsonl"
    rows = [
        {
            "prompt": f"Where is it? ({n})",
            "completion": ("Here now.", "Who knows?")[n % 2],
            "label": n % 2 == 0,
        }
        for n in range(80)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # kto reads the most: a reference, and in every step how far the model has gone from it
    keys = ("sft.max_steps=3", f"prefer.train={pairs}", "prefer.loss_type=kto", "prefer.max_steps=30")
    keys += ("prefer.num_train_epochs=100", "prefer.max_seq_len=64", "prefer.tokens_per_step=256")
    keys += ("prefer.learning_rate=1e-3", "prefer.save_steps=2", "prefer.eval_steps=5", "data.held_out=0.2")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    run(alone, *words, *keys)
    killed.mkdir()
    for step in (3, 17):
        with running(killed, *words, *keys) as process:
            wait_for_step(process, killed, step, "prefer")
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert not list(killed.glob(f"{HOUSE}/artifacts/prefer-*"))
    run(killed, *words, *keys)
    one, other = (next(side.glob(f"{HOUSE}/artifacts/prefer-*")) for side in (alone, killed))
    weights = "adapter/adapter_model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    curves = [json.loads((folder / "training.json").read_text())["curve"] for folder in (one, other)]
    assert len(curves[0]["train"]) == 30
    assert curves[0] == curves[1]


def test_a_second_night_is_refused_and_control_c_stops_the_first(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    endless = (*words, "sft.max_steps=20000", "sft.num_train_epochs=20000")
    with running(tmp_path, *endless) as night:
        wait_for_step(night, tmp_path, 2)
        with running(tmp_path, *endless) as second:
            out, err = second.communicate(timeout=LIMIT_S)
        assert (second.returncode, out) == (2, "")
        said = f"Error: {tmp_path}: a night already runs in this workspace (process {night.pid} on "
        assert said in err
        assert err.endswith(
            ")\n  Wait until it has ended, or stop it: run again, it goes on from its last checkpoint.\n"
        )
        assert night.poll() is None

        night.send_signal(signal.SIGINT)
        out, err = night.communicate(timeout=LIMIT_S)
    assert (night.returncode, out) == (130, "")
    assert "Stopping at the next checkpoint; press Ctrl-C again to stop at once.\n" in err
    stopped = err.splitlines()[-1]
    assert stopped.startswith("Stopped at step ")
    assert stopped.endswith(" of 20000. Run the same command again to go on from there.")
    row, _ = last_night(tmp_path)
    assert (row.id, row.status) == (1, "interrupted")
    step = int(stopped.split()[3])
    assert (tmp_path / HOUSE / "work").is_dir()
    assert list(tmp_path.glob(f"{HOUSE}/work/sft-*.scratch/step-{step:08d}/state.json"))
