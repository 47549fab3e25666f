"""Why a cached answer ended, and cached grades.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("answers", sa.Column("finish", sa.String(32), nullable=False, server_default=""))
    op.create_table(
        "grades",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("answer", sa.String(64), nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("grades")
    op.drop_column("answers", "finish")
