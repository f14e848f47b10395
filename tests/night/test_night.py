"""A whole night on a tiny model: what it leaves behind, what it does again, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.families import save_tiny
from helpers.nights import (
    ANIMALS,
    Watched,
    last_night,
    ledger_of,
    loss_on_steering_rows,
    run,
    verify_artifacts,
    write_rows,
)
from nomoat.errors import BudgetError, DataError, ModelError, RecipeError
from nomoat.ledger.artifacts import HOUSE
from nomoat.model.load import load_tokenizer
from nomoat.night import night as night_module
from nomoat.night.result import NightSummary
from nomoat.night.runner import NightInterrupted
from nomoat.plan.probe import probe
from nomoat.train import finetune as finetune_module

pytestmark = pytest.mark.slow

STAGES = ("data", "quantize", "sft", "merge", "quantize", "evaluate", "gate")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
MODEL = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")


@dataclass(frozen=True)
class First:
    """A night that has run; tests that go on from it do so in a copy of its workspace."""

    base: Path
    rows: Path
    workspace: Path
    summary: NightSummary
    watched: Watched

    @property
    def words(self) -> tuple[str, str]:
        return f"base={self.base}", f"data.train={self.rows}"

    def copied(self, to: Path) -> Path:
        return Path(shutil.copytree(self.workspace, to / "copy"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> First:
    folder = tmp_path_factory.mktemp("first")
    base, rows = save_tiny("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    watched = Watched()
    workspace = folder / "workspace"
    summary = run(workspace, f"base={base}", f"data.train={rows}", watcher=watched)
    return First(base, rows, workspace, summary, watched)


def how(workspace: Path) -> list[tuple[str, str]]:
    """The stages of the newest night."""
    return [(stage.name, stage.status) for stage in last_night(workspace)[1]]


def adapter_bytes(workspace: Path) -> list[list[bytes]]:
    folders = sorted((workspace / HOUSE / "artifacts").glob("sft-*/adapter"))
    return [[(folder / name).read_bytes() for name in ADAPTER] for folder in folders]


def test_every_stage_leaves_a_whole_artifact_and_nothing_half_done(first: First) -> None:
    assert sorted(verify_artifacts(first.workspace)) == sorted(STAGES)
    artifacts = first.workspace / HOUSE / "artifacts"
    (adapter,) = artifacts.glob("sft-*/adapter")
    assert {*ADAPTER, "tokenizer.json", "chat_template.jinja"} <= {path.name for path in adapter.iterdir()}
    (model,) = artifacts.glob("merge-*/model")
    assert set(MODEL) <= {path.name for path in model.iterdir()}
    assert {path.name for path in artifacts.glob("quantize-*/*.gguf")} == {
        "night-F16.gguf",
        "night-Q4_K_M.gguf",
        "base-F16.gguf",
    }
    assert list((first.workspace / HOUSE / "work").iterdir()) == []


def test_the_ledger_tells_the_night(first: First) -> None:
    night, stages = last_night(first.workspace)
    assert (night.status, night.error) == ("done", None)
    assert [(stage.name, stage.status) for stage in stages] == [(kind, "done") for kind in STAGES]
    assert [(kind, how) for kind, how in first.watched.stages] == [(kind, "done") for kind in STAGES]
    assert night.seconds is not None
    assert night.seconds >= sum(stage.seconds or 0.0 for stage in stages) > 0
    assert night.plan is not None
    kinds = [stage["kind"] for stage in night.plan["stages"]]
    assert kinds == ["sft", "merge", "quantize", "evaluate", "gate"]
    with ledger_of(first.workspace) as ledger:
        scores, samples = ledger.scores(night.id), ledger.samples(night.id)
        (generation,) = ledger.generations()
        sft = next(stage.artifact_id for stage in stages if stage.name == "sft")
        assert sft is not None
        assert set(ledger.artifact(sft).meta["params"]["keys"]) >= {"learning_rate", "max_steps", "seed"}
    assert [(score.subject, score.metric) for score in scores] == [
        ("base", "loss"), ("tuned", "loss"), ("difference", "loss"),
    ]  # fmt: skip
    base, tuned, difference = (score.value for score in scores)
    assert difference == pytest.approx(tuned - base)
    assert tuned < base
    assert len(samples) == 2
    assert samples[0].prompt[-1]["role"] == "user"  # type: ignore[index]
    assert (generation.name, generation.adapter_artifact) == ("gen-0001", sft)
    assert generation.served_file == first.summary.served_file
    assert night.verdict == {
        "verdict": "better",
        "said": first.summary.comparison.said,
        "generation": "gen-0001",
        "gate": "not yet",
    }


def test_the_summary_agrees_with_itself_and_with_the_disk(first: First) -> None:
    night = first.summary
    for path in (night.model_path, night.served_file, night.report_path):
        assert (first.workspace / path).exists(), path
    page = (first.workspace / night.report_path).read_text(encoding="utf-8")
    assert "Better than its base." in page
    assert "gen-0001" in page
    assert night.served_file.endswith("/night-F16.gguf")
    assert (night.name, night.base, night.seed) == ("night", str(first.base), 0)
    assert night.data_reports[0]["rows"]["read"] == 60
    assert night.trainings[0].facts["steps"] == night.trainings[0].curve["train"][-1]["step"] == 8
    losses = {point["step"]: point["loss"] for point in night.trainings[0].curve["held_out"]}
    assert (
        night.trainings[0].facts["best_loss"]
        == losses[night.trainings[0].facts["best_step"]]
        == min(losses.values())
    )
    assert night.trainings[0].facts["first_loss"] == losses[0]
    steered = loss_on_steering_rows(first.workspace, 1)
    assert night.trainings[0].facts["best_loss"] == pytest.approx(steered, rel=1e-4)
    assert [(row["type"], row["file"]) for row in night.fidelity] == [
        ("F16", "night-F16.gguf"),
        ("Q4_K_M", "night-Q4_K_M.gguf"),
    ]
    assert night.fidelity[0]["same_greedy_share"] == 1.0
    assert night.seconds >= sum(stage.seconds for stage in night.stages)
    assert night.energy_joules > 0
    assert night.dollars > 0
    assert (night.warnings, night.next_command) == ([], "nomoat chat")
    assert json.dumps(night.lineage).count("base:") >= 1
    assert night.lineage["id"] == next(
        stage.artifact_id for stage in night.stages if stage.kind == "quantize" and "Q4" in stage.said
    )


def test_a_second_run_does_nothing_again(first: First, tmp_path: Path) -> None:
    workspace = first.copied(tmp_path)
    again = run(workspace, *first.words)
    assert how(workspace) == [(kind, "reused") for kind in STAGES]
    assert (again.night_id, again.generation) == (2, "gen-0001")
    assert again.comparison == first.summary.comparison
    assert again.trainings[0].curve == first.summary.trainings[0].curve
    assert {stage.seconds for stage in again.stages} == {0.0}
    with ledger_of(workspace) as ledger:
        assert len(ledger.generations()) == 1


def test_another_learning_rate_redoes_only_what_follows_from_it(first: First, tmp_path: Path) -> None:
    workspace = first.copied(tmp_path)
    changed = run(workspace, *first.words, "sft.learning_rate=0.001")
    assert how(workspace) == [
        ("data", "reused"),
        ("quantize", "reused"),
        *((kind, "done") for kind in STAGES[2:]),
    ]
    assert changed.generation == "gen-0002"
    assert changed.comparison != first.summary.comparison
    one, other = adapter_bytes(workspace)
    assert one != other

    back = run(workspace, *first.words)
    assert {status for _, status in how(workspace)} == {"reused"}
    assert back.generation == "gen-0001"


def test_a_damaged_artifact_is_set_aside_and_made_again(first: First, tmp_path: Path) -> None:
    workspace = first.copied(tmp_path)
    before = adapter_bytes(workspace)
    (weights,) = workspace.glob(f"{HOUSE}/artifacts/sft-*/adapter/adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    watched = Watched()
    summary = run(workspace, *first.words, watcher=watched)
    assert [kind for kind, status in how(workspace) if status == "done"] == ["sft"]
    name = weights.parents[1].name
    aside = workspace / HOUSE / "damaged" / f"{name}-1"
    assert summary.warnings == [
        f"artifact {name} is damaged: adapter/adapter_model.safetensors has another checksum than when it was "
        f"made. It was moved to {aside} and will be made again."
    ]
    assert summary.warnings[0] in watched.notes
    assert (aside / "adapter" / weights.name).read_bytes() == content
    assert adapter_bytes(workspace) == before
    assert summary.generation == "gen-0001"


def test_a_stopped_night_goes_on_to_the_same_bytes(first: First, tmp_path: Path) -> None:
    steps: list[int] = []
    with pytest.raises(NightInterrupted, match="^stopped at step 3 of 8$"):
        run(tmp_path, *first.words, watcher=Watched(steps.append), stop_asked=lambda: steps[-2:] == [1, 2])
    night, stages = last_night(tmp_path)
    assert (night.status, night.error) == ("interrupted", "stopped at step 3 of 8")
    assert (stages[-1].name, stages[-1].status) == ("sft", "interrupted")
    run(tmp_path, *first.words, watcher=Watched(steps.append))
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert adapter_bytes(tmp_path) == adapter_bytes(first.workspace)


def test_all_weights_can_be_trained(first: First, tmp_path: Path) -> None:
    summary = run(tmp_path, *first.words, "sft.method=full")
    assert how(tmp_path) == [(kind, "done") for kind in STAGES if kind != "merge"]
    assert summary.model_path.startswith(f"{HOUSE}/artifacts/sft-")
    assert summary.comparison.verdict == "better"
    assert summary.fidelity[0]["same_greedy_share"] == 1.0
    trained = load_file(tmp_path / summary.model_path / "model.safetensors")
    untrained = load_file(first.base / "model.safetensors")
    assert trained.keys() == untrained.keys()
    assert not any(trained[name].equal(untrained[name]) for name in trained)
    with ledger_of(tmp_path) as ledger:
        (generation,) = ledger.generations()
    assert generation.adapter_artifact is None
    assert generation.merged_artifact is not None
    assert generation.merged_artifact.startswith("sft-")


def test_the_top_blocks_alone_can_be_adapted(first: First, tmp_path: Path) -> None:
    kept = run(tmp_path, *first.words, "sft.lora_layers=1")
    anew = run(tmp_path, *first.words, "sft.lora_layers=1", "sft.frozen_cache=false")
    assert how(tmp_path)[:3] == [("data", "reused"), ("quantize", "reused"), ("sft", "done")]
    assert kept.comparison.verdict == anew.comparison.verdict == "better"
    assert kept.trainings[0].facts["best_loss"] == pytest.approx(
        anew.trainings[0].facts["best_loss"], rel=0.02
    )
    assert adapter_bytes(tmp_path)[0] != adapter_bytes(tmp_path)[1], "outputs kept in bfloat16 are rounded"
    for folder in (tmp_path / HOUSE / "artifacts").glob("sft-*/adapter"):
        names = load_file(folder / "adapter_model.safetensors").keys()
        assert names
        assert all(".layers.1." in name for name in names)
    with pytest.raises(ModelError, match=r"sft.lora_layers: 3 is more than the 2 blocks of this model"):
        run(tmp_path, *first.words, "sft.lora_layers=3")


def on_a_machine_with(memory_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = night_module.probe
    monkeypatch.setattr(
        night_module, "probe", lambda *args, **keys: replace(real(*args, **keys), memory_bytes=memory_bytes)
    )


def test_too_little_memory_has_blocks_computed_again_and_says_so(
    first: First, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes under the same key: whether memory was short is no part of what was made."""
    told: list[Any] = []
    real = finetune_module.run_training

    def watched(*args: Any, **keys: Any) -> Any:
        told.append(keys["gradient_checkpointing"])
        return real(*args, **keys)

    monkeypatch.setattr(finetune_module, "run_training", watched)
    on_a_machine_with(4 << 20, monkeypatch)
    watcher = Watched()
    run(tmp_path, *first.words, watcher=watcher)
    assert any(note.startswith("gradient checkpointing is on: a step would need") for note in watcher.notes)
    assert adapter_bytes(tmp_path) == adapter_bytes(first.workspace)
    for kind in ("sft", "merge"):
        made, known = (
            {path.name for path in (workspace / HOUSE / "artifacts").glob(f"{kind}-*")}
            for workspace in (tmp_path, first.workspace)
        )
        assert made == known
    run(tmp_path, *first.words, "sft.gradient_checkpointing=false", "seed=1")
    assert told == [True, False]


def test_the_base_can_be_held_in_four_bits(first: First, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason='bitsandbytes is not installed: pip install "nomoat[gpu]"')
    summary = run(tmp_path, *first.words, "sft.load_in_4bit=true")
    assert how(tmp_path) == [(kind, "done") for kind in STAGES]
    assert summary.comparison.metrics[0].difference.value < -1.0, "nats a token"
    said = {stage.kind: stage.said for stage in summary.stages}
    assert said["merge"].startswith(
        "merged into the unquantised base (it was trained on the base in 4 bits); logits differ from the adapter's"
    )
    assert adapter_bytes(tmp_path) != adapter_bytes(first.workspace)
    sft = next(stage.artifact_id for stage in summary.stages if stage.kind == "sft")
    with ledger_of(tmp_path) as ledger:
        params = ledger.artifact(sft).meta["params"]
    assert params["load_in_4bit"] is True
    assert params["bitsandbytes"] == version("bitsandbytes")
    merged = load_file(tmp_path / summary.model_path / "model.safetensors")
    untrained = load_file(first.base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    change = (merged[name] - untrained[name]).float()
    assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 16, (
        "the adapter's product and no rounding of the base"
    )


def test_four_bits_without_their_library_are_refused_before_anything_is_done(
    first: First, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.functional", raising=False)
    with pytest.raises(ModelError, match=r"^sft.load_in_4bit needs bitsandbytes, which is not installed"):
        run(tmp_path, *first.words, "sft.load_in_4bit=true")
    assert not (tmp_path / HOUSE).exists()


def write_text(path: Path) -> Path:
    rows = [
        {"text": f"Story {n}. The cat sat on the mat and the dog sat on the cat. " * 3} for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pretraining(text: Path) -> tuple[str, ...]:
    return (
        f"pretrain.train={text}",
        "pretrain.held_out=0.2",
        "pretrain.vocab_size=320",
        "pretrain.max_seq_len=128",
        "pretrain.tokens_per_step=512",
        "pretrain.max_steps=8",
        "pretrain.hidden_size=64",
        "pretrain.intermediate_size=128",
        "pretrain.num_hidden_layers=2",
        "pretrain.dtype=float32",
    )


def test_a_night_can_make_a_base_and_nothing_else(tmp_path: Path) -> None:
    summary = run(tmp_path, "sft=null", *pretraining(write_text(tmp_path / "text.jsonl")))
    assert how(tmp_path) == [("pretrain", "done"), ("quantize", "done"), ("evaluate", "done")]
    assert summary.comparison.verdict == "not compared"
    assert {file["type"] for file in summary.fidelity} == {"F16", "Q4_K_M"}
    assert all(file["mean_kl"] < 0.1 for file in summary.fidelity)
    assert summary.comparison.said == (
        "A new base was trained from scratch: held-out loss "
        f"{summary.trainings[0].facts['best_loss']:.3f} nats a token. It has no rival yet."
    )
    assert summary.trainings[0].facts["best_loss"] < summary.trainings[0].facts["first_loss"] - 0.5
    assert set(MODEL) <= {path.name for path in (tmp_path / summary.model_path).iterdir()}
    assert (tmp_path / summary.served_file).exists()
    assert (tmp_path / summary.report_path).exists()
    assert run(tmp_path, "sft=null", *pretraining(tmp_path / "text.jsonl")).generation == "gen-0001"
    assert {status for _, status in how(tmp_path)} == {"reused"}


def test_a_night_can_make_a_base_and_tune_it(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    text = write_text(tmp_path / "text.jsonl")
    summary = run(tmp_path, f"data.train={rows}", *pretraining(text), "pretrain.dtype=bfloat16")
    assert how(tmp_path) == [(kind, "done") for kind in ("pretrain", *STAGES)]
    assert summary.base == "night (pre-trained)"
    assert summary.comparison.verdict == "better"
    assert '"pretrain-' in json.dumps(summary.lineage)
    with ledger_of(tmp_path) as ledger:
        (generation,) = ledger.generations()
        made = [ledger.artifact(stage.artifact_id).meta for stage in summary.stages]
    assert generation.base.startswith("pretrain-")
    assert (made[0]["params"]["dtype"], made[3]["params"]["dtype"]) == ("bfloat16", "float32")


def refused(workspace: Path, message: str) -> None:
    """The ledger keeps a refused night, with the reason."""
    night, _ = last_night(workspace)
    assert (night.status, night.error) == ("failed", message)
    assert night.seconds is not None


def test_a_budget_too_small_for_any_training_is_refused(first: First, tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        run(tmp_path, *first.words, "budget.hours=0.001")
    assert re.match(r"the budget leaves 0 s for a training of about \d s, after ", caught.value.message)
    assert caught.value.message.endswith(" s kept for merging, quantising and evaluation")
    assert caught.value.hint == (
        "Give budget.until, hours or dollars more, or lower num_train_epochs or the base's size."
    )
    assert how(tmp_path) == [("data", "done"), ("quantize", "done")], (
        "once it is known how fast the base answers"
    )
    refused(tmp_path, str(caught.value))


def test_training_gives_way_to_a_deadline(first: First, tmp_path: Path) -> None:
    hours = 66 / 3600  # of which the plan keeps some 45 s for all that follows training
    steps = 30_000  # 3,000 of this model take some twenty seconds on a fast machine
    summary = run(
        tmp_path,
        *first.words,
        f"sft.max_steps={steps}",
        f"sft.num_train_epochs={steps}",
        f"budget.hours={hours}",
    )
    assert summary.seconds < 66
    assert 5 < summary.trainings[0].facts["steps"] < steps
    (event, *_) = summary.trainings[0].curve["events"]
    assert re.fullmatch(r"step \d+: \d+ steps would take \d+ s, \d+ s are left: ending after \d+ more", event)
    rates = [point["learning_rate"] for point in summary.trainings[0].curve["train"]]
    assert rates[-1] < 0.05 * max(rates)  # it lands: the rate falls to nothing at the new end
    assert summary.trainings[0].facts["seconds"] < 30


def test_a_disk_that_is_too_small_is_said_before_training_and_not_after(
    first: First, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "nomoat.night.night.probe",
        lambda *args, **keys: replace(probe(*args, **keys), disk_free_bytes=1_000_000),
    )
    watched, again = Watched(), Watched()
    run(tmp_path, *first.words, watcher=watched)
    run(tmp_path, *first.words, "evaluate.samples=1", watcher=again)
    (said,) = [note for note in watched.notes if note.startswith("the disk: ")]
    assert re.fullmatch(
        r"the disk: this night writes about \d\.\d MB and 1\.0 MB are free: free some space, or name fewer "
        r"quantize\.types",
        said,
    )
    assert not [note for note in again.notes if note.startswith("the disk: ")]
    assert not [note for note in first.watched.notes if note.startswith("the disk: ")]


def test_one_held_out_row_is_too_few(first: First, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, *first.words, "data.held_out=0.05")
    assert caught.value.message == (
        "1 of 60 rows is held out with data.held_out: 0.05; expected at least 2, so that the two models can be "
        "compared on them."
    )
    assert caught.value.hint == "Raise data.held_out, or add rows."
    assert how(tmp_path) == [("data", "failed")]


def test_rows_that_are_mostly_too_long_are_refused(first: First, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, *first.words, "sft.max_seq_len=32")
    assert caught.value.message == (
        "60 of 60 rows are longer than 32 tokens and would be cut (100%); data.max_truncated allows 50%."
    )
    refused(tmp_path, str(caught.value))


def test_a_longer_row_than_the_base_can_read_is_never_advised(first: First, tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base", max_position_embeddings=32)
    with pytest.raises(DataError) as caught:
        run(tmp_path, f"base={base}", first.words[1], "sft.max_seq_len=32")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(
        "The base reads no more than that. Shorten or split the longer rows, "
    )


def test_the_machine_is_settled_before_it_computes_anything(
    first: First, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def probe(*_: object, **__: object) -> None:
        calls.append("probe")
        raise BudgetError("enough")

    monkeypatch.setattr(night_module, "make_deterministic", lambda machine: calls.append(machine.device))
    monkeypatch.setattr(night_module, "probe", probe)
    with pytest.raises(BudgetError, match="enough"):
        run(tmp_path, *first.words)
    assert calls in (["cpu", "probe"], ["cuda", "probe"])


def test_an_adapter_that_changes_nothing_is_refused(first: First, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        run(tmp_path, *first.words, "sft.learning_rate=1e-30")
    loss = first.summary.trainings[0].facts["first_loss"]
    assert caught.value.message == (
        f"training changed nothing for the better: the held-out loss was {loss:.4f} before the first step and "
        f"never lower after it (best {loss:.4f})"
    )
    refused(tmp_path, str(caught.value))


def test_rows_longer_than_the_context_are_refused(first: First, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run(tmp_path, *first.words, "sft.max_seq_len=1024", "sft.tokens_per_step=1024")
    assert caught.value.message == "sft.max_seq_len: 1024 tokens are more than the base's context of 512"
    assert caught.value.hint == "Set sft.max_seq_len to 512 or less."
    refused(tmp_path, str(caught.value))


def test_a_base_that_could_not_be_served_is_refused_before_it_is_trained(
    first: First, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(first.base)
    config = GPT2Config(n_embd=64, n_layer=1, n_head=4, n_positions=128, vocab_size=len(tokenizer))
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError) as caught:
        run(tmp_path, f"base={tmp_path / 'gpt2'}", f"data.train={first.rows}")
    assert caught.value.message.startswith(
        "config.json: architectures: got ['GPT2LMHeadModel']; GGUF can be written for LlamaForCausalLM, "
    )
    assert caught.value.hint == "Choose another base: what cannot be a GGUF file could not be served."
    assert how(tmp_path) == [("data", "done"), ("quantize", "failed")]


@pytest.mark.parametrize("context", [8, 16])
def test_a_context_of_a_few_tokens_is_compared_within_it(context: int, tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base", max_position_embeddings=context)
    text = write_text(tmp_path / "text.jsonl")
    exactly = (f"sft.max_seq_len={context}", "quantize.types=F32", "quantize.serve=F32")
    summary = run(tmp_path, f"base={base}", f"data.train={text}", *exactly)
    (exact,) = summary.fidelity
    assert exact["same_greedy_share"] == 1.0
    assert f" identical over {context // 2} tokens; " in exact["said"]
    assert summary.comparison.answers == []


def write_prompts(path: Path, *contents: str) -> Path:
    """The owner's prompts, each with a check that only the tuned model can pass."""
    check = {"kind": "includes", "words": ["sat on the"]}
    rows = [
        {"id": f"ask-{n}", "messages": [{"role": "user", "content": content}], "checks": [check]}
        for n, content in enumerate(contents)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_with_checks_decide(first: First, tmp_path: Path) -> None:
    longer = ("sft.max_steps=60", "sft.num_train_epochs=30", "evaluate.max_new_tokens=32")
    asked = [f"Where is the {animal} and what of the moon? (100)" for animal in ANIMALS]
    prompts = write_prompts(tmp_path / "mine.jsonl", *asked)
    summary = run(tmp_path, *first.words, f"evaluate.prompts={prompts}", *longer)
    assert summary.comparison.decided_by == "pass rate"
    rate = summary.comparison.metrics[0]
    assert (rate.name, rate.suite, rate.tuned.n, rate.base.value) == ("pass rate", "mine", 6, 0.0)
    answers = summary.comparison.answers
    assert [answer.prompt_id for answer in answers] == [f"ask-{n}" for n in range(6)]
    passed = [bool(answer.tuned_passed) for answer in answers]
    assert passed == ["sat on the" in answer.tuned for answer in answers]
    assert sum(passed) >= 4
    assert rate.tuned.value == pytest.approx(sum(passed) / 6)
    assert summary.comparison.verdict == "better"
    night, _ = last_night(tmp_path)
    with ledger_of(tmp_path) as ledger:
        samples = ledger.samples(night.id)
    assert [(sample.prompt_id, sample.tuned_passed) for sample in samples] == [
        (answer.prompt_id, answer.tuned_passed) for answer in answers
    ]


def test_a_renamed_file_of_prompts_is_evaluated_under_its_new_name(first: First, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "mine.jsonl", "Where is the cat?", "Where is the dog?")
    assert run(tmp_path, *first.words, f"evaluate.prompts={prompts}").comparison.metrics[0].suite == "mine"
    renamed = prompts.rename(tmp_path / "yours.jsonl")
    again = run(tmp_path, *first.words, f"evaluate.prompts={renamed}")
    assert again.comparison.metrics[0].suite == "yours"
    assert [kind for kind, status in how(tmp_path) if status == "done"] == ["evaluate", "gate"]


def test_prompts_that_cannot_be_asked_are_refused_before_training(first: First, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "mine.jsonl", "Where is the cat?", "Where is the cat? " * 40)
    with pytest.raises(DataError) as caught:
        run(tmp_path, *first.words, f"evaluate.prompts={prompts}")
    assert re.fullmatch(
        r"evaluate.prompts: mine: ask-1 has \d\d\d tokens; expected fewer than 144, so that there is room for an "
        r"answer",
        caught.value.message,
    )
    assert how(tmp_path) == [("data", "done"), ("quantize", "done")]

    prompts.write_text(
        '{"messages": [{"role": "user", "content": "Where?"}], "checks": [{"kind": "include"}]}\n'
    )
    with pytest.raises(DataError, match='^mine.jsonl:1: checks.*got "include".*Did you mean "includes"'):
        run(tmp_path, *first.words, f"evaluate.prompts={prompts}")
    assert how(tmp_path) == [], "they are read before anything is done"


def test_conversations_longer_than_the_context_are_asked_up_to_where_they_fit(
    first: First, tmp_path: Path
) -> None:
    turns = [{"role": role, "content": "the cat sat on the mat " * 3} for role in ("user", "assistant")] * 8
    rows = [{"messages": [{"role": "user", "content": f"Talk {n}."}, *turns[1:]]} for n in range(30)]
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = run(tmp_path, f"base={first.base}", f"data.train={file}", "data.max_truncated=1")
    assert summary.data_reports[0]["rows"]["truncated"] == 30
    assert summary.data_reports[0]["lengths"]["p50"] > 144
    answers = summary.comparison.answers
    assert len(answers) == 2
    for answer in answers:
        assert 1 < len(answer.messages) < 15
        assert answer.messages[-1]["role"] == "user"
    assert summary.fidelity[0]["same_greedy_share"] == 1.0


def test_a_model_of_plain_text_is_compared_with_its_files_too(first: First, tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.jsonl")
    summary = run(tmp_path, f"base={first.base}", f"data.train={text}", "data.held_out=0.2")
    assert summary.comparison.answers == []
    assert summary.fidelity[0]["same_greedy_share"] == 1.0
    assert " positions" in summary.fidelity[0]["said"]
