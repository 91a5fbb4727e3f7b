"""Which cores tasks have, what they used, whether they are to make room, and what nodes are labelled with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TEXTS = (("task", "cpus", ""), ("task", "usage", ""), ("node", "labels", "{}"), ("node", "own_labels", "{}"))


def upgrade() -> None:
    for table, name, default in _TEXTS:
        op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=default))
    op.add_column("task", sa.Column("preempting", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    for table in ("task", "node"):
        with op.batch_alter_table(table) as changed:
            for of, name, _ in _TEXTS:
                if of == table:
                    changed.drop_column(name)
            if table == "task":
                changed.drop_column("preempting")
