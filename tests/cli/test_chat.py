"""`nomoat chat` on real GGUF files: which file is opened, and what goes where."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from helpers import tiny_models
from helpers.generations import workspace_with_generation
from helpers.workspaces import ledger_path, start_night
from nomoat.cli import chat
from nomoat.cli.main import app
from nomoat.cli.served import find_base, find_generation
from nomoat.errors import ArtifactError, LedgerError
from nomoat.ledger.store import Ledger
from nomoat.model.load import Machine
from nomoat.recipe import Recipe

ROOT = Path(__file__).parents[2]
SHORT = ("--temperature", "0", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace_with_generation(tmp_path_factory.mktemp("made"))


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "workspace"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    return place


def nomoat(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["chat", *words], input=typed)


def conversation(*words: str, typed: str) -> list[dict[str, Any]]:
    result = nomoat(*words, "--json", typed=typed)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() == chat.KEYS.keys()
    messages: list[dict[str, Any]] = found["messages"]
    return messages


def test_each_name_opens_its_file(workspace: Path) -> None:
    for which in ("latest", "gen-0001", "1"):
        served = find_generation(workspace, which)
        assert (served.name, served.verdict, served.context_length) == ("gen-0001", "better", 256)
        assert served.gguf == workspace / ".nomoat/artifacts/quantize-cccccccccccccccc/night-F32.gguf"
        assert served.tokenizer_dir == workspace / ".nomoat/artifacts/merge-aaaaaaaaaaaaaaaa/model"
    base = find_base(workspace, "latest")
    assert base.name == "base (embedded)"
    assert base.gguf == workspace / ".nomoat/artifacts/quantize-bbbbbbbbbbbbbbbb/base-F32.gguf"
    assert base.tokenizer_dir == find_generation(workspace, "latest").tokenizer_dir


def test_the_champion_is_opened_and_after_its_rollback_the_base(workspace: Path) -> None:
    assert find_generation(workspace, "champion") == find_generation(workspace, "latest")
    with Ledger.open(ledger_path(workspace)) as ledger:
        first = ledger.generation("latest")
        ledger.judgements.crown(first.id, by="gate", said="")
        night = start_night(ledger)
        ledger.add_generation(
            night,
            base="base:x",
            merged_artifact=first.merged_artifact,
            gguf_artifact=first.gguf_artifact,
            served_file=first.served_file,
        )
    assert find_generation(workspace, "latest").name == "gen-0002"
    served = find_generation(workspace, "champion")
    assert (served.name, served.is_champion) == ("gen-0001", True)
    assert served.model == "quantize-cccccccccccccccc/night-F32.gguf"
    assert find_base(workspace, "champion").gguf.name == "base-F32.gguf"
    with Ledger.open(ledger_path(workspace)) as ledger:
        ledger.judgements.roll_back()
        stage = ledger.start_stage(2, name="quantize", position=0, key="b" * 64)
        ledger.finish_stage(stage, status="reused", seconds=0.0, artifact_id=f"quantize-{'b' * 16}")
    served = find_generation(workspace, "champion")
    assert (served.gguf.name, served.is_champion) == ("base-F32.gguf", True)


def test_answers_go_to_stdout_and_are_repeatable(workspace: Path) -> None:
    first = nomoat(*SHORT, typed="Hello\n\nOnce upon a time\n")
    assert first.exit_code == 0, first.output
    assert first.stderr == ""
    assert nomoat(*SHORT, typed="Hello\n\nOnce upon a time\n").stdout == first.stdout


def test_the_weights_say_what_the_file_made_of_them_says(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.engine.torchserver.choose_machine", lambda: Machine("cpu", torch.float32))
    talk = (*SHORT, "--system", "Be brief.")
    of_weights = conversation("--engine", "torch", *talk, typed="Hello\nMore\n")
    assert of_weights == conversation(*talk, typed="Hello\nMore\n")
    result = nomoat("base", "--engine", "torch", typed="Hello\n")
    assert result.exit_code == 2
    assert "its weights in transformers' form are not in this workspace" in result.stderr


def test_json_gives_the_whole_conversation(workspace: Path) -> None:
    messages = conversation(*SHORT, "--system", "Be brief.", typed="Hello\nMore\n")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[1]["content"] == "Hello"


def test_base_and_tuned_model_are_different_models(workspace: Path) -> None:
    tuned = conversation(*SHORT, typed="Hello\n")
    base = conversation("base", *SHORT, typed="Hello\n")
    assert tuned[0] == base[0]
    assert tuned[1]["content"] != base[1]["content"]


def test_a_context_larger_than_the_models_is_no_mistake(workspace: Path) -> None:
    result = nomoat(*SHORT, "--context", "100000", typed="Hello\n")
    assert result.exit_code == 0, result.output
    result = nomoat(*SHORT, "--context", "16", typed="a b c d e f g h i j k l m n o p\n")
    assert result.exit_code == 2
    assert "this model's context holds 16" in result.stderr


def test_a_generation_that_is_not_there_is_told(workspace: Path) -> None:
    result = nomoat("gen-0009")
    assert result.exit_code == 2
    assert 'got "gen-0009"; expected "latest" or a generation of gen-0001' in result.stderr


def test_without_a_night_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = nomoat()
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {tmp_path}: no night has made a model here yet\n"
        "  Make a model: nomoat run. Or talk to the embedded base: nomoat chat base\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_gone_are_told(workspace: Path) -> None:
    shutil.rmtree(workspace / ".nomoat/artifacts/quantize-cccccccccccccccc")
    with pytest.raises(ArtifactError, match="quantize-cccccccccccccccc is not there") as refused:
        find_generation(workspace, "latest")
    assert refused.value.hint == "Run the same night again to make it anew: nomoat run"


def test_damaged_files_are_not_opened(workspace: Path) -> None:
    path = workspace / ".nomoat/artifacts/quantize-cccccccccccccccc/night-F32.gguf"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = nomoat(typed="Hello\n")
    assert result.exit_code == 2
    assert (
        "artifact quantize-cccccccccccccccc is damaged: night-F32.gguf has another checksum" in result.stderr
    )


def test_a_model_from_scratch_has_no_base(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        known = ledger.generation("latest")
        night = start_night(ledger)
        ledger.add_generation(
            night,
            base="pretrain-x",
            merged_artifact=known.merged_artifact,
            gguf_artifact=known.gguf_artifact,
            served_file=known.served_file,
        )
    with pytest.raises(LedgerError, match="gen-0002 was trained from scratch: it has no base"):
        find_base(workspace, "latest")


def test_a_base_that_was_pretrained_by_the_owner_is_not_called_embedded(workspace: Path) -> None:
    recipe = Recipe.model_validate({"name": "mine", "pretrain": {"train": ["text.jsonl"]}})
    with Ledger.open(ledger_path(workspace)) as ledger:
        known = ledger.generation("latest")
        (of_base,) = [s for s in ledger.stages(known.night_id) if s.artifact_id == f"quantize-{'b' * 16}"]
        night = start_night(ledger, recipe=recipe)
        stage = ledger.start_stage(night, name="quantize", position=0, key=of_base.key)
        ledger.finish_stage(stage, status="reused", seconds=0.0, artifact_id=of_base.artifact_id)
        ledger.add_generation(
            night,
            base="pretrain-x",
            merged_artifact=known.merged_artifact,
            gguf_artifact=known.gguf_artifact,
            served_file=known.served_file,
        )
    assert find_base(workspace, "latest").name == "base (mine, pre-trained)"
    assert find_base(workspace, "gen-0001").name == "base (embedded)"


def test_the_embedded_base_talks_before_the_first_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = tiny_models.build(tmp_path / "embedded", "smollm", seed=2)
    monkeypatch.setattr("nomoat.model.load.resolve_base", lambda base, folder: embedded)
    place = tmp_path / "empty"
    place.mkdir()
    monkeypatch.chdir(place)
    messages = conversation("base", *SHORT, typed="Hello\n")
    assert messages[1]["role"] == "assistant"
    files = list((place / ".nomoat" / "artifacts").glob("quantize-*/base-Q8_0.gguf"))
    assert len(files) == 1
    changed_ns = files[0].stat().st_mtime_ns
    assert conversation("base", *SHORT, typed="Hello\n") == messages
    assert files[0].stat().st_mtime_ns == changed_ns, "made once, then found again"


def test_a_whole_chat_at_a_terminal(workspace: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nomoat.cli.main", "chat", *SHORT],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"Hello\n/save talk.jsonl\n/quit\n")
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other end has closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "gen-0001 (better), 256 tokens of context. /help lists the commands." in text
    assert "> " in text
    assert "Saved to talk.jsonl" in text
    (row,) = [json.loads(line) for line in (workspace / "talk.jsonl").read_text().splitlines()]
    assert row["messages"][0] == {"role": "user", "content": "Hello"}
