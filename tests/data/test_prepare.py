from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from helpers.chat_templates import CHATML, QWEN3
from helpers.prepared import chatml, pair, run, stored, write
from helpers.tiny_tokenizers import tiny
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.mask import render_trained
from nomoat.chat.template import ChatTemplate
from nomoat.data.prepare import prepare
from nomoat.data.readers import read_rows, source
from nomoat.data.rows import ChatRow
from nomoat.data.split import ASKED, asked_in_training, asked_keys, held_out
from nomoat.data.store import TokenStore


def test_rows_become_tokens_with_their_mask_in_file_order(tmp_path: Path) -> None:
    template = chatml()
    path = write(tmp_path / "rows.jsonl", [pair(i) for i in range(60)])
    report = run(tmp_path, path, template)
    rows = [row for row in read_rows(path) if isinstance(row, ChatRow)]
    sides: dict[str, list[ChatRow]] = {"train": [], "held_out": []}
    for row in rows:
        sides["held_out" if held_out(row.prompt_hash(), 0.2) else "train"].append(row)
    for side, expected in sides.items():
        store = TokenStore.open(tmp_path / "out" / side)
        assert len(store) == len(expected) == getattr(report.rows, side) > 0
        for i, row in enumerate(expected):
            rendered = render_trained(template, row.conversation)
            tokens, trained = store[i]
            assert tokens.tolist() == rendered.tokens
            assert trained.tolist() == rendered.trained
            assert store.split_hashes[i] == row.prompt_hash()
        assert report.tokens[side] == store.tokens
        assert report.tokens[f"{side}_supervised"] == store.supervised_tokens
    talks = [json.loads(line) for line in (tmp_path / "out" / "held_out.jsonl").read_text().splitlines()]
    assert [talk["messages"] for talk in talks] == [
        row.conversation.to_dict()["messages"] for row in sides["held_out"]
    ]
    assert [talk["hash"] for talk in talks] == [row.content_hash() for row in sides["held_out"]]
    assert talks[0]["where"] == str(sides["held_out"][0].where)


def test_the_report_says_what_there_is(tmp_path: Path) -> None:
    template = chatml()
    report = run(tmp_path, [pair(i) for i in range(60)], template)
    as_json = json.loads((tmp_path / "out" / "report.json").read_text())
    assert as_json == json.loads(json.dumps(report.to_dict()))
    assert as_json["files"] == [f"{tmp_path}/rows.jsonl: prompt-completion rows, from prompt, completion"]
    assert as_json["template"] == {
        "origin": "tokenizer",
        "sha256": hashlib.sha256(CHATML.encode()).hexdigest(),
        "stop_tokens": ["<|im_end|>"],
    }
    rows = as_json["rows"]
    assert rows["read"] == 60 == rows["train"] + rows["held_out"]
    assert report.said == (
        f"{rows['train']} rows to train on, {rows['held_out']} held out; {report.tokens['train']:,} tokens, "
        f"{report.tokens['train_supervised']:,} of them trained"
    )
    assert len(report.examples) == 3
    assert report.examples[0] == [
        ("<|im_start|>user\nQuestion 1?<|im_end|>\n<|im_start|>assistant\n", False),
        ("An answer 1.<|im_end|>", True),
        ("\n", False),
    ]
    lengths = report.lengths  # 26 tokens where the number has one digit, 28 where it has two
    assert (lengths.p50, lengths.p90, lengths.p99, lengths.longest) == (28, 28, 28, 28)
    assert lengths.histogram == [[16, 0], [32, 60]]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [pair(i) for i in range(60)])
    files = [
        "train/tokens.bin",
        "train/trained.bin",
        "train/hashes.bin",
        "train/store.json",
        "held_out.jsonl",
        "report.json",
    ]
    run(tmp_path, path)
    first = [(tmp_path / "out" / name).read_bytes() for name in files]
    run(tmp_path, path)
    assert [(tmp_path / "out" / name).read_bytes() for name in files] == first


def test_no_row_crosses_over_when_the_file_grows(tmp_path: Path) -> None:
    rows = [pair(i) for i in range(200)]

    def sides(count: int) -> tuple[set[str], set[str]]:
        run(tmp_path, rows[:count])
        stores = [TokenStore.open(tmp_path / "out" / side) for side in ("train", "held_out")]
        train, held = (set(store.split_hashes) for store in stores)
        return train, held

    (train, held), (more_train, more_held) = sides(80), sides(200)
    assert train < more_train
    assert held < more_held


def test_a_prompt_is_on_one_side_only(tmp_path: Path) -> None:
    rows = [pair(i, answer) for i in range(40) for answer in ("This", "That")]
    template = chatml()

    def prompts(side: str) -> set[str]:
        return {text.split("<|im_end|>")[0] for text, _ in stored(tmp_path / "out" / side, template)}

    run(tmp_path, rows)
    assert prompts("train").isdisjoint(prompts("held_out"))
    assert len(prompts("train") | prompts("held_out")) == 40
    run(tmp_path, rows, split_by="content")
    assert not prompts("train").isdisjoint(prompts("held_out"))


def test_duplicates_are_counted_and_dropped_across_files(tmp_path: Path) -> None:
    template = chatml()
    first = write(tmp_path / "a.jsonl", [pair(i) for i in range(40)])
    second = tmp_path / "b.json"
    second.write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"role": "user", "content": "Question 3?"},
                        {"role": "assistant", "content": "An answer 3."},
                    ]
                }
            ]
        )
    )
    keys: dict[str, Any] = {
        "tokenizer": template.tokenizer,
        "template": template,
        "out": tmp_path / "out",
        "max_seq_len": 200,
        "held_out_share": 0.2,
    }
    report = prepare([first, second], **keys)
    assert (report.rows.read, report.rows.duplicate) == (41, 1)
    assert ", 1 duplicate;" in report.said
    assert report.files[1] == f"{second}: messages rows, from messages"
    kept = prepare([first, second], dedup=False, **keys)
    assert kept.rows.duplicate == 0
    assert kept.rows.train + kept.rows.held_out == 41


def test_long_conversations_are_cut_and_counted(tmp_path: Path) -> None:
    template = chatml()
    rows = [pair(i) for i in range(40)] + [
        pair(100, "word " * 100),
        {"prompt": "word " * 300, "completion": "No."},
    ]
    report = run(tmp_path, rows, template)
    assert report.rows.truncated == 2
    assert report.rows.cut_to_nothing == 1
    assert "1 too long" in report.said
    assert report.said.endswith("; 2 rows cut")
    (cut,) = [
        text
        for side in ("train", "held_out")
        for text, _ in stored(tmp_path / "out" / side, template)
        if "word word" in text
    ]
    assert not cut.rstrip().endswith("<|im_end|>")
    lengths = [TokenStore.open(tmp_path / "out" / side).lengths.max() for side in ("train", "held_out")]
    assert max(lengths) == 200
    assert report.lengths.longest > 200


def test_templates_that_rewrite_turns_get_one_sequence_an_answer(tmp_path: Path) -> None:
    template = chatml(QWEN3)
    talk = [{"role": role, "content": f"{role} {i}"} for i in range(2) for role in ("user", "assistant")]
    rows = [pair(i) for i in range(40)] + [{"prompt": talk[:3], "completion": talk[3:]}]
    report = run(tmp_path, rows, template)
    assert report.rows.divided == 1
    assert report.sequences["train"] + report.sequences["held_out"] == 42
    trained = [
        on
        for side in ("train", "held_out")
        for _, on in stored(tmp_path / "out" / side, template)
        if "assistant" in on
    ]
    thought = "<think>\n\n</think>\n\n"
    assert trained == [thought + "assistant 0<|im_end|>", thought + "assistant 1<|im_end|>"]


def test_documents_are_split_so_that_every_token_is_predicted_once(tmp_path: Path) -> None:
    template = chatml()
    texts = [f"Story {i}. " + "Once upon a time there was a fox. " * (i % 7) for i in range(50)]
    report = run(tmp_path, [{"text": text} for text in texts], template, max_seq_len=32)
    assert report.rows.truncated == 0
    assert report.sequences["train"] > report.rows.train
    whole: dict[str, list[int]] = {}
    for side in ("train", "held_out"):
        store = TokenStore.open(tmp_path / "out" / side)
        assert store.lengths.max() <= 32
        for i in range(len(store)):
            tokens, trained = store[i]
            assert trained.tolist() == [False] + [True] * (len(tokens) - 1)
            before = whole.setdefault(store.split_hashes[i], [])
            assert not before or before[-1] == tokens[0]
            before += tokens.tolist()[1 if before else 0 :]
    decoded = {template.tokenizer.decode(tokens) for tokens in whole.values()}
    assert decoded == {text + "<|im_end|>" for text in texts}
    assert (tmp_path / "out" / "held_out.jsonl").read_text() == ""


def test_documents_begin_with_bos_where_the_tokenizer_writes_it(tmp_path: Path) -> None:
    template = ChatTemplate.of(tiny("<s>", "</s>", eos="</s>", bos="<s>", add_bos=True))
    run(tmp_path, [{"text": f"Story {i}."} for i in range(40)], template)
    for text, trained in stored(tmp_path / "out" / "train", template):
        assert text.startswith("<s>Story")
        assert trained == text.removeprefix("<s>")


def test_only_the_last_passage_of_a_book_ends_in_eos(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("".join(f"Paragraph {i} of a book that has no divider.\n\n" for i in range(4000)))
    template = chatml()
    report = run(tmp_path, book, template, max_seq_len=512)
    ends = [
        text
        for side in ("train", "held_out")
        for text, _ in stored(tmp_path / "out" / side, template)
        if "<|im_end|>" in text
    ]
    assert len(ends) == 1
    assert ends[0].endswith("Paragraph 3999 of a book that has no divider.<|im_end|>")
    assert report.rows.read > 20


def test_progress_goes_to_the_end_over_all_files(tmp_path: Path) -> None:
    template = chatml()
    files = [
        write(tmp_path / f"{name}.jsonl", [pair(i) for i in span])
        for name, span in (("a", range(30)), ("b", range(30, 60)))
    ]
    seen: list[tuple[int, int]] = []
    prepare(
        files,
        tokenizer=template.tokenizer,
        template=template,
        out=tmp_path / "out",
        max_seq_len=100,
        held_out_share=0.2,
        progress=lambda done, total: seen.append((done, total)),
    )
    total = sum(file.stat().st_size for file in files)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the rows may cost the hashes of the rows (100 bytes each), and no more."""

    monkeypatch.setattr(source, "CHUNK_BYTES", 1 << 14)

    def peak(rows: int) -> int:
        path = write(tmp_path / "rows.jsonl", [pair(i, "word " * 30) for i in range(rows)])
        template = chatml()
        run(tmp_path, path, template)
        tracemalloc.start()
        run(tmp_path, path, template)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    small, large = peak(600), peak(2400)
    assert large - small < 1800 * 150 + 300_000, (small, large)


def test_rows_that_ask_what_the_gate_asks_are_held_out_however_they_are_dressed(tmp_path: Path) -> None:
    def talk(*turns: str, system: str = "") -> dict[str, Any]:
        roles = ["system"] * bool(system) + ["user", "assistant"] * len(turns)
        texts = [*([system] if system else []), *turns]
        return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]}

    asked = Conversation((Message("user", "Who ate  the\nplums?"),))
    rows = [
        talk("WHO ate the plums?", "I did.", system="Be brief."),
        talk("Who ate the plums?", "Not I.", "Then who?", "You."),
        talk(
            "Hello.", "Hello.", "Who ate the plums?", "They did."
        ),  # asked after something else: another prompt
        *(talk(f"Question {n}?", f"Answer {n}.") for n in range(40)),
    ]
    keep_out = asked_keys(asked)
    without = run(tmp_path, rows, held_out_share=1e-9 + 0.1)
    assert asked_in_training(tmp_path / "out" / ASKED, [*keep_out, "ab" * 16]) == keep_out
    report = run(tmp_path, rows, held_out_share=1e-9 + 0.1, keep_out=keep_out)
    assert asked_in_training(tmp_path / "out" / ASKED, keep_out) == []
    talks = (tmp_path / "out" / "held_out.jsonl").read_text()
    assert ("I did." in talks, "Then who?" in talks, "They did." in talks) == (True, True, False)
    assert report.rows.held_out >= without.rows.held_out + 1
    assert report.rows.train + report.rows.held_out == 43
