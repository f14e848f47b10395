"""Sources of rewards: what they give, and every way in which one can fail, by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from nomoat.data.functions import Failed, Question
from nomoat.errors import DataError, RecipeError
from nomoat.train.rewards import Rewards
from nomoat.train.rewards.judge import TRIES, Judge
from nomoat.train.rewards.texts import Told, exact_answer, final_answer, json_schema

ASKED = Question("p1", ({"role": "user", "content": "How many?"},), {"answer": "1,000", "n": 3})


def scores(source: Any, *answers: str, question: Question = ASKED) -> list[float | str]:
    """Numbers, and the kinds of failures."""
    found = source.score([(question, answer) for answer in answers])
    return [one.kind if isinstance(one, Failed) else one for one in found]


def test_json_by_a_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    source = json_schema(schema)
    answers = ('{"n": 1}', '```json\n{"n": 2}\n```', '{"n": 1.5}', "{}", "n", '{"n": NaN}', "[" * 5000)
    assert scores(source, *answers) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    own = Question("p", (), {"schema": schema})
    assert scores(json_schema(None), '{"n": 1}', "{}", question=own) == [1.0, 0.0]
    assert scores(json_schema(None), "{}") == ["no schema"]
    assert scores(json_schema(None), "{}", question=Question("p", (), {"schema": {"type": 3}})) == [
        "bad schema"
    ]
    with pytest.raises(ValueError, match="3"):
        json_schema({"type": 3})


@pytest.mark.parametrize(
    ("text", "wanted", "same"),
    [
        ("So it is 1000.", "1,000", True),
        ("#### 1,000.0", "1000", True),
        ("First 7, then 8.\nThe answer is 12 apples.", "12", True),
        ("\\boxed{3/4} I think, or 5", "0.75", True),
        ("It costs $1,250", 1250, True),
        ("that is 50%", "1/2", True),
        ("-3", "3", False),
        ("12 or 13", "12", False),
        ("Answer: Paris.", "paris", True),
        ("  PARIS ", "Paris", True),
        ("London", "Paris", False),
        ("1/0", "5", False),
        ("9" * 5000, "9", False),
    ],
)
def test_exact_answers(text: str, wanted: Any, same: bool) -> None:
    assert scores(exact_answer(), text, question=Question("p", (), {"answer": wanted})) == [float(same)]


def test_an_answer_that_is_not_given_is_said() -> None:
    assert scores(exact_answer(), "1", question=Question("p", (), {})) == ["no answer"]
    assert final_answer("no number here") == "no number here"


Handler = Callable[[httpx.Request], httpx.Response]


def judge(handler: Handler, **keys: Any) -> tuple[Judge, list[float]]:
    waits: list[float] = []
    made = Judge(
        "http://localhost:1/v1", "grader", limit_s=5, transport=httpx.MockTransport(handler), sleep=waits.append, **keys
    )  # fmt: skip
    return made, waits


def says(content: Any) -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"message": {"content": content}}]})


def test_a_judge_grades() -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        assert request.url == "http://localhost:1/v1/chat/completions"
        return says(
            {"good": " 9.5 ", "bad": "0", "best": "10/10"}[seen[-1]["messages"][1]["content"].split()[-1]]
        )

    source, _ = judge(handler)
    assert source.score([(ASKED, "good")]) == [0.95]
    assert source.score([(ASKED, "bad")]) == [0.0]
    assert source.score([(ASKED, "best")]) == [1.0]
    assert "[user]\nHow many?" in seen[0]["messages"][1]["content"]


@pytest.mark.parametrize("said", ["good", "11", "7 or 8", "10.5", "-", "", None, 7])
def test_a_judge_that_talks_nonsense(said: Any) -> None:
    assert scores(judge(lambda _: says(said))[0], "x") == ["nonsense"]
    assert scores(judge(lambda _: httpx.Response(200, text="<html>"))[0], "x") == ["nonsense"]


def test_a_judge_that_limits_is_asked_again_when_it_says() -> None:
    replies = iter([httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(503), says("5")])
    source, waits = judge(lambda _: next(replies))
    assert scores(source, "x") == [0.5]
    assert [int(wait) for wait in waits] == [7, 2]  # and up to a tenth more


def test_a_judge_that_is_down_is_not_waited_for_again_and_again() -> None:
    tries = []

    def down(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("refused")

    source, waits = judge(down)
    assert scores(source, *["x"] * 40) == ["down"] * 40
    assert len(tries) <= 4 * TRIES + 36
    assert len(waits) <= 4 * (TRIES - 1)


def test_a_judge_that_refuses_times_out_or_limits_forever() -> None:
    assert scores(judge(lambda _: httpx.Response(401, text="bad key"))[0], "x") == ["refused"]
    source, waits = judge(lambda _: httpx.Response(429))
    assert scores(source, "x") == ["rate limited"]
    assert len(waits) == TRIES - 1

    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    assert scores(judge(late)[0], "x") == ["timed out"]


def test_a_judge_sends_its_key_and_says_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_KEY", "abc")

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer abc"
        return says("1")

    assert scores(judge(handler, api_key_env="GRADER_KEY")[0], "x") == [0.1]
    monkeypatch.delenv("GRADER_KEY")
    with pytest.raises(RecipeError, match="environment variable GRADER_KEY, which is not set"):
        judge(handler, api_key_env="GRADER_KEY")


def of(*values: float | Failed) -> Told:
    remaining = list(values)
    return Told("list", lambda *_: remaining.pop(0))


def test_weighted_sources_add_up_and_failures_are_counted() -> None:
    lost = Failed("timed out", "no number within 5 s")
    rewards = Rewards([(of(1.0, 0.5, lost), 2.0), (of(-1.0, 1.0, 1.0), 0.5)])
    found = rewards.score([(ASKED, "a")] * 3)
    assert found[:2] == [1.5, 1.5]
    assert math.isnan(found[2])
    assert rewards.as_share(1.5) == 0.6
    assert dict(rewards.failures) == {"list: timed out": 1}
    assert rewards.said() == "list: timed out (1×, such as no number within 5 s)"


def test_a_run_ends_only_when_most_answers_go_without_a_reward() -> None:
    lost = Failed("raised", "KeyError: 'words'")
    half = Rewards([(of(*[lost, 1.0] * 50), 1.0)])
    for _ in range(10):
        half.score([(ASKED, "a")] * 10)
    most = Rewards([(of(*[lost] * 40), 1.0)])
    most.score([(ASKED, "a")] * 19)
    with pytest.raises(
        DataError, match=r"20 of 20 answers have no reward: list: raised \(20×, such as KeyError: 'words'\)"
    ):
        most.score([(ASKED, "a")])
