"""Browsers that have logged in: kept as hashes, ended by time, by logging out, and with their key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from nomoat.ledger.keys import Holder, add_key, holder_of, revoke_key
from nomoat.ledger.sessions import begin_session, end_session, session_holder
from nomoat.ledger.store import Ledger


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield ledger


def holder(ledger: Ledger, name: str) -> Holder:
    found = holder_of(ledger, add_key(ledger, name, ["chat"]))
    assert found is not None
    return found


def count(folder: Path) -> int:
    connection = sqlite3.connect(folder / "ledger.db")
    (found,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
    connection.close()
    return int(found)


def test_a_session_is_its_keys_until_it_is_ended(opened: Ledger, tmp_path: Path) -> None:
    ada = holder(opened, "ada")
    phone, laptop = (begin_session(opened, ada.key_id, lasts_s=60) for _ in range(2))
    with Ledger.open(tmp_path / "ledger.db") as again:
        assert session_holder(again, phone) == session_holder(again, laptop) == ada
    end_session(opened, phone)
    end_session(opened, phone)
    assert (session_holder(opened, phone), session_holder(opened, laptop)) == (None, ada)
    assert session_holder(opened, "") is session_holder(opened, laptop[:-1]) is None
    assert count(tmp_path) == 1


def test_what_a_browser_has_is_nowhere_in_the_file(opened: Ledger, tmp_path: Path) -> None:
    key = add_key(opened, "ada", ["chat"])
    token = begin_session(opened, 1, lasts_s=60)
    for file in tmp_path.glob("ledger.db*"):
        assert token.encode() not in file.read_bytes()
        assert key.removeprefix("nomoat-").encode() not in file.read_bytes()


def test_sessions_that_have_ended_by_themselves_open_nothing_and_are_swept(
    opened: Ledger, tmp_path: Path
) -> None:
    ada, bob = holder(opened, "ada"), holder(opened, "bob")
    old = begin_session(opened, ada.key_id, lasts_s=0)
    assert session_holder(opened, old) is None
    revoked = begin_session(opened, bob.key_id, lasts_s=60)
    assert (session_holder(opened, revoked), count(tmp_path)) == (bob, 1)
    revoke_key(opened, "bob")
    assert session_holder(opened, revoked) is None
    new = begin_session(opened, ada.key_id, lasts_s=60)
    assert (session_holder(opened, new), count(tmp_path)) == (ada, 1)
