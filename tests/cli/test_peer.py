"""`nomoat peer` against an endpoint that is a line of code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import as_json, nomoat
from helpers.endpoints import Endpoint, Reply, listening, said
from helpers.workspaces import ledger_path, two_generations
from nomoat.ledger.rows import Sample

PROMPTS = 10
WORDS = ("--model", "big-1", "--price-in", "1", "--price-out", "10")


def knows_even_numbers(sent: dict[str, Any]) -> Reply:
    """Says yes to every other prompt, and will not speak of number 9."""
    number = int(sent["messages"][0]["content"].rpartition(" ")[2])
    if number == 9:
        return 400, {}, {"error": {"message": "not of this"}}
    return 200, {}, said("yes" if number % 2 == 0 else "no")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening(knows_even_numbers) as made:
        yield made


def question(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Say yes to {number}"}]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with checked prompts, and two generations, the newest of which passed prompts 0 to 6."""
    monkeypatch.chdir(tmp_path)
    check = {"kind": "starts_with", "text": "yes"}
    rows = [{"id": f"p{n}", "messages": question(n), "checks": [check]} for n in range(PROMPTS)]
    rows.append({"id": "free", "messages": question(11)})  # has no checks: is not asked
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("nomoat.yaml").write_text("evaluate: {prompts: [mine.jsonl], max_new_tokens: 7}\n")
    two_generations(
        tmp_path,
        lambda _: [
            Sample(
                suite="mine",
                prompt_id=f"p{n}",
                prompt=question(n if n else 100),  # the first was another prompt then
                base_answer="",
                tuned_answer="",
                base_passed=False,
                tuned_passed=n < 7,
            )
            for n in range(PROMPTS)
        ],
    )
    return tmp_path


def test_a_peer_is_measured_kept_and_compared_on_the_same_prompts(endpoint: Endpoint) -> None:
    found = as_json("peer", endpoint.url, *WORDS)
    measured = found["measured"]
    assert (measured["asked"], measured["remembered"], measured["failures"]) == (10, 0, {"no answer": 1})
    assert measured["spent"]["dollars"] == pytest.approx(9 * (10 * 1 + 4 * 10) / 1e6)
    (suite,) = measured["suites"]
    assert (suite["passed"], suite["n"], suite["unanswered"], suite["generation"]) == (5, 9, 1, "gen-0002")
    # of p1 to p8, which both answered: the peer 2 4 6 8, the generation 1 to 6
    assert (suite["difference"]["value"], suite["difference"]["n"]) == (pytest.approx(2 / 8), 8)
    (kept,) = found["peers"]
    assert (kept["name"], kept["endpoint"], kept["suite"]) == ("big-1", f"{endpoint.url} big-1", "mine")
    assert (kept["rate"]["value"], kept["rate"]["n"]) == (5 / 9, 9)
    assert all((sent["max_tokens"], sent["temperature"]) == (7, 0) for _, _, sent in endpoint.seen)

    again = as_json("peer", endpoint.url, *WORDS, "--name", "the big one")
    assert (again["measured"]["asked"], again["measured"]["remembered"]) == (1, 9)
    assert [row["name"] for row in again["peers"]] == ["big-1", "the big one"]
    shown = " ".join(nomoat("peer", endpoint.url, *WORDS).stdout.split())
    assert "big-1 mine 55.6% (26.7 to 81.1) 9 0.0005" in shown, "what the first time had cost still counts"
    assert "gen-0002 minus big-1: +25.0 points (" in shown
    assert "on the 8 prompts of mine that both answered." in shown
    assert "mine: 1 prompt not answered, and left out." in shown


def test_a_peer_can_be_forgotten(endpoint: Endpoint) -> None:
    assert nomoat("peer", endpoint.url, *WORDS).exit_code == 0
    wrong = nomoat("peer", "--forget", "big")
    assert wrong.exit_code == 2
    assert 'no model named "big" was measured here. Did you mean "big-1"?' in wrong.stderr
    assert as_json("peer", "--forget", "big-1")["peers"] == []
    assert "No outside model was measured here yet" in nomoat("peer").stdout


def test_what_cannot_be_measured_is_told_before_anybody_is_asked(endpoint: Endpoint, tmp_path: Path) -> None:
    Path("bare.yaml").write_text("evaluate: {prompts: [bare.jsonl]}\n")
    Path("bare.jsonl").write_text(json.dumps({"messages": question(1)}) + "\n")
    (tmp_path / "empty").mkdir()
    for words, expected in (
        ((endpoint.url,), "which of its models is to answer? Give its name: --model NAME"),
        (("https://me:secret@x/v1", *WORDS), "the address holds a name or password"),
        ((endpoint.url, *WORDS, "--forget", "x"), "measure one or forget one"),
        ((endpoint.url, *WORDS, "--recipe", "bare.yaml"), "no held-out prompt has checks"),
        ((endpoint.url, *WORDS, "--workspace", "empty"), "no night has run here yet"),
    ):
        result = nomoat("peer", *words)
        assert result.exit_code == 2, result.output
        assert expected in result.stderr
    assert endpoint.seen == []


def test_a_peer_that_is_down_is_no_peer(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.cli.judges.ATTEMPTS", 1)
    endpoint.server.shutdown()
    endpoint.server.server_close()
    result = nomoat("peer", endpoint.url, *WORDS)
    assert result.exit_code == 2
    assert "the peer fails: 10 of 10 replies failed: no answer (10)" in result.stderr
    assert as_json("peer")["peers"] == []
    assert ledger_path(Path()).is_file()
