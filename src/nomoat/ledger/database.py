"""Opening the database, and telling the owner what it refuses: the one place that knows SQLite's ways."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from nomoat.errors import LedgerError
from nomoat.ledger.files import make_folder

_DAMAGE_HINT = (
    "Put a copy of it back, or move it away to start a new one: the artifacts beside it are reused."
)


def parse_place(url_or_path: str | Path) -> tuple[URL, str]:
    """The database's URL, and how to name it to the owner (without its password)."""
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        path = Path(url_or_path).absolute()
        return URL.create("sqlite", database=str(path)), str(path)
    try:
        url = make_url(url_or_path)
    except (ArgumentError, ValueError) as error:
        # Not quoted: where its parts cannot be told apart, neither can its password be hidden.
        raise LedgerError(
            "ledger: its URL cannot be read; expected a path or postgresql://user:password@host:5432/name",
            hint="In a password, write @ as %40, : as %3A and / as %2F.",
        ) from error
    place = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise LedgerError(f"ledger {place}: has no file", hint="Expected sqlite:///path/to/ledger.db")
        return parse_place(Path(str(url.database)))
    if url.get_backend_name() != "postgresql":
        raise LedgerError(
            f"ledger {place}: got {url.get_backend_name()}; expected a path, sqlite:///... or postgresql://..."
        )
    return url, place


def make_engine(url: URL, place: str, *, busy_timeout_s: float, foreign_keys: bool = True) -> Engine:
    """An engine whose transactions are real ones on both databases. `foreign_keys=False` (SQLite only) is
    for migrations, which rebuild tables that others point to."""
    if url.get_backend_name() == "postgresql":
        return _postgresql(url, place)
    path = Path(str(url.database))
    make_folder(path.parent)
    engine = create_engine(
        url, connect_args={"timeout": busy_timeout_s}, poolclass=None if foreign_keys else NullPool
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        # FULL: a commit that returned survives a power cut. NORMAL may lose the last ones, and a night or a
        # vote that was acknowledged must not vanish; a night writes some hundred rows, so the price is small.
        connection.execute("PRAGMA synchronous = FULL")
        # what a voter has erased must not stay behind in the file's unused space
        connection.execute("PRAGMA secure_delete = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Left alone, Python's sqlite3 begins none before CREATE TABLE: a killed migration would stay half-done.
        # A transaction that reads first and writes later cannot wait for another writer (its snapshot is
        # old): SQLite refuses it at once. One that will write says so at its start, and waits there.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL, place: str) -> Engine:
    try:
        return create_engine(url)
    except ImportError as error:
        driver = url.get_driver_name()
        why = "does not load: " + str(error).partition("\n")[0]
        if isinstance(error, ModuleNotFoundError):
            why = "is not installed"
        wanted = "nomoat[postgres]" if driver == "psycopg" else driver
        raise LedgerError(
            f"ledger {place}: the Python package {driver}, which speaks to PostgreSQL, {why}",
            hint=f'Install it: pip install "{wanted}"',
        ) from error


def use_wal(engine: Engine, *, busy_timeout_s: float) -> None:
    """Let readers read while a night writes (SQLite's write-ahead log); nothing to do on PostgreSQL.

    The mode is kept in the file. Where the file system cannot do it, SQLite keeps its older mode: still
    right, but a reader may have to wait for a writer."""
    if engine.dialect.name != "sqlite":
        return
    wait_until = time.monotonic() + busy_timeout_s
    while True:
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.DatabaseError as error:
            # Where two processes turn one new file at one instant, SQLite does not wait but gives up
            # (measured: 7 times in 2,400).
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > wait_until:
                raise DBAPIError.instance(None, None, error, sqlite3.Error) from error
            time.sleep(0.01)


def empty_wal(engine: Engine) -> None:
    """Bring SQLite's log into the file and empty it: it holds what was there before an overwriting, for as long as
    another program has the ledger open. Nothing to do on PostgreSQL."""
    if engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def refuse_damage(connection: Connection, place: str) -> None:
    """Look through the whole file (about 2 s a gigabyte) before a night relies on it; LedgerError if damaged."""
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            raise LedgerError(f"ledger {place}: is damaged ({' '.join(found.split())})", hint=_DAMAGE_HINT)


@contextmanager
def told(place: str, *, busy_timeout_s: float) -> Iterator[None]:
    """Turn what the database refuses into a LedgerError. A mistake of ours (bad SQL, a broken constraint)
    goes through as it is."""
    try:
        yield
    except DBAPIError as error:
        explained = _explain(error, place, busy_timeout_s)
        if explained is None:
            raise
        raise explained from error


def _explain(error: DBAPIError, place: str, busy_timeout_s: float) -> LedgerError | None:
    cause = error.orig
    if not isinstance(cause, sqlite3.DatabaseError):
        if type(error).__name__ != "OperationalError":
            return None
        return LedgerError(
            f"ledger {place}: {str(cause).strip()}",
            hint="Is the database server up, and are the name and password right?",
        )
    # The low byte is the kind of error, the rest its finer cause (sqlite.org/rescode.html).
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    again = "Then run the same command again."
    damaged = f"ledger {place}: is no ledger or is damaged ({cause})", _DAMAGE_HINT
    texts: dict[int, tuple[str, str]] = {
        sqlite3.SQLITE_BUSY: (
            f"ledger {place}: another program holds it locked (waited {busy_timeout_s:g} s)",
            f"Close the program that writes to it (a database browser, another nomoat). {again}",
        ),
        sqlite3.SQLITE_READONLY: (
            f"ledger {place}: cannot be written: the file or its disk is read-only",
            f"Make the file and its folder writable, or move the workspace. {again}",
        ),
        sqlite3.SQLITE_CANTOPEN: (
            f"ledger {place}: cannot be opened ({cause})",
            f"Is it a file, and may you write to its folder? {again}",
        ),
        sqlite3.SQLITE_FULL: (
            f"ledger {place}: the disk is full",
            f"Free some space. {again} Finished stages are kept.",
        ),
        sqlite3.SQLITE_IOERR: (
            f"ledger {place}: the disk failed ({cause})",
            f"Look at the disk's health and free space. {again}",
        ),
        sqlite3.SQLITE_NOTADB: damaged,
        sqlite3.SQLITE_CORRUPT: damaged,
    }
    found = texts.get(code)
    return None if found is None else LedgerError(found[0], hint=found[1])
