"""The ledger of a workspace, opened for reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.errors import LedgerError

if TYPE_CHECKING:
    from nomoat.ledger.store import Ledger


@contextmanager
def open_ledger(workspace: Path) -> Iterator[Ledger | None]:
    """The ledger, or None where no night has run yet: looking must not make one.

    Raises LedgerError where the workspace itself is not there.
    """
    if not workspace.is_dir():
        raise LedgerError(
            f"workspace {workspace}: no such folder",
            hint="Give the folder you ran `nomoat run` in: --workspace DIR",
        )
    from nomoat.ledger.artifacts import HOUSE

    path = workspace / HOUSE / "ledger.db"
    if not path.is_file():
        yield None
        return
    from nomoat.ledger.store import Ledger

    with Ledger.open(path) as ledger:
        yield ledger
