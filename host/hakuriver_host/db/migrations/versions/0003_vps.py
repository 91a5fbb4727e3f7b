"""VPS beside commands, whom they are shared with, and the public keys of users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("task_type", sa.String(), nullable=False, server_default="command"))
    op.create_table(
        "public_key",
        sa.Column("key_id", sa.String(), primary_key=True),
        sa.Column("user_name", sa.String(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "vps_share",
        sa.Column("task_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("user_name", sa.String(), primary_key=True),
    )


def downgrade() -> None:
    op.drop_table("vps_share")
    op.drop_table("public_key")
    with op.batch_alter_table("task") as batch:
        batch.drop_column("task_type")
