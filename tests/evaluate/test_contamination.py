"""Rows that a generation was trained on, read back from its night's tokens and held against documents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.workspaces import ledger_path, start_night
from nomoat.chat.template import ChatTemplate
from nomoat.data.judgements import prepare_judgements
from nomoat.data.overlap import Question
from nomoat.data.prepare import prepare
from nomoat.data.trained import trained_rows
from nomoat.evaluate.contamination import Contamination, contamination_of
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.store import Ledger
from nomoat.model.load import EMBEDDED, load_tokenizer, resolve_base

BASE = resolve_base(EMBEDDED, Path())
TOKENIZER = load_tokenizer(BASE)
TEMPLATE = ChatTemplate.of(TOKENIZER)
FOX = "Why did the old fox run over the little hill behind the house last night?"
BIRD = "One bird was sitting on the wall and sang a song about the sun and the moon to us."
SETTINGS: dict[str, Any] = {
    "tokenizer": TOKENIZER, "template": TEMPLATE, "max_seq_len": 256, "held_out_share": 0.2
}  # fmt: skip
QUESTIONS = [
    Question("tales", "0", FOX.replace("last", "this")),
    Question("tales", "1", f"Which one? {BIRD} Yes."),
    Question("tales", "1", "Nobody has said this one before, neither here nor there."),
    Question("tales", "2", "What did the cat see?"),
    Question("tales", "3", "Where is the red ball that Tom has lost in the garden?"),
]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def talk(asked: str, answer: str, *, system: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages}


def filler(count: int) -> list[dict[str, Any]]:
    return [talk(f"Tell me of number {n}.", f"Number {n} is nice.") for n in range(count)]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A generation whose night has trained on talks and on judged answers, some of which hold what is asked."""
    talks = [
        talk(FOX, "It was hungry."),
        talk("Sing.", f"Listen. {BIRD}"),  # held out, by its hash
        talk("Sing a song for us.", f"Listen. {BIRD}"),
        talk("What did the cat see?", "A dog.", system="Be brief."),
    ]
    judged = [{"prompt": f"Say {n}", "chosen": f"{n}.", "rejected": f"{n}?"} for n in range(40)] + [
        {
            "prompt": "Where is the red ball that Tom has lost in the garden?",
            "chosen": "There.",
            "rejected": "No.",
        }
    ]
    store = ArtifactStore(tmp_path)
    with Ledger.open(ledger_path(tmp_path)) as ledger, store.lock():
        night = start_night(ledger)
        for position, kind in enumerate(("data", "judgements")):
            key = "ab"[position] * 64
            work = store.work_dir(kind, key)
            if kind == "data":
                prepare([write(tmp_path / "talks.jsonl", [*talks, *filler(60)])], out=work, **SETTINGS)
            else:
                prepare_judgements(
                    [write(tmp_path / "judged.jsonl", judged)], out=work, wanted="pairs", **SETTINGS
                )
            made = store.commit(kind, key, inputs={}, meta={})
            ledger.add_artifact(made)
            stage = ledger.start_stage(night, name=kind, position=position, key=key)
            ledger.finish_stage(
                stage,
                status="done",
                seconds=1.0,
                artifact_id=made.id,
                energy_joules=None,
                dollars=None,
                detail={},
            )
        ledger.add_generation(
            night, base="base:x", served_file=".nomoat/artifacts/quantize-1/night-Q8_0.gguf"
        )
        ledger.finish_night(night, status="done", seconds=1.0, energy_joules=None, dollars=None)
    return tmp_path


def contamination(workspace: Path) -> Contamination | None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        (generation,) = ledger.generations()
        return contamination_of(ledger, ArtifactStore(workspace), generation, BASE, QUESTIONS)


def test_rows_that_were_trained_on_are_found_by_what_they_ask_and_tell(workspace: Path) -> None:
    found = contamination(workspace)
    assert found is not None
    talks, judged = (f"{kind}-{digit * 16}" for kind, digit in (("data", "a"), ("judgements", "b")))
    assert [(one.where, one.prompt, one.how[:17]) for one in found.found] == [
        (f"{talks}: row 1", "0", "13 words in a row"),
        (f"{talks}: row 2", "1", "13 words in a row"),
        (f"{judged}: row 65", "3", "asks the same"),
        (f"{judged}: row 66", "3", "asks the same"),
    ]
    assert (found.rows, found.documents, found.of) == (4, 3, 4)
    rows = [json.loads((workspace / ".nomoat/artifacts" / talks / "train/store.json").read_text())["rows"]]
    assert found.of_rows > rows[0] > 40


def test_rows_are_read_back_as_they_were_written(workspace: Path) -> None:
    folder = workspace / ".nomoat/artifacts" / f"data-{'a' * 16}"
    first, _, third, *_ = trained_rows(folder, TOKENIZER, TEMPLATE)
    assert [(m.role, m.content) for m in first.conversation.messages] == [
        ("user", FOX),
        ("assistant", "It was hungry."),
    ]
    text = " ".join(m.content for m in third.conversation.messages)
    assert "Be brief." in text and "What did the cat see?" in text


def test_rows_that_are_gone_are_not_said_to_be_clean(workspace: Path) -> None:
    shutil.rmtree(workspace / ".nomoat/artifacts" / f"judgements-{'b' * 16}")
    assert contamination(workspace) is None
