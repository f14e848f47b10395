"""Judged answers as groups of tokens: what goes in, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.prepared import chatml, write
from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.chat.mask import render_trained
from nomoat.data.judged import Group, JudgedRows, JudgedStore, JudgedWriter, Mismatched
from nomoat.data.judgements import prepare_judgements
from nomoat.data.prepare import prepare
from nomoat.data.report import DataReport
from nomoat.data.store import TokenStore
from nomoat.errors import ArtifactError, DataError


def pair(i: int, chosen: str = "Good.", rejected: str = "Bad, {i}.") -> dict[str, Any]:
    return {"prompt": f"Question {i}?", "chosen": chosen.format(i=i), "rejected": rejected.format(i=i)}


def run(tmp_path: Path, rows: list[Any], **keys: Any) -> DataReport:
    template = chatml()
    keys = {"max_seq_len": 200, "held_out_share": 0.2, "wanted": "pairs"} | keys
    return prepare_judgements(
        [write(tmp_path / "rows.jsonl", rows)],
        tokenizer=template.tokenizer,
        template=template,
        out=tmp_path / "out",
        **keys,
    )


def refused(tmp_path: Path, rows: list[Any], **keys: Any) -> DataError:
    with pytest.raises(DataError) as error:
        run(tmp_path, rows, **keys)
    return error.value


def texts(store: JudgedStore) -> list[tuple[str, list[str]]]:
    decode = chatml().tokenizer.decode
    groups = [store[i] for i in range(len(store))]
    return [(decode(g.prompt.tolist()), [decode(t[on].tolist()) for t, on in g.answers]) for g in groups]


def test_pairs_become_prompts_with_two_answers(tmp_path: Path) -> None:
    report = run(tmp_path, [pair(i) for i in range(40)])
    store = JudgedStore(tmp_path / "out" / "judged" / "train")
    assert report.rows.train == len(store)
    assert report.rows.train + report.rows.held_out == 40
    for prompt, (chosen, rejected) in texts(store):
        number = prompt.split("Question ")[1].split("?")[0]
        assert prompt.endswith("<|im_start|>assistant\n")
        assert (chosen, rejected) == ("Good.<|im_end|>", f"Bad, {number}.<|im_end|>")
    assert store[0].good == (True, False)
    assert report.tokens["train"] == int(store.lengths.sum())
    trained = [[text for text, on in row if on] for row in report.examples[:2]]
    assert trained[0] == ["Good.<|im_end|>"]
    assert trained[1][0].startswith("Bad, ")


def test_a_prompt_is_held_out_of_both_stages_or_of_none(tmp_path: Path) -> None:
    rows = [pair(i) for i in range(60)]
    run(tmp_path, rows)
    template = chatml()
    prepare(
        [tmp_path / "rows.jsonl"],
        tokenizer=template.tokenizer,
        template=template,
        out=tmp_path / "sft",
        max_seq_len=200,
        held_out_share=0.2,
        use_preferred=True,
    )
    answered = (tmp_path / "sft" / "held_out.jsonl").read_text().count("\n")
    judged = (tmp_path / "out" / "held_out.jsonl").read_text().count("\n")
    assert 0 < answered == judged == len(JudgedStore(tmp_path / "out" / "judged" / "held_out"))
    one, other = (TokenStore.open(tmp_path / side / "held_out") for side in ("sft", "out"))
    for i in range(len(one)):
        (mine, on), (theirs, there) = one[i], other[i]
        assert np.array_equal(mine[on], theirs[there])
        assert np.array_equal(mine[: len(theirs)], theirs)


def test_only_answers_of_the_assistant_are_trained(tmp_path: Path) -> None:
    def turns(*texts: str) -> list[dict[str, str]]:
        return [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(texts)]

    rows = [
        {"prompt": [{"role": "user", "content": f"Ask {i}"}], "chosen": turns("Yes.", "And?", "Fine."),
         "rejected": turns("No.")}
        for i in range(30)
    ]  # fmt: skip
    run(tmp_path, rows)
    for _, (chosen, rejected) in texts(JudgedStore(tmp_path / "out" / "judged" / "train")):
        assert (chosen, rejected) == ("Yes.<|im_end|>Fine.<|im_end|>", "No.<|im_end|>")


def test_equal_and_empty_answers_are_left_out_by_name(tmp_path: Path) -> None:
    rows = [pair(i) for i in range(40)]
    rows[3], rows[7] = pair(3, "Same.", "Same."), pair(7, "Good.", " ")
    report = run(tmp_path, rows, max_bad_rows=0.1)
    assert report.rows.bad == 2
    assert [(bad["where"], bad["reason"]) for bad in report.bad] == [
        (f"{tmp_path}/rows.jsonl:4", "rejected: is the same as the chosen answer."),
        (f"{tmp_path}/rows.jsonl:8", "rejected: is empty; expected text."),
    ]
    assert report.said.endswith("every prompt once")
    assert "2 bad" in report.said
    error = refused(tmp_path, rows, max_bad_rows=0.02)
    assert str(error).startswith("2 of 40 rows cannot be used (5.0%); data.max_bad_rows allows 2.0%.")
    assert "rows.jsonl:4: rejected: is the same as the chosen answer." in str(error)


def test_answers_that_a_cut_makes_equal_are_left_out(tmp_path: Path) -> None:
    same = "word " * 60
    rows = [pair(i) for i in range(40)] + [pair(90, same + "a", same + "b")]
    report = run(tmp_path, rows, max_seq_len=50)
    assert (report.rows.truncated, report.rows.cut_to_nothing) == (1, 1)
    store = JudgedStore(tmp_path / "out" / "judged" / "train")
    assert (
        max(len(g.prompt) + len(t) for g in map(store.__getitem__, range(len(store))) for t, _ in g.answers)
        <= 50
    )


def test_duplicates_are_counted_and_dropped(tmp_path: Path) -> None:
    rows = [pair(i) for i in range(40)]
    assert run(tmp_path, [*rows, *rows[:5]]).rows.duplicate == 5


def test_rated_answers_need_a_loss_that_reads_them(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q {i}?", "completion": f"A {i}.", "label": i % 3 == 0} for i in range(60)]
    error = refused(tmp_path, rows)
    assert error.message == (
        f"prefer.train: {tmp_path}/rows.jsonl holds rated answers, and prefer.loss_type learns from pairs."
    )
    assert error.hint == "To learn from ratings: prefer.loss_type: kto"
    report = run(tmp_path, rows, wanted="any")
    store = JudgedStore(tmp_path / "out" / "judged" / "train")
    assert (store.answers, len(store)) == (1, report.rows.train)
    good = [store[i].good[0] for i in range(len(store))]
    assert True in good
    assert False in good
    held_out = JudgedStore(tmp_path / "out" / "judged" / "held_out")
    kept = sum(held_out[i].good[0] for i in range(len(held_out)))
    assert len(TokenStore.open(tmp_path / "out" / "held_out")) == kept


def test_pairs_and_ratings_do_not_mix(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.jsonl", [pair(i) for i in range(5)])
    rated = write(tmp_path / "rated.jsonl", [{"prompt": "Q?", "completion": "A.", "label": True}] * 5)
    template = chatml()
    with pytest.raises(DataError, match="rated answers; expected one kind"):
        prepare_judgements(
            [pairs, rated],
            tokenizer=template.tokenizer,
            template=template,
            out=tmp_path / "out",
            wanted="any",
            max_seq_len=99,
        )


def test_a_length_that_cuts_most_rows_is_refused_with_its_key(tmp_path: Path) -> None:
    rows = [pair(i, "Long " * 30, "Short " * 30) for i in range(40)]
    error = refused(tmp_path, rows, max_seq_len=40)
    assert error.hint is not None
    assert error.hint.startswith("Raise prefer.max_seq_len: ")


def test_a_group_is_rendered_as_each_answer_alone(tmp_path: Path) -> None:
    run(tmp_path, [pair(i) for i in range(20)])
    store = JudgedStore(tmp_path / "out" / "judged" / "train")
    group = store[0]
    asked = (
        chatml().tokenizer.decode(group.prompt.tolist()).split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
    )
    raw = [{"role": "user", "content": asked}, {"role": "assistant", "content": "Good."}]
    alone = render_trained(chatml(), Conversation(parse_messages(raw, "here")))
    tokens, trained = group.answers[0]
    whole = [*group.prompt.tolist(), *tokens.tolist()]
    assert whole == alone.tokens[: len(whole)]
    assert trained.tolist() == alone.trained[len(group.prompt) : len(whole)]
    assert not any(alone.trained[len(whole) :])


def test_a_store_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no finished judged answers"):
        JudgedStore(tmp_path)
    writer = JudgedWriter(tmp_path / "store", 1)
    answer = (np.array([5, 6], dtype=np.uint32), np.array([True, True]))
    for number in range(3):
        writer.append(Group(np.array([number], dtype=np.uint32), (answer,), (True,)), "00" * 32)
    writer.close()
    others = Mismatched(JudgedStore(tmp_path / "store"))
    assert [int(others[i].prompt[0]) for i in range(3)] == [0, 1, 2]
    assert JudgedRows(others).pack([0, 2], "cpu").tokens_T.tolist() == [0, 5, 6, 2, 5, 6]
    (tmp_path / "store" / "good.bin").write_bytes(b"\1")
    with pytest.raises(ArtifactError, match="different numbers of answers"):
        JudgedStore(tmp_path / "store")


def test_ties_and_margins_are_of_comparisons(tmp_path: Path) -> None:
    rows = [pair(i) | ({"tie": True} if i % 4 == 0 else {"margin": i / 2}) for i in range(40)]
    report = run(tmp_path, rows, wanted="comparisons", section="reward")
    assert report.rows.train + report.rows.held_out == 40
    store = JudgedStore(tmp_path / "out" / "judged" / "train")
    packed = JudgedRows(store).pack(range(len(store)), "cpu")
    assert packed.judged is not None
    found = zip(texts(store), packed.judged.good_N.view(-1, 2).tolist(), packed.judged.margin_P, strict=True)
    for (prompt, _), good, margin in found:
        number = int(prompt.split("Question ")[1].split("?")[0])
        assert good == [True, number % 4 == 0]
        assert margin == (number / 2 if number % 4 else 0.0)
    pairs = run(tmp_path, rows)
    assert pairs.rows.not_preferred == 10
    assert "10 ties" in pairs.said
    assert pairs.rows.train + pairs.rows.held_out == 30
    said = refused(tmp_path, [pair(0) | {"margin": -1}, pair(1) | {"tie": "so so"}, *rows]).hint or ""
    assert "rows.jsonl:1: margin: got -1; expected a number, 0 or more." in said
    assert 'rows.jsonl:2: tie: got "so so"; expected true or false.' in said
