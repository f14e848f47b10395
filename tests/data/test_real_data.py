"""Published data files as they are; every test is skipped, with its reason, where they are not at hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_tokenizers import qwen, shared
from nomoat.chat.template import ChatTemplate
from nomoat.data.judged import JudgedStore
from nomoat.data.judgements import prepare_judgements
from nomoat.data.prepare import prepare
from nomoat.data.readers import open_rows
from nomoat.data.rows import BadRow, ChatRow, PreferenceRow
from nomoat.data.store import TokenStore
from nomoat.errors import DataError


@pytest.mark.parametrize(
    ("name", "format", "rows"),
    [
        ("alpaca/alpaca_random_sample.jsonl.gz", "alpaca", {"ChatRow": 7227, "BadRow": 2}),
        ("alpaca/alpaca_quality_filtered_extra.jsonl.gz", "alpaca", {"ChatRow": 8153, "BadRow": 5}),
        ("llamafactory_demo/alpaca_en_demo.json.gz", "alpaca", {"ChatRow": 999}),
        ("llamafactory_demo/alpaca_zh_demo.json.gz", "alpaca", {"ChatRow": 1000}),
        ("llamafactory_demo/identity.json", "alpaca", {"ChatRow": 91}),
        ("llamafactory_demo/glaive_toolcall_en_demo.json.gz", "sharegpt", {"ChatRow": 300}),
        ("llamafactory_demo/reason_tool_use_demo_50.jsonl.gz", "messages", {"ChatRow": 50}),
        ("llamafactory_demo/dpo_en_demo.json.gz", "preference", {"PreferenceRow": 300}),
        ("llamafactory_demo/dpo_zh_demo.json.gz", "preference", {"PreferenceRow": 300}),
        ("llamafactory_demo/kto_en_demo.json.gz", "rating", {"RatingRow": 300}),
        ("llamafactory_demo/c4_demo.jsonl.gz", "text", {"TextRow": 300}),
        ("llamafactory_demo/wiki_demo.txt.gz", "text", {"TextRow": 138}),
        ("llamafactory_demo/mllm_demo.json", "messages", {"BadRow": 6}),  # images
        ("sharegpt/fastchat_dummy_conversation.json.gz", "sharegpt", {"ChatRow": 500}),
        ("hh_rlhf/harmless_base_test_split_a.jsonl.gz", "preference", {"PreferenceRow": 982, "BadRow": 2}),
        ("tinystories/train_v2gpt4_head.txt.gz", "text", {"TextRow": 1728}),
    ],
)
def test_files_in_the_layouts_people_have(name: str, format: str, rows: dict[str, int]) -> None:
    detected, found = open_rows(shared(name))
    assert detected.format == format
    assert Counter(type(row).__name__ for row in found) == rows


def test_bad_rows_of_alpaca_are_its_empty_answers() -> None:
    _, rows = open_rows(shared("alpaca/alpaca_random_sample.jsonl.gz"))
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [(row.where.line, row.reason) for row in bad] == [
        (1152, "output: is empty; expected text."),
        (2822, "output: is empty; expected text."),
    ]


def test_transcripts_of_hh_rlhf_end_in_two_answers_to_one_question() -> None:
    _, rows = open_rows(shared("hh_rlhf/harmless_base_test_split_a.jsonl.gz"))
    pairs = [row for row in rows if isinstance(row, PreferenceRow)]
    assert {row.prompt.messages[-1].role for row in pairs} == {"user"}
    assert {len(row.chosen) for row in pairs} == {len(row.rejected) for row in pairs} == {1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "oasst/en_100_tree.jsonl.gz",
            "the rows have the columns message_tree_id, tree_state, prompt, which is no",
        ),
        ("oasst/en_100_text.jsonl", "the row is text; expected an object with named fields."),
    ],
)
def test_layouts_that_need_a_script_are_refused(name: str, expected: str) -> None:
    with pytest.raises(DataError) as error:
        open_rows(shared(name))
    assert expected in error.value.message


@pytest.mark.parametrize(
    ("name", "use_preferred"),
    [
        ("llamafactory_demo/identity.json", False),
        ("llamafactory_demo/glaive_toolcall_en_demo.json.gz", False),
        ("sharegpt/fastchat_dummy_conversation.json.gz", False),
        ("hh_rlhf/harmless_base_test_split_a.jsonl.gz", True),
    ],
)
def test_with_qwens_tokenizer_every_answer_is_trained_to_its_stop_token(
    tmp_path: Path, name: str, use_preferred: bool
) -> None:
    tokenizer = qwen(tmp_path)
    file, template = shared(name), ChatTemplate.of(tokenizer)
    report = prepare(
        [file],
        tokenizer=tokenizer,
        template=template,
        out=tmp_path / "out",
        max_seq_len=16_384,
        use_preferred=use_preferred,
    )
    assert report.rows.truncated == 0
    (stop,) = template.stop_token_ids
    answers = 0
    for side in ("train", "held_out"):
        store = TokenStore.open(tmp_path / "out" / side)
        for i in range(len(store)):
            tokens, trained = store[i]
            answers += int((tokens[trained] == stop).sum())
            ends = trained & ~np.append(trained[1:], False)
            assert (tokens[ends] == stop).all()
    _, rows = open_rows(file)
    if use_preferred:
        assert answers == report.rows.train + report.rows.held_out
        return
    kept = {row.content_hash(): row for row in rows if isinstance(row, ChatRow)}.values()
    assert answers == sum(
        message.role == "assistant" for row in kept for message in row.conversation.messages
    )


@pytest.mark.parametrize(
    ("name", "answers", "bad"),
    [
        ("hh_rlhf/harmless_base_test_split_a.jsonl.gz", 2, 2),
        ("llamafactory_demo/dpo_en_demo.json.gz", 2, 0),
        ("llamafactory_demo/kto_en_demo.json.gz", 1, 0),
    ],
)
def test_judged_answers_share_their_prompts_tokens(tmp_path: Path, name: str, answers: int, bad: int) -> None:
    tokenizer = qwen(tmp_path)
    template = ChatTemplate.of(tokenizer)
    report = prepare_judgements(
        [shared(name)],
        tokenizer=tokenizer,
        template=template,
        out=tmp_path / "out",
        wanted="any",
        max_seq_len=16_384,
    )
    assert (report.rows.bad, report.rows.truncated) == (bad, 0)
    (stop,) = template.stop_token_ids
    store = JudgedStore(tmp_path / "out" / "judged" / "train")
    assert (len(store), store.answers) == (report.rows.train, answers)
    for i in range(len(store)):
        for tokens, trained in store[i].answers:
            assert tokens[trained][-1] == stop
            assert trained[0]
