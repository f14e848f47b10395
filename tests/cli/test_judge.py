"""`nomoat judge` against a scripted endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from helpers.endpoints import Endpoint, Reply, listening, said
from helpers.generations import workspace_with_generation
from helpers.workspaces import held_out, ledger_path, start_night, two_generations
from nomoat.cli import judge
from nomoat.cli.main import app
from nomoat.evaluate.judge import MAX_NEW_TOKENS
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.rows import Vote
from nomoat.ledger.store import Ledger

PROMPTS = 12


def ask(*words: str) -> Result:
    return CliRunner().invoke(app, ["judge", *words])


def likes_exclamations(sent: dict[str, Any]) -> Reply:
    """A judge with a taste of its own, whose taste in grades is the same."""
    assert sent["max_tokens"] == MAX_NEW_TOKENS
    text = sent["messages"][0]["content"]
    answers = re.findall(r"--- (?:first |second )?answer [0-9a-f]{8} ---\n(.*?)\n\n(?=--- )", text, re.DOTALL)
    loud = [answer.count("!") for answer in answers]
    if len(loud) == 1:
        return 200, {}, said(json.dumps({"score": min(10, 1 + loud[0])}))
    winner = "tie" if loud[0] == loud[1] else "first" if loud[0] > loud[1] else "second"
    return 200, {}, said(json.dumps({"winner": winner}))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening(likes_exclamations) as made:
        yield made


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two generations that answered the same prompts, the first of them the champion."""
    monkeypatch.chdir(tmp_path)
    two_generations(
        tmp_path,
        lambda number: [
            held_out(
                n,
                base=f"a plain and rather long answer {n}",
                tuned=f"yes {n}" + "!" * number * (n % 4 != 0),
            )
            for n in range(PROMPTS)
        ],
    )
    return tmp_path


def cast(workspace: Path, count: int, *, day: str = "2026-11-01") -> None:
    """Votes for the louder answer, but each fourth for the other."""
    votes = []
    for n in range(count):
        prompt = {"messages": [{"role": "user", "content": f"Held out {n}"}]}
        sides = ("quantize-2/night-Q8_0.gguf", "quantize-1/night-Q8_0.gguf")[:: 1 if n // 4 % 2 else -1]
        answers = [f"well {n}" + "!" * int(side[9]) for side in sides]
        louder = "left" if sides[0][9] == "2" else "right"
        votes.append(
            Vote(
                cast_at=f"{day}T00:00:{n:02d}Z",
                voter="me",
                verdict=louder if n % 4 else {"left": "right", "right": "left"}[louder],  # type: ignore[arg-type]
                left_model=sides[0],
                right_model=sides[1],
                left_name="x",
                right_name="y",
                source="pool",
                prompt_hash=canonical_key(prompt),
                prompt=prompt,
                left_answer=answers[0],
                right_answer=answers[1],
                sampling={},
            )
        )
    with Ledger.open(ledger_path(workspace)) as ledger:
        for vote in votes:
            pair = "quantize-2/night-Q8_0.gguf", "quantize-1/night-Q8_0.gguf"
            draw_id = ledger.judgements.add_draw(2, *pair, vote.prompt_hash)
            ledger.judgements.add_votes([vote], draw_id=draw_id)


def test_the_report_with_votes_as_json_and_for_people(workspace: Path, endpoint: Endpoint) -> None:
    cast(workspace, 16)
    words = (endpoint.url, "--model", "m", "--price-in", "1000", "--price-out", "5000")
    result = ask(*words, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() == judge.KEYS.keys()
    assert (found["judge"], found["one"], found["other"]) == ("m", "gen-0002", "gen-0001")
    # nine of twelve prompts are answered louder; where both are silent they are the same, and nobody is asked
    assert found["contest"]["ordered"] == [0, 0, 3, 0, 9]
    assert found["contest"]["rate"]["value"] == pytest.approx(10.5 / 12)
    assert found["contest"]["would_say"] == {"longest": 10.5 / 12, "always first": 0.5, "coin": 0.5}
    assert found["calibration"]["agrees"]["the judge"]["value"] == 0.75
    assert found["calibration"]["agrees"]["coin"]["value"] == 0.5
    assert found["combined"]["n"] == 16
    assert found["combined"]["value"] == pytest.approx(0.75)
    assert (found["asked"], found["remembered"]) == (2 * (9 + 16), 0)
    assert found["spent"] == {
        "prompt_tokens": 500,
        "completion_tokens": 200,
        "dollars": pytest.approx(500 * 1e-3 + 200 * 5e-3),
    }
    again = ask(*words)
    assert again.exit_code == 0, again.output
    assert len(endpoint.seen) == 50, "nothing is asked twice"
    text = re.sub(r" +", " ", again.stdout)
    for expected in (
        "m on gen-0002 against gen-0001\n",
        "The judge gives gen-0002 a win rate of 88%",
        "It agrees with 75% (51% to 90%) of 16 decided votes; without reading: longest 75%, always first 50%",
        "That is not shown to be more than without reading: do not rely on it.",
        "Votes and judge together: people prefer gen-0002 on 75%",
        "\nalways first 50% 50% (28% to 72%)",
        "Says the same in both orders: 100%",
        "Position bias (prefers the first): +0 points",
        "Cohen's kappa with the votes: 0.50",
        "0 questions asked, 50 remembered; 0 tokens read, 0 written, $0.0000\n",
        "Next: nomoat arena gen-0002 gen-0001\n",
    ):
        assert expected in text, (expected, text)


def test_what_the_judge_said_before_a_vote_lends_it_weight_at_the_gate(
    workspace: Path, endpoint: Endpoint
) -> None:
    def votes() -> dict[str, Any]:
        found = json.loads(CliRunner().invoke(app, ["gate", "--json"]).stdout)
        (weighed,) = (one for one in found["weighed"] if one["source"] == "votes")
        return dict(weighed)

    cast(workspace, 8)
    assert ask(endpoint.url, "--model", "m").exit_code == 0
    assert votes()["judged"] == 0, "the prompts were drawn before"
    cast(workspace, PROMPTS, day="2226-11-01")
    found = votes()
    assert found["judged"] == PROMPTS - 8, "and those of eight prompts were the same again"
    assert ask(endpoint.url, "--model", "m").exit_code == 0
    assert votes() == found
    with Ledger.open(ledger_path(workspace)) as ledger:
        rows = ledger.judgements.verdicts()
        assert len(rows) == PROMPTS, "what was said last is not kept twice"
        assert {(row.one_model, row.other_model) for row in rows} == {
            ("quantize-2/night-Q8_0.gguf", "quantize-1/night-Q8_0.gguf")
        }
    assert (
        ask(endpoint.url, "gen-0001", "--model", "m").exit_code == 0
    )  # the base has no file: nothing to keep


def test_without_votes_it_is_an_opinion_and_the_base_can_be_asked_about(endpoint: Endpoint) -> None:
    result = ask(endpoint.url, "gen-0001", "--model", "m", "--mode", "score")
    assert result.exit_code == 0, result.output
    assert "m on gen-0001 against base\n" in result.stdout, "the champion meets its base"
    assert "an opinion, not a measurement" in result.stdout
    assert re.search(r"\nlongest +0% +not known", result.stdout)
    assert "Position bias" not in result.stdout, "each answer was graded alone"


def test_grades_are_shown_with_their_spread_beside_the_agreement_with_votes(
    workspace: Path, endpoint: Endpoint
) -> None:
    cast(workspace, 16)
    words = (endpoint.url, "--model", "m", "--mode", "score")
    found = json.loads(ask(*words, "--json").stdout)
    # of twelve prompts nine have an answer with one "!" (a grade of 2) by the champion, with two (3) by the newest
    assert found["grades"]["counts_one"] == [3, 0, 9, 0, 0, 0, 0, 0, 0, 0]
    assert found["grades"]["counts_other"] == [3, 9, 0, 0, 0, 0, 0, 0, 0, 0]
    means = {key: found["grades"][key]["value"] for key in ("one", "other", "difference")}
    assert means == pytest.approx({"one": 2.5, "other": 1.75, "difference": 0.75})
    assert found["grades"]["difference"]["low"] > 0
    assert found["calibration"]["agrees"]["the judge"]["value"] == 0.75
    text = re.sub(r" +", " ", ask(*words).stdout)
    for expected in (
        "Of 10 it grades gen-0002 2.5 (1.9 to 3.1) and gen-0001 1.8 (1.5 to 2.0): a difference of +0.8 (+0.5 to +1.0).",
        "It agrees with 75%",
        "Grades 1 to 10 of gen-0002: 3 0 9 0 0 0 0 0 0 0\n",
        "Grades 1 to 10 of gen-0001: 3 9 0 0 0 0 0 0 0 0\n",
    ):
        assert expected in text, (expected, text)


def test_references_are_shown_to_the_judge(workspace: Path, endpoint: Endpoint) -> None:
    rows = [
        {"id": f"p{n}", "messages": [{"role": "user", "content": f"Held out {n}"}], "answer": f"right {n}"}
        for n in range(PROMPTS)
    ]
    (workspace / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = ask(endpoint.url, "--model", "m", "--references", "heldout.jsonl")
    assert result.exit_code == 0, result.output
    texts = [sent["messages"][0]["content"] for _, _, sent in endpoint.seen]
    assert all(re.search(r"--- reference answer [0-9a-f]{8} ---\nright \d+\n", text) for text in texts)
    assert "of no use" not in result.stdout
    (workspace / "heldout.jsonl").write_text(
        "".join(json.dumps(r | {"id": r["id"][-1]}) + "\n" for r in rows[:2])
    )
    refused = ask(endpoint.url, "--model", "m", "--references", "heldout.jsonl")
    assert refused.exit_code == 2
    assert (
        "Error: references: no prompt that the judge compares is heldout 0; expected suites" in refused.stderr
    )
    (workspace / "heldout.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in (rows[0], rows[1] | {"id": "x"}))
    )
    result = ask(endpoint.url, "--model", "m", "--references", "heldout.jsonl")
    told = " ".join(result.stdout.split())
    assert "1 of 2 reference answers were of no use: no prompt that the judge compares is heldout x." in told
    (workspace / "heldout.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    refused = ask(endpoint.url, "--model", "m", "--references", "heldout.jsonl")
    assert refused.exit_code == 2
    assert "Error: heldout.jsonl: no prompt has a reference answer; expected a field answer" in refused.stderr


def test_what_is_refused(workspace: Path, endpoint: Endpoint) -> None:
    for words, expected in (
        ((endpoint.url,), "which of its models is to judge? Give its name: --model NAME"),
        (("x.gguf",), "--tokenizer DIR"),
        ((endpoint.url, "gen-0001", "gen-0001", "--model", "m"), "gen-0001 against itself"),
        (("gen-0009",), 'got "gen-0009"; expected "latest" or a generation of gen-0001 to gen-0002'),
    ):
        result = ask(*words)
        assert result.exit_code == 2, result.output
        assert expected in result.stderr
    with Ledger.open(ledger_path(workspace)) as ledger:
        night = start_night(ledger)
        ledger.add_generation(
            night, base="base:x", served_file=".nomoat/artifacts/quantize-3/night-Q8_0.gguf"
        )
    result = ask(endpoint.url, "--model", "m")
    assert result.exit_code == 2
    assert "got 0 held-out prompts that both models have answered; expected at least 2" in result.stderr
    assert endpoint.seen == []


def test_a_model_of_the_workspace_and_a_file_may_judge(tmp_path: Path) -> None:
    place = workspace_with_generation(tmp_path / "real", max_position_embeddings=2048)
    with Ledger.open(ledger_path(place)) as ledger:
        ledger.add_samples(1, [held_out(n, base=f"no {n}", tuned=f"yes {n}") for n in range(3)])
    by_base = ask("base", "--workspace", str(place), "--json")
    assert by_base.exit_code == 0, by_base.output
    found = json.loads(by_base.stdout)
    assert (found["asked"], found["failures"], found["spent"]) == (6, {}, None)
    assert found["said"][-1].startswith("The judge is one of the two")
    (gguf,) = place.glob(".nomoat/artifacts/quantize-*/base-F32.gguf")
    by_file = ask(
        str(gguf), "--tokenizer", str(tmp_path / "real" / "base"), "--workspace", str(place), "--json"
    )
    assert by_file.exit_code == 0, by_file.output
    again = json.loads(by_file.stdout)
    assert again["contest"] == found["contest"], "the same weights"
    assert again["judge"] == gguf.name
    small = ask("base", "--workspace", str(place), "--context", "64", "--mode", "score")
    assert small.exit_code == 2
    assert "no answer (6); the last: the prompt has" in small.stderr
