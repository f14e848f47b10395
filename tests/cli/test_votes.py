"""`nomoat votes`: thumbs and battles as files, taking back, own answers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.commands import as_json, nomoat
from helpers.votes import VOTE, kept, vote_on
from helpers.workspaces import ledger_path, start_night
from nomoat.cli import votes
from nomoat.cli.arena import STANDINGS_KEYS
from nomoat.cli.output import console
from nomoat.cli.own_answers import ask_all
from nomoat.data.readers import read_rows
from nomoat.data.rows import PreferenceRow, RatingRow
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.feedback import add_rating, standing_own_answers
from nomoat.ledger.rows import REASONS, Rating, Sample
from nomoat.ledger.store import Ledger


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four votes on prompts of one's own, and one both bad on a held-out prompt."""
    monkeypatch.chdir(tmp_path)
    held_out = [{"role": "user", "content": "Held out?"}]
    with Ledger.open(ledger_path(tmp_path)) as ledger:
        night = start_night(ledger)
        ledger.add_generation(
            night, base="base:x", served_file=".nomoat/artifacts/quantize-aaaa/night-Q8_0.gguf"
        )
        ledger.add_samples(
            night, [Sample(suite="s", prompt_id="1", prompt=held_out, base_answer="", tuned_answer="")]
        )
        bad = vote_on("Why?", "So.", "Thus.", verdict="both bad")
        more = [
            bad,
            vote_on("Tie?", "A.", "B.", verdict="tie"),
            vote_on("Held out?", "A.", "B.", verdict="both bad"),
        ]
        ledger.judgements.add_votes([VOTE, replace(VOTE, voter="bob", verdict="right"), *more])
    return tmp_path


def test_battles_go_out_in_lmarenas_shape_and_come_in_again(workspace: Path) -> None:
    assert as_json("votes", "export", "b.jsonl", "--format", "lmarena")["decided"] == 2
    rows = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
    assert [row["winner"] for row in rows] == ["model_a", "model_b", "tie (bothbad)", "tie", "tie (bothbad)"]
    first = rows[0]
    assert (first["model_a"], first["model_b"], first["judge"]) == ("gen-0001", "base", "ada")
    assert (first["turn"], first["anony"], first["tstamp"]) == (1, True, 1795503600.0)
    assert first["conversation_b"] == [
        {"role": "user", "content": "Tell me a story."},
        {"role": "assistant", "content": "Twice."},
    ]
    other = workspace / "other"
    other.mkdir()
    with Ledger.open(ledger_path(other)) as ledger:
        night = start_night(ledger)
        ledger.add_generation(
            night, base="base:x", served_file=".nomoat/artifacts/quantize-cccc/night-Q8_0.gguf"
        )
    found = as_json("votes", "import", "b.jsonl", "--format", "lmarena", "--workspace", "other")
    assert (found["votes"], found["added"]) == (5, 5)
    told = ("cast_at", "voter", "verdict", "left_answer", "prompt", "left_name", "left_model", "right_model")
    assert [[getattr(v, name) for name in told] for v in kept(other)] == [
        [getattr(v, name) for name in told] for v in kept(workspace)
    ]


def test_another_ones_model_is_not_ours_by_its_name(workspace: Path) -> None:
    """Everybody has a gen-0001 and a base; only the file that answered says whose it is."""
    as_json("votes", "export", "b.jsonl", "--format", "lmarena")
    rows = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
    strangers = [
        {key: value for key, value in row.items() if key not in ("model_a_file", "model_b_file")}
        | {"question_id": "x", "judge": "mallory"}
        for row in rows
    ]
    Path("theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in strangers))
    before = as_json("gate"), as_json("arena", "--standings")["standings"]
    assert as_json("votes", "import", "theirs.jsonl", "--format", "lmarena")["added"] == 5
    theirs = [vote for vote in kept(workspace) if vote.voter == "mallory"]
    assert {(v.left_model, v.right_model) for v in theirs} == {
        ("theirs.jsonl: gen-0001", "theirs.jsonl: base")
    }
    after = as_json("arena", "--standings")["standings"]
    assert (as_json("gate"), [one for one in after if "theirs" not in one["name"]]) == before
    assert sorted(one["name"] for one in after if "theirs" in one["name"]) == [
        "theirs.jsonl: base",
        "theirs.jsonl: gen-0001",
    ]
    rows[0]["model_a_file"] = 3
    Path("odd.jsonl").write_text(json.dumps(rows[0]))
    told = nomoat("votes", "import", "odd.jsonl", "--format", "lmarena").stderr
    assert "odd.jsonl:1: model_a_file: got 3; expected <artifact>/<file>, as exports have it" in told


def test_battles_of_votes_that_are_here_are_here_whether_they_stand_or_not(workspace: Path) -> None:
    as_json("votes", "export", "b.jsonl", "--format", "lmarena")
    assert as_json("votes", "import", "b.jsonl", "--format", "lmarena")["added"] == 0
    as_json("votes", "withdraw", "--voter", "bob")
    assert as_json("votes", "import", "b.jsonl", "--format", "lmarena")["added"] == 0
    assert "bob" not in {vote.voter for vote in kept(workspace)}
    odd = json.loads(Path("b.jsonl").read_text().splitlines()[0]) | {"question_id": [1], "judge": "eve"}
    Path("b.jsonl").write_text(json.dumps(odd))
    assert as_json("votes", "import", "b.jsonl", "--format", "lmarena")["added"] == 1


def test_a_probe_goes_along_with_all_votes_and_is_no_row_to_train_on(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        probe = replace(VOTE, voter="eve", right_model=VOTE.left_model, better="right")
        ledger.judgements.add_votes([probe])
    done = as_json("votes", "export", "some.jsonl")
    assert (done["votes"], done["decided"], done["left_out"]) == (2, 2, 4)
    assert "eve" not in Path("some.jsonl").read_text()
    done = as_json("votes", "export", "b.jsonl", "--format", "lmarena")
    assert (done["votes"], done["left_out"]) == (5, 1)
    assert as_json("votes", "export", "all.jsonl", "--all")["votes"] == 6
    other = workspace / "other"
    other.mkdir()
    with Ledger.open(ledger_path(other)) as ledger:
        start_night(ledger)
    assert as_json("votes", "import", "all.jsonl", "--workspace", "other")["added"] == 6
    assert [(vote.key, vote.better) for vote in kept(other)] == [
        (vote.key, vote.better) for vote in kept(workspace)
    ]
    (row,) = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines() if "eve" in line]
    assert row.keys() == {"id", "vote"}
    changes = {"better": "up"}, {"right_model": "another"}
    Path("bad.jsonl").write_text("".join(json.dumps({"vote": row["vote"] | c}) + "\n" for c in changes))
    told = nomoat("votes", "import", "bad.jsonl").stderr
    assert 'bad.jsonl:1: vote.better: got "up"; expected left, right or null' in told
    assert 'bad.jsonl:2: vote.better: got "right" of two models; a probe has the same one' in told
    shown = nomoat("arena", "--standings").stdout
    assert "0 of 1" in shown
    found = as_json("arena", "--standings")
    assert found.keys() == STANDINGS_KEYS.keys()
    assert [(v["name"], v["probes"], v["missed"]) for v in found["voters"]] == [
        ("ada", 0, 0),
        ("bob", 0, 0),
        ("eve", 1, 1),
    ]


def test_a_vote_on_several_turns_goes_out_and_comes_in_whole(workspace: Path) -> None:
    turns = [
        {"asked": "Shorter?", "left": "Ah.", "right": "Oh, well."},
        {"asked": "And?", "left": "A", "right": "B"},
    ]
    with Ledger.open(ledger_path(workspace)) as ledger:
        ledger.judgements.add_votes([replace(VOTE, voter="eve", turns=turns, verdict="right")])
    assert as_json("votes", "export", "v.jsonl")["decided"] == 3
    rows = [row for row in read_rows(Path("v.jsonl")) if isinstance(row, PreferenceRow)]
    said = ["Twice.", "Shorter?", "Oh, well.", "And?", "B"]
    assert [message.content for message in rows[2].chosen] == said
    assert [message.content for message in rows[2].prompt.messages] == ["Tell me a story."]
    as_json("votes", "export", "b.jsonl", "--format", "lmarena")
    (battle,) = [row for row in map(json.loads, Path("b.jsonl").read_text().splitlines()) if row["turn"] > 1]
    assert (battle["turn"], [m["content"] for m in battle["conversation_b"]][1:]) == (3, said)
    for file, form in (("v.jsonl", "preference"), ("b.jsonl", "lmarena")):
        other = workspace / form
        other.mkdir()
        with Ledger.open(ledger_path(other)) as ledger:
            start_night(ledger)
        as_json("votes", "import", file, "--format", form, "--workspace", form)
        (vote,) = [vote for vote in kept(other) if vote.voter == "eve"]
        assert (vote.turns, vote.left_answer, vote.prompt) == (turns, "Once.", VOTE.prompt)
    row = json.loads(Path("v.jsonl").read_text().splitlines()[-1])
    row["vote"]["turns"][0].pop("left")
    battle["conversation_a"][3], battle["conversation_b"][3] = [{"role": "system", "content": "x"}] * 2
    Path("v.jsonl").write_text(json.dumps(row))
    Path("b.jsonl").write_text(json.dumps(battle))
    expected = 'expected null or a list of {"asked": text, "left": text, "right": text}'
    assert (
        f"v.jsonl:1: vote.turns: got a list of 2; {expected}" in nomoat("votes", "import", "v.jsonl").stderr
    )
    told = nomoat("votes", "import", "b.jsonl", "--format", "lmarena").stderr
    assert "b.jsonl:1: conversation_a: expected user and assistant in turn where the two sides differ" in told


def test_reasons_go_along_and_a_file_from_before_them_brings_nothing_twice(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        ledger.judgements.add_votes([replace(VOTE, voter="eve", reasons=["correctness", "length"])])
    as_json("votes", "export", "v.jsonl", "--all")
    other = workspace / "other"
    other.mkdir()
    with Ledger.open(ledger_path(other)) as ledger:
        start_night(ledger)
    assert as_json("votes", "import", "v.jsonl", "--workspace", "other")["added"] == 6
    assert {(v.key, *(v.reasons or ())) for v in kept(other)} == {
        (v.key, *(v.reasons or ())) for v in kept(workspace)
    }
    rows = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    (eves,) = [row["vote"] for row in rows if row["vote"]["voter"] == "eve"]
    before = [{"vote": {k: v for k, v in row["vote"].items() if k != "reasons"}} for row in rows]
    again = {"vote": eves | {"reasons": ["length", "correctness", "length"]}}  # in another order
    lines = [json.dumps(row) for row in (*before[:-1], again)]
    Path("old.jsonl").write_text("\n".join(lines))
    assert as_json("votes", "import", "old.jsonl")["added"] == 0
    bad = ["correctness", "fun"], ["length", 3], "length"
    Path("bad.jsonl").write_text("\n".join(json.dumps({"vote": eves | {"reasons": one}}) for one in bad))
    told = nomoat("votes", "import", "bad.jsonl").stderr
    expected = "expected correctness, instructions, clarity, style, length or safety"
    assert f'bad.jsonl:1: vote.reasons[1]: got "fun"; {expected}' in told
    assert f"bad.jsonl:2: vote.reasons[1]: got 3; {expected}" in told
    assert 'bad.jsonl:3: vote.reasons: got "length"; expected null or a list of reasons' in told
    assert all(reason in votes.EPILOG for reason in REASONS)


def test_a_file_that_holds_no_battles_is_told_line_by_line(workspace: Path) -> None:
    as_json("votes", "export", "b.jsonl", "--format", "lmarena")
    good = json.loads(Path("b.jsonl").read_text().splitlines()[0])
    other = [{"role": "user", "content": "Else?"}, {"role": "assistant", "content": "No."}]
    changes = [
        {"winner": "a"},
        {"tstamp": None},
        {"model_b": 3},
        {"conversation_b": other},
        {"conversation_a": other[:1]},
        {"winner": []},
        {"judge": "ada\neve"},
        {f"conversation_{side}": [{"role": "assistant", "content": side}, *other] for side in "ab"},
    ]
    Path("bad.jsonl").write_text("".join(json.dumps(good | change) + "\n" for change in changes))
    result = nomoat("votes", "import", "bad.jsonl", "--format", "lmarena")
    assert result.exit_code == 2
    told = [line.strip().removeprefix("Error: ") for line in result.stderr.splitlines()]
    assert told == [
        'bad.jsonl:1: winner: got "a"; expected model_a, model_b, tie or "tie (bothbad)"',
        "bad.jsonl:2: tstamp: got nothing (null); expected seconds since 1970",
        "bad.jsonl:3: model_b: got 3; expected a model's name",
        "bad.jsonl:4: conversation_b: asks another thing than conversation_a; expected the same",
        "bad.jsonl:5: conversation_a: ends in no answer; expected an assistant turn last",
        'bad.jsonl:6: winner: got an empty list; expected model_a, model_b, tie or "tie (bothbad)"',
        'bad.jsonl:7: judge: got "ada\\neve"; expected a voter\'s name',
        "bad.jsonl:8: conversation_a: begins with an answer; expected what both were asked",
        "Nothing was imported.",
    ]


def test_a_models_name_that_its_files_name_makes_too_long_is_told_so(workspace: Path) -> None:
    as_json("votes", "export", "b.jsonl", "--format", "lmarena")
    good = json.loads(Path("b.jsonl").read_text().splitlines()[0]) | {"model_a": "m" * 250}
    file = Path("f" * 60 + ".jsonl")
    file.write_text(json.dumps(good | {"model_a_file": None}))
    assert nomoat("votes", "import", str(file), "--format", "lmarena").stderr == (
        f"Error: {file}:1: model_a: the model is named by its file too, which makes 318 characters; expected one line "
        "of at most 300: give the file another name\n  Nothing was imported.\n"
    )
    file.write_text(json.dumps(good))
    assert nomoat("votes", "import", str(file), "--format", "lmarena").exit_code == 0, (
        "it has a name of its own"
    )


def test_what_the_ledger_could_not_hold_or_read_again_is_refused_line_by_line(workspace: Path) -> None:
    as_json("votes", "export", "all.jsonl", "--all")
    vote = json.loads(Path("all.jsonl").read_text().splitlines()[0])["vote"]
    changes: list[dict[str, Any]] = [
        {"seconds": math.inf},
        {"sampling": {"temperature": math.nan}},
        {"seconds": 10**400},
        {"voter": "ad\ud83d"},
        {"cast_at": "yesterday"},
        {"cast_at": "2026-11-24T07:00:00"},
        {"prompt": vote["prompt"] | {"tools": [3]}},
        {"voter": "\x1b[2J"},
        {"left_name": "x" * 301},
    ]
    lines = [json.dumps({"vote": vote | change}) for change in changes]
    lines += ["[" * 100_000, '{"vote": {"seconds": ' + "9" * 5000 + "}}"]
    Path("bad.jsonl").write_text("\n".join(lines))
    result = nomoat("votes", "import", "bad.jsonl")
    assert result.exit_code == 2
    told = [line.strip().removeprefix("Error: ") for line in result.stderr.splitlines()]
    time = "expected a time with its zone, such as 2026-11-24T07:00:00.000Z"
    place = lines[3].encode("utf-8").index(b"\\ud83d")
    assert told == [
        "bad.jsonl:1: row.vote.seconds: got inf; expected a finite number (JSON has no other)",
        "bad.jsonl:2: row.vote.sampling.temperature: got nan; expected a finite number (JSON has no other)",
        f"bad.jsonl:3: vote.seconds: got 1{'0' * 56}...; expected a number, 0 to 1e+09, or null",
        f"bad.jsonl:4: holds half of a surrogate pair (\\ud83d at character {place}); expected whole characters.",
        f'bad.jsonl:5: vote.cast_at: got "yesterday"; {time}',
        f'bad.jsonl:6: vote.cast_at: got "2026-11-24T07:00:00"; {time}',
        "bad.jsonl:7: vote.prompt: tools: got a list of 1; expected a list of function schemas.",
        'bad.jsonl:8: vote.voter: got "\\u001b[2J"; expected a name: one line of at most 300 characters',
        f'bad.jsonl:9: vote.left_name: got "{"x" * 56}...; expected a name: one line of at most 300 characters',
        "bad.jsonl:10: nested too deeply to be read",
        "bad.jsonl:11: a number too long to be read",
        "Nothing was imported.",
    ]


def test_an_imported_prompt_has_the_form_of_those_asked_here(workspace: Path) -> None:
    as_json("votes", "export", "all.jsonl", "--all")
    vote = json.loads(Path("all.jsonl").read_text().splitlines()[0])["vote"]
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Parts?"}]}]}
    Path("p.jsonl").write_text(json.dumps({"vote": vote | {"prompt": parts, "verdict": "both bad"}}))
    assert as_json("votes", "import", "p.jsonl")["added"] == 1
    assert {"messages": [{"role": "user", "content": "Parts?"}]} in [one.prompt for one in kept(workspace)]
    assert as_json("votes", "import", "all.jsonl")["added"] == 0


def test_thumbs_go_out_as_rated_answers(workspace: Path) -> None:
    assert "there are no thumbs yet" in nomoat("votes", "export", "t.jsonl", "--kind", "ratings").stderr
    prompt = {"messages": [{"role": "user", "content": "Why?"}]}
    with Ledger.open(ledger_path(workspace)) as ledger:
        for answer, verdict in (("So.", "up"), ("Thus.", "down")):
            said = {"voter": "ada", "verdict": verdict, "model": "m", "model_name": "gen-0001"}
            add_rating(ledger, Rating(**said, prompt_hash="ab", prompt=prompt, answer=answer))  # type: ignore[arg-type]
    assert as_json("votes", "export", "t.jsonl", "--kind", "ratings")["decided"] == 1
    rows = [row for row in read_rows("t.jsonl") if isinstance(row, RatingRow)]
    assert [(row.completion[0].content, row.label) for row in rows] == [("So.", True), ("Thus.", False)]


def test_votes_are_taken_back_and_what_remains_of_them_is_told(workspace: Path) -> None:
    as_json("votes", "export", "all.jsonl", "--all")
    store = ArtifactStore(workspace)
    with Ledger.open(ledger_path(workspace)) as ledger:
        work = store.work_dir("votes", "ab" * 32)
        (work / "rows.jsonl").write_text("{}\n")
        made = store.commit("votes", "ab" * 32, inputs={}, meta={"votes": [2]})
        ledger.add_artifact(made)
    number = next(vote.id for vote in kept(workspace) if vote.voter == "bob")
    assert number == 2
    assert json.loads(Path("all.jsonl").read_text().splitlines()[1])["id"] == number
    assert as_json("votes", "withdraw", "--id", "3")["remains"] == []
    text = nomoat("votes", "withdraw", "--voter", "bob", "--erase").stdout
    assert text == (
        "Taken back and erased: 1 vote, 0 thumbs, 0 own answers. The next night goes without them.\n"
        "Nights before have learned from such, and keep what they made of them until you delete it:\n"
        f"  {made.relative_path}\n"
    )
    assert as_json("votes", "import", "all.jsonl")["added"] == 0
    assert {vote.id for vote in kept(workspace)} == {1, 4, 5}
    for words, said in (
        ((), "expected either --voter NAME or --id N"),
        (("--voter", "bo"), 'there are none of "bo". Did you mean "bob"?'),
        (("--id", "99"), "there is no vote 99; nothing was taken back"),
        (("--id", "9" * 30), f"there is no vote {'9' * 30}; nothing was taken back"),
    ):
        result = nomoat("votes", "withdraw", *words)
        assert result.exit_code == 2
        assert said in result.stderr
    assert "expected nomoat votes export FILE" in nomoat("votes", "export").stderr
    nowhere = nomoat("votes", "export", "no/such/votes.jsonl")
    assert (nowhere.exit_code, nowhere.stderr) == (
        2,
        "Error: no/such/votes.jsonl: there is no folder no/such to write it to\n",
    )


def test_own_answers_are_asked_for_where_both_were_bad(workspace: Path) -> None:
    found = as_json("votes", "answer", "--voter", "ada", typed="Because\nof this.\n\n")
    assert (found["added"], found["left_out"]) == (1, 1)
    with Ledger.open(ledger_path(workspace)) as ledger:
        (own,) = standing_own_answers(ledger)
    assert (own.voter, own.vote_id, own.answer) == ("ada", 3, "Because\nof this.")
    again = nomoat("votes", "answer", "--voter", "ada")
    assert "There is no other prompt whose answers were voted both bad." in again.stdout
    assert "Prompt 1 of 1" in nomoat("votes", "answer", "--voter", "bob", typed="\n").stdout


def test_an_own_answer_is_written_in_the_editor_at_a_terminal(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = workspace / "seen.md"
    monkeypatch.setenv(
        "EDITOR", f"sh -c 'cp $0 {seen}; printf Mine.; printf \"Mine.\\n\" | cat - {seen} > $0'"
    )
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    with Ledger.open(ledger_path(workspace)) as ledger:
        assert ask_all(ledger, "ada", console()) == (1, 1)
        assert [own.answer for own in standing_own_answers(ledger)] == ["Mine."]
    assert "# Why?\n#\n# So.\n" in seen.read_text().replace("# \n", "#\n")
