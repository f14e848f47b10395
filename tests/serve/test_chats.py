"""Conversations in the ledger: kept, found, forgotten for good, and taken in from the files of earlier versions."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.workspaces import ledger_path
from nomoat.errors import LedgerError
from nomoat.ledger.chats import ChatRow, keep_chat
from nomoat.ledger.store import Ledger
from nomoat.serve.web.chats import Answer, Chat, Chats, Manner, Turn

ANSWER = Answer("gen-0001", "A red fox.", "stop", 4, 0.5, "up", "Be brief.")
CHAT = replace(
    Chat.new("Tell me of foxes", "gen-0001"),
    beside_base=True,
    manner=Manner("Be brief.", 0.5, 0.9, 64, 7),
    turns=(Turn("Tell me of foxes", ANSWER, replace(ANSWER, model="base"), ANSWER), Turn("\ud800 and \0?")),
)


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    chats = Chats(ledger_path(tmp_path))
    chats.save(CHAT)
    found = Chats(ledger_path(tmp_path)).get(CHAT.id)
    assert found is not None
    assert replace(found, changed_at=CHAT.changed_at) == CHAT
    chats.save(replace(CHAT, title="Foxes"))
    assert [chat.title for chat in chats.find("FOX red")] == ["Foxes"]
    assert chats.find("hen") == []


def test_the_last_changed_is_first(tmp_path: Path) -> None:
    chats = Chats(ledger_path(tmp_path))
    one, two = Chat.new("One", "m"), Chat.new("Two", "m")
    for chat in (one, two, one):
        chats.save(chat)
        time.sleep(0.002)  # its time is kept in milliseconds
    assert [chat.title for chat in chats.find()] == ["One", "Two"]


def test_looking_makes_no_ledger(tmp_path: Path) -> None:
    chats = Chats(ledger_path(tmp_path))
    assert chats.find() == []
    assert chats.get(CHAT.id) is None
    chats.delete(CHAT.id)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_id_finds_nothing(tmp_path: Path) -> None:
    chats = Chats(ledger_path(tmp_path))
    chats.save(CHAT)
    for text in ("", "../ledger", CHAT.id.upper() + "0", "\ud800"):
        assert chats.get(text) is None
        chats.delete(text)
    assert len(chats.find()) == 1


def test_of_what_was_deleted_nothing_stays_in_the_files(tmp_path: Path) -> None:
    chats = Chats(ledger_path(tmp_path))
    chats.save(CHAT)
    chats.save(replace(CHAT, id="0" * 16, turns=(Turn("hens"),), title="hens"))

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in ledger_path(tmp_path).parent.iterdir())

    assert b"A red fox." in files()
    chats.delete(CHAT.id)
    chats.delete(CHAT.id)
    assert b"A red fox." not in files()
    assert b"hens" in files()


def test_files_of_earlier_versions_become_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ledger_path(tmp_path).parent / "chats"
    folder.mkdir(parents=True)
    # as the version before wrote it
    said = {
        "id": "0123456789abcdef",
        "title": "Hi",
        "created_at": "2026-11-28T07:00:00.000Z",
        "changed_at": "2026-11-28T07:01:00.000Z",
        "model": "base",
        "beside_base": False,
        "manner": {"system": "", "temperature": 0.7, "top_p": 0.95, "max_tokens": 512, "seed": None},
        "turns": [{"user": "Hi", "answer": None, "base": None, "earlier": None}],
    }
    (folder / "0123456789abcdef.json").write_text(json.dumps(said))
    (folder / "fedcba9876543210.json").write_text('{"id": 3')
    (found,) = Chats(ledger_path(tmp_path)).find()
    assert (found.id, found.title, found.changed_at) == (said["id"], "Hi", said["changed_at"])
    assert [path.name for path in folder.iterdir()] == ["fedcba9876543210.json"]
    assert "fedcba9876543210.json: is no conversation that can be read" in caplog.text
    assert len(Chats(ledger_path(tmp_path)).find()) == 1


def test_a_row_that_is_none_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chats = Chats(ledger_path(tmp_path))
    chats.save(CHAT)
    with Ledger.open(ledger_path(tmp_path)) as ledger:
        for number, content in enumerate(({"title": 3}, [1])):
            keep_chat(ledger, ChatRow(id=f"{number:016}", created_at="", changed_at="", content=content))
    assert [chat.id for chat in chats.find()] == [CHAT.id]
    assert "conversation 0000000000000000: what the ledger holds of it cannot be read" in caplog.text
    with pytest.raises(LedgerError, match="conversation 0000000000000001: "):
        chats.get("0000000000000001")


def test_a_file_does_not_replace_what_is_there(tmp_path: Path) -> None:
    Chats(ledger_path(tmp_path)).save(replace(CHAT, title="newer"))
    folder = ledger_path(tmp_path).parent / "chats"
    folder.mkdir()
    said = {"id": CHAT.id, "title": "older", "created_at": "", "changed_at": "", "model": "m"}
    (folder / "x.json").write_text(json.dumps(said))
    (folder / "y.json").write_text(json.dumps({**said, "id": "../y"}))
    assert [chat.title for chat in Chats(ledger_path(tmp_path)).find()] == ["newer"]
    assert [path.name for path in folder.iterdir()] == ["y.json"]


def test_many_threads_keep_all(tmp_path: Path) -> None:
    chats = Chats(ledger_path(tmp_path))
    threads = [threading.Thread(target=chats.save, args=(Chat.new(f"Chat {i}", "m"),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chats.find()) == 8


def test_a_ledger_that_is_none_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no ledger at all, but a text of some length")
    with pytest.raises(LedgerError, match="is no ledger or is damaged"):
        Chats(tmp_path / "ledger.db").find()
