"""What judges say of two models on held-out prompts, and which of these were drawn to be voted on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("judged_at", sa.Text(), nullable=False),
        sa.Column("judge", sa.Text(), nullable=False),
        sa.Column("one_model", sa.Text(), nullable=False),
        sa.Column("other_model", sa.Text(), nullable=False),
        sa.Column("prompt_hash", sa.Text(), nullable=False),
        sa.Column("forward", sa.Float(), nullable=False),
        sa.Column("backward", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
        sa.CheckConstraint(
            "forward IN (0, 0.5, 1) AND backward IN (0, 0.5, 1)", name=op.f("ck_verdicts_scores")
        ),
    )
    op.create_table(
        "draws",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("drawn_at", sa.Text(), nullable=False),
        sa.Column("night_id", sa.Integer(), nullable=False),
        sa.Column("one_model", sa.Text(), nullable=False),
        sa.Column("other_model", sa.Text(), nullable=False),
        sa.Column("prompt_hash", sa.Text(), nullable=False),
        sa.Column("vote_key", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draws")),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_draws_night_id_nights")),
    )
