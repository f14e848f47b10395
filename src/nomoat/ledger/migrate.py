"""Bringing a ledger up to this program's schema, in one transaction: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

import nomoat
from nomoat.errors import LedgerError
from nomoat.ledger.clock import now_iso
from nomoat.ledger.schema import HEAD, REVISION_TABLE, schema_history

_FOLDER = Path(__file__).parent / "migrations"
_LOCK_NUMBER = 7_640_891  # any number, the same for every nomoat: PostgreSQL's name for this lock


def revision_of(engine: Engine) -> str | None:
    """The schema a database holds; None where it holds none of ours."""
    with engine.connect() as connection:
        return _revision(connection)


def upgrade(engine: Engine, place: str) -> None:
    """Run the missing migrations. Raises LedgerError when a newer program wrote this ledger."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two programs that open a new ledger at once: the second waits here. (SQLite: BEGIN IMMEDIATE.)
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
        found = _revision(connection)
        if found == HEAD:
            return
        if found is not None and found not in known:
            raise _too_new(connection, place, found)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except DBAPIError as error:
            raise LedgerError(
                f"ledger {place}: cannot be brought from schema {found or 'none'} to {HEAD}: {error.orig}",
                hint="Nothing was changed. Is it another program's database? Give the ledger one of its own.",
            ) from error
        _refuse_broken_links(connection, place)
        connection.execute(
            insert(schema_history).values(
                revision=HEAD, program_version=nomoat.__version__, upgraded_at=now_iso()
            )
        )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar_one_or_none()


def _too_new(connection: Connection, place: str, found: str) -> LedgerError:
    query = select(schema_history.c.program_version).order_by(schema_history.c.id.desc()).limit(1)
    writer = None
    if inspect(connection).has_table(schema_history.name):
        writer = connection.execute(query).scalar_one_or_none()
    return LedgerError(
        f"ledger {place}: was written by nomoat {writer or 'of a later version'} (schema {found}); "
        f"this is nomoat {nomoat.__version__}, which knows schemas up to {HEAD}",
        hint="Use the newer one for this workspace: pip install --upgrade nomoat. Nothing was changed.",
    )


def _refuse_broken_links(connection: Connection, place: str) -> None:
    # Foreign keys are off while SQLite rebuilds tables, so what they would have caught is looked for here.
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        assert broken is None, (place, tuple(broken or ()))
