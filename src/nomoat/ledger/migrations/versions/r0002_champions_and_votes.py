"""Champions, votes, and the paired evidence that the gate decides on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "champions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.Integer()),
        sa.Column("since", sa.Text(), nullable=False),
        sa.Column("chosen_by", sa.Text(), nullable=False),
        sa.Column("night_id", sa.Integer()),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("verdict", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_champions")),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name=op.f("fk_champions_generation_id_generations")
        ),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_champions_night_id_nights")),
        sa.CheckConstraint("chosen_by IN ('gate', 'owner', 'rollback')", name=op.f("ck_champions_chosen_by")),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("night_id", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.Integer(), nullable=False),
        sa.Column("rival_id", sa.Integer()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("challenger", sa.Float(), nullable=False),
        sa.Column("rival", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_evidence_night_id_nights")),
        *(
            sa.ForeignKeyConstraint(
                [column], ["generations.id"], name=op.f(f"fk_evidence_{column}_generations")
            )
            for column in ("generation_id", "rival_id")
        ),
        sa.CheckConstraint("kind IN ('checks', 'loss')", name=op.f("ck_evidence_kind")),
    )
    op.create_index(op.f("ix_evidence_night_id"), "evidence", ["night_id"])
    op.create_index(op.f("ix_evidence_generation_id"), "evidence", ["generation_id"])
    op.create_table(
        "votes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("cast_at", sa.Text(), nullable=False),
        sa.Column("voter", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("left_model", sa.Text(), nullable=False),
        sa.Column("right_model", sa.Text(), nullable=False),
        sa.Column("left_name", sa.Text(), nullable=False),
        sa.Column("right_name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text()),
        sa.Column("prompt_id", sa.Text()),
        sa.Column("prompt_hash", sa.Text(), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("left_answer", sa.Text(), nullable=False),
        sa.Column("right_answer", sa.Text(), nullable=False),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float()),
        sa.Column("imported_at", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_votes")),
        sa.CheckConstraint("verdict IN ('left', 'right', 'tie', 'both bad')", name=op.f("ck_votes_verdict")),
        sa.CheckConstraint("source IN ('pool', 'typed')", name=op.f("ck_votes_source")),
    )
    op.create_index(op.f("ix_votes_key"), "votes", ["key"])
