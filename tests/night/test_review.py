"""What a second pair of eyes found: nights that lost work, reused the wrong thing, or blamed themselves."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from helpers.families import save_tiny
from helpers.nights import Watched, last_night, ledger_of, run, write_rows
from helpers.rows import counting_rows
from nomoat.engine.pace import Pace
from nomoat.errors import DataError, ModelError
from nomoat.evaluate.prompts import read_prompts
from nomoat.model.load import Machine, count_parameters, read_shape, resolve_base
from nomoat.night import books, forecast, night, sources
from nomoat.night.runner import NightInterrupted
from nomoat.night.sources import Sources, find_sources
from nomoat.plan.probe import EnergyMeter
from nomoat.recipe import Recipe
from nomoat.train import finetune
from nomoat.train.hooks import Hooks
from nomoat.train.new_model import new_llama
from nomoat.train.pretrain import check_learned
from nomoat.train.run import TrainingKeys, run_training


def on_a_tiny_base(folder: Path) -> tuple[str, str]:
    """A new base and rows in `folder`, as overrides."""
    return f"base={save_tiny('llama', folder / 'base')}", f"data.train={write_rows(folder / 'rows.jsonl')}"


@pytest.mark.slow
def test_a_budget_that_has_run_out_does_not_take_away_what_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained before 07:00, killed, run again at 06:59: the work is merged and served, not refused."""
    words = on_a_tiny_base(tmp_path)
    budget = "budget.until=23:59"
    seen = Watched()
    monkeypatch.setattr(forecast, "seconds_allowed", lambda *_: 1e6)
    with pytest.raises(NightInterrupted):
        trained = lambda: ("sft", "done") in seen.stages  # noqa: E731
        run(tmp_path / "w", *words, budget, watcher=seen, stop_asked=trained)
    monkeypatch.setattr(forecast, "seconds_allowed", lambda *_: 1.0)
    again = Watched()
    run(tmp_path / "w", *words, budget, watcher=again)
    assert ("sft", "reused") in again.stages
    assert ("evaluate", "done") in again.stages


@pytest.mark.slow
def test_a_budget_that_has_run_out_lands_what_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = on_a_tiny_base(tmp_path)
    budget, steps = (
        ("budget.until=23:59", "sft.max_steps=400", "sft.num_train_epochs=400", "sft.save_steps=2"),
        [0],
    )
    monkeypatch.setattr(forecast, "seconds_allowed", lambda *_: 1e6)
    with pytest.raises(NightInterrupted):
        watcher = Watched(on_step=lambda step: steps.__setitem__(0, step))
        run(tmp_path / "w", *words, *budget, watcher=watcher, stop_asked=lambda: steps[0] >= 9)
    monkeypatch.setattr(forecast, "seconds_allowed", lambda *_: 1.0)
    summary = run(tmp_path / "w", *words, *budget)
    assert 9 < summary.trainings[0].facts["steps"] < 40


def test_a_file_that_is_renamed_to_another_format_is_another_file(tmp_path: Path) -> None:
    for name in ("rows.txt", "rows.jsonl", "other.jsonl"):
        (tmp_path / name).write_text('{"text": "one"}\n')
    plain = Sources((), (), (), (), (), (), (), (), None)
    text, rows, other = (
        plain.fingerprints((str(tmp_path / n),)) for n in ("rows.txt", "rows.jsonl", "other.jsonl")
    )
    assert text != rows
    assert rows == other


@pytest.mark.parametrize("name", ["data/rows.tsv", "data/ROWS.JSONL", "data/notes.md", "data/rows.jsonl.gz"])
def test_a_missing_data_file_is_not_taken_for_a_hub_data_set(tmp_path: Path, name: str) -> None:
    recipe = Recipe.model_validate({"data": {"train": [name]}})
    with pytest.raises(DataError, match=f"data.train: {name} is not there"):
        find_sources(recipe, tmp_path)


def test_without_a_network_a_hub_revision_is_unknown_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(self: object, name: str) -> object:
        raise type("ConnectError", (Exception,), {})("no route")  # as the http library raises it: no OSError

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    assert sources._revision("someone/rows") == "unknown"


def test_truncated_weights_are_counted_as_damage_and_not_as_our_fault(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
        count_parameters(folder)


def test_a_second_copy_of_the_weights_is_not_counted(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    once = count_parameters(folder)
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert count_parameters(folder) == once


def test_a_base_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    with pytest.raises(ModelError, match="is not a causal language model that can be tuned here"):
        read_shape(tmp_path)


@pytest.mark.parametrize("name", ["my model/x y", "a..b/c"])
def test_a_base_whose_name_the_hub_would_not_take_is_not_our_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="base: "):
        resolve_base(name, tmp_path)


def test_a_base_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_tiny("llama", tmp_path / "base")
    assert resolve_base("~/base", tmp_path / "elsewhere") == tmp_path / "base"


def test_prompts_may_hold_every_character_that_json_may(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    text = "one\u2028two\u0085three\x0bfour".replace("\x0b", "")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    row = {"messages": [{"role": "user", "content": text}], "tools": tools, "checks": []}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\r\n" + json.dumps(row) + "\n", encoding="utf-8")
    first, second = read_prompts(path, most=9)
    assert first.conversation == second.conversation
    assert first.conversation.messages[0].content == text
    assert len(first.conversation.tools) == 1


def test_the_owners_watts_and_a_gpu_go_before_the_processors_counter(tmp_path: Path) -> None:
    counter = tmp_path / "energy_uj"
    counter.write_text("1000000")
    measuring, told = EnergyMeter(50.0, counter), EnergyMeter(50.0, None)
    counter.write_text("90000000")
    assert measuring.measured
    assert measuring.joules() == pytest.approx(89.0)
    assert not told.measured
    assert told.joules() < 1.0


def test_a_pretraining_that_learned_nothing_is_refused(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = new_llama(vocab_size=40, max_seq_len=64, eos_token_id=1, pad_token_id=0, seed=0, **shape, **heads)
    keys = TrainingKeys(1e-30, 1.0, 3, 128, 128, "cosine", 0.0, 0.0, 0.99, "adamw_torch", 1.0, 1, 1, 0)
    rows = counting_rows(40, 40, seed=1)
    machine = Machine("cpu", torch.float32)
    result = run_training(model, rows, rows, tmp_path, keys=keys, machine=machine, hooks=Hooks())
    with pytest.raises(ModelError, match="pre-training changed nothing for the better"):
        check_learned(dataclasses.replace(result, best_step=0))
    check_learned(dataclasses.replace(result, best_step=2))


@pytest.mark.slow
def test_a_generation_made_again_has_the_verdict_that_was_found_last(tmp_path: Path) -> None:
    words = on_a_tiny_base(tmp_path)
    first = run(tmp_path / "w", *words)
    second = run(tmp_path / "w", *words, "evaluate.confidence=0.9")
    assert first.generation == second.generation
    assert first.comparison.said != second.comparison.said
    with ledger_of(tmp_path / "w") as ledger:
        kept = ledger.generation(first.generation).verdict
    assert kept is not None
    assert kept["said"] == second.comparison.said


@pytest.mark.slow
def test_the_ledger_calls_no_night_done_that_has_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(books, "write_report", full_disk)
    words = on_a_tiny_base(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "w", *words)
    assert last_night(tmp_path / "w")[0].status == "failed"


@pytest.mark.slow
def test_the_second_plan_knows_how_fast_the_base_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first guesses from the memory's speed; a file that answers more slowly leaves less for training."""
    words = (*on_a_tiny_base(tmp_path), "budget.hours=1")
    monkeypatch.setattr(night, "measure_pace", lambda *_, **__: Pace(100.0, 2.0))
    watched = Watched()
    run(tmp_path / "w", *words, watcher=watched)
    said = next(note for note in watched.notes if note.startswith("the base reads 100 and writes 2 tokens"))
    plans = [note for note in watched.notes if note.startswith("the night: about")]
    assert watched.notes.index(plans[0]) < watched.notes.index(said) < watched.notes.index(plans[1])
    guessed, measured = (int(re.findall(r"evaluate (\d+)", plan)[0]) for plan in plans)
    assert measured > guessed + 60
    assert run(tmp_path / "w", *words, watcher=(again := Watched())).generation == "gen-0001"
    assert not any("the base reads" in note for note in again.notes)


@pytest.mark.slow
def test_full_weights_that_read_back_as_another_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, real = save_tiny("llama", tmp_path / "base"), finetune.save_model

    def spoilt(model: torch.nn.Module, tokenizer: object, folder: Path) -> None:
        with torch.no_grad():
            next(model.parameters())[:, 0] += 1.0
        real(model, tokenizer, folder)

    monkeypatch.setattr(finetune, "save_model", spoilt)
    rows = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(ModelError, match="the saved model is not the trained one: logits differ"):
        run(tmp_path / "w", f"base={base}", f"data.train={rows}", "sft.method=full")
