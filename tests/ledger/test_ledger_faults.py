"""Other processes, dead processes, full and read-only disks, damaged files, a missing driver."""

import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from nomoat.errors import LedgerError
from nomoat.ledger.database import make_engine, parse_place, use_wal
from nomoat.ledger.rows import Sample
from nomoat.ledger.store import Ledger

Begin = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]

NIGHT = """
import sys
from nomoat.ledger.store import Ledger
from nomoat.ledger.rows import Sample
ledger = Ledger.open(sys.argv[1])
night = ledger.start_night(name="other", recipe_text="", recipe_resolved={}, code_version="1", seed=1,
                           machine={}, alone=False).night
stage = ledger.start_stage(night.id, name="sft", position=0, key="a")
print(night.id, flush=True)
"""
WAIT = NIGHT + "sys.stdin.read()\n"
WRITE_PAIRS = (
    NIGHT
    + """
for number in range(int(sys.argv[2])):
    pair = [Sample(suite="s", prompt_id=f"{number}{side}", prompt={}, base_answer="x" * 500, tuned_answer="y")
            for side in "lr"]
    ledger.add_samples(night.id, pair)
print("end", flush=True)
"""
)
OPEN = """
import sys
print("ready", flush=True)
sys.stdin.readline()
from nomoat.ledger.store import Ledger
Ledger.open(sys.argv[1]).close()
"""


def start_night(ledger: Ledger, *, alone: bool) -> tuple[int, list[int]]:
    started = ledger.start_night(
        name="n", recipe_text="", recipe_resolved={}, code_version="1", seed=1, machine={}, alone=alone
    )
    assert all(night.status == "interrupted" for night in started.interrupted)
    return started.night.id, [night.id for night in started.interrupted]


def test_a_night_whose_process_was_killed_is_found_by_the_next(ledger: Ledger, python: Start) -> None:
    process = python(WAIT, ledger.place)
    assert process.stdout is not None
    lost = int(process.stdout.readline())
    assert not ledger.night(lost).is_lost()
    assert start_night(ledger, alone=False)[1] == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ledger.night(lost).is_lost()
    assert ledger.night(lost).status == "running"  # reading does not write
    assert start_night(ledger, alone=False)[1] == [lost]
    found = ledger.night(lost)
    assert (found.status, found.ended_at, found.is_lost()) == ("interrupted", None, False)
    assert [(stage.status, stage.ended_at) for stage in ledger.stages(lost)] == [("interrupted", None)]


def test_a_night_of_another_machine_is_lost_only_to_who_holds_the_workspace(ledger: Ledger) -> None:
    elsewhere, _ = start_night(ledger, alone=False)
    connection = sqlite3.connect(ledger.place)
    connection.execute("UPDATE nights SET host = 'elsewhere', pid = 999999")
    connection.commit()
    connection.close()
    assert not ledger.night(elsewhere).is_lost()
    here, found = start_night(ledger, alone=False)
    assert found == []
    assert start_night(ledger, alone=True)[1] == [elsewhere, here]
    assert platform.node() != "elsewhere"


def test_a_reader_sees_whole_transactions_while_a_night_writes(ledger: Ledger, python: Start) -> None:
    writer = python(WRITE_PAIRS, ledger.place, "300")
    assert writer.stdout is not None
    night_id = int(writer.stdout.readline())
    seen: list[int] = []
    while writer.poll() is None:
        seen.append(len(ledger.samples(night_id)))
        assert ledger.night(night_id).status == "running"
    assert writer.communicate()[0] == "end\n"
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert all(count % 2 == 0 for count in seen)
    assert len({count for count in seen if 0 < count < 600}) > 3, seen  # it did read in between
    assert len(ledger.samples(night_id)) == 600


def test_two_writers_lose_nothing(ledger: Ledger, python: Start) -> None:
    writers = [python(WRITE_PAIRS, ledger.place, "100") for _ in range(2)]
    for writer in writers:
        out, error = writer.communicate()
        assert writer.returncode == 0, error
        assert len(ledger.samples(int(out.split()[0]))) == 200


def test_many_programs_may_open_a_new_ledger_at_once(tmp_path: Path, python: Start) -> None:
    path = tmp_path / "ledger.db"
    programs = [python(OPEN, str(path)) for _ in range(6)]
    for program in programs:
        assert program.stdout is not None
        program.stdout.readline()
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    for program in programs:
        error = program.communicate()[1]
        assert program.returncode == 0, error
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM schema_history").fetchone() == (1,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.slow
def test_killed_at_random_moments_the_ledger_keeps_what_was_acknowledged(
    ledger: Ledger, python: Start
) -> None:
    dice = random.Random(20261124)
    kept = 0
    for _ in range(8):
        writer = python(WRITE_PAIRS, ledger.place, "100000")
        assert writer.stdout is not None
        night_id = int(writer.stdout.readline())
        time.sleep(dice.uniform(0.01, 0.2))
        acknowledged = len(ledger.samples(night_id))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        found = len(ledger.samples(night_id))
        assert found >= acknowledged
        assert found % 2 == 0
        kept += found
        assert start_night(ledger, alone=True)[1][-1] == night_id
    assert kept > 50


def test_a_ledger_locked_by_another_program_is_read_and_its_writers_are_told(
    ledger: Ledger, begin: Begin
) -> None:
    begin()
    holder = sqlite3.connect(ledger.place, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Ledger.open(ledger.place, busy_timeout_s=0.2) as other:
        assert len(other.nights()) == 1
        started = time.monotonic()
        with pytest.raises(LedgerError) as caught:
            other.set_plan(1, {})
        assert 0.2 <= time.monotonic() - started < 5
        assert str(caught.value) == (
            f"ledger {ledger.place}: another program holds it locked (waited 0.2 s)\n"
            "  Close the program that writes to it (a database browser, another nomoat). "
            "Then run the same command again."
        )
        holder.execute("ROLLBACK")
        other.set_plan(1, {"steps": 1})
    holder.close()


def test_a_new_ledger_in_a_locked_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match=r": another program holds it locked \(waited 0\.1 s\)\n"):
        Ledger.open(path, busy_timeout_s=0.1)
    holder.close()


def test_a_new_ledger_waits_for_who_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("CREATE TABLE mine (a)")
    holder.execute("BEGIN")
    holder.execute("SELECT * FROM mine").fetchall()
    release = threading.Timer(0.3, holder.execute, ["ROLLBACK"])
    release.start()
    started = time.monotonic()
    with Ledger.open(path, busy_timeout_s=10) as ledger:
        assert time.monotonic() - started > 0.25
        assert ledger.nights() == ()
    release.join()
    holder.close()
    fresh = sqlite3.connect(path)
    assert fresh.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    fresh.close()


def test_a_new_file_that_sqlite_gives_up_on_at_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    engine = make_engine(*parse_place(path), busy_timeout_s=0)
    with pytest.raises(OperationalError, match="database is locked") as busy:
        use_wal(engine, busy_timeout_s=0)
    holder.close()
    real, refused = engine.raw_connection, [busy.value.orig] * 2

    def refuse_twice() -> object:  # with SQLite's own refusal, as in the race
        if refused:
            raise refused.pop()  # type: ignore[misc]
        return real()

    monkeypatch.setattr(engine, "raw_connection", refuse_twice)
    use_wal(engine, busy_timeout_s=5)
    assert refused == []
    monkeypatch.undo()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    engine.dispose()


DAMAGE_HINT = (
    "\n  Put a copy of it back, or move it away to start a new one: the artifacts beside it are reused."
)


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"these are my notes, " * 1000)
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    text = f"ledger {path}: is no ledger or is damaged (file is not a database){DAMAGE_HINT}"
    assert str(caught.value) == text
    assert path.read_bytes() == b"these are my notes, " * 1000


def filled(path: Path) -> None:
    with Ledger.open(path) as ledger:
        night_id, _ = start_night(ledger, alone=True)
        ledger.add_samples(
            night_id,
            [
                Sample(suite="s", prompt_id=str(n), prompt={}, base_answer="x" * 900, tuned_answer="y" * 900)
                for n in range(200)
            ],
        )


def test_a_file_that_was_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(LedgerError) as caught, Ledger.open(path) as ledger:
        ledger.samples(1)
    assert str(caught.value) == (
        f"ledger {path}: is no ledger or is damaged (database disk image is malformed){DAMAGE_HINT}"
    )


def test_damage_that_reading_a_night_does_not_meet_is_found_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    content = bytearray(path.read_bytes())
    page = next(at for at in range(len(content) - 4096, 0, -4096) if content[at] == 13)  # a leaf of a table
    content[page : page + 4096] = random.Random(1).randbytes(4096)
    path.write_bytes(content)
    with Ledger.open(path) as ledger:
        assert len(ledger.nights()) == 1
        with pytest.raises(LedgerError) as caught:
            start_night(ledger, alone=True)
        said = str(caught.value)
        assert said.startswith(f"ledger {path}: is damaged (")
        assert said.endswith(f"){DAMAGE_HINT}")
        assert len(ledger.nights()) == 1


def test_a_ledger_that_may_not_be_written_is_read_and_its_writers_are_told(
    open_folder: Path, without_rights: Callable[[], AbstractContextManager[None]]
) -> None:
    path = open_folder / "ledger.db"
    filled(path)
    path.chmod(0o444)
    with without_rights(), Ledger.open(path) as ledger:
        assert len(ledger.nights()) == 1
        with pytest.raises(LedgerError) as caught:
            start_night(ledger, alone=False)
    assert str(caught.value) == (
        f"ledger {path}: cannot be written: the file or its disk is read-only\n"
        "  Make the file and its folder writable, or move the workspace. Then run the same command again."
    )


@pytest.mark.parametrize("rights", [0o555, 0o444])
def test_a_folder_that_may_not_be_written_is_told(
    open_folder: Path, without_rights: Callable[[], AbstractContextManager[None]], rights: int
) -> None:
    path = open_folder / "ledger.db"
    open_folder.chmod(rights)
    with without_rights(), pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    assert str(caught.value) == (
        f"ledger {path}: cannot be opened (unable to open database file)\n"
        "  Is it a file, and may you write to its folder? Then run the same command again."
    )


def test_a_folder_in_the_ledgers_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r": cannot be opened \(unable to open database file\)\n"):
        Ledger.open(tmp_path)


def test_a_full_disk_is_told_and_what_was_there_stays(full_disk: Path) -> None:
    if not (
        full_disk / "ballast"
    ).exists():  # no small disk could be mounted: SQLite's own limit says the same
        path, limit = full_disk / "ledger.db", 40
    else:
        path, limit = full_disk / "ledger.db", 2**30
        (full_disk / "ballast").write_bytes(bytes(500 << 10))
    with Ledger.open(path) as ledger:
        from sqlalchemy import event

        event.listen(
            ledger._engine, "connect", lambda made, _: made.execute(f"PRAGMA max_page_count = {limit}")
        )
        ledger._engine.dispose()
        night_id, _ = start_night(ledger, alone=True)
        answer = Sample(suite="s", prompt_id="p", prompt={}, base_answer="x" * 20_000, tuned_answer="")
        added = 0
        with pytest.raises(LedgerError) as caught:
            while added < 1000:
                ledger.add_samples(night_id, [answer])
                added += 1
        assert str(caught.value) == (
            f"ledger {path}: the disk is full\n"
            "  Free some space. Then run the same command again. Finished stages are kept."
        )
        (full_disk / "ballast").unlink(missing_ok=True)
        assert len(ledger.samples(night_id)) == added > 0


@pytest.mark.parametrize(
    ("scheme", "package", "install"),
    [
        ("postgresql", "psycopg", "nomoat[postgres]"),
        ("postgresql+psycopg", "psycopg", "nomoat[postgres]"),
        ("postgresql+pg8000", "pg8000", "pg8000"),
    ],
)
def test_a_postgresql_ledger_without_its_driver_says_what_to_install(
    scheme: str, package: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LedgerError) as caught:
        Ledger.open(f"{scheme}://me:secret@host/nights")
    assert str(caught.value) == (
        f"ledger {scheme}://me:***@host/nights: the Python package {package}, which speaks to PostgreSQL, is not "
        f'installed\n  Install it: pip install "{install}"'
    )


def test_a_driver_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "no pq wrapper available.\\nAttempts made: none"  # psycopg's own, where there is no libpq
    (tmp_path / "psycopg.py").write_text(f'raise ImportError("{said}")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    with pytest.raises(LedgerError) as caught:
        Ledger.open("postgresql://me:secret@host/nights")
    assert str(caught.value) == (
        "ledger postgresql://me:***@host/nights: the Python package psycopg, which speaks to PostgreSQL, does not "
        'load: no pq wrapper available.\n  Install it: pip install "nomoat[postgres]"'
    )


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "mysql://me:secret@host/nights",
            "ledger mysql://me:***@host/nights: got mysql; "
            "expected a path, sqlite:///... or postgresql://...",
        ),
        ("sqlite://", "ledger sqlite://: has no file\n  Expected sqlite:///path/to/ledger.db"),
        (
            "postgresql://me:secret@host:54x2/nights",
            "ledger: its URL cannot be read; expected a path or postgresql://user:password@host:5432/name\n"
            "  In a password, write @ as %40, : as %3A and / as %2F.",
        ),
    ],
)
def test_a_place_that_is_no_ledger_is_refused(url: str, text: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger.open(url)
    assert str(caught.value) == text


def test_a_url_and_a_path_open_the_same_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger.open(Path("a/ledger.db")) as ledger:
        start_night(ledger, alone=True)
    with Ledger.open(f"sqlite:///{tmp_path}/a/ledger.db") as ledger:
        assert len(ledger.nights()) == 1
        assert ledger.place == str(tmp_path / "a" / "ledger.db")
