"""What decided a vote, of a few reasons that may be ticked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("votes", sa.Column("reasons", sa.JSON()))
