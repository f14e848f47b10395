"""Keys of the server: shown once, kept as hashes, revoked for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nomoat.errors import LedgerError
from nomoat.ledger.keys import Holder, add_key, holder_of, list_keys, revoke_key
from nomoat.ledger.store import Ledger


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield ledger


def test_a_key_opens_what_its_scopes_say(opened: Ledger) -> None:
    key = add_key(opened, "laptop", ["vote", "chat", "chat"])
    assert holder_of(opened, key) == Holder(1, "laptop", frozenset({"chat", "vote"}))
    assert holder_of(opened, key[:-1]) is holder_of(opened, "") is holder_of(opened, "\ud800") is None


def test_the_key_itself_is_nowhere_in_the_file(opened: Ledger, tmp_path: Path) -> None:
    key = add_key(opened, "laptop", ["chat"])
    for file in tmp_path.glob("ledger.db*"):
        assert key.encode() not in file.read_bytes()
        assert key.removeprefix("nomoat-").encode() not in file.read_bytes()
    (row,) = list_keys(opened)
    assert (row.name, row.ends_with, row.scopes, row.revoked_at) == ("laptop", key[-4:], ["chat"], None)


def test_a_revoked_key_opens_nothing_and_its_name_is_free(opened: Ledger) -> None:
    key = add_key(opened, "laptop", ["admin"])
    revoke_key(opened, "laptop")
    assert holder_of(opened, key) is None
    other = add_key(opened, "laptop", ["chat"])
    assert holder_of(opened, other) == Holder(2, "laptop", frozenset({"chat"}))
    assert [row.revoked_at is None for row in list_keys(opened)] == [False, True]


def test_what_cannot_be(opened: Ledger) -> None:
    add_key(opened, "laptop", ["chat"])
    with pytest.raises(LedgerError) as taken:
        add_key(opened, "laptop", ["chat"])
    assert taken.value.message == 'keys: there is a key named "laptop" already'
    with pytest.raises(LedgerError) as scope:
        add_key(opened, "phone", ["chatt"])
    assert scope.value.message == (
        'keys: got the scope "chatt"; expected chat, vote or admin. Did you mean "chat"?'
    )
    with pytest.raises(LedgerError) as gone:
        revoke_key(opened, "labtop")
    assert gone.value.message == 'keys: no key named "labtop" is in use. Did you mean "laptop"?'
    with pytest.raises(LedgerError, match="a key's name has 1 to 100 letters"):
        add_key(opened, " ", ["chat"])
