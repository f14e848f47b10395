"""The stage `gate` in whole nights: against the base, then against the champion; what is kept, and who is served."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.families import save_tiny
from helpers.nights import (
    ANIMALS,
    PLACES,
    Watched,
    last_night,
    ledger_of,
    loss_on_steering_rows,
    run,
    write_rows,
)
from nomoat.data.split import asked_keys
from nomoat.engine.base import Sampling
from nomoat.evaluate.battle import Battle, Contestant, arena_pool, draw_sides, keep_draw
from nomoat.evaluate.gatebook import held_out_asked, held_out_row_keys, verdict_on
from nomoat.evaluate.prompts import HELD_OUT_ROWS
from nomoat.ledger.artifacts import HOUSE, ArtifactStore
from nomoat.night.result import NightSummary

pytestmark = pytest.mark.slow

LONGER = ("sft.max_steps=60", "sft.num_train_epochs=30", "evaluate.max_new_tokens=32")
WEAKER = ("sft.max_steps=2", "sft.num_train_epochs=30", "evaluate.max_new_tokens=32", "name=weaker")


def write_prompts(path: Path) -> Path:
    """Thirty prompts that only a trained model passes."""
    check = {"kind": "includes", "words": ["sat on the"]}
    rows = [
        {
            "id": f"{animal}-{place}",
            "messages": [
                {"role": "user", "content": f"Where is the {animal} and what of the moon? ({place})"}
            ],
            "checks": [check],
        }
        for animal in ANIMALS
        for place in PLACES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class Two:
    """A night that beats its base, and one with less training after it."""

    workspace: Path
    words: tuple[str, ...]
    first: NightSummary
    second: NightSummary
    watched: Watched


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("two")
    base, rows = save_tiny("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    words = (f"base={base}", f"data.train={rows}", f"evaluate.prompts={write_prompts(folder / 'mine.jsonl')}")
    first = run(folder / "workspace", *words, *LONGER)
    watched = Watched()
    return Two(
        folder / "workspace",
        words,
        first,
        run(folder / "workspace", *words, *WEAKER, watcher=watched),
        watched,
    )


def test_the_first_generation_has_to_beat_its_base(two: Two) -> None:
    gate = two.first.gate
    assert gate is not None
    assert (gate.verdict, gate.challenger, gate.rival) == ("promote", "gen-0001", "base")
    (weighed,) = gate.weighed
    assert (weighed.source, weighed.wins + weighed.losses + weighed.ties) == ("checks", 30)
    passed = [(bool(a.tuned_passed), bool(a.base_passed)) for a in two.first.comparison.answers]
    assert weighed.wins == passed.count((True, False)) >= 15
    assert two.first.champion == "gen-0001"
    page = (two.workspace / two.first.report_path).read_text(encoding="utf-8")
    assert "Served from now on: <b>gen-0001</b>" in page


def test_the_second_is_measured_against_the_champion_and_not_the_base(two: Two) -> None:
    gate = two.second.gate
    assert gate is not None
    assert (gate.verdict, gate.rival, two.second.champion) == ("keep", "gen-0001", "gen-0001")
    (weighed,) = gate.weighed
    assert weighed.losses == two.first.gate.weighed[0].wins  # type: ignore[union-attr]
    assert "gen-0001 is shown to be better" in gate.said
    (gate_stage,) = [stage for stage in two.second.stages if stage.kind == "gate"]
    assert gate_stage.said.startswith("it passes 0 of 30 held-out prompts, gen-0001 ")
    assert ("gate", "done") in two.watched.stages


def test_the_evidence_is_kept_and_gives_the_verdict_again(two: Two) -> None:
    with ledger_of(two.workspace) as ledger:
        (champion,) = ledger.judgements.champions()
        assert (champion.generation_id, champion.chosen_by, champion.night_id) == (1, "gate", 1)
        assert champion.verdict is not None
        assert champion.verdict["said"] == champion.said == two.first.gate.said  # type: ignore[union-attr]
        store, rows = ArtifactStore(two.workspace), ledger.judgements.evidence(2)
        assert (len(rows), {row.rival_id for row in rows}, rows[0].item) == (30, {1}, "cat-mat")
        assert verdict_on(ledger, ledger.generation(2), store) == two.second.gate
        assert verdict_on(ledger, ledger.generation(1), store) == two.first.gate
    night, stages = last_night(two.workspace)
    assert night.verdict is not None
    assert night.verdict["gate"] == "keep"
    gate_artifact = next(stage.artifact_id for stage in stages if stage.name == "gate")
    found = json.loads((two.workspace / HOUSE / "artifacts" / gate_artifact / "evidence.json").read_text())  # type: ignore[operator]
    assert len(found["answers"]) == 30
    for row, answer in zip(found["rows"], found["answers"], strict=True):
        assert row["rival"] == float("sat on the" in answer["answer"])


def test_a_champion_that_is_made_again_is_not_asked_again(two: Two) -> None:
    again = run(two.workspace, *two.words, *LONGER)
    assert {stage.how for stage in again.stages} == {"reused"}
    assert again.gate == two.first.gate
    with ledger_of(two.workspace) as ledger:
        assert len(ledger.judgements.champions()) == 1


def test_the_plan_counts_the_champions_answers(two: Two) -> None:
    with ledger_of(two.workspace) as ledger:
        first, second = (ledger.night(number).plan for number in (1, 2))
    assert first is not None
    assert second is not None
    assert [stage["kind"] for stage in second["stages"]] == [
        *(stage["kind"] for stage in first["stages"]),
        "gate",
    ]
    assert second["stages"][-1]["seconds"] > 0


def test_a_champion_whose_files_are_gone_is_told_and_can_be_made_again(two: Two, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two.workspace, tmp_path / "copy"))
    shutil.rmtree(copy / Path(two.first.served_file).parent)
    without = run(copy, *two.words, *WEAKER)
    assert (without.gate, without.champion) == (None, "gen-0001")
    assert without.warnings[-1].endswith(
        "Run the champion's night again to make it anew, or choose another: nomoat rollback."
    )
    assert "is gone or damaged: the gate had nothing to compare with" in without.warnings[-1]
    again = run(copy, *two.words, *LONGER)
    assert [stage.kind for stage in again.stages if stage.how == "done"] == ["quantize"]
    assert again.gate == two.first.gate


def test_without_prompts_the_loss_of_both_decides(tmp_path: Path) -> None:
    base, rows = save_tiny("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl", 400)
    words = (f"base={base}", f"data.train={rows}", "evaluate.samples=1")
    first = run(tmp_path / "workspace", *words, "sft.max_steps=8")
    assert first.gate is not None
    assert [found.source for found in first.gate.weighed] == ["loss"]
    assert (first.gate.verdict, first.champion) == ("promote", "gen-0001")
    second = run(tmp_path / "workspace", *words, "sft.max_steps=20")
    assert second.gate is not None
    (weighed,) = second.gate.weighed
    assert (second.gate.rival, weighed.source) == ("gen-0001", "loss")
    assert weighed.wins > weighed.losses
    with ledger_of(tmp_path / "workspace") as ledger:
        found = [row.challenger for row in ledger.judgements.evidence(2)]
        evaluated = next(s.artifact_id for s in ledger.stages(2) if s.name == "evaluate")
    losses = json.loads(
        (tmp_path / "workspace" / HOUSE / "artifacts" / str(evaluated) / "losses.json").read_text()
    )["tuned"]
    judged = [nats / count for nats, count in zip(losses["nll"], losses["tokens"], strict=True)]
    assert (
        3
        < len(judged)
        == weighed.wins + weighed.losses + weighed.ties
        == second.comparison.metrics[0].tuned.n
    )
    assert found == pytest.approx(judged, rel=0.02), "the served file's loss is its folder's, but for Q8_0"
    assert found != pytest.approx(judged, rel=1e-6), "and it is the file's"
    steered = loss_on_steering_rows(tmp_path / "workspace", 2)
    assert second.trainings[0].facts["best_loss"] == pytest.approx(steered, rel=1e-4)
    assert steered != pytest.approx(sum(losses["nll"]) / sum(losses["tokens"]), rel=1e-3), "on other rows"


def test_people_may_vote_on_more_held_out_rows_than_the_night_answered(tmp_path: Path) -> None:
    base, rows = save_tiny("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl", 600)
    words = (f"base={base}", f"data.train={rows}", "evaluate.samples=3", "sft.max_steps=2")
    workspace = tmp_path / "workspace"
    night = run(workspace, *words)
    data = workspace / HOUSE / "artifacts" / night.stages[0].artifact_id / "held_out.jsonl"
    held_out = [json.loads(line)["messages"][0]["content"] for line in data.read_text().splitlines()]
    with ledger_of(workspace) as ledger:
        pool = arena_pool(ledger, ArtifactStore(workspace), night.night_id)
        places = [held_out.index(one.conversation.messages[-1].content) for one in pool]
        assert len(set(places)) == 40 < len(held_out)
        assert min(places) < len(held_out) / 4 < len(held_out) * 3 / 4 < max(places), (
            "from all parts of the files"
        )
        assert [one.night_id for one in pool] == [night.night_id] * 3 + [None] * 37
        assert all(one.is_held_out and one.suite == HELD_OUT_ROWS for one in pool)
        sides = [Contestant(name, f"{name}.gguf") for name in ("one", "other")]
        assert [keep_draw(ledger, one, *sides) for one in pool[:5]] == [1, 2, 3, None, None]
        assert held_out_row_keys(ledger).isdisjoint(asked_keys(pool[3].conversation))
        draw = draw_sides(*sides, Sampling(max_new_tokens=8), random.Random(0))
        vote = Battle(pool[3], draw, "A", "B", 0.0).vote("both bad", "ada", 1.0)
        ledger.judgements.add_votes([vote])
        assert not held_out_row_keys(ledger).isdisjoint(asked_keys(pool[3].conversation))
        assert held_out_row_keys(ledger) <= held_out_asked(ledger), "nor is anybody asked for an own answer"


def test_what_the_gate_asks_is_not_trained_on(two: Two, tmp_path: Path) -> None:
    base, rows = two.words[0], write_rows(tmp_path / "rows.jsonl")
    trained = [json.loads(line)["messages"][0]["content"] for line in rows.read_text().splitlines()]
    check = [{"kind": "words", "min": 1}]
    prompts = tmp_path / "mine.jsonl"

    def ask(*texts: str) -> None:
        lines = [{"messages": [{"role": "user", "content": text}], "checks": check} for text in texts]
        prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))

    words = (base, f"data.train={rows}", f"evaluate.prompts={prompts}")
    ask("What is new?", *(text.upper() for text in trained[:20]))
    watched = Watched()
    night = run(tmp_path / "workspace", *words, watcher=watched)
    assert any(
        note.endswith("of the held-out prompts are asked in the training rows too: those rows are held out")
        for note in watched.notes
    )
    data = [stage for stage in night.stages if stage.kind == "data"]
    assert len(data) == 2
    talks = (
        tmp_path / "workspace" / HOUSE / "artifacts" / data[1].artifact_id / "held_out.jsonl"
    ).read_text()
    assert all(text in talks for text in trained[:20])
    assert night.data_reports[0]["rows"]["train"] <= 40

    ask("What is old?", *trained[:20])  # the rows that are left are the same: no training again
    again = run(tmp_path / "workspace", *words)
    assert [stage.kind for stage in again.stages if stage.how == "done"] == ["evaluate", "gate"]
