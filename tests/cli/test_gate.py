"""`nomoat gate`, `promote`, `rollback`, and who is served then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from helpers.workspaces import artifact, ledger_path, start_night
from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.cli import gate, promote, rollback, status
from nomoat.cli.main import app
from nomoat.cli.served import ServedModel
from nomoat.data.split import ASKED, asked_keys
from nomoat.evaluate.gatebook import ROWS, conversation_of, evidence_of
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import Evidence, Sample, Vote
from nomoat.ledger.store import Ledger
from nomoat.recipe import Recipe

WON = Evidence(kind="checks", suite="mine", item="p", challenger=1.0, rival=0.0)
LOST = replace(WON, challenger=0.0, rival=1.0)
RECIPE = Recipe.model_validate(
    {"evaluate": {"prompts": ["mine.jsonl", "safety.jsonl"]}, "gate": {"guard": ["safety"]}}
)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No files are opened here: that they are whole is tests/cli/test_chat.py's."""
    monkeypatch.chdir(tmp_path)
    found = ServedModel("x", tmp_path, tmp_path, 8)
    monkeypatch.setattr("nomoat.cli.promote.find_generation", lambda workspace, which: found)
    return tmp_path


def generation(ledger: Ledger, rival: int | None, rows: list[Evidence], recipe: Recipe | None = None) -> int:
    """One more night with its generation and what the gate measured of it."""
    night = start_night(ledger, recipe=recipe)
    number = len(ledger.generations()) + 1
    made = ledger.add_generation(
        night, base="base:x", served_file=f".nomoat/artifacts/quantize-{number}/night-Q8_0.gguf"
    )
    ledger.judgements.add_evidence(night, made.id, rival, rows)
    ledger.finish_night(night, status="done", seconds=1.0, energy_joules=None, dollars=None)
    return made.id


def held(suite: str, n: int) -> list[Evidence]:
    return [replace(WON, suite=suite, challenger=1.0, rival=1.0)] * n


def vote(number: int, winner: int, loser: int) -> Vote:
    """A vote that the right side won."""
    return Vote(
        cast_at=f"2026-11-24T07:00:{number:02d}.000Z",
        voter="ada",
        verdict="right",
        left_model=f"quantize-{loser}/night-Q8_0.gguf",
        right_model=f"quantize-{winner}/night-Q8_0.gguf",
        left_name="a",
        right_name="b",
        source="typed",
        prompt_hash=f"{number:064x}",
        prompt={"messages": [{"role": "user", "content": str(number)}]},
        left_answer="one",
        right_answer="two",
        sampling={},
    )


def nomoat(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def as_json(*words: str) -> dict[str, Any]:
    result = nomoat(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def open_here(workspace: Path) -> Ledger:
    return Ledger.open(ledger_path(workspace))


def test_without_a_night_there_is_nothing_to_promote(workspace: Path) -> None:
    for words in (("gate",), ("promote", "gen-0001"), ("rollback",)):
        result = nomoat(*words)
        assert (result.exit_code, result.stderr) == (
            2,
            f"Error: {workspace}: no night has made a model here yet\n  Make one: nomoat run\n",
        )
    assert list(workspace.iterdir()) == []


def test_the_verdict_is_computed_from_the_ledger(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32 + [LOST])
    found = as_json("gate", "--explain", "gen-0001")
    assert found.keys() == gate.KEYS.keys()
    assert (found["verdict"], found["challenger"], found["rival"], found["champion"]) == (
        "promote",
        "gen-0001",
        "base",
        None,
    )
    assert found["next"] == "nomoat promote gen-0001"
    (weighed,) = found["weighed"]
    assert (weighed["source"], weighed["wins"], weighed["losses"], weighed["ties"]) == ("checks", 32, 1, 0)
    text = nomoat("gate").stdout
    assert text.startswith(
        "gen-0001 against base: promote\ngen-0001 replaces the base. Evidence over a million to 1 "
    )
    assert "held-out prompts" in text


def test_promote_needs_the_evidence_or_a_word(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32 + [LOST])
        generation(ledger, 1, [WON, LOST])
    found = as_json("promote", "gen-0001")
    assert found.keys() == promote.KEYS.keys()
    assert (found["champion"], found["before"], found["verdict"]) == ("gen-0001", None, "promote")
    result = nomoat("promote", "gen-0001")
    assert (result.exit_code, result.stderr) == (2, "Error: gen-0001 is the champion already\n")

    result = nomoat("promote", "2")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "Error: gen-0002 was not promoted. Not yet: gen-0001 stays for now. Evidence "
    )
    assert "To promote it all the same: --anyway" in result.stderr
    assert as_json("status")["champion"]["name"] == "gen-0001"
    result = nomoat("promote", "2", "--anyway")
    assert result.stdout.startswith(
        "gen-0002 is the champion from now on, after gen-0001.\nThe gate: Not yet: "
    )
    with open_here(workspace) as ledger:
        champion = ledger.judgements.champion()
        assert champion is not None
        assert champion.said.startswith("the owner's choice. Not yet: ")
        assert champion.verdict is not None
        assert champion.verdict["verdict"] == "not yet"


def test_rollback_goes_back_to_the_base_at_last(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32)
        generation(ledger, 1, [WON] * 32)
    for name in ("gen-0001", "gen-0002"):
        as_json("promote", name)
    found = as_json("rollback")
    assert found.keys() == rollback.KEYS.keys()
    assert (found["champion"], found["before"]) == ("gen-0001", "gen-0002")
    assert nomoat("rollback").stdout.startswith("gen-0001 was taken back; base is served from now on.\n")
    result = nomoat("rollback")
    assert result.exit_code == 2
    assert "there is no champion to take back" in result.stderr


def test_votes_that_came_by_day_tip_the_verdict(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32)
        ledger.judgements.crown(1, by="gate", said="")
        generation(ledger, 1, [WON] * 9 + [LOST] * 3)
    before = as_json("gate")
    assert before["verdict"] == "not yet"
    with open_here(workspace) as ledger:
        cast = [vote(n, 2, 1) for n in range(12)]
        ledger.judgements.add_votes([*cast, vote(13, 1, 2), vote(14, 3, 1)])  # the last is of another pair
        ledger.judgements.add_votes(
            [replace(one, cast_at="2026-11-25T07:00:00.000Z") for one in cast]
        )  # again
    after = as_json("gate")
    votes = after["weighed"][1]
    assert (votes["source"], votes["wins"], votes["losses"]) == ("votes", 12, 1)
    assert after["e_value"] == pytest.approx(before["e_value"] * votes["e_value"])
    assert after["verdict"] == "promote"
    assert as_json("status")["votes"] == 26


def test_votes_against_an_earlier_model_are_shown_and_multiply(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        for rival in (None, 1, 2):
            generation(ledger, rival, [])
        ledger.judgements.crown(2, by="gate", said="")
        ledger.judgements.add_votes(
            [
                replace(vote(n, *pair), source="pool", prompt_hash=str(n))
                for n in range(12)
                for pair in ((3, 1), (2, 1) if n < 3 else (1, 2))
            ]
            + [vote(20, 3, 2)]
        )
    found = as_json("gate")
    (link,) = found["links"]
    assert {key: link[key] for key in ("third", "better", "worse", "alike")} == {
        "third": "gen-0001",
        "better": 9,
        "worse": 0,
        "alike": 3,
    }
    assert found["e_value"] == pytest.approx(found["weighed"][0]["e_value"] * link["e_value"])
    shown = " ".join(nomoat("gate").stdout.split())
    assert f"votes of each against gen-0001 9 0 3 – {link['e_value']:,.3g}" in shown


def test_the_champion_is_explained_against_whom_it_had_beaten(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32)
        ledger.judgements.crown(1, by="gate", said="")
        generation(ledger, 1, [WON] * 30)
        ledger.judgements.crown(2, by="gate", said="")
    assert as_json("gate", "--explain", "2")["rival"] == "gen-0001"
    first = as_json("gate", "--explain", "1")
    # it was measured against the base, which is not whom it would have to beat now
    assert (first["rival"], first["verdict"], first["weighed"]) == ("gen-0002", "not yet", [])


def test_a_guard_that_does_not_hold_blocks(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(
            ledger, None, [WON] * 32 + [replace(LOST, suite="safety")] * 20 + held("safety", 20), RECIPE
        )
    found = as_json("gate")
    assert (found["verdict"], found["guards"][0]["finding"]) == ("keep", "regressed")
    assert (found["weighed"][0]["wins"], found["weighed"][0]["losses"]) == (32, 0)  # the guard only guards
    assert nomoat("promote", "1").exit_code == 2
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32 + held("safety", 200), RECIPE)
    assert as_json("gate")["verdict"] == "promote"


def test_loss_decides_where_no_prompt_has_checks(workspace: Path) -> None:
    rows = [
        Evidence(kind="loss", suite="held-out rows", item=str(n), challenger=1.0, rival=1.5)
        for n in range(20)
    ]
    with open_here(workspace) as ledger:
        generation(ledger, None, [*rows, replace(rows[0], challenger=2.0)])
    (weighed,) = as_json("gate")["weighed"]
    assert (weighed["source"], weighed["wins"], weighed["losses"]) == ("loss", 20, 1)


def test_status_shows_the_champion(workspace: Path) -> None:
    with open_here(workspace) as ledger:
        generation(ledger, None, [WON] * 32)
        ledger.judgements.crown(1, by="gate", said="It is better.", night_id=1)
        ledger.judgements.add_votes([vote(1, 1, 9)])
    found = as_json("status")
    assert found.keys() == status.KEYS.keys()
    assert (found["champion"]["name"], found["champion"]["chosen_by"]) == ("gen-0001", "gate")
    lines = nomoat("status").stdout.splitlines()
    said = next(line for line in lines if line.startswith("Champion    gen-0001, since 20"))
    assert said.endswith("chosen by the gate")
    assert "Votes       1 blind vote" in lines


def test_votes_on_what_a_model_has_learned_from_rate_it_nowhere(workspace: Path) -> None:
    taught = vote(1, 1, 0)
    asked = asked_keys(Conversation(parse_messages(taught.prompt["messages"], "vote")))
    learned = artifact(workspace, "votes", "1", {}, votes=[9], asked=asked)
    served = artifact(workspace, "quantize", "2", {"model": learned.id})
    with open_here(workspace) as ledger:
        for made in (learned, served):
            ledger.add_artifact(made)
        ledger.add_generation(
            start_night(ledger), base="base:x", served_file=".nomoat/artifacts/quantize-0/night-Q8_0.gguf"
        )
        ledger.add_generation(
            start_night(ledger, alone=False),
            base="base:x",
            gguf_artifact=served.id,
            served_file=".nomoat/artifacts/quantize-1/night-Q8_0.gguf",
        )
        other = [vote(n, 0, 1) for n in (2, 3)]
        bystanders = replace(vote(1, 5, 6), voter="bob")
        ledger.judgements.add_votes([taught, *other, bystanders])
        ledger.judgements.crown(1, by="owner", said="the first")
        assert [
            one.voter for one in evidence_of(ledger, ledger.judgements.votes(), ArtifactStore(workspace))
        ] == ["bob", "ada", "ada"]
    (weighed,) = as_json("gate", "--explain", "gen-0002")["weighed"]
    assert (weighed["source"], weighed["wins"], weighed["losses"]) == ("votes", 0, 2)
    found = as_json("arena", "--standings")
    counts = {one["name"]: (one["wins"], one["losses"]) for one in found["standings"]}
    assert (counts["gen-0002"], found["uncounted"]) == ((0, 2), 1)
    assert "Votes that do not count: 1, on prompts" in nomoat("arena", "--standings").stdout
    assert {one["name"]: one["votes"] for one in found["voters"]} == {"ada": 3, "bob": 1}


def test_a_voter_who_does_not_read_is_named_beside_the_verdict(workspace: Path) -> None:
    """Their votes count: sides come by chance, so that they favour nobody, and who is flagged may not depend on it."""
    with open_here(workspace) as ledger:
        for _ in range(2):
            generation(ledger, None, [])
        ledger.judgements.crown(1, by="owner", said="the first")
        probes = [replace(vote(n, 2, 2), voter="eve", better="left") for n in range(20)]
        ledger.judgements.add_votes([*probes, replace(vote(30, 2, 1), voter="eve"), vote(31, 2, 1)])
    found = as_json("gate", "--explain", "gen-0002")
    assert found["weighed"][0]["wins"] == 2
    (doubt,) = found["doubts"]
    assert doubt.startswith("1 of eve, who is flagged: always right, missed 20 of 20 known answers (")
    assert found["said"].endswith(f"Votes that count, in doubt: {doubt}.")


@pytest.mark.parametrize("kind", ROWS)
def test_votes_on_what_a_models_rows_ask_do_not_count(workspace: Path, kind: str) -> None:
    """The rows' file of keys says what they ask; where it is gone, only what the night has held out counts."""
    taught, drawn, typed = vote(1, 1, 0), vote(2, 1, 0), vote(3, 1, 0)
    store = ArtifactStore(workspace)
    keys = [key for one in (taught, vote(9, 1, 0)) for key in asked_keys(conversation_of(one))]
    (store.work_dir(kind, "1" * 64) / ASKED).write_bytes(bytes.fromhex("".join(keys)))
    rows = store.commit(kind, "1" * 64, inputs={}, meta={})
    served = artifact(workspace, "quantize", "2", {"model": rows.id})
    pool = Sample(suite="s", prompt_id="2", prompt=drawn.prompt["messages"], base_answer="", tuned_answer="")
    with open_here(workspace) as ledger:
        for made in (rows, served):
            ledger.add_artifact(made)
        for number, gguf in enumerate((None, served.id)):
            night = start_night(ledger, alone=False)
            ledger.add_samples(night, [pool])
            file = f".nomoat/artifacts/quantize-{number}/night-Q8_0.gguf"
            ledger.add_generation(night, base="base:x", gguf_artifact=gguf, served_file=file)
        ledger.judgements.add_votes([taught, drawn, typed])
        ledger.judgements.crown(1, by="owner", said="the first")
    found = as_json("gate", "--explain", "gen-0002")
    assert found["weighed"][0]["wins"] == 2
    assert found["said"].endswith("Votes that do not count: 1 on prompts that a model has learned from.")
    (rows.path / ASKED).write_bytes(b"damaged")
    found = as_json("gate", "--explain", "gen-0002")
    assert found["weighed"][0]["wins"] == 1
    assert found["left_out"] == {
        f"on prompts that gen-0002 may have learned from (what {rows.id} asks cannot be read here)": 2
    }
