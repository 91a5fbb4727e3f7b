"""What keeps a task from its turn: its priority, whether it is held, its time, and what it is to run after."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("task", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("task", sa.Column("not_before", sa.BigInteger(), nullable=True))
    op.add_column("batch", sa.Column("awaits", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("batch") as batch:
        batch.drop_column("awaits")
    with op.batch_alter_table("task") as task:
        for name in ("not_before", "held", "priority"):
            task.drop_column(name)
