"""Outside models that answered the held-out prompts, beside which generations are shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "peers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("measured_at", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("dollars", sa.Float(), nullable=False),
        sa.Column("forgotten_at", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peers")),
        sa.CheckConstraint("passed BETWEEN 0 AND n AND n > 0", name=op.f("ck_peers_passed")),
    )
