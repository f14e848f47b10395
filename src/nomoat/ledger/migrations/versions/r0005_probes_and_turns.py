"""Probes: battles whose better side is known, which tell whether a voter reads. And battles of several turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    better = sa.CheckConstraint(
        "better IS NULL OR (better IN ('left', 'right') AND left_model = right_model)",
        name=op.f("ck_votes_better"),
    )
    op.add_column("votes", sa.Column("better", sa.Text(), better))
    op.add_column("votes", sa.Column("turns", sa.JSON()))
