"""The schema that migrations make is the one the code is written for, from nothing and with rows; a shipped
migration is never edited; a failed one leaves nothing behind."""

import hashlib
import io
import os
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import IntegrityError

import nomoat
from helpers.votes import VOTE
from nomoat.errors import LedgerError
from nomoat.ledger import migrate, store
from nomoat.ledger.chats import chat_rows
from nomoat.ledger.database import make_engine, parse_place
from nomoat.ledger.feedback import standing_own_answers, standing_ratings
from nomoat.ledger.keys import Holder
from nomoat.ledger.peers import peer_scores
from nomoat.ledger.schema import HEAD, METADATA, REVISION_TABLE
from nomoat.ledger.sessions import session_holder
from nomoat.ledger.store import Ledger

HERE = Path(__file__).parent
MIGRATIONS = Path(migrate.__file__).parent / "migrations"
REVISIONS = [script.revision for script in reversed(list(ScriptDirectory(str(MIGRATIONS)).walk_revisions()))]


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


def with_rows_of(revision: str, path: Path) -> None:
    """A ledger as the program of that schema left it."""
    url, place = parse_place(path)
    engine = make_engine(url, place, busy_timeout_s=1)
    with engine.execution_options(writes=True).begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)
    engine.dispose()
    with sqlite3.connect(path) as rows:
        rows.executescript((HERE / f"rows_{revision}.sql").read_text())
    rows.close()


def test_a_shipped_migration_is_never_edited() -> None:
    """To change the schema write a new file; then add its line here: sha256sum r*.py > migrations.sha256"""
    listed = dict(reversed(line.split()) for line in (HERE / "migrations.sha256").read_text().splitlines())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (MIGRATIONS / "versions").glob("r*.py")
    }
    assert found == listed


def test_the_head_that_opening_looks_for_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD] == REVISIONS[-1:]


@pytest.mark.parametrize("start", ["nothing", *REVISIONS])
def test_the_migrated_schema_is_the_one_of_the_code(tmp_path: Path, start: str) -> None:
    path = tmp_path / "ledger.db"
    if start != "nothing":
        with_rows_of(start, path)
    Ledger.open(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
        assert compare_metadata(context, METADATA) == []
        migrated = inspect(connection)
        plain = create_engine("sqlite://")
        METADATA.create_all(plain)
        made = inspect(plain)
        for table in METADATA.tables:  # what Alembic does not compare
            key = migrated.get_pk_constraint(table)
            assert key == made.get_pk_constraint(table)
            assert [c["name"] for c in migrated.get_columns(table)] == [
                c["name"] for c in made.get_columns(table)
            ]
            by_name = {c["name"]: c["sqltext"] for c in migrated.get_check_constraints(table)}
            assert by_name == {c["name"]: c["sqltext"] for c in made.get_check_constraints(table)}
            assert {f["name"] for f in migrated.get_foreign_keys(table)} == {
                f["name"] for f in made.get_foreign_keys(table)
            }
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_rows_of_every_earlier_schema_are_read_as_they_were(tmp_path: Path, revision: str) -> None:
    with_rows_of(revision, tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        newest, oldest = ledger.nights()
        assert (oldest.name, oldest.seed, oldest.plan, oldest.verdict) == (
            "story",
            7,
            {"steps": 10},
            {"better": True},
        )
        assert (oldest.seconds, oldest.energy_joules, oldest.dollars) == (540.0, 5400.0, 0.25)
        assert (newest.status, newest.error, newest.ended_at) == ("interrupted", "stopped", None)
        assert [stage.status for stage in ledger.stages(2)] == ["reused", "interrupted"]
        assert ledger.artifact("sft-aaaaaaaaaaaaaaaa").bytes == 6_000_000_000
        assert ledger.generation("gen-0001").merged_artifact == "merge-bbbbbbbbbbbbbbbb"
        assert ledger.scores(1)[0].high == 0.5
        (sample,) = ledger.samples(1)
        assert (sample.prompt, sample.base_passed, sample.tuned_passed) == (
            [{"role": "user", "content": "hi"}],
            False,
            True,
        )
        tree = ledger.lineage("merge-bbbbbbbbbbbbbbbb")
        assert [(node.role, node.id) for node in tree.inputs] == [
            ("adapter", "sft-aaaaaaaaaaaaaaaa"),
            ("base", "file:cccc"),
        ]


def test_rows_of_the_second_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0002", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        first, second = ledger.judgements.champions()
        assert (first.generation_id, first.chosen_by, first.verdict) == (1, "gate", {"e_value": 400.0})
        assert (second.generation_id, second.verdict) == (None, None)
        (found,) = ledger.judgements.evidence(1)
        assert (found.kind, found.item, found.challenger, found.rival, found.rival_id) == (
            "checks",
            "p1",
            1,
            0,
            None,
        )
        (vote,) = ledger.judgements.votes()
        assert (vote.voter, vote.verdict, vote.seconds, vote.suite) == ("ada", "both bad", 4.5, None)
        assert vote.prompt == {"messages": [{"role": "user", "content": "hi"}]}


def test_rows_of_the_fifth_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0005", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        first, second = ledger.judgements.votes()
        assert (first.better, first.turns) == (None, [{"asked": "and you?", "left": "c", "right": "d"}])
        assert (second.better, second.turns) == ("right", None)


def test_rows_of_the_sixth_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0006", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        (peer,) = peer_scores(ledger)
        assert (peer.name, peer.suite, peer.passed, peer.n, peer.dollars) == ("big", "checks", 61, 120, 0.02)


def test_rows_of_the_seventh_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0007", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert session_holder(ledger, "token") == Holder(1, "laptop", frozenset({"chat"}))


def test_rows_of_the_eighth_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0008", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        (verdict,) = ledger.judgements.verdicts()
        assert (verdict.prompt_hash, verdict.forward, verdict.backward) == ("abcd", 1.0, 0.5)
        (draw,) = ledger.judgements.draws()
        assert (draw.night_id, draw.prompt_hash, draw.vote_key) == (1, "abcd", None)


def test_rows_of_the_ninth_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0009", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert [vote.reasons for vote in ledger.judgements.votes()] == [["correctness", "style"], None]


def test_rows_of_the_tenth_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0010", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        (chat,) = chat_rows(ledger)
        assert (chat.id, chat.changed_at) == ("00112233445566ff", "2026-05-09T07:01:00.000Z")
        assert chat.content["turns"] == [{"user": "hi", "answer": None}]


def test_a_probe_of_two_models_cannot_be_kept(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        probe = replace(VOTE, better="left")
        with pytest.raises(IntegrityError, match="ck_votes_better"):
            ledger.judgements.add_votes([probe])
        ledger.judgements.add_votes([replace(probe, right_model=VOTE.left_model)])
        assert [vote.better for vote in ledger.judgements.votes()] == ["left"]


def test_rows_of_the_fourth_schema_are_read_as_they_were(tmp_path: Path) -> None:
    with_rows_of("0004", tmp_path / "ledger.db")
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        (vote,) = ledger.judgements.votes()
        assert (vote.note, vote.withdrawn_at) == ("neither greets", None)
        (rating,) = standing_ratings(ledger)
        assert (rating.verdict, rating.model_name, rating.answer) == ("down", "gen-0001", "a")
        (own,) = standing_own_answers(ledger)
        assert (own.vote_id, own.answer, own.prompt) == (1, "hello", vote.prompt)


def test_the_views_are_to_be_read_by_eye(tmp_path: Path) -> None:
    with_rows_of("0001", tmp_path / "ledger.db")
    Ledger.open(tmp_path / "ledger.db").close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.row_factory = sqlite3.Row
    first, second = map(dict, connection.execute("SELECT * FROM v_nights ORDER BY night_id"))
    assert first == {
        "night_id": 1,
        "name": "story",
        "status": "done",
        "started_at": "2026-05-01T22:00:00.000Z",
        "ended_at": "2026-05-01T22:09:00.000Z",
        "seconds": 540.0,
        "energy_joules": 5400.0,
        "dollars": 0.25,
        "stages": 2,
        "stages_reused": 0,
        "generation_id": 1,
        "seed": 7,
        "code_version": "0.1.0",
        "error": None,
    }
    # A night that was cut off costs what its stages did.
    assert (second["seconds"], second["stages"], second["stages_reused"]) == (3.5, 2, 1)
    lineage = [tuple(row) for row in connection.execute("SELECT * FROM v_lineage ORDER BY artifact_id, role")]
    assert lineage == [
        ("merge-bbbbbbbbbbbbbbbb", "merge", 1, "adapter", "sft-aaaaaaaaaaaaaaaa", "sft"),
        ("merge-bbbbbbbbbbbbbbbb", "merge", 1, "base", "file:cccc", None),
        ("sft-aaaaaaaaaaaaaaaa", "sft", 1, "base", "file:cccc", None),
    ]
    connection.close()


def test_the_migrations_are_sql_that_postgresql_can_be_given() -> None:
    out = io.StringIO()
    made = Config(output_buffer=out)
    made.set_main_option("script_location", str(MIGRATIONS))
    made.attributes["dialect_name"] = "postgresql"
    command.upgrade(made, "head", sql=True)
    text = out.getvalue()
    for table in METADATA.tables:
        assert f"CREATE TABLE {table} (" in text
    assert "CREATE VIEW v_nights AS" in text
    assert "CREATE VIEW v_lineage AS" in text
    assert text.count("id SERIAL NOT NULL") == 15
    assert f"INSERT INTO {REVISION_TABLE} (version_num) VALUES ('{REVISIONS[0]}')" in text
    assert "PRAGMA" not in text


@pytest.fixture
def next_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a migration that comes after the newest, in a copy of them all."""
    copy = tmp_path / "100% migrations"
    shutil.copytree(MIGRATIONS, copy)
    monkeypatch.setattr(migrate, "_FOLDER", copy)
    for module in (migrate, store):
        monkeypatch.setattr(module, "HEAD", "9999")
    return copy / "versions" / "r9999_next.py"


NEXT = f"""
import os
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = "{HEAD}"
def upgrade():
"""


def schema_in(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
    names += [number for (number,) in connection.execute(f"SELECT version_num FROM {REVISION_TABLE}")]
    connection.close()
    return names


def test_a_table_that_others_point_to_can_be_rebuilt_with_its_rows(
    tmp_path: Path, next_migration: Path
) -> None:
    with_rows_of("0001", tmp_path / "ledger.db")
    next_migration.write_text(
        NEXT
        + '    op.execute("DROP VIEW v_nights")\n'
        + '    with op.batch_alter_table("nights") as batch:\n'
        + '        batch.alter_column("name", type_=sa.String(40))\n'
    )
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert len(ledger.nights()) == 2
        assert len(ledger.stages(1)) == 2
        assert len(ledger.samples(1)) == 1
    connection = sqlite3.connect(tmp_path / "ledger.db")
    written = connection.execute("SELECT revision, program_version FROM schema_history").fetchall()
    assert written == [("9999", nomoat.__version__)]
    connection.close()


def test_a_migration_that_fails_leaves_everything_as_it_was(tmp_path: Path, next_migration: Path) -> None:
    path = tmp_path / "ledger.db"
    with_rows_of("0001", path)
    before = schema_in(path)
    next_migration.write_text(
        NEXT
        + '    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))\n'
        + '    op.execute("INSERT INTO nowhere VALUES (1)")\n'
    )
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    assert str(caught.value) == (
        f"ledger {path}: cannot be brought from schema 0001 to 9999: no such table: nowhere\n"
        "  Nothing was changed. Is it another program's database? Give the ledger one of its own."
    )
    assert schema_in(path) == before


def test_a_migration_that_is_killed_leaves_everything_as_it_was(tmp_path: Path, next_migration: Path) -> None:
    path = tmp_path / "ledger.db"
    with_rows_of("0001", path)
    before = schema_in(path)
    next_migration.write_text(
        NEXT
        + '    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))\n'
        + "    os._exit(9)\n"
    )
    child = os.fork()
    if child == 0:
        with suppress(BaseException):  # whatever it raises, this process must not go on with the tests
            Ledger.open(path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert schema_in(path) == before


def test_a_newer_ledger_is_refused_with_the_program_that_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {REVISION_TABLE} SET version_num = '0042'")
        connection.execute(
            "INSERT INTO schema_history VALUES (9, '0042', '2.7.0', '2027-01-01T00:00:00.000Z')"
        )
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    assert str(caught.value) == (
        f"ledger {path}: was written by nomoat 2.7.0 (schema 0042); "
        f"this is nomoat {nomoat.__version__}, which knows schemas up to {HEAD}\n"
        "  Use the newer one for this workspace: pip install --upgrade nomoat. Nothing was changed."
    )
    assert path.read_bytes() == before
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE schema_history")
    connection.close()
    with pytest.raises(LedgerError, match=r": was written by nomoat of a later version \(schema 0042\); "):
        Ledger.open(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE nights (mine TEXT)")
    connection.close()
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    assert str(caught.value) == (
        f"ledger {path}: cannot be brought from schema none to {HEAD}: table nights already exists\n"
        "  Nothing was changed. Is it another program's database? Give the ledger one of its own."
    )
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("nights",)]
    connection.close()
