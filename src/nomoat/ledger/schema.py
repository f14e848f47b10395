"""The ledger's tables. Portable SQL: the same on SQLite and PostgreSQL. Times are UTC, ISO 8601, as text;
lengths of time are seconds, energy joules, money dollars.

A change here needs a new file in `migrations/versions/` and a new `HEAD`; tests/ledger/test_migrations.py
holds the three equal."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
)

HEAD = "0010"
"""The newest migration. Kept here as well, so that opening a current ledger does not import Alembic."""

REVISION_TABLE = "nomoat_revision"

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# none_as_null: a missing plan is SQL's NULL, which `IS NULL` finds, and not the JSON text 'null'.
_JSON = JSON(none_as_null=True)

nights = Table(
    "nights",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
    Column("status", Text, nullable=False),
    Column("recipe_text", Text, nullable=False),
    Column("recipe_resolved", _JSON, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("machine", _JSON, nullable=False),
    Column("plan", _JSON),
    Column("verdict", _JSON),
    Column("seconds", Float),
    Column("energy_joules", Float),
    Column("dollars", Float),
    Column("error", Text),
    # Who runs it, so that a night whose process was killed is not 'running' for ever.
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("process_started", Text),
    CheckConstraint("status IN ('running', 'done', 'failed', 'interrupted')", name="status"),
)

artifacts = Table(
    "artifacts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("meta", _JSON, nullable=False),
)

# input_id is no foreign key: it may be an outside fingerprint such as 'file:<sha256>'.
artifact_inputs = Table(
    "artifact_inputs",
    METADATA,
    Column("artifact_id", Text, ForeignKey("artifacts.id"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("input_id", Text, nullable=False, index=True),
)

stages = Table(
    "stages",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("night_id", Integer, ForeignKey("nights.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("artifact_id", Text, ForeignKey("artifacts.id")),
    Column("status", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
    Column("seconds", Float),
    Column("energy_joules", Float),
    Column("dollars", Float),
    Column("detail", _JSON),
    CheckConstraint("status IN ('running', 'done', 'reused', 'failed', 'interrupted')", name="status"),
)

generations = Table(
    "generations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("night_id", Integer, ForeignKey("nights.id"), nullable=False, index=True),
    Column("created_at", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("adapter_artifact", Text, ForeignKey("artifacts.id")),
    Column("merged_artifact", Text, ForeignKey("artifacts.id")),
    Column("gguf_artifact", Text, ForeignKey("artifacts.id")),
    Column("served_file", Text),
    Column("verdict", _JSON),
)

scores = Table(
    "scores",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("night_id", Integer, ForeignKey("nights.id"), nullable=False, index=True),
    Column("artifact_id", Text, ForeignKey("artifacts.id")),
    Column("subject", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("value", Float, nullable=False),
    Column("low", Float),
    Column("high", Float),
    Column("confidence", Float),
    Column("n", Integer, nullable=False),
    CheckConstraint("subject IN ('base', 'tuned', 'difference')", name="subject"),
)

samples = Table(
    "samples",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("night_id", Integer, ForeignKey("nights.id"), nullable=False, index=True),
    Column("suite", Text, nullable=False),
    Column("prompt_id", Text, nullable=False),
    Column("prompt", _JSON, nullable=False),
    Column("base_answer", Text, nullable=False),
    Column("tuned_answer", Text, nullable=False),
    Column("base_passed", Boolean),
    Column("tuned_passed", Boolean),
    Column("checks", _JSON),
)

# Who is served since when. No generation: the base. Rows are only added, so that a rollback finds what was before.
champions = Table(
    "champions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("generation_id", Integer, ForeignKey("generations.id")),
    Column("since", Text, nullable=False),
    Column("chosen_by", Text, nullable=False),
    Column("night_id", Integer, ForeignKey("nights.id")),
    Column("said", Text, nullable=False),
    Column("verdict", _JSON),
    CheckConstraint("chosen_by IN ('gate', 'owner', 'rollback')", name="chosen_by"),
)

# One row a prompt: what a challenger and its rival (no generation: the base) did on it. checks: 1 passed, 0 failed;
# loss: nats a token.
evidence = Table(
    "evidence",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("night_id", Integer, ForeignKey("nights.id"), nullable=False, index=True),
    Column("generation_id", Integer, ForeignKey("generations.id"), nullable=False, index=True),
    Column("rival_id", Integer, ForeignKey("generations.id")),
    Column("kind", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("challenger", Float, nullable=False),
    Column("rival", Float, nullable=False),
    CheckConstraint("kind IN ('checks', 'loss')", name="kind"),
)

# A model is named by its file, '<artifact id>/<file>', which is the same in every workspace; *_name is what it was
# called when the vote was cast. `key` is the hash of all a vote says, so that importing twice changes nothing. A vote
# that was taken back stays, so that importing it again changes nothing either; its texts may have been erased.
votes = Table(
    "votes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, index=True),
    Column("cast_at", Text, nullable=False),
    Column("voter", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("left_model", Text, nullable=False),
    Column("right_model", Text, nullable=False),
    Column("left_name", Text, nullable=False),
    Column("right_name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("suite", Text),
    Column("prompt_id", Text),
    Column("prompt_hash", Text, nullable=False),
    Column("prompt", _JSON, nullable=False),
    Column("left_answer", Text, nullable=False),
    Column("right_answer", Text, nullable=False),
    Column("sampling", _JSON, nullable=False),
    Column("seconds", Float),
    Column("imported_at", Text),
    Column("note", Text),
    Column("withdrawn_at", Text),
    Column("better", Text),
    Column("turns", _JSON),
    Column("reasons", _JSON),
    CheckConstraint("verdict IN ('left', 'right', 'tie', 'both bad')", name="verdict"),
    CheckConstraint("source IN ('pool', 'typed')", name="source"),
    # a probe is of one model, so that no rating and no gate can take it for a battle between two
    CheckConstraint(
        "better IS NULL OR (better IN ('left', 'right') AND left_model = right_model)", name="better"
    ),
)

# A thumb up or down for one answer. Rows are only added: of a voter's on the same answer the newest counts.
ratings = Table(
    "ratings",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("made_at", Text, nullable=False),
    Column("voter", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("prompt_hash", Text, nullable=False),
    Column("prompt", _JSON, nullable=False),
    Column("answer", Text, nullable=False),
    Column("withdrawn_at", Text),
    CheckConstraint("verdict IN ('up', 'down')", name="verdict"),
)

# What a person would have answered where a vote found both answers bad.
own_answers = Table(
    "own_answers",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("made_at", Text, nullable=False),
    Column("voter", Text, nullable=False),
    Column("vote_id", Integer, ForeignKey("votes.id"), nullable=False),
    Column("prompt_hash", Text, nullable=False),
    Column("prompt", _JSON, nullable=False),
    Column("answer", Text, nullable=False),
    Column("withdrawn_at", Text),
)

# What an outside model passed of the held-out prompts of a suite. Rows are only added: of a name on a suite the
# newest counts.
peers = Table(
    "peers",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("measured_at", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    Column("dollars", Float, nullable=False),
    Column("forgotten_at", Text),
    CheckConstraint("passed BETWEEN 0 AND n AND n > 0", name="passed"),
)

# What a judge said of the answers that two models gave to a held-out prompt: the score of `one` (1 better, 0 worse, 1/2
# alike) when it stood first, and when it stood second. Rows of one run have the same `judged_at`. Rows are only added.
verdicts = Table(
    "verdicts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("judged_at", Text, nullable=False),
    Column("judge", Text, nullable=False),
    Column("one_model", Text, nullable=False),
    Column("other_model", Text, nullable=False),
    Column("prompt_hash", Text, nullable=False),
    Column("forward", Float, nullable=False),
    Column("backward", Float, nullable=False),
    CheckConstraint("forward IN (0, 0.5, 1) AND backward IN (0, 0.5, 1)", name="scores"),
)

# A held-out prompt of a night, drawn by chance for two models to be voted on, and the vote that came of it: none where
# both said the same, or the voter left it. Without those that nobody voted on, votes would not speak for the pool.
draws = Table(
    "draws",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("drawn_at", Text, nullable=False),
    Column("night_id", Integer, ForeignKey("nights.id"), nullable=False),
    Column("one_model", Text, nullable=False),
    Column("other_model", Text, nullable=False),
    Column("prompt_hash", Text, nullable=False),
    Column("vote_key", Text),
)

# Only a hash of each key is kept; a revoked key stays, so that its name tells what it was.
keys = Table(
    "keys",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False, index=True),
    Column("ends_with", Text, nullable=False),
    Column("scopes", _JSON, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("revoked_at", Text),
)

# A browser that logged in with a key. Only a hash of what its cookie says is kept, and nothing of the key itself.
sessions = Table(
    "sessions",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("key_id", Integer, ForeignKey("keys.id"), nullable=False),
    Column("created_at", Text, nullable=False),
    Column("ends_at", Text, nullable=False),
)

# A conversation of the chat page or the terminal, with all that is said in it. It is one piece: nobody asks for less.
chats = Table(
    "chats",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("created_at", Text, nullable=False),
    Column("changed_at", Text, nullable=False),
    Column("content", _JSON, nullable=False),
)

schema_history = Table(
    "schema_history",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("revision", Text, nullable=False),
    Column("program_version", Text, nullable=False),
    Column("upgraded_at", Text, nullable=False),
)
